//! Names in place of content: domains whose DNSLinks a name server on loopback tells, and names that the operator fixed.

use harness::names::Names;
use harness::{Mounts, Repo, tell_skipped};
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// A repository that asks `names` about everything.
fn asker(names: &Names) -> Repo {
    let repo = Repo::new(CAIRN);
    let table = format!("{{ \".\" = \"udp://{}\" }}", names.at);
    repo.ok(["config", "set", "dns.resolvers", &table]);
    repo
}

/// A folder with a folder with a file, and its CID.
fn site(repo: &Repo) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site");
    fs::create_dir_all(path.join("sub")).unwrap();
    fs::write(path.join("sub/file"), b"through a name").unwrap();
    repo.ok(["add", "-Qr", path.to_str().unwrap()])
}

#[test]
fn a_domain_stands_for_what_it_leads_to_in_every_command() {
    let names = Names::start();
    let repo = asker(&names);
    let root = site(&repo);
    names.link("site.example", &format!("/ipfs/{root}/sub"));
    names.link("chain.example", "/ipns/Site.Example");
    let file = repo.ok(["resolve", &format!("/ipfs/{root}/sub/file")]);
    let cid = file.trim_start_matches("/ipfs/").to_owned();
    let check = || {
        for path in [
            "/ipns/site.example/file",
            "ipns://CHAIN.example/file",
            "/ipns/chain.example./file",
        ] {
            assert_eq!(repo.ok(["resolve", path]), file, "{path}");
            assert_eq!(repo.ok(["cat", path]), "through a name", "{path}");
        }
        let sub = repo.ok(["resolve", "/ipns/site.example"]);
        assert_eq!(sub, repo.ok(["resolve", &format!("/ipfs/{root}/sub")]));
        for name in ["chain.example", "/ipns/chain.example"] {
            assert_eq!(repo.ok(["dns", name]), format!("/ipfs/{root}/sub"));
        }
        for command in [["dns", "-r=false"], ["resolve", "-r=false"]] {
            let one = repo.ok([command[0], command[1], "/ipns/chain.example/a"]);
            assert_eq!(one, "/ipns/site.example/a");
        }
        assert!(repo.ok(["ls", "/ipns/site.example"]).contains(&cid));
        assert_eq!(repo.ok(["refs", "/ipns/site.example"]), cid);
        assert!(
            repo.ok(["dag", "resolve", "/ipns/site.example/file"])
                .contains(&cid)
        );
        assert!(
            repo.ok(["dag", "stat", "/ipns/site.example"])
                .contains("Ratio")
        );
        assert!(
            repo.ok(["block", "stat", "/ipns/site.example/file"])
                .contains(&cid)
        );
        assert!(
            !repo
                .run(["dag", "export", "/ipns/site.example"])
                .success()
                .stdout
                .is_empty()
        );
        repo.ok(["pin", "add", "/ipns/site.example/file"]);
        assert!(
            repo.ok(["pin", "ls", "/ipns/site.example/file"])
                .contains(&cid)
        );
        repo.ok(["pin", "rm", "/ipns/site.example/file"]);
        let out = tempfile::tempdir().unwrap();
        let mut get = repo.command(["get", "/ipns/chain.example"]);
        assert!(
            get.current_dir(out.path())
                .output()
                .unwrap()
                .status
                .success()
        );
        let written = fs::read(out.path().join("chain.example/file")).unwrap();
        assert_eq!(written, b"through a name");
    };
    check();
    let daemon = repo.daemon();
    let before = names.count();
    check();
    // Each name once, however many commands.
    assert_eq!(names.count() - before, 2);
    let answer = daemon.post("dns", "arg=chain.example");
    assert_eq!(
        answer.text(),
        format!("{{\"Path\":\"/ipfs/{root}/sub\"}}\n")
    );
    assert!(daemon.metric("cairn_dns_lookups_total{result=\"cached\"}") > 2.0);
    // What moves is seen when its time is over; what was found stays until then.
    names.link("site.example", "/ipfs/bafkqaaa");
    assert_eq!(repo.ok(["resolve", "/ipns/site.example/file"]), file);
}

#[test]
fn what_leads_nowhere_says_why_and_offline_asks_nobody() {
    let names = Names::start();
    let repo = asker(&names);
    names.link("round.example", "/ipns/other.example");
    names.link("other.example", "/ipns/round.example");
    names.link("wrong.example", "/ipfs/nothing");
    let key = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    names.link("key.example", &format!("/ipns/{key}"));
    let check = || {
        for (name, why) in [
            (
                "gone.example",
                "has no DNSLink, as there is no name _dnslink.gone.example",
            ),
            (
                "round.example",
                "/ipns/round.example -> /ipns/other.example -> /ipns/round.example",
            ),
            ("wrong.example", "\"dnslink=/ipfs/nothing\" is not used"),
            ("single", "no key"),
            ("127.0.0.1", "number"),
            ("bafkqaaa", "/ipfs/bafkqaaa"),
            (
                "key.example",
                "k51qzi5uqu5dhnwe629wdlncpql6frppdpwnz4wtlcw816aysd5wwlk63g4wmh",
            ),
        ] {
            let told = repo.run(["cat", &format!("/ipns/{name}")]).failure(1);
            assert!(told.contains(why), "{told}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
    };
    check();
    let before = names.count();
    let told = repo
        .run(["cat", "--offline", "/ipns/gone.example"])
        .failure(1);
    assert!(told.contains("not looked up offline"), "{told}");
    let _daemon = repo.daemon();
    let told = repo
        .run(["cat", "--offline", "/ipns/gone.example"])
        .failure(1);
    assert!(told.contains("not looked up offline"), "{told}");
    assert_eq!(names.count(), before);
    check();
}

/// A name server that answers otherwise the next time changes what is asked for, and never where a connection goes.
#[test]
fn a_domain_that_is_bound_anew_leads_to_other_content_and_never_to_an_address() {
    let names = Names::start();
    let repo = asker(&names);
    repo.ok(["config", "set", "dns.max_cache_ttl", "0s"]);
    let root = site(&repo);
    let inside = TcpListener::bind("127.0.0.1:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let at = inside.local_addr().unwrap();
    let _daemon = repo.daemon();
    names.link("rebound.example", &format!("/ipfs/{root}/sub"));
    assert_eq!(
        repo.ok(["cat", "/ipns/rebound.example/file"]),
        "through a name"
    );
    for elsewhere in [
        format!("http://{at}/"),
        format!("/ip4/127.0.0.1/tcp/{}", at.port()),
        format!("/http/{at}"),
        at.to_string(),
    ] {
        names.link("rebound.example", &elsewhere);
        let told = repo.run(["cat", "/ipns/rebound.example/file"]).failure(1);
        assert!(told.contains("leads nowhere"), "{elsewhere}: {told}");
    }
    names.link("rebound.example", "/ipfs/bafkqaaa");
    assert_eq!(
        repo.ok(["resolve", "/ipns/rebound.example"]),
        "/ipfs/bafkqaaa"
    );
    let nobody = inside.accept().map(|(_, from)| from);
    assert_eq!(nobody.unwrap_err().kind(), ErrorKind::WouldBlock);
    // Nor is anything asked for but the link.
    let asked = names.asked();
    assert!(
        asked.iter().all(|name| name == "_dnslink.rebound.example."),
        "{asked:?}"
    );
}

#[test]
fn names_that_the_operator_fixed_need_no_name_server() {
    let repo = Repo::new(CAIRN);
    let root = site(&repo);
    let key = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8";
    let map = format!("fixed.example:/ipfs/{root},{key}:/ipns/fixed.example/sub");
    let run = |map: &str, arguments: &[&str]| {
        let output = repo.command(arguments).env("IPFS_NS_MAP", map).output();
        harness::Done::from(output.unwrap())
    };
    for path in [
        "/ipns/fixed.example/sub/file".to_owned(),
        format!("/ipns/{key}/file"),
    ] {
        assert_eq!(
            run(&map, &["cat", "--offline", &path]).success().text(),
            "through a name"
        );
    }
    let told = run("fixed.example=/ipfs/x", &["cat", "/ipns/fixed.example"]).failure(2);
    assert!(told.contains("IPFS_NS_MAP"), "{told}");
    // Without the map nobody is asked in `local`: the system's resolver hands questions on.
    let told = repo.run(["cat", "/ipns/fixed.example"]).failure(1);
    assert!(told.contains("outside the network `local`"), "{told}");
    assert!(told.contains("cairn config set dns.resolvers"), "{told}");
}

#[test]
fn the_systems_resolver_is_asked_in_public_and_never_in_local_or_lan() {
    if Mounts::new().is_none() {
        return;
    }
    // A loopback address that no other test has.
    let [.., one, two, three] = std::process::id().to_be_bytes();
    let address = format!("127.{}.{two}.{}", 64 + one % 128, 1 + three % 250);
    let Ok(names) = Names::at(&format!("{address}:53")) else {
        tell_skipped("this user may not listen at port 53");
        return;
    };
    names.link("site.example", "/ipfs/bafkqaaa");
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("resolv.conf");
    fs::write(&list, format!("nameserver {address}\n")).unwrap();
    let repo = Repo::new(CAIRN);
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    let seen = repo.under([
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        list.to_str().unwrap(),
    ]);
    for network in ["local", "lan"] {
        repo.ok(["config", "set", "network", network]);
        let told = seen.run(["dns", "site.example"]).failure(1);
        assert!(told.contains("hands questions on to others"), "{told}");
        assert_eq!(names.count(), 0, "{network}");
    }
    // No node: one question, to loopback.
    repo.ok(["config", "set", "network", "public"]);
    assert_eq!(seen.ok(["dns", "site.example"]), "/ipfs/bafkqaaa");
    assert_eq!(names.count(), 1);
}
