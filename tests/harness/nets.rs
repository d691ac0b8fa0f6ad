//! Network namespaces of a test's own: hosts in the open, homes behind routers, no way out of them.
//!
//! All that is in the open hangs on one bridge, which is in a namespace itself. The addresses are those set
//! aside for documentation, unless a test asks for others. Everything goes with [`Nets`], also when the test fails.

use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The namespaces of one test.
#[derive(Debug)]
pub struct Nets {
    prefix: String,
    made: Vec<String>,
    running: Vec<Child>,
}

/// One host: what runs in its namespace.
#[derive(Debug, Clone)]
pub struct Host {
    /// The namespace's name.
    pub name: String,
    /// The address at its first cable.
    pub address: String,
}

/// How a router treats what comes from inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// Every port keeps its number, and whatever comes to one is let in.
    FullCone,
    /// Every port keeps its number; only answers are let in.
    PortRestricted,
    /// Every connection gets a port at random; only answers are let in.
    Symmetric,
}

static COUNT: AtomicU32 = AtomicU32::new(0);
static CABLES: AtomicU32 = AtomicU32::new(0);

impl Nets {
    /// With a bridge, and nothing on it. `None`, and said so, where this user may make none.
    pub fn new() -> Option<Self> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut nets = Self {
            prefix: format!("cairn-{}-{count}", std::process::id()),
            made: Vec::new(),
            running: Vec::new(),
        };
        if let Err(why) = nets.open_bridge() {
            crate::tell_skipped(&format!("no network namespaces here: {why}"));
            return None;
        }
        Some(nets)
    }

    fn open_bridge(&mut self) -> Result<(), String> {
        let bridge = self.try_namespace("open")?;
        self.try_in(
            &bridge,
            "ip link add name br0 type bridge && ip link set br0 up",
        )?;
        // What a router does in the tests, tried once.
        self.try_in(
            &bridge,
            "iptables-legacy -t nat -L -n && iptables-legacy -L -n",
        )
    }

    /// A host in the open.
    pub fn host(&mut self, name: &str, address: &str) -> Host {
        let host = self.namespace(name);
        let open = self.name("open");
        self.cable((&host, "wan"), (&open, &format!("to-{name}")));
        self.run(&open, &format!("ip link set to-{name} master br0"));
        self.run(
            &host,
            &format!(
                "ip addr add {address}/24 dev wan && \
                 for net in 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 {OTHER}; \
                 do ip route replace $net dev wan src {address}; done"
            ),
        );
        Host {
            name: host,
            address: address.to_owned(),
        }
    }

    /// A router in the open at `outside`, and a home behind it. Gives both.
    pub fn home(&mut self, name: &str, outside: &str, nat: Nat) -> (Host, Host) {
        let router = self.host(&format!("{name}r"), outside);
        let home = self.namespace(name);
        self.cable((&home, "lan"), (&router.name, "lan"));
        self.run(
            &router.name,
            "ip addr add 10.0.1.1/24 dev lan && sysctl -q net.ipv4.ip_forward=1",
        );
        self.run(
            &home,
            "ip addr add 10.0.1.2/24 dev lan && ip route add default via 10.0.1.1",
        );
        let random = if nat == Nat::Symmetric {
            "--random-fully"
        } else {
            ""
        };
        self.run(
            &router.name,
            &format!("iptables-legacy -t nat -A POSTROUTING -o wan -j MASQUERADE {random}"),
        );
        match nat {
            Nat::FullCone => self.run(
                &router.name,
                "iptables-legacy -t nat -A PREROUTING -i wan -j DNAT --to-destination 10.0.1.2",
            ),
            Nat::PortRestricted | Nat::Symmetric => self.run(
                &router.name,
                "iptables-legacy -A INPUT -i wan -m conntrack --ctstate NEW,INVALID -j DROP && \
                 iptables-legacy -A FORWARD -i wan -m conntrack --ctstate NEW,INVALID -j DROP",
            ),
        }
        let home = Host {
            name: home,
            address: "10.0.1.2".to_owned(),
        };
        (router, home)
    }

    /// A namespace with nothing but loopback.
    pub fn namespace(&mut self, name: &str) -> String {
        self.try_namespace(name).expect("a namespace")
    }

    fn try_namespace(&mut self, name: &str) -> Result<String, String> {
        let full = self.name(name);
        run(Command::new("ip").args(["netns", "add", &full]))?;
        self.made.push(full.clone());
        // Without IPv6, in which interfaces speak unasked.
        self.try_in(
            &full,
            "sysctl -q net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 && \
             ip link set lo up",
        )?;
        Ok(full)
    }

    fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// A cable between two namespaces; both of its ends are up.
    pub fn cable(&self, one: (&str, &str), other: (&str, &str)) {
        // Both ends begin where every test can see them.
        let count = CABLES.fetch_add(1, Ordering::Relaxed);
        let ends = [0, 1].map(|end| format!("c{}n{count}e{end}", std::process::id()));
        let [a, b] = &ends;
        let made =
            run(Command::new("ip")
                .args(["link", "add", "name", a, "type", "veth", "peer", "name", b]));
        made.expect("a cable");
        for (end, (namespace, name)) in ends.iter().zip([one, other]) {
            run(Command::new("ip").args(["link", "set", end, "netns", namespace, "name", name]))
                .expect("a cable's end");
            self.run(namespace, &format!("ip link set {name} up"));
        }
    }

    /// A program that runs in a namespace until this goes.
    pub fn start(&mut self, namespace: &str, program: &[&str]) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).args(program);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn();
        self.running.push(child.expect("a program"));
    }

    /// Packets that went out at one end of a cable.
    pub fn packets_out(&self, namespace: &str, device: &str) -> u64 {
        let line = format!("cat /sys/class/net/{device}/statistics/tx_packets");
        self.output(namespace, &line).parse().expect("a number")
    }

    /// Runs a line of shell in a namespace; fails the test unless it succeeds.
    #[track_caller]
    pub fn run(&self, namespace: &str, line: &str) {
        if let Err(why) = self.try_in(namespace, line) {
            panic!("{line}: {why}");
        }
    }

    /// What a line of shell in a namespace prints.
    #[track_caller]
    fn output(&self, namespace: &str, line: &str) -> String {
        let output = shell(namespace, line).output().expect("spawn");
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn try_in(&self, namespace: &str, line: &str) -> Result<(), String> {
        run(&mut shell(namespace, line))
    }
}

impl Host {
    /// What a program is run by to run there.
    pub fn runner(&self) -> [String; 4] {
        ["ip", "netns", "exec", &self.name].map(str::to_owned)
    }
}

impl Drop for Nets {
    fn drop(&mut self) {
        for mut child in self.running.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in self.made.drain(..) {
            // Cables go with their ends.
            let _ = run(Command::new("ip").args(["netns", "del", &name]));
        }
    }
}

fn shell(namespace: &str, line: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "sh", "-c", line]);
    command
}

fn run(command: &mut Command) -> Result<(), String> {
    let output: Output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(why.trim().replace('\n', ", "))
}

/// Where routers take an address for one of the open network, which they do not with those for documentation.
const OTHER: &str = "5.5.5.0/24";
