//! A network of the bench's own: hosts in network namespaces, on one bridge that leads nowhere else.
//!
//! The namespaces have no names: each lives as long as the process that holds it, which ends with
//! the bench. So nothing is left, however a bench ends.

use crate::process::{Talking, child, foreign, is_installed};
use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The bridge, and what hangs on it.
#[derive(Debug)]
pub struct Net {
    hub: Talking,
    joined: u8,
}

/// A host on the bridge.
#[derive(Debug)]
pub struct Host {
    holder: Talking,
    number: u8,
}

impl Net {
    /// An empty network, or why there can be none.
    pub fn new() -> Result<Self, String> {
        for program in ["unshare", "nsenter", "setpriv", "ip", "tc"] {
            if !is_installed(program) {
                return Err(format!("{program} is not installed"));
            }
        }
        if !rustix::process::geteuid().is_root() {
            return Err("only root may make network namespaces".to_owned());
        }
        let net = Self {
            hub: holder("the hub"),
            joined: 0,
        };
        let bridge = format!(
            "ip link set lo up && ip link add {BRIDGE} type bridge \
             && ip addr add {}/24 dev {BRIDGE} && ip link set {BRIDGE} up",
            net.hub_ip()
        );
        shell(&net.hub, &bridge)?;
        Ok(net)
    }

    /// One more host. What it sends is held to `mbit` megabits a second; 0 for no limit.
    pub fn host(&mut self, mbit: u64) -> Host {
        self.joined += 1;
        let host = Host {
            holder: holder("a host"),
            number: self.joined,
        };
        let (port, id, ip) = (host.port(), host.holder.id(), host.ip());
        let join = format!(
            "ip link add {port} type veth peer name {INTERFACE} netns {id} \
             && ip link set {port} master {BRIDGE} up"
        );
        shell(&self.hub, &join).expect("a port of the bridge");
        let up = format!(
            "ip link set lo up && ip addr add {ip}/24 dev {INTERFACE} && ip link set {INTERFACE} up"
        );
        shell(&host.holder, &up).expect("an interface");
        if mbit > 0 {
            let shape = format!(
                "tc qdisc add dev {INTERFACE} root tbf rate {mbit}mbit burst {BURST} latency {QUEUE}"
            );
            shell(&host.holder, &shape).expect("a shape");
        }
        host
    }

    /// Takes a host off the bridge: nobody is told, it just does not answer any more.
    pub fn cut(&self, host: &Host) {
        let cut = format!("ip link set {} down", host.port());
        shell(&self.hub, &cut).expect("a port that goes down");
    }

    /// The hub's own address on the bridge.
    pub fn hub_ip(&self) -> Ipv4Addr {
        ip(HUB)
    }

    /// A command, to be run at the hub.
    pub fn at_hub(&self, command: &Command) -> Command {
        inside(&self.hub, command)
    }
}

impl Host {
    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        ip(FIRST + self.number)
    }

    /// A command, to be run there.
    pub fn at(&self, command: &Command) -> Command {
        inside(&self.holder, command)
    }

    /// Bytes that left it, with all their headers.
    pub fn sent_bytes(&self) -> u64 {
        let mut show = Command::new("ip");
        show.args(["-s", "-j", "link", "show", "dev", INTERFACE]);
        let text = crate::process::output(&mut self.at(&show));
        let bytes = text.split_once(r#""tx":{"bytes":"#).map(|(_, rest)| rest);
        let digits =
            bytes.and_then(|rest| rest.split(|digit: char| !digit.is_ascii_digit()).next());
        digits
            .and_then(|digits| digits.parse().ok())
            .expect("a count of bytes")
    }

    fn port(&self) -> String {
        format!("port{}", self.number)
    }
}

/// Bytes a second that come from all of `hosts` at once over plain TCP, one connection each: what
/// their shapes let through, headers taken off.
pub fn plain_rate(hosts: &[&Host], taker: &Host) -> f64 {
    let mut pourers = Vec::new();
    let mut from = Vec::new();
    for host in hosts {
        let mut pourer = Talking::start("a source", &mut host.at(&child(POURER, &[&host.ip()])));
        from.push(pourer.hear("pours at", SOON));
        pourers.push(pourer);
    }
    let given: Vec<&dyn Display> = from.iter().map(|address| address as &dyn Display).collect();
    let mut drinker = Talking::start("a sink", &mut taker.at(&child(DRINKER, &given)));
    let rate = drinker.hear("drank", SOON);
    rate.parse().expect("a rate")
}

/// The part of a child that gives bytes to whoever connects, at the address it was given.
pub fn pour(given: &[String]) {
    let [ip] = given else {
        panic!("an address: {given:?}");
    };
    let listener = TcpListener::bind((ip.as_str(), 0)).expect("bind");
    println!("pours at {}", listener.local_addr().expect("bound"));
    let (mut socket, _) = listener.accept().expect("accept");
    let chunk = vec![7; 256 << 10];
    while socket.write_all(&chunk).is_ok() {}
}

/// The part of a child that takes from all it was given, and tells how fast it came.
pub fn drink(given: &[String]) {
    let bytes = Arc::new(AtomicU64::new(0));
    for address in given {
        let bytes = Arc::clone(&bytes);
        let mut socket = TcpStream::connect(address).expect("connect");
        std::thread::spawn(move || {
            let mut buffer = vec![0; 256 << 10];
            loop {
                let read = socket.read(&mut buffer).expect("read");
                assert!(read > 0, "a source ended");
                bytes.fetch_add(read as u64, Ordering::Relaxed);
            }
        });
    }
    // Not what the sockets hold already, nor a start that is faster than the shape.
    std::thread::sleep(DRINK_AFTER);
    let (before, start) = (bytes.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(DRINK_FOR);
    let drunk = bytes.load(Ordering::Relaxed) - before;
    println!("drank {}", drunk as f64 / start.elapsed().as_secs_f64());
}

/// The part of a child that holds a namespace.
pub fn hold() {
    println!("held");
    // Until the bench lets go.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

fn holder(name: &str) -> Talking {
    let holding = child(HOLDER, &[]);
    let mut command = foreign("unshare");
    command.args(["--net", "--"]).arg(holding.get_program());
    command.args(holding.get_args());
    let mut holder = Talking::start(name, &mut command);
    holder.hear("held", Duration::from_secs(10));
    holder
}

fn inside(holder: &Talking, command: &Command) -> Command {
    let mut entered = Command::new("nsenter");
    entered.arg(format!("--net=/proc/{}/ns/net", holder.id()));
    entered.arg("--").arg(command.get_program());
    entered.args(command.get_args());
    entered.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
    entered
}

fn shell(holder: &Talking, script: &str) -> Result<(), String> {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    let output = inside(holder, &command)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn ip(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// The part that [`hold`] plays.
pub const HOLDER: &str = "hold";
/// The part that [`pour`] plays.
pub const POURER: &str = "pour";
/// The part that [`drink`] plays.
pub const DRINKER: &str = "drink";
const SOON: Duration = Duration::from_secs(60);
const DRINK_AFTER: Duration = Duration::from_secs(1);
const DRINK_FOR: Duration = Duration::from_secs(3);
const BRIDGE: &str = "bridge0";
const INTERFACE: &str = "eth0";
const HUB: u8 = 1;
/// Hosts are numbered after this.
const FIRST: u8 = 10;
/// More than the largest packet that the kernel hands a driver, or it would be cut small first.
const BURST: &str = "128kb";
/// How long a packet may wait for its turn, as in a home router.
const QUEUE: &str = "100ms";
