//! Databases as LevelDB writes them, for tests. This file is also taken in by others that build Kubo repositories.

use std::fs;
use std::path::Path;

/// A key, and its value or that it was deleted.
pub(super) type Entry = (Vec<u8>, Option<Vec<u8>>);

/// A database with some tables and a log behind them. Later entries are newer, and so are later tables.
pub(super) fn database(folder: &Path, tables: &[Vec<Entry>], log: &[Entry], is_packed: bool) {
    fs::create_dir_all(folder).unwrap();
    let mut number = 1;
    let mut edit = vec![1];
    put_counted(&mut edit, b"leveldb.BytewiseComparator");
    for (at, entries) in tables.iter().enumerate() {
        let file = 10 + at as u64;
        let bytes = table(entries, number, is_packed);
        number += entries.len() as u64;
        fs::write(folder.join(format!("{file:06}.ldb")), &bytes).unwrap();
        edit.push(7);
        put_varint(&mut edit, 0);
        put_varint(&mut edit, file);
        put_varint(&mut edit, bytes.len() as u64);
        put_counted(&mut edit, b"smallest");
        put_counted(&mut edit, b"largest");
    }
    for (tag, value) in [(2, LOG), (9, 0), (3, 1000), (4, number)] {
        edit.push(tag);
        put_varint(&mut edit, value);
    }
    fs::write(folder.join("MANIFEST-000002"), records(&[edit])).unwrap();
    fs::write(folder.join("CURRENT"), "MANIFEST-000002\n").unwrap();
    fs::write(folder.join("LOCK"), "").unwrap();
    let batches: Vec<Vec<u8>> = log
        .chunks(7)
        .map(|entries| {
            let batch = batch(entries, number);
            number += entries.len() as u64;
            batch
        })
        .collect();
    fs::write(folder.join(format!("{LOG:06}.log")), records(&batches)).unwrap();
}

/// A log of records.
pub(super) fn records(records: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        let mut rest = &record[..];
        let mut is_first = true;
        loop {
            let room = BLOCK - out.len() % BLOCK;
            if room < 7 {
                out.resize(out.len() + room, 0);
                continue;
            }
            let (piece, after) = rest.split_at(rest.len().min(room - 7));
            rest = after;
            let kind = match (is_first, rest.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            let checksum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), piece);
            out.extend(masked(checksum).to_le_bytes());
            out.extend((piece.len() as u16).to_le_bytes());
            out.push(kind);
            out.extend_from_slice(piece);
            is_first = false;
            if rest.is_empty() {
                break;
            }
        }
    }
    out
}

/// Entries as a log has them.
pub(super) fn batch(entries: &[Entry], number: u64) -> Vec<u8> {
    let mut out = number.to_le_bytes().to_vec();
    out.extend((entries.len() as u32).to_le_bytes());
    for (key, value) in entries {
        out.push(value.is_some().into());
        put_counted(&mut out, key);
        if let Some(value) = value {
            put_counted(&mut out, value);
        }
    }
    out
}

/// Entries as a table has them.
pub(super) fn table(entries: &[Entry], number: u64, is_packed: bool) -> Vec<u8> {
    let mut sorted: Vec<(Vec<u8>, u64, &[u8])> = Vec::new();
    for (at, (key, value)) in entries.iter().enumerate() {
        let tail = (number + at as u64) << 8 | u64::from(value.is_some());
        sorted.push((key.clone(), tail, value.as_deref().unwrap_or_default()));
    }
    // Of one key the newest comes first.
    sorted.sort_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)));
    let mut out = Vec::new();
    let mut index = Vec::new();
    for entries in sorted.chunks(13) {
        let entries: Vec<(Vec<u8>, &[u8])> = entries
            .iter()
            .map(|(key, tail, value)| ([&key[..], &tail.to_le_bytes()].concat(), *value))
            .collect();
        let handle = put_block(&mut out, &block(&entries), is_packed);
        index.push((entries.last().unwrap().0.clone(), handle));
    }
    put_end(&mut out, &index, is_packed);
    out
}

/// Ends a table behind its blocks: of each its last key, and where it lies.
pub(super) fn put_end(out: &mut Vec<u8>, index: &[(Vec<u8>, Vec<u8>)], is_packed: bool) {
    let about = put_block(out, &block(&[]), false);
    let index: Vec<(Vec<u8>, &[u8])> = index
        .iter()
        .map(|(key, at)| (key.clone(), &at[..]))
        .collect();
    let index = put_block(out, &block(&index), is_packed);
    let mut footer = [about, index].concat();
    footer.resize(40, 0);
    out.extend(footer);
    out.extend(0xdb47_7524_8b80_fb57_u64.to_le_bytes());
}

/// Entries as a block has them.
pub(super) fn block(entries: &[(Vec<u8>, &[u8])]) -> Vec<u8> {
    let (mut out, mut restarts) = (Vec::new(), Vec::new());
    let mut last: &[u8] = &[];
    for (at, (key, value)) in entries.iter().enumerate() {
        let mut shared = key
            .iter()
            .zip(last)
            .take_while(|(one, other)| one == other)
            .count();
        if at % 5 == 0 {
            restarts.push(out.len() as u32);
            shared = 0;
        }
        put_varint(&mut out, shared as u64);
        put_varint(&mut out, (key.len() - shared) as u64);
        put_varint(&mut out, value.len() as u64);
        out.extend_from_slice(&key[shared..]);
        out.extend_from_slice(value);
        last = key;
    }
    if restarts.is_empty() {
        restarts.push(0);
    }
    for restart in &restarts {
        out.extend(restart.to_le_bytes());
    }
    out.extend((restarts.len() as u32).to_le_bytes());
    out
}

/// Appends a block; where it lies.
pub(super) fn put_block(out: &mut Vec<u8>, block: &[u8], is_packed: bool) -> Vec<u8> {
    let packed = snap::raw::Encoder::new().compress_vec(block).unwrap();
    let bytes = if is_packed { &packed[..] } else { block };
    let mut handle = Vec::new();
    put_varint(&mut handle, out.len() as u64);
    put_varint(&mut handle, bytes.len() as u64);
    let packing = [u8::from(is_packed)];
    let checksum = crc32c::crc32c_append(crc32c::crc32c(bytes), &packing);
    out.extend_from_slice(bytes);
    out.extend(packing);
    out.extend(masked(checksum).to_le_bytes());
    handle
}

fn put_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

const BLOCK: usize = 32 << 10;
/// The log's number.
const LOG: u64 = 100;
