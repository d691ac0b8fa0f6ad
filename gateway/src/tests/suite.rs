//! The content, the names and the hosts of the public suite: for tests that repeat its cases, and for those that it
//! leaves out.

mod cars;
mod documents;
mod files;
mod names;

use super::support::{Answer, Site};
use crate::config::{Host, HostName, Hosts};
use cairn_node::ipns::{self, Record};
use cairn_node::name::path::Root;
use cairn_store::Block;
use cairn_store::Cid;
use cairn_store::car::read::CarReader;
use cairn_store::cid::{self, DAG_PB, HashKind};
use std::path::PathBuf;
use std::sync::LazyLock;

pub(super) const GATEWAY: &str = "example.com:8080";
/// The one that is known without any configuration.
pub(super) const LOCAL: &str = "localhost:8080";
pub(super) const HELLO: &str = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am";
pub(super) const HELLO_V0: &str = "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN";
pub(super) const HELLO_V0_AS_V1: &str =
    "bafybeiffndsajwhk3lwjewwdxqntmjm4b5wxaaanokonsggenkbw6slwk4";
pub(super) const ED25519: &str = "12D3KooWLQzUv2FHWGVPXTXSZpdHs7oHbXub2G5WC8Tx4NQhyd2d";
pub(super) const RSA: &str = "QmVujd5Vb7moysJj8itnGufN7MEtPRCNHkKpNuA4onsRa3";
pub(super) const LISTING: &str = "bafybeig6ka5mlwkl4subqhaiatalkcleo4jgnr3hqwvpmsqfca27cijp3i";
pub(super) const LISTED_FILE: &str = "bafkreialihlqnf5uwo4byh4n3cmwlntwqzxxs2fg5vanqdi3d7tb2l5xkm";
pub(super) const EXAMPLES: &str = "QmYBhLYDwVFvxos9h8CGU2ibaY66QNgv8hpfewxaQrPiZj";
pub(super) const EXAMPLES_DOMAIN: &str = "dnslink-redirects-examples.example.org";
pub(super) const SPA: &str = "bafybeib5lboymwd6p2eo4qb2lkueaine577flvsjjeuevmp2nlio72xv5q";
pub(super) const SPA_DOMAIN: &str = "dnslink-enabled-with-spa.example.org";
/// `root2/root3/root4/index.html`, and the CIDs on that way.
const CACHE: [&str; 5] = [
    "bafybeib3ffl2teiqdncv3mkz4r23b5ctrwkzrrhctdbne6iboayxuxk5ui",
    "bafybeih2w7hjocxjg6g2ku25hvmd53zj7og4txpby3vsusfefw5rrg5sii",
    "bafybeiawdvhmjcz65x5egzx4iukxc72hg4woks6v6fvgyupiyt3oczk5ja",
    "bafybeifq2rzpqnqrsdupncmkmhs3ckxxjhuvdcbvydkgvch3ms24k5lo7q",
    HELLO,
];
const DAG_JSON: &str = "baguqeeram5ujjqrwheyaty3w5gdsmoz6vittchvhk723jjqxk7hakxkd47xq";
const DAG_CBOR: &str = "bafyreibs4utpgbn7uqegmd2goqz4bkyflre2ek2iwv743fhvylwi4zeeim";
/// Lacks its second of three blocks of 1024 bytes.
const MISSING: &str = "QmYhmPjhFjYFyaoiuNzYv8WGavpSRDwdHWe5B4M5du5Rtk";
const MISSING_PARTS: [&str; 3] = [
    "QmPKt7ptM2ZYSGPUc8PmPT2VBkLDK3iqpG9TBJY7PCE9rF",
    "QmSNLTo6Wv9dfroVaw7MFYjLqf9ho7PKrgsjdzYDtv8h1W",
    "QmWXY482zQdwecnfBsj78poUUuPXvyw2JAFAEMw4tzTavV",
];
const HAMT: &str = "bafybeidbclfqleg2uojchspzd4bob56dqetqjsj27gy2cq3klkkgxtpn4i";

impl Site {
    /// All content and all names of the suite that hold, and the hosts that it is run against.
    pub(super) fn suite() -> Self {
        SUITE.clone()
    }

    /// Takes in a CAR of the suite. Of folders and files it knows both versions of their CIDs, as a real store does.
    fn car(&mut self, name: &str) {
        for (cid, block) in car(name) {
            if cid.codec() == DAG_PB && cid.hash().code() == HashKind::Sha2_256.code() {
                for cid in [Cid::new_v0(*cid.hash()).unwrap(), cid::to_v1(&cid)] {
                    self.here.insert(cid, block.renamed(cid).unwrap());
                }
            } else {
                self.here.insert(cid, block);
            }
        }
    }
}

static SUITE: LazyLock<Site> = LazyLock::new(|| {
    let mut site = Site::new();
    for name in files("gateway", "car") {
        site.car(name.file_name().unwrap().to_str().unwrap());
    }
    site.config.hosts = Hosts::from_iter([
        host("localhost", |host| host.inline_dnslink = true),
        host("example.com", |host| host.inline_dnslink = true),
    ]);
    for (name, to) in [
        ("dnslink-test.example.org", HELLO.to_owned()),
        ("dnslink-dir-listing.example.org", LISTING.to_owned()),
        ("dnslink-subpath.example.org", format!("{}/root2", CACHE[0])),
        (EXAMPLES_DOMAIN, EXAMPLES.to_owned()),
        (SPA_DOMAIN, SPA.to_owned()),
        // Not of the suite: a path that is not ASCII.
        ("sub-path.example.org", format!("{LISTING}/ą")),
    ] {
        let root = Root::name(name).unwrap();
        site.names.leads.insert(root, format!("/ipfs/{to}"));
    }
    for (name, bytes) in records() {
        let key = ipns::name(name.split('_').next().unwrap()).unwrap();
        if let Ok(record) = Record::decode(&key, &bytes) {
            let value = String::from_utf8(record.value().to_vec()).unwrap();
            site.names.leads.insert(Root::Key(key), value);
            site.names.records.insert(key, record);
        }
    }
    site
});

/// The fixtures of a folder.
fn files(folder: &str, kind: &str) -> Vec<PathBuf> {
    let folder = format!("{}/../tests/fixtures/{folder}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(folder).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|found| found == kind));
    let files: Vec<_> = files.collect();
    assert!(!files.is_empty());
    files
}

/// The blocks of a CAR, in its order.
fn car(name: &str) -> Vec<(Cid, Block)> {
    let sections = CarReader::new(std::io::Cursor::new(car_bytes(name))).unwrap();
    let sections = sections.map(|section| {
        let (cid, data) = section.unwrap();
        (cid, Block::verify(cid, data).unwrap())
    });
    sections.collect()
}

fn car_bytes(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/gateway");
    std::fs::read(format!("{folder}/{name}")).unwrap()
}

/// Every record, with the name of its file, those that do not hold included.
fn records() -> Vec<(String, Vec<u8>)> {
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    };
    files("ipns", "ipns-record").into_iter().map(read).collect()
}

pub(super) fn host(name: &str, change: impl FnOnce(&mut Host)) -> (HostName, Host) {
    let mut host = Host::default();
    change(&mut host);
    (name.parse().unwrap(), host)
}

/// The host of a root's own.
pub(super) fn own(cid: &Cid) -> String {
    format!("{}.ipfs.{LOCAL}", cid::to_v1(cid))
}

/// Asks at a host.
pub(super) async fn at(site: &Site, host: &str, path: &str) -> Answer {
    site.ask("GET", path, &[("host", host)]).await
}

/// Asks, and tells where it is sent.
pub(super) async fn moved(site: &Site, path: &str, headers: &[(&str, &str)]) -> String {
    let answer = site.ask("GET", path, headers).await;
    assert_eq!(answer.code(), 301, "{path} {headers:?}: {}", answer.text());
    answer.header("location").to_owned()
}

/// An entry of whatever folder has one of this name.
pub(super) fn entry(site: &Site, name: &str) -> Cid {
    let of_folder = |block: &Block| {
        let node = cairn_store::dag::pb::decode(block.data()).ok()?;
        let link = node.links.iter();
        let link = link
            .into_iter()
            .find(|link| link.name.as_deref() == Some(name));
        Some(link?.cid)
    };
    let folders = site.here.values();
    let mut folders = folders.filter(|block| block.cid().codec() == DAG_PB);
    folders.find_map(of_folder).unwrap()
}
