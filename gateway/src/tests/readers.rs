//! Archives as clients read them.

use bytes::Bytes;
use cairn_store::{Block, Cid};
use std::io::Read;

/// The roots and blocks of a CARv1, each block checked against its CID.
pub(super) fn read_car(mut bytes: &[u8]) -> (Vec<u8>, Vec<Cid>) {
    let header = section(&mut bytes).to_vec();
    let mut cids = Vec::new();
    while !bytes.is_empty() {
        let mut rest = section(&mut bytes);
        let cid = Cid::read_bytes(&mut rest).unwrap();
        Block::verify(cid, Bytes::copy_from_slice(rest)).unwrap();
        cids.push(cid);
    }
    (header, cids)
}

fn section<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (section, rest) = bytes.split_at(length);
    *bytes = rest;
    section
}

/// Path, kind, content or target of each entry.
pub(super) fn read_tar(bytes: &[u8]) -> Vec<(String, tar::EntryType, String)> {
    let mut archive = tar::Archive::new(bytes);
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let kind = entry.header().entry_type();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            if let Some(target) = entry.link_name_bytes() {
                text = String::from_utf8(target.into_owned()).unwrap();
            }
            (path, kind, text)
        })
        .collect()
}
