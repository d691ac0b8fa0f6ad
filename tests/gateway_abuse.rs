//! Crowds and foreign names against the gateway of a real daemon: ten thousand clients that are slow, hosts without
//! number, DNSLinks that lead anywhere but to content.

use harness::http::{self, Answer};
use harness::names::Names;
use harness::{Daemon, Repo, tell_skipped, tree, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeSet;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::iter::StepBy;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// Clients that take a slot each and hold it.
const SLOW: usize = 10_000;
/// Those among them that ask for a file and take nothing of it: so many that there are places for other requests.
const READERS: usize = 1000;
/// What one that sends its head slowly may cost in memory, as `gateway.connections_max` says.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// What one that takes nothing of its answer may cost, as `gateway.requests_max` says.
const READER_BYTES_MAX: usize = 2 << 20;

/// One crowd at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many files may be open, here and in a daemon that is started now: enough for all, if this user may have them.
fn open_files() -> usize {
    let wanted = u64::try_from(SLOW * GATEWAY_SHARE + 4 * OTHERS).unwrap();
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return usize::MAX;
    }
    let (most, raised) = (limit.maximum.unwrap_or(wanted), Some(wanted));
    let maximum = Some(most.max(wanted));
    let enough = Rlimit {
        current: raised,
        maximum,
    };
    if setrlimit(Resource::Nofile, enough).is_ok() {
        return usize::MAX;
    }
    let current = Some(most);
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
    usize::try_from(most).unwrap()
}

/// So many at most; says so if it is less than all.
fn slow_clients(most: usize) -> usize {
    if most < SLOW {
        tell_skipped(&format!(
            "{most} slow clients in place of {SLOW}, for want of open files (`ulimit -n`)"
        ));
    }
    most.min(SLOW)
}

/// One in so many files is for the gateway's clients.
const GATEWAY_SHARE: usize = 4;
/// Open files that are for other things.
const OTHERS: usize = 1024;

/// A connection that hardly takes anything, from one of many addresses: all of 127.0.0.0/8 is this machine.
fn connect(runtime: &Runtime, at: SocketAddr, number: usize) -> TcpStream {
    let from = format!("127.0.{}.{}:0", 1 + number / 250, 1 + number % 250);
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind(from.parse().unwrap()).unwrap();
        socket.connect(at).await.unwrap()
    });
    stream.into_std().unwrap()
}

fn slow_head(runtime: &Runtime, at: SocketAddr, number: usize) -> TcpStream {
    let mut stream = connect(runtime, at, number);
    stream
        .write_all(b"GET /ipfs/bafkqaaa HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        .unwrap();
    stream
}

fn slow_reader(runtime: &Runtime, at: SocketAddr, number: usize, path: &str) -> TcpStream {
    let mut stream = connect(runtime, at, number);
    let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Bytes of memory that a daemon has.
fn resident(daemon: &Daemon) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.process())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap()
        << 10
}

fn connections(daemon: &Daemon) -> usize {
    daemon.metric("cairn_gateway_connections") as usize
}

/// A repository with a file of many blocks, and the file's path.
fn with_a_large_file() -> (Repo, String) {
    let repo = Repo::new(CAIRN);
    let large = repo.run_with(["add", "-Q"], &tree::bytes(9, 16 << 20));
    let path = format!("/ipfs/{}", large.success().text());
    (repo, path)
}

#[test]
fn an_honest_client_is_answered_while_ten_thousand_slow_ones_hold_their_slots() {
    let _alone = alone();
    let slow = slow_clients((open_files() / GATEWAY_SHARE).saturating_sub(OTHERS));
    let (repo, path) = with_a_large_file();
    let most = (slow + 1).to_string();
    for (key, value) in [
        ("connections_max", most.as_str()),
        ("header_timeout", "1h"),
        ("write_timeout", "1h"),
    ] {
        repo.ok(["config", "set", &format!("gateway.{key}"), value]);
    }
    let daemon = repo.daemon();
    let (at, runtime) = (daemon.gateway(), Runtime::new().unwrap());
    assert_eq!(daemon.get("/ipfs/bafkqaaa", &[]).status, 200);
    let honest = || assert_eq!(daemon.get("/ipfs/bafkqabtimvwgy3yk", &[]).text(), "hello\n");

    let before = resident(&daemon);
    let readers = READERS.min(slow / 2);
    let heads = slow - readers;
    let mut sending: Vec<TcpStream> = (0..heads)
        .map(|number| slow_head(&runtime, at, number))
        .collect();
    wait_until("all heads to have a slot", || connections(&daemon) == heads);
    for _ in 0..3 {
        for stream in &mut sending {
            stream.write_all(b"x").unwrap();
        }
        honest();
    }
    let each = resident(&daemon).saturating_sub(before) / heads;
    println!("{heads} slow heads hold {each} bytes each");
    assert!(each <= HEAD_BYTES_MAX, "{each}");

    let before = resident(&daemon);
    let reading: Vec<TcpStream> = (heads..slow)
        .map(|number| slow_reader(&runtime, at, number, &path))
        .collect();
    wait_until("all readers to wait for themselves", || {
        daemon.metric("cairn_gateway_requests_running") as usize == readers
    });
    honest();
    let each = resident(&daemon).saturating_sub(before) / readers;
    println!("{readers} slow readers hold {each} bytes each");
    assert!(each <= READER_BYTES_MAX, "{each}");

    // The last slot, and then some.
    let late: Vec<TcpStream> = (0..100)
        .map(|number| slow_head(&runtime, at, number))
        .collect();
    wait_until("the last slot to be taken", || {
        connections(&daemon) == slow + 1
    });
    thread::scope(|scope| {
        let waiting = scope.spawn(honest);
        sending.truncate(heads - late.len());
        waiting.join().unwrap();
    });
    assert!(connections(&daemon) <= slow + 1);
    drop((sending, reading, late));
    wait_until("all slots to be free", || connections(&daemon) == 0);
    honest();
}

/// Slots of a gateway to which twenty times as many slow clients come.
const SLOTS: usize = 500;
/// Who makes them.
const TORMENTORS: usize = 16;

/// Makes every so many-th of the slow clients, has their heads come byte by byte until they are ended, and gives the
/// readers, which take nothing.
fn torment(
    runtime: &Runtime,
    at: SocketAddr,
    path: &str,
    numbers: StepBy<Range<usize>>,
) -> Vec<TcpStream> {
    let (mut sending, mut reading) = (Vec::new(), Vec::new());
    for number in numbers {
        if number % (SLOW / READERS) == 0 {
            reading.push(slow_reader(runtime, at, number, path));
            continue;
        }
        let stream = slow_head(runtime, at, number);
        stream.set_nonblocking(true).unwrap();
        sending.push((stream, HEAD_BYTES_MAX / 2));
        if number % 7 == 0 {
            sending.retain_mut(goes_on);
        }
    }
    while !sending.is_empty() {
        sending.retain_mut(goes_on);
        thread::yield_now();
    }
    reading
}

/// Sends a byte more, unless it has sent as many as a head may have, or was ended, which it is without a word.
fn goes_on((stream, left): &mut (TcpStream, usize)) -> bool {
    if *left > 0 {
        *left -= 1;
        let _ = stream.write(b"x");
    }
    match stream.read(&mut [0; 100]) {
        Ok(0) => false,
        Ok(told) => panic!("a head that never ended has an answer of {told} bytes"),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

#[test]
fn ten_thousand_slow_clients_take_the_slots_that_there_are_and_are_ended_in_time() {
    let _alone = alone();
    let files = open_files();
    let slow = slow_clients(files.saturating_sub(OTHERS));
    let slots = SLOTS.min(files / GATEWAY_SHARE / 2);
    let (repo, path) = with_a_large_file();
    let most = slots.to_string();
    for (key, value) in [
        ("connections_max", most.as_str()),
        ("header_timeout", "2s"),
        ("write_timeout", "2s"),
    ] {
        repo.ok(["config", "set", &format!("gateway.{key}"), value]);
    }
    let daemon = repo.daemon();
    let (at, runtime) = (daemon.gateway(), Runtime::new().unwrap());
    let mut all_taken = false;
    let reading: Vec<TcpStream> = thread::scope(|scope| {
        let (runtime, path) = (&runtime, &path);
        let make = |first| {
            let numbers = (first..slow).step_by(TORMENTORS);
            scope.spawn(move || torment(runtime, at, path, numbers))
        };
        let tormentors: Vec<_> = (0..TORMENTORS).map(make).collect();
        while !tormentors.iter().all(thread::ScopedJoinHandle::is_finished) {
            let open = connections(&daemon);
            assert!(open <= slots, "{open}");
            all_taken |= open == slots;
        }
        let reading = tormentors
            .into_iter()
            .map(|tormentor| tormentor.join().unwrap());
        reading.flatten().collect()
    });
    assert!(all_taken);
    wait_until("all of them to be ended", || {
        connections(&daemon) == 0 && daemon.metric("cairn_gateway_requests_running") == 0.0
    });
    assert_eq!(reading.len(), slow / (SLOW / READERS));
    for stream in reading {
        let answer = http::read(BufReader::new(stream), "GET");
        assert!(answer.is_err(), "a reader that took nothing has all of it");
    }
    assert_eq!(daemon.get("/ipfs/bafkqabtimvwgy3yk", &[]).text(), "hello\n");
}

/// Hosts in every run; more of them by `CAIRN_HOSTS`.
const HOSTS: usize = 100_000;
/// Of those, how many are asked about at a name server: one question each.
const HOSTS_LOOKED_UP: usize = HOSTS / 10;
/// Requests that are sent before the first answer is read.
const AT_ONCE: usize = 100;
/// Requests on one connection.
const PER_CONNECTION: usize = 5000;
/// What all hosts together may leave in memory: remembered lookups, and what the allocator keeps.
const LEFT_BYTES_MAX: usize = 64 << 20;
/// What `/metrics` may have.
const METRICS_BYTES_MAX: usize = 1 << 20;

/// The host of a request, and the status of what is asked for there.
fn host(number: usize) -> (String, u16) {
    match number % 6 {
        0 => (format!("h{number}.example.org"), 404),
        1 => (format!("H{number}.A.Example.ORG:8080"), 404),
        2 => (format!("{}.{number}.example", "x".repeat(60)), 404),
        3 => (format!("single{number}"), 404),
        4 => (format!("no-cid-{number}.ipfs.localhost:8080"), 400),
        _ => (
            format!(
                "10.{}.{}.{}",
                number >> 16 & 255,
                number >> 8 & 255,
                number & 255
            ),
            404,
        ),
    }
}

/// Sends each of these hosts once.
fn send_hosts(at: SocketAddr, numbers: Range<usize>) {
    let numbers: Vec<usize> = numbers.collect();
    for on_one in numbers.chunks(PER_CONNECTION) {
        let mut stream = TcpStream::connect(at).unwrap();
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        for batch in on_one.chunks(AT_ONCE) {
            let heads = batch.iter().map(|number| {
                let host = host(*number).0;
                format!("GET /nothing HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {number}\r\n\r\n")
            });
            stream
                .write_all(heads.collect::<String>().as_bytes())
                .unwrap();
            for number in batch {
                let answer: Answer = http::read(&mut answers, "GET").unwrap();
                let (host, status) = host(*number);
                assert_eq!(answer.status, status, "{host}: {}", answer.text());
            }
        }
    }
}

/// The names and labels of all figures, and how long the page with them is.
fn figures(daemon: &Daemon) -> (BTreeSet<String>, usize) {
    let page = http::request(daemon.rpc(), "GET", "/metrics", &[], b"").unwrap();
    let text = page.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()));
    (names.collect(), text.len())
}

fn leave_nothing_behind(repo: &Repo, hosts: usize) {
    let daemon = repo.daemon();
    let at = daemon.gateway();
    // What is there from the first time on.
    send_hosts(at, 0..2 * AT_ONCE);
    figures(&daemon);
    let (before, _) = figures(&daemon);
    let memory = resident(&daemon);
    let from = 2 * AT_ONCE;
    let each = hosts.div_ceil(SENDERS);
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let start = from + sender * each;
            scope.spawn(move || send_hosts(at, start..start + each));
        }
    });
    let (after, bytes) = figures(&daemon);
    let left = resident(&daemon).saturating_sub(memory);
    println!("{hosts} hosts: {bytes} bytes of metrics, {left} bytes of memory");
    assert_eq!(after, before);
    assert!(bytes < METRICS_BYTES_MAX, "{bytes}");
    assert!(left < LEFT_BYTES_MAX, "{left}");
}

const SENDERS: usize = 4;

/// How many hosts, if somebody asks for more than usual.
#[expect(
    clippy::disallowed_methods,
    reason = "how much is tested, asked for by hand"
)]
fn hosts_wanted() -> usize {
    let wanted = std::env::var("CAIRN_HOSTS").ok();
    wanted.map_or(HOSTS, |wanted| {
        wanted.parse().expect("CAIRN_HOSTS is a number")
    })
}

#[test]
fn hosts_without_number_leave_neither_figures_nor_memory_behind() {
    let _alone = alone();
    leave_nothing_behind(&Repo::new(CAIRN), hosts_wanted());
}

#[test]
fn nor_do_those_that_are_looked_up() {
    let _alone = alone();
    let names = Names::start();
    let repo = Repo::new(CAIRN);
    let table = format!("{{ \".\" = \"udp://{}\" }}", names.at);
    repo.ok(["config", "set", "dns.resolvers", &table]);
    let hosts = HOSTS_LOOKED_UP;
    leave_nothing_behind(&repo, hosts);
    let asked = names.asked();
    // Three of six kinds are names of the public DNS.
    assert!(asked.len() >= hosts / 2, "{}", asked.len());
    assert!(asked.iter().all(|name| name.starts_with("_dnslink.")));
}

/// Domains whose DNSLinks lead anywhere but to content: nobody is called, and the answer says what is wrong.
#[test]
fn a_dnslink_never_makes_the_gateway_call_anybody() {
    let names = Names::start();
    let repo = Repo::new(CAIRN);
    let table = format!("{{ \".\" = \"udp://{}\" }}", names.at);
    repo.ok(["config", "set", "dns.resolvers", &table]);
    let daemon = repo.daemon();
    let inside = TcpListener::bind("127.0.0.1:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let (ip, port) = ("127.0.0.1", inside.local_addr().unwrap().port());
    let peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let no_link = "leads nowhere";
    let values = [
        (format!("/ip4/{ip}/tcp/{port}"), no_link),
        (format!("/ip4/{ip}/tcp/{port}/http"), no_link),
        (format!("/ip4/{ip}/tcp/{port}/p2p/{peer}"), no_link),
        (format!("/ip6/::ffff:{ip}/tcp/{port}"), no_link),
        ("/ip4/169.254.169.254/tcp/80/http".to_owned(), no_link),
        ("/ip6/fd00::1/tcp/80".to_owned(), no_link),
        ("/dnsaddr/inside.example".to_owned(), no_link),
        ("/dns4/localhost/tcp/80".to_owned(), no_link),
        (format!("/p2p/{peer}"), no_link),
        (format!("http://{ip}:{port}/"), no_link),
        (format!("//{ip}:{port}/"), no_link),
        (
            "http://169.254.169.254/latest/meta-data/".to_owned(),
            no_link,
        ),
        ("file:///etc/passwd".to_owned(), no_link),
        ("/etc/passwd".to_owned(), no_link),
        ("/ipfs/".to_owned(), no_link),
        ("/ipns/".to_owned(), no_link),
        ("/ipfs/..".to_owned(), no_link),
        ("/ipfs/bafkqaaa/../..".to_owned(), no_link),
        (format!("/ipfs/{ip}:{port}"), no_link),
        (format!("/ipns/{ip}:{port}"), no_link),
        ("/ipns/[::1]".to_owned(), no_link),
        ("/ipfs/bafkqaaa\r\nSet-Cookie: x=y".to_owned(), no_link),
        ("/ipns/169.254.169.254".to_owned(), "number"),
        (String::new(), no_link),
    ];
    for (at, (value, told)) in values.iter().enumerate() {
        let domain = format!("d{at}.example");
        names.link(&domain, value);
        let answer = daemon.get(&format!("/ipns/{domain}/"), &[("host", ip)]);
        assert_eq!(answer.status, 500, "{value:?}: {}", answer.text());
        assert!(answer.text().contains(told), "{value:?}: {}", answer.text());
        assert_eq!(answer.header("set-cookie"), "", "{value:?}");
        // No site of its own: the same as any other name.
        let answer = daemon.get("/x", &[("host", &domain)]);
        assert_eq!(answer.status, 404, "{value:?}: {}", answer.text());
    }
    // Links, which lead in a circle, to a name that is none, or on and on.
    names.link("self.example", "/ipns/self.example");
    names.link("round.example", "/ipns/self.example/x");
    names.link("local.example", "/ipns/localhost");
    for at in 0..100 {
        names.link(
            &format!("on{at}.example"),
            &format!("/ipns/on{}.example", at + 1),
        );
    }
    for (domain, told) in [
        ("self.example", "circle"),
        ("round.example", "circle"),
        ("local.example", no_link),
        ("on0.example", "more than"),
    ] {
        for (path, host) in [(format!("/ipns/{domain}/"), ip), ("/".to_owned(), domain)] {
            let answer = daemon.get(&path, &[("host", host)]);
            assert_eq!(answer.status, 500, "{domain}: {}", answer.text());
            assert!(answer.text().contains(told), "{domain}: {}", answer.text());
        }
    }
    // More than anybody needs: one text of 64 KiB, texts of 64 KiB, thousands of them.
    let link = || "dnslink=/ipfs/bafkqaaa".to_owned();
    let long = "x".repeat(60_000);
    names.texts("long.example", vec![format!("dnslink=/ipfs/{long}")]);
    names.texts(
        "wide.example",
        std::iter::repeat_with(|| "y".repeat(2000))
            .take(30)
            .chain([link()])
            .collect(),
    );
    names.texts(
        "many.example",
        std::iter::repeat_with(link).take(1500).collect(),
    );
    names.texts(
        "huge.example",
        std::iter::repeat_with(link).take(9000).collect(),
    );
    for (domain, of_the_name, of_the_host, told) in [
        ("long.example", 500, 404, "longer than 2048 bytes"),
        ("wide.example", 200, 404, ""),
        ("many.example", 500, 503, "no more than 256 are read"),
        ("huge.example", 500, 503, "cut off"),
    ] {
        let answer = daemon.get(&format!("/ipns/{domain}/"), &[("host", ip)]);
        assert_eq!(answer.status, of_the_name, "{domain}: {}", answer.text());
        assert!(answer.text().contains(told), "{domain}: {}", answer.text());
        assert!(answer.text().len() < 4096, "{domain}");
        let answer = daemon.get("/x", &[("host", domain)]);
        assert_eq!(answer.status, of_the_host, "{domain}: {}", answer.text());
    }
    let nobody = inside.accept().map(|(_, from)| from);
    assert_eq!(nobody.unwrap_err().kind(), ErrorKind::WouldBlock);
    // Nor is anything asked for but links, of these names alone.
    let asked = names.asked();
    let is_a_link = |name: &String| name.starts_with("_dnslink.") && name.ends_with(".example.");
    assert!(asked.iter().all(is_a_link), "{asked:?}");
    assert!(
        asked.len() < 2 * (values.len() + 4) + 100,
        "{}",
        asked.len()
    );
}
