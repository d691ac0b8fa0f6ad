//! What the tests of commands have in common: each runs alone and through a daemon, over a few known
//! contents.

use crate::Repo;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// `hello world`, without a line end, under both profiles (IPIP-499).
pub const HELLO_V1: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
/// The other one.
pub const HELLO_V0: &str = "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD";
/// A folder with nothing in it.
pub const EMPTY_FOLDER_V1: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";

/// Runs a scenario on the repository alone, then on another one through its daemon.
pub fn both(program: &str, scenario: impl Fn(&Repo)) {
    both_with(program, |_| {}, scenario);
}

/// The same on repositories that are prepared before anybody opens them.
pub fn both_with(program: &str, prepare: impl Fn(&Repo), scenario: impl Fn(&Repo)) {
    let alone = Repo::new(program);
    prepare(&alone);
    scenario(&alone);
    assert!(!alone.path().join("api").exists());
    let served = Repo::new(program);
    prepare(&served);
    let daemon = served.daemon();
    scenario(&served);
    let (status, _) = daemon.stop();
    assert!(status.success(), "{status:?}");
}

/// Text as JSON, which it must be.
#[track_caller]
pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

/// The lines of a text.
pub fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// A file in `folder` that holds `hello world`; its path.
pub fn hello(folder: &Path) -> String {
    let path = folder.join("hello.txt");
    fs::write(&path, "hello world").expect("write");
    path.to_str().expect("UTF-8").to_owned()
}

/// Turns one bit of `data` where it lies in the log.
pub fn damage(repo: &Repo, data: &[u8]) {
    let segment = repo.path().join("blocks/leaf-000001.car");
    let mut bytes = fs::read(&segment).expect("the segment with the bytes");
    let at = bytes.windows(data.len()).position(|window| window == data);
    bytes[at.expect("the segment with the bytes")] ^= 1;
    fs::write(&segment, bytes).expect("the segment with the bytes");
}
