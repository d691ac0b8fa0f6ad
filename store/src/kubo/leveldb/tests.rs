//! Databases as LevelDB and its Go port write them, whole and damaged.

use super::*;
use proptest::prelude::*;
use written::Entry;

#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod written;

const PREFIXES: [&[u8]; 2] = [b"/ipns/", b"/pins/pin/"];

fn found(folder: &Path) -> (Pairs, Vec<String>) {
    let mut damage = Vec::new();
    let found = read(folder, &PREFIXES, &mut |why| damage.push(why)).unwrap();
    (found, damage)
}

fn entry(key: &str, value: &str) -> Entry {
    (key.into(), Some(value.into()))
}

/// Keys before, among and behind those that are wanted.
fn many(value: &str) -> Vec<Entry> {
    let keys = [
        "/dht/",
        "/ipns/",
        "/pins/index/",
        "/pins/pin/",
        "/pins/state",
        "/pk/",
    ];
    let key = |at: usize| format!("{}{at:05}", keys[at % keys.len()]);
    (0..3000).map(|at| entry(&key(at), value)).collect()
}

fn wanted(entries: &[Entry]) -> Pairs {
    let mut newest = std::collections::BTreeMap::new();
    for (key, value) in entries {
        newest.insert(key.clone(), value.clone());
    }
    newest
        .into_iter()
        .filter(|(key, _)| PREFIXES.iter().any(|prefix| key.starts_with(prefix)))
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

#[test]
fn the_newest_of_each_key_counts_wherever_it_lies() {
    let old = many("old");
    let mut new = many("new");
    new.truncate(1000);
    new.push(("/pins/pin/00003".into(), None));
    let log = vec![
        entry("/pins/pin/00009", "newest"),
        entry("/ipns/ab", &"long".repeat(10_000)),
        ("/ipns/00001".into(), None),
        entry("/ipns/00007", ""),
    ];
    let all = [&old[..], &new, &log].concat();
    for is_packed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        written::database(folder.path(), &[old.clone(), new.clone()], &log, is_packed);
        let (found, damage) = found(folder.path());
        assert_eq!(damage, [""; 0]);
        assert!(found == wanted(&all));
        assert_eq!(found.len(), 1000 - 2 + 1);
    }
}

#[test]
fn files_that_do_not_count_any_more_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    written::database(folder.path(), &[many("here")], &[], false);
    // A table that was compacted away, and a log from before the one that counts.
    let stale = [entry("/pins/pin/zz", "gone long ago")];
    fs::write(path("000007.ldb"), written::table(&stale, 1 << 40, false)).unwrap();
    fs::write(
        path("000099.log"),
        written::records(&[written::batch(&stale, 1 << 40)]),
    )
    .unwrap();
    let (found, damage) = found(folder.path());
    assert_eq!(damage, [""; 0]);
    assert!(found == wanted(&many("here")));
}

#[test]
fn without_a_manifest_everything_is_read_and_that_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let log = [entry("/ipns/x", "y")];
    written::database(folder.path(), &[many("here")], &log, true);
    fs::remove_file(folder.path().join("CURRENT")).unwrap();
    let (found, damage) = found(folder.path());
    assert!(found == wanted(&[&many("here")[..], &log].concat()));
    assert!(
        damage.len() == 1 && damage[0].contains("every table and log"),
        "{damage:?}"
    );
}

#[test]
fn a_damaged_table_is_told_and_the_rest_counts() {
    let folder = tempfile::tempdir().unwrap();
    let log = [entry("/ipns/x", "y")];
    written::database(folder.path(), &[many("first"), many("second")], &log, false);
    let path = folder.path().join("000011.ldb");
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    let at = flipped
        .windows(15)
        .position(|part| part == b"/pins/pin/00003")
        .unwrap();
    flipped[at] ^= 1;
    fs::write(&path, &flipped).unwrap();
    let (there, damage) = found(folder.path());
    assert!(
        damage.len() == 1 && damage[0].starts_with("000011.ldb, byte "),
        "{damage:?}"
    );
    let first = there.iter().filter(|(_, value)| value == b"first").count();
    assert!(
        (1..=13).contains(&first),
        "one block's keys count as they were: {first}"
    );

    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let (there, damage) = found(folder.path());
    assert!(damage.len() == 1 && damage[0].contains("end"), "{damage:?}");
    assert!(there == wanted(&[&many("first")[..], &log].concat()));

    fs::remove_file(&path).unwrap();
    let (_, damage) = found(folder.path());
    assert_eq!(damage, ["000011.ldb: this table is missing"]);
}

#[test]
fn a_log_that_was_cut_off_counts_as_far_as_it_goes_and_one_that_is_damaged_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let long = "v".repeat(3000);
    let log: Vec<Entry> = (0..100)
        .map(|at| entry(&format!("/ipns/{at:03}"), &long))
        .collect();
    written::database(folder.path(), &[], &log, false);
    let path = folder.path().join("000100.log");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    let (there, damage) = found(folder.path());
    assert_eq!(damage, [""; 0]);
    assert_eq!(there.len(), 98, "the last batch has two");

    let mut flipped = whole.clone();
    flipped[100_000] ^= 1;
    fs::write(&path, &flipped).unwrap();
    let (there, damage) = found(folder.path());
    assert!((1..=2).contains(&damage.len()), "{damage:?}");
    assert!(damage[0].contains("checksum"), "{damage:?}");
    assert!((70..100).contains(&there.len()), "{}", there.len());
}

#[test]
fn a_folder_without_a_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = read(folder.path(), &PREFIXES, &mut |_| {});
    assert!(matches!(refused, Err(DatabaseError::Empty)));
}

#[test]
fn what_lies_in_the_place_of_a_file_is_told_and_not_waited_for() {
    for name in ["CURRENT", "MANIFEST-000002", "000010.ldb", "000100.log"] {
        let folder = tempfile::tempdir().unwrap();
        let log = [entry("/ipns/x", "y")];
        written::database(folder.path(), &[many("first")], &log, false);
        let path = folder.path().join(name);
        fs::remove_file(&path).unwrap();
        let pipe = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, pipe, 0o600.into(), 0).unwrap();
        let (_, damage) = found(folder.path());
        assert!(
            damage.len() == 1 && damage[0].starts_with(name) && damage[0].contains("no file"),
            "{damage:?}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    written::database(folder.path(), &[], &[entry("/ipns/x", "y")], false);
    fs::write(folder.path().join("CURRENT"), vec![b'M'; 1 << 20]).unwrap();
    let (there, damage) = found(folder.path());
    assert!(damage[0].contains("more than 256 bytes"), "{damage:?}");
    assert_eq!(there.len(), 1);
}

#[test]
fn of_a_log_without_an_end_only_so_much_is_read() {
    struct Zeros;
    impl ReadAt for Zeros {
        fn bytes(&self) -> io::Result<u64> {
            Ok(u64::MAX)
        }
        fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
            assert!(at + into.len() as u64 <= LOG_BYTES_MAX);
            into.fill(0);
            Ok(())
        }
    }
    let mut journal = Journal::over(&Zeros);
    let told = journal.next().unwrap().unwrap_err();
    assert!(told.contains("only so many are read"), "{told}");
    assert!(journal.next().is_none());
}

#[test]
fn a_block_that_the_index_names_twice_is_read_once() {
    let key = |text: &[u8]| [text, &[1, 1, 0, 0, 0, 0, 0, 0]].concat();
    let mut bytes = Vec::new();
    let block = written::block(&[(key(b"/ipns/a"), b"v")]);
    let handle = written::put_block(&mut bytes, &block, false);
    let index = [b"/ipns/a", b"/ipns/b"].map(|text| (key(text), handle.clone()));
    written::put_end(&mut bytes, &index, false);
    let mut wanted = Wanted::below(&PREFIXES);
    let data = &bytes[..];
    let read = Table::open(&data).and_then(|table| table.each(&mut wanted, "t", &mut |_| {}));
    assert!(matches!(read, Err(Fault::Damage(why)) if why.contains("in each other")));
    assert_eq!(wanted.found.len(), 1);
}

proptest! {
    #[test]
    fn every_database_reads_back(
        entries in prop::collection::vec(
            ("(/pins/pin/|/ipns/|/x)[a-c]{0,3}", prop::option::of("[a-z]{0,50}")), 0..200),
        log in 0usize..200,
        is_packed: bool,
    ) {
        let entries: Vec<Entry> = entries
            .into_iter()
            .map(|(key, value)| (key.into_bytes(), value.map(String::into_bytes)))
            .collect();
        let (table, log) = entries.split_at(log.min(entries.len()));
        let folder = tempfile::tempdir().unwrap();
        written::database(folder.path(), &[table.to_vec()], log, is_packed);
        let (found, damage) = found(folder.path());
        prop_assert_eq!(damage, Vec::<String>::new());
        prop_assert_eq!(found, wanted(&entries));
    }

    #[test]
    fn whatever_is_flipped_nothing_panics_and_it_is_told_or_harmless(at: usize, bit in 0u8..8) {
        let bytes = written::table(&many("value"), 1, true);
        let mut damaged = bytes.clone();
        let at = at % damaged.len();
        damaged[at] ^= 1 << bit;
        let mut wanted_here = Wanted::below(&PREFIXES);
        let mut told = 0;
        let data = &damaged[..];
        let read = Table::open(&data)
            .and_then(|table| table.each(&mut wanted_here, "t", &mut |_| told += 1));
        let lost = wanted(&many("value")).len() - wanted_here.found.len();
        prop_assert!(lost == 0 || told > 0 || read.is_err());
    }
}
