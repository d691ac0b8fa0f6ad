//! What must hold whatever the input is: no panic, no more memory than named here, work within its
//! budget, and what was read is written as it was read.

use crate::ceiling::within;
use crate::program::{self, Dag, Input};
use crate::seeds::Verdict;
use bytes::Bytes;
use cairn_store::car::read::{CarReader, for_each_batch};
use cairn_store::car::write;
use cairn_store::cid::{self, Cid, Version};
use cairn_store::dag::cbor::{self, Form};
use cairn_store::dag::pb::{self, PbLink};
use cairn_store::dag::value::{self, Value};
use cairn_store::dag::walk::{self, Missing, Options, Repeats, walk};
use cairn_store::dag::{self, Budget, json};
use cairn_store::unixfs::Profile;
use cairn_store::unixfs::directory::Builder;
use cairn_store::unixfs::format::Message;
use cairn_store::unixfs::read::{self, Directory, Entry, File, Node, ReadError};
use cairn_store::{Block, BlockSource};
use futures::executor::block_on;
use futures::{StreamExt, TryStreamExt};
use std::convert::Infallible;
use std::sync::Arc;

/// CIDs. In binary: what is read is written the same. As text: it reads back, and has no second
/// text in its base.
pub fn cid(data: &[u8]) -> Verdict {
    let mut rest = data;
    let binary = within(data.len(), FLAT, || cid::read(&mut rest));
    if let Ok(cid) = &binary {
        let used = data.len() - rest.len();
        assert_eq!(Some(&cid.to_bytes()[..]), data.get(..used));
        assert_eq!(cid.encoded_len(), used);
        reads_back(cid);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return Verdict::of(binary.is_ok());
    };
    let read = within(data.len(), FLAT, || cid::parse_link(text));
    assert!(cid::parse(text).is_err() || read.is_ok());
    if let Ok(cid) = &read {
        reads_back(cid);
        let again = match cid.version() {
            Version::V0 => cid.to_string(),
            Version::V1 => multibase::decode(text)
                .map(|(base, bytes)| multibase::encode(base, bytes))
                .unwrap_or_default(),
        };
        assert!(text.eq_ignore_ascii_case(&again), "{text} is also {again}");
    }
    if binary.is_ok() {
        Verdict::Taken
    } else {
        Verdict::of(read.is_ok())
    }
}

fn reads_back(cid: &Cid) {
    assert_eq!(cid::parse_link(&cid.to_string()), Ok(*cid));
    let usable = cid::check(cid).is_ok();
    assert_eq!(cid::parse(&cid.to_string()).is_ok(), usable);
    let v1 = cid::to_v1(cid);
    assert_eq!(cid::parse_link(&v1.to_string()), Ok(v1));
    if let Some(block) = Block::from_identity(cid) {
        let verified = Block::verify(*cid, block.data().clone());
        assert_eq!(verified.ok(), usable.then_some(block));
    }
}

/// dag-pb. A node reads back as written; its bytes are the same where they were the shortest, links
/// before data.
pub fn dag_pb(data: &[u8]) -> Verdict {
    let data = Bytes::copy_from_slice(data);
    let read = within(data.len(), of_pb(data.len()), || pb::decode(&data));
    let Some(block) = program::block(cid::DAG_PB, data.clone()) else {
        return Verdict::Refused;
    };
    let links = dag::links(&block);
    let value = value::from_block(&block);
    let Ok(node) = &read else {
        assert!(links.is_err() && value.is_err());
        return Verdict::Refused;
    };
    let written = pb::encode(node);
    assert_eq!(pb::decode(&written).as_ref(), Ok(node));
    assert!(written.len() <= data.len(), "longer than it was");
    let data_first = node.data.is_some() && data.first() == Some(&DATA_FIRST);
    if written.len() == data.len() && (!data_first || node.links.is_empty()) {
        assert_eq!(written, data);
    }
    let links = links.unwrap_or_default();
    assert!(
        links
            .iter()
            .map(|link| link.cid)
            .eq(node.links.iter().map(|link| link.cid))
    );
    let again = value
        .ok()
        .and_then(|value| value::encode(&value, cid::DAG_PB).ok())
        .and_then(|bytes| pb::decode(&bytes.into()).ok())
        .unwrap_or_default();
    let mut sorted = node.clone();
    sorted.links.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(again, sorted);
    let _ = read::node(&block);
    Verdict::Taken
}

/// dag-cbor and cbor. Strict bytes have one form; lenient ones become strict and say the same; all
/// links are found, in order.
pub fn dag_cbor(data: &[u8]) -> Verdict {
    let most = of_values(data.len());
    let strict = within(data.len(), most, || cbor::decode(data));
    let lenient = within(data.len(), most, || cbor::decode_as(data, Form::Lenient));
    if let Ok(value) = &strict {
        assert_eq!(cbor::encode(value), data);
        assert_eq!(lenient.as_ref(), Ok(value));
    }
    if let Ok(value) = &lenient {
        let written = cbor::encode(value);
        let again = cbor::decode(&written);
        assert_eq!(again, Ok(sorted(value, &by_length)));
        has_links(cid::DAG_CBOR, data, value);
    }
    let plain = within(data.len(), most, || cbor::decode_as(data, Form::Plain));
    if let Ok(value) = &plain {
        let again = cbor::decode_as(&cbor::encode(value), Form::Plain);
        assert_eq!(again, Ok(sorted(value, &by_length)));
    }
    Verdict::of(strict.is_ok())
}

/// dag-json and json. What was read is written in one form, which reads back as the same; all
/// links are found, in order.
pub fn dag_json(data: &[u8]) -> Verdict {
    let most = of_values(data.len());
    let read = within(data.len(), most, || json::decode(data));
    if let Ok(value) = &read {
        let written = json::encode(value);
        let again = json::decode(&written);
        assert_eq!(again, Ok(sorted(value, &by_bytes)));
        has_links(cid::DAG_JSON, data, value);
    }
    let plain = within(data.len(), most, || json::decode_plain(data));
    if let Ok(value) = &plain {
        let again = json::decode_plain(&json::encode(value));
        assert_eq!(again, Ok(sorted(value, &by_bytes)));
    }
    assert!(read.is_err() || plain.is_ok());
    Verdict::of(read.is_ok())
}

/// UnixFS: a message, or a file's tree. A message reads back as written; a file gives exactly the
/// bytes that were asked for, or an error, and asks for no block that it does not need.
pub fn unixfs(data: &[u8]) -> Verdict {
    let mut input = Input(data);
    if input.byte() == 0 {
        return message(input.0);
    }
    let (from, length) = (input.number(), input.number() % RANGE_BYTES_MAX);
    let Some((dag, root)) = program::run(&mut input) else {
        return Verdict::Refused;
    };
    let most = READER_BYTES;
    let opened = within(data.len(), most, || block_on(read::open(&dag, &root)));
    let Ok(Node::File(file)) = opened else {
        return Verdict::Refused;
    };
    dag.asked();
    let dag = Arc::new(dag);
    let range = from..from.saturating_add(length);
    let read = within(data.len(), most, || read_file(&dag, &file, range));
    let levels = FILE_LEVELS_MAX + 1;
    let most = (length + AHEAD_MAX + 1) * levels;
    assert!(
        dag.asked() <= most,
        "more blocks than {length} bytes can need"
    );
    Verdict::of(read.is_ok())
}

fn message(data: &[u8]) -> Verdict {
    let data = Bytes::copy_from_slice(data);
    let most = FLAT + WORDS * size_of::<u64>() * data.len();
    let read = within(data.len(), most, || Message::decode(&data));
    if let Ok(message) = &read {
        let written = Bytes::from(message.encode());
        assert_eq!(Message::decode(&written).as_ref(), Ok(message));
    }
    Verdict::of(read.is_ok())
}

fn read_file(dag: &Arc<Dag>, file: &File, range: std::ops::Range<u64>) -> Result<(), ReadError> {
    let wanted = range.end.min(file.size()).saturating_sub(range.start);
    let mut left = wanted;
    let mut stream = std::pin::pin!(file.read(Arc::clone(dag), range));
    while let Some(part) = block_on(stream.next()) {
        left = left
            .checked_sub(part?.len() as u64)
            .unwrap_or_else(|| unreachable!("more bytes than asked for"));
    }
    assert_eq!(left, 0, "of {wanted} bytes");
    Ok(())
}

/// Folders over hostile blocks. A listing and a walk end at their budget; what a sharded listing
/// names is found by name; a folder written again has the same names.
pub fn hamt(data: &[u8]) -> Verdict {
    let mut input = Input(data);
    let budget = match input.byte() {
        0 => Budget::REQUEST,
        _ => SMALL,
    };
    let Some((dag, root)) = program::run(&mut input) else {
        return Verdict::Refused;
    };
    let dag = Arc::new(dag);
    for repeats in [Repeats::Skip, Repeats::Keep] {
        walks(data.len(), &dag, root, repeats, budget);
    }
    let most = READER_BYTES;
    let opened = within(data.len(), most, || block_on(read::open(&dag, &root)));
    let Ok(Node::Directory(directory)) = opened else {
        return Verdict::Refused;
    };
    dag.asked();
    let listed = within(data.len(), most, || count(&dag, &directory, budget));
    let asked = dag.asked();
    assert!(
        asked <= budget.blocks.min(budget.entries) + AHEAD_MAX,
        "{asked} blocks"
    );
    let Ok(entries) = listed else {
        return Verdict::Refused;
    };
    assert!(entries <= budget.entries, "{entries} entries");
    if entries <= SMALL.entries {
        says_the_same(&dag, &directory, budget);
    }
    Verdict::Taken
}

fn walks(input: usize, dag: &Arc<Dag>, root: Cid, repeats: Repeats, budget: Budget) {
    let options = Options {
        repeats,
        budget,
        missing: Missing::Tell,
        ..Options::default()
    };
    dag.asked();
    // A walk keeps a level's CIDs, and 16 bytes or so for each block that it has seen.
    let seen = usize::try_from(budget.blocks).unwrap_or(usize::MAX) * SEEN_BYTES;
    let visits = within(input, READER_BYTES + seen, || {
        let mut visits = 0;
        let mut steps = std::pin::pin!(walk(Arc::clone(dag), root, options));
        while let Some(Ok(visit)) = block_on(steps.next()) {
            if let walk::Visit::Block { depth, .. } = visit {
                assert!(depth <= budget.depth, "{depth} levels");
            }
            visits += 1;
        }
        visits
    });
    assert!(visits <= budget.blocks, "{visits} blocks");
    let asked = dag.asked();
    assert!(
        asked <= budget.blocks + READ_AHEAD as u64,
        "{asked} blocks asked for"
    );
}

fn count(dag: &Arc<Dag>, directory: &Directory, budget: Budget) -> Result<u64, ReadError> {
    let mut entries = std::pin::pin!(directory.entries(Arc::clone(dag), budget));
    let mut count = 0;
    while let Some(entry) = block_on(entries.next()) {
        entry?;
        count += 1;
    }
    Ok(count)
}

fn says_the_same(dag: &Arc<Dag>, directory: &Directory, budget: Budget) {
    let mut entries = list(dag, directory, budget);
    let by_name = |one: &Entry, other: &Entry| one.name.cmp(&other.name);
    entries.sort_by(by_name);
    if entries.windows(2).any(|two| two[0].name == two[1].name) {
        return;
    }
    if directory.is_sharded() {
        for entry in &entries {
            let found = block_on(directory.find(dag, &entry.name));
            assert_eq!(found.ok().flatten().as_ref(), Some(entry));
        }
    }
    let Ok(builder) = block_on(Builder::load(Arc::clone(dag), directory, budget)) else {
        return;
    };
    let profile = Profile {
        fanout: 8,
        hamt_threshold: 0,
        ..Profile::v1_2025()
    };
    let mut blocks = std::collections::HashMap::new();
    let Ok(written) = builder.write(&profile, &mut blocks) else {
        return;
    };
    let Ok(Node::Directory(again)) = block_on(read::open(&blocks, &written.cid)) else {
        unreachable!("a folder that was just written");
    };
    let mut again = list(&Arc::new(blocks), &again, Budget::REQUEST);
    again.sort_by(by_name);
    assert_eq!(again, entries);
}

fn list<S: BlockSource + 'static>(
    source: &Arc<S>,
    directory: &Directory,
    budget: Budget,
) -> Vec<Entry> {
    let entries = directory.entries(Arc::clone(source), budget);
    block_on(entries.try_collect()).unwrap_or_default()
}

/// CARv1. The sections that were read, written one after the other, are the bytes that were read.
pub fn car_v1(data: &[u8]) -> Verdict {
    let most = of_car(data.len());
    within(data.len(), most, || retraces(data, data.len()));
    take(data)
}

/// CARv2. Its roots and sections are those of the CARv1 inside it, its index notwithstanding.
pub fn car_v2(data: &[u8]) -> Verdict {
    // Without it everything would be a CARv1.
    let mut whole = PRAGMA.to_vec();
    whole.extend(data.strip_prefix(PRAGMA).unwrap_or(data));
    let most = of_car(data.len());
    let opened = within(data.len(), most, || CarReader::new(&whole[..]).map(drop));
    let number = |place: usize| {
        let bytes = whole.get(PRAGMA.len() + place..)?.first_chunk()?;
        usize::try_from(u64::from_le_bytes(*bytes)).ok()
    };
    let inner = || {
        let from = number(16).filter(|from| *from >= PRAGMA.len() + V2_HEADER)?;
        let to = from.checked_add(number(24)?)?;
        whole.get(from..to.min(whole.len()))
    };
    match (opened, inner()) {
        (Ok(()), Some(inner)) => {
            let outer = CarReader::new(&whole[..]).map(sections);
            assert_eq!(outer.ok(), CarReader::new(inner).map(sections).ok());
        }
        (Ok(()), None) => unreachable!("a CARv2 whose data lies nowhere"),
        (Err(_), _) => {}
    }
    take(&whole)
}

type Sections = (Vec<Cid>, Vec<(Cid, Bytes)>);

fn sections(mut car: CarReader<&[u8]>) -> Sections {
    let sections = car.by_ref().map_while(Result::ok).collect();
    (car.roots().to_vec(), sections)
}

/// Reads a CARv1 and compares each section with the bytes that it was read from.
fn retraces(data: &[u8], input: usize) {
    let Ok(mut car) = CarReader::new(data) else {
        return;
    };
    let at = |car: &CarReader<_>| usize::try_from(car.position()).unwrap_or(usize::MAX);
    let mut begin = at(&car);
    while let Some(Ok((cid, bytes))) = car.next() {
        let end = at(&car);
        let name = cid.to_bytes();
        let mut expected = length(name.len() + bytes.len());
        expected.extend(name);
        expected.extend(&bytes);
        assert_eq!(data.get(begin..end), Some(&expected[..]));
        begin = end;
    }
    assert!(at(&car) <= input, "read beyond the end");
}

/// Takes the blocks of a CAR as an import does; those that are taken make a CAR that gives them
/// again.
fn take(data: &[u8]) -> Verdict {
    let mut blocks = Vec::new();
    let Ok(mut car) = CarReader::new(data) else {
        return Verdict::Refused;
    };
    let taken = for_each_batch(&mut car, |batch| {
        blocks.extend(batch);
        Ok::<_, Infallible>(())
    });
    let mut written = write::header(car.roots()).to_vec();
    for block in &blocks {
        let before = written.len();
        written.extend(write::section_prefix(block));
        written.extend(block.data());
        assert_eq!((written.len() - before) as u64, write::section_len(block));
    }
    let again = CarReader::new(&written[..]).map(sections);
    let parts = blocks.into_iter().map(Block::into_parts).collect();
    assert_eq!(again.ok(), Some((car.roots().to_vec(), parts)));
    Verdict::of(taken.is_ok())
}

/// A number in the form that begins a section.
fn length(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
    out
}

type Order = dyn Fn(&str, &str) -> std::cmp::Ordering;

fn by_length(one: &str, other: &str) -> std::cmp::Ordering {
    (one.len(), one).cmp(&(other.len(), other))
}

fn by_bytes(one: &str, other: &str) -> std::cmp::Ordering {
    one.cmp(other)
}

/// The value with every map's keys in the order that its codec writes.
fn sorted(value: &Value, order: &Order) -> Value {
    match value {
        Value::List(items) => Value::List(items.iter().map(|item| sorted(item, order)).collect()),
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| (key.clone(), sorted(value, order)))
                .collect();
            entries.sort_by(|(one, _), (other, _)| order(one, other));
            Value::Map(entries)
        }
        other => other.clone(),
    }
}

/// The links that are collected without building values are those of the value.
fn has_links(codec: u64, data: &[u8], value: &Value) {
    let Some(block) = program::block(codec, Bytes::copy_from_slice(data)) else {
        return;
    };
    let most = of_values(data.len());
    let links = within(data.len(), most, || dag::links(&block)).unwrap_or_default();
    let mut expected = Vec::new();
    collect_links(value, &mut expected);
    assert!(links.iter().map(|link| link.cid).eq(expected));
}

fn collect_links(value: &Value, links: &mut Vec<Cid>) {
    match value {
        Value::Link(cid) => links.push(**cid),
        Value::List(items) => items.iter().for_each(|item| collect_links(item, links)),
        Value::Map(entries) => entries
            .iter()
            .for_each(|(_, item)| collect_links(item, links)),
        _ => {}
    }
}

/// What may be held for a dag-pb node of so many bytes.
fn of_pb(bytes: usize) -> usize {
    FLAT + size_of::<PbLink>() * bytes / LINK_BYTES_MIN + bytes
}

/// What may be held for the values in so many bytes.
fn of_values(bytes: usize) -> usize {
    FLAT + VALUE_BYTES * bytes
}

/// What may be held by the reader of a CAR of so many bytes.
fn of_car(bytes: usize) -> usize {
    FLAT + CAR_BUFFER_BYTES + VALUE_BYTES * bytes
}

/// What may be held whatever the input is.
const FLAT: usize = 64 << 10;
/// How much of a list is held at most while it grows: itself, and twice as much.
const GROWTH: usize = 3;
/// Bytes of the shortest dag-pb link: two of its own, two before its CID, four of the CID.
const LINK_BYTES_MIN: usize = 8;
/// What may be held for a byte of values: a value of one byte in a list that grows, and what it was
/// read into before.
const VALUE_BYTES: usize = (GROWTH + 1) * size_of::<Value>();
/// What a reader of files or folders may hold, whatever it reads: some blocks, decoded.
const READER_BYTES: usize = 8 << 20;
/// Numbers that may be held for a byte of a message.
const WORDS: usize = GROWTH;
/// What a CAR's reader reads at once.
const CAR_BUFFER_BYTES: usize = 128 << 10;
/// Blocks asked for ahead of a reader.
const AHEAD_MAX: u64 = 16;
/// Blocks asked for ahead of a walk.
const READ_AHEAD: usize = 32;
/// Levels of a file below its root.
const FILE_LEVELS_MAX: u64 = 64;
/// Most bytes of a file that are read.
const RANGE_BYTES_MAX: u64 = 4096;
/// What a walk keeps for each block that it has seen, while its table grows.
const SEEN_BYTES: usize = 160;
/// A request's budget, a thousandth of it: what is right here is right there, and sooner.
const SMALL: Budget = Budget {
    entries: 100,
    blocks: 100,
    bytes: 4 << 20,
    depth: 16,
};
/// What a dag-pb node begins with if its data comes first.
const DATA_FIRST: u8 = 0x0a;
/// The first bytes of every CARv2.
const PRAGMA: &[u8] = &[
    0x0a, 0xa1, 0x67, b'v', b'e', b'r', b's', b'i', b'o', b'n', 0x02,
];
/// Bytes of a CARv2's own header after them.
const V2_HEADER: usize = 40;
