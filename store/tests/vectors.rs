//! Known answers: the CIDs that other implementations give to the same content.
//!
//! `importer-vectors.json` comes from the JavaScript importer, `boxo-vectors.json` from the Go
//! library below Kubo; each file says which version and how its content is made. The reference
//! CIDs of IPIP-499 stand here: their content is the ChaCha20 stream that Kubo's own tests use.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use cairn_store::chunk::Chunker;
use cairn_store::sink::Nowhere;
use cairn_store::unixfs::import::{Added, Event, Importer, Metadata};
use cairn_store::unixfs::{Layout, Mtime, Profile};
use serde_json::Value;
use std::io::{self, Read};
use std::path::Path;

fn fixture(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/unixfs");
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The first `length` bytes of xorshift32 from 1.
fn xorshift(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut out = Vec::with_capacity(length + 4);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        out.extend(state.to_le_bytes());
    }
    out.truncate(length);
    out
}

/// A pattern without end.
struct Endless<'a> {
    pattern: &'a [u8],
    at: usize,
}

impl Read for Endless<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = (&self.pattern[self.at..]).read(out)?;
        self.at = (self.at + read) % self.pattern.len();
        Ok(read)
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn size(value: &Value) -> usize {
    usize::try_from(number(value)).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn import_file(profile: Profile, mut content: impl Read) -> Added {
    let mut importer = Importer::new(profile, Nowhere, |_| {});
    importer
        .file("f", &mut content, Metadata::default())
        .unwrap();
    importer.finish().unwrap().remove(0)
}

type Files = Importer<Nowhere, fn(Event)>;

fn metadata(entry: &Value) -> Metadata {
    Metadata {
        mode: entry["mode"]
            .as_u64()
            .map(|mode| u32::try_from(mode).unwrap()),
        mtime: entry["mtime"].as_array().map(|time| Mtime {
            seconds: time[0].as_i64().unwrap(),
            nanoseconds: u32::try_from(number(&time[1])).unwrap(),
        }),
    }
}

fn segments(entry: &Value) -> Vec<String> {
    text(&entry["path"]).split('/').map(str::to_owned).collect()
}

/// Adds the entry at the end of a path, going out of and into folders as needed.
fn add(importer: &mut Files, open: &mut Vec<String>, entry: &Value, pattern: &[u8]) {
    let path = segments(entry);
    let (name, folders) = path.split_last().unwrap();
    let common = open.iter().zip(folders).take_while(|(a, b)| a == b).count();
    while open.len() > common {
        open.pop();
        importer.leave().unwrap();
    }
    for folder in &folders[common..] {
        importer.enter(folder, Metadata::default()).unwrap();
        open.push(folder.clone());
    }
    let metadata = metadata(entry);
    if let Some(target) = entry["link"].as_str() {
        importer.symlink(name, target, metadata).unwrap();
    } else if let Some(text) = entry["text"].as_str() {
        importer.file(name, &mut text.as_bytes(), metadata).unwrap();
    } else if let Some(length) = entry["bytes"].as_u64() {
        let mut content = Endless { pattern, at: 0 }.take(length);
        importer.file(name, &mut content, metadata).unwrap();
    } else {
        importer.enter(name, metadata).unwrap();
        open.push(name.clone());
    }
}

fn expand(entry: &Value) -> Vec<Value> {
    let numbered = &entry["numbered"];
    if numbered.is_null() {
        return vec![entry.clone()];
    }
    let count = size(&numbered["count"]);
    let width = |at| match at == count - 1 {
        true => size(&numbered["last"]),
        false => size(&numbered["length"]),
    };
    (0..count)
        .map(|at| serde_json::json!({ "path": format!("d/{at:0w$}", w = width(at)), "bytes": 1 }))
        .collect()
}

/// Imports the entries, sorted so that each folder is entered once.
fn import(profile: &str, entries: &[Value], pattern: &[u8]) -> Added {
    let profile = Profile::from_name(profile).unwrap();
    let mut importer: Files = Importer::new(profile, Nowhere, |_| {});
    let mut open = Vec::new();
    let mut entries: Vec<Value> = entries.iter().flat_map(expand).collect();
    entries.sort_by_key(segments);
    for entry in &entries {
        add(&mut importer, &mut open, entry, pattern);
    }
    importer.finish().unwrap().remove(0)
}

#[test]
fn content_gets_the_cid_and_size_that_the_javascript_importer_gives() {
    let fixture = fixture("importer-vectors.json");
    let pattern = xorshift(1_048_589);
    let cases = fixture["cases"].as_array().unwrap();
    assert!(cases.len() >= 40);
    for case in cases {
        let entries = case["entries"].as_array().unwrap();
        let added = import(text(&case["profile"]), entries, &pattern);
        let what = format!("{} {}", case["profile"], case["name"]);
        assert_eq!(added.cid.to_string(), text(&case["cid"]), "{what}");
        assert_eq!(added.size, number(&case["size"]), "{what}");
    }
}

#[test]
fn chunks_are_cut_where_boxo_cuts_them() {
    let fixture = fixture("boxo-vectors.json");
    let stream = xorshift(8 << 20);
    let zeros = vec![0; 1 << 20];
    for case in fixture["chunks"].as_array().unwrap() {
        let bytes = size(&case["bytes"]);
        let input = match case["zeros"] == true {
            true => &zeros,
            false => &stream,
        };
        let chunker: Chunker = text(&case["chunker"]).parse().unwrap();
        let lengths: Vec<u64> = chunker
            .chunks(&input[..bytes])
            .take(400)
            .map(|chunk| chunk.unwrap().len() as u64)
            .collect();
        let wanted: Vec<u64> = case["lengths"]
            .as_array()
            .unwrap()
            .iter()
            .map(number)
            .collect();
        assert_eq!(lengths, wanted, "{} of {bytes} bytes", case["chunker"]);
    }
}

#[test]
fn trees_of_both_layouts_have_the_shape_that_boxo_gives() {
    let fixture = fixture("boxo-vectors.json");
    let stream = xorshift(3_000_000);
    for case in fixture["trees"].as_array().unwrap() {
        let base = match number(&case["version"]) {
            0 => Profile::v0_2015(),
            _ => Profile::v1_2025(),
        };
        let profile = Profile {
            layout: match text(&case["layout"]) {
                "trickle" => Layout::Trickle,
                _ => Layout::Balanced,
            },
            raw_leaves: case["raw_leaves"].as_bool().unwrap(),
            width: size(&case["width"]),
            chunker: text(&case["chunker"]).parse().unwrap(),
            ..base
        };
        let added = import_file(profile, &stream[..size(&case["bytes"])]);
        assert_eq!(added.cid.to_string(), text(&case["cid"]), "{case}");
        assert_eq!(added.size, number(&case["size"]), "{case}");
    }
}

/// ChaCha20 with a zero nonce, its key the SHA-256 of a text.
struct ChaCha {
    state: [u32; 16],
    block: [u8; 64],
    used: usize,
}

impl ChaCha {
    fn new(seed: &str) -> Self {
        use sha2::Digest as _;
        let key = sha2::Sha256::digest(seed.as_bytes());
        let mut state = [0; 16];
        state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        for (word, bytes) in state[4..12].iter_mut().zip(key.chunks_exact(4)) {
            *word = u32::from_le_bytes(bytes.try_into().unwrap());
        }
        Self {
            state,
            block: [0; 64],
            used: 64,
        }
    }

    fn next_block(&mut self) {
        let mut x = self.state;
        let mut quarter = |a: usize, b: usize, c: usize, d: usize| {
            for (one, two, three, turn) in
                [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)]
            {
                x[one] = x[one].wrapping_add(x[two]);
                x[three] = (x[three] ^ x[one]).rotate_left(turn);
            }
        };
        for _ in 0..10 {
            for at in 0..4 {
                quarter(at, 4 + at, 8 + at, 12 + at);
            }
            for at in 0..4 {
                quarter(at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4);
            }
        }
        let words = x.iter().zip(&self.state);
        for (bytes, (word, start)) in self.block.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.wrapping_add(*start).to_le_bytes());
        }
        self.state[12] += 1;
        self.used = 0;
    }
}

impl Read for ChaCha {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < out.len() {
            if self.used == self.block.len() {
                self.next_block();
            }
            let read = (&self.block[self.used..]).read(&mut out[written..])?;
            written += read;
            self.used += read;
        }
        Ok(written)
    }
}

#[test]
fn small_reference_content_of_ipip_499() {
    for (profile, cid) in [
        (
            Profile::v0_2015(),
            "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD",
        ),
        (
            Profile::v1_2025(),
            "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
        ),
    ] {
        let added = import_file(profile, &b"hello world"[..]);
        assert_eq!(added.cid.to_string(), cid);
    }
}

#[test]
fn reference_files_of_ipip_499_around_the_width_of_the_old_profile() {
    // One stream for both: the cipher is slow without optimisation.
    let mut content = Vec::new();
    let mut stream = ChaCha::new("v0-seed").take(44_800 << 10);
    stream.read_to_end(&mut content).unwrap();
    for (kib, cid) in [
        (44_544, "QmUbBALi174SnogsUzLpYbD4xPiBSFANF4iztWCsHbMKh2"),
        (44_800, "QmepeWtdmS1hHXx1oZXsPUv6bMrfRRKfZcoPPU4eEfjnbf"),
    ] {
        let added = import_file(Profile::v0_2015(), &content[..kib << 10]);
        assert_eq!(added.cid.to_string(), cid);
    }
}

#[test]
#[ignore = "makes 2 GiB with a slow cipher; run with --release --ignored"]
fn reference_files_of_ipip_499_around_the_width_of_the_new_profile() {
    for (mib, cid) in [
        (
            1024,
            "bafybeihmf37wcuvtx4hpu7he5zl5qaf2ineo2lqlfrapokkm5zzw7zyhvm",
        ),
        (
            1025,
            "bafybeihmzokxxjqwxjcryerhp5ezpcog2wcawfryb2xm64xiakgm4a5jue",
        ),
    ] {
        let content = ChaCha::new("v1-2025-seed").take(mib << 20);
        let added = import_file(Profile::v1_2025(), content);
        assert_eq!(added.cid.to_string(), cid);
    }
}

/// The folder that Kubo's test makes: files named by letters out of the stream, each holding `x`.
fn reference_folder(
    profile: Profile,
    seed: &str,
    files: usize,
    length: usize,
    last: usize,
) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz01234567890-_";
    let mut stream = ChaCha::new(seed);
    let mut importer = Importer::new(profile, Nowhere, |_| {});
    importer.enter("d", Metadata::default()).unwrap();
    for at in 0..files {
        let mut name = vec![0; if at == files - 1 { last } else { length }];
        stream.read_exact(&mut name).unwrap();
        let name = name
            .iter()
            .map(|byte| LETTERS[usize::from(*byte) % LETTERS.len()]);
        let name = String::from_utf8(name.collect()).unwrap();
        importer
            .file(&name, &mut &b"x"[..], Metadata::default())
            .unwrap();
    }
    importer.leave().unwrap();
    importer.finish().unwrap().remove(0).cid.to_string()
}

#[test]
fn reference_folders_of_ipip_499_around_the_threshold() {
    for (files, length, cid) in [
        (4096, 30, "QmX5GtRk3TSSEHtdrykgqm4eqMEn3n2XhfkFAis5fjyZmN"),
        (4033, 31, "QmeMiJzmhpJAUgynAcxTQYek5PPKgdv3qEvFsdV3XpVnvP"),
    ] {
        let made = reference_folder(
            Profile::v0_2015(),
            "hamt-unixfs-v0-2015",
            files,
            length,
            length,
        );
        assert_eq!(made, cid);
    }
    for (last, cid) in [
        (
            21,
            "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4",
        ),
        (
            22,
            "bafybeiegvuterwurhdtkikfhbxcldohmxp566vpjdofhzmnhv6o4freidu",
        ),
    ] {
        let made = reference_folder(Profile::v1_2025(), "hamt-unixfs-v1-2025", 4766, 11, last);
        assert_eq!(made, cid);
    }
}
