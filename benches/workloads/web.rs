//! What a web server does with the same files: nginx on loopback, over TLS and without; `curl` and `wrk`.

use crate::process::{foreign, is_installed, output, run, seconds};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A web server at work. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Server {
    /// Serves the files of `root`, with its own files in `folder`; or says what is missing.
    pub fn start(folder: &Path, root: &Path) -> Option<Self> {
        for program in ["nginx", "curl", "openssl", "setpriv"] {
            if !is_installed(program) {
                println!("  skipped: curl from nginx, since {program} is not installed");
                return None;
            }
        }
        fs::create_dir(folder).expect("folder");
        let (key, certificate) = (folder.join("key"), folder.join("certificate"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
        openssl.args([
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=localhost",
        ]);
        openssl
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate);
        run(openssl.stderr(Stdio::null()));
        let port = free_port();
        let child = nginx(folder, &configuration(folder, root, port));
        let server = Self {
            child,
            port,
            folder: folder.to_owned(),
        };
        wait(port, folder);
        Some(server)
    }

    /// Seconds that `curl` takes to get a file and write it to the disk, as a fetch does.
    pub fn seconds(&self, name: &str) -> f64 {
        let got = self.folder.join("got");
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--fail",
            "--insecure",
            "--max-time",
            "600",
        ]);
        curl.arg("--output").arg(&got);
        curl.arg(format!("https://127.0.0.1:{}/{name}", self.port));
        let seconds = seconds(|| run(&mut curl));
        fs::remove_file(got).expect("remove");
        seconds
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // Ended already, if it could not start.
        let _ = self.child.wait();
    }
}

/// nginx without TLS, a process for each core, serving what it is given under `/ipfs/<cid>`. Killed when dropped.
#[derive(Debug)]
pub struct Plain {
    child: Child,
    port: u16,
    root: PathBuf,
}

impl Plain {
    /// Starts it, with its own files in `folder`.
    pub fn start(folder: &Path) -> Self {
        let root = folder.join("root");
        fs::create_dir_all(root.join("ipfs")).expect("folders");
        let port = free_port();
        let child = nginx(folder, &plain_configuration(folder, &root, port));
        let server = Self { child, port, root };
        wait(port, folder);
        server
    }

    /// Serves a file or a folder as this CID.
    pub fn serve(&self, cid: &str, path: &Path) {
        let link = self.root.join("ipfs").join(cid);
        if !link.exists() {
            std::os::unix::fs::symlink(path, link).expect("link");
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // Its workers end when the first process is asked to; killed, it would leave them.
        run(Command::new("kill").arg(self.child.id().to_string()));
        let _ = self.child.wait();
    }
}

/// What came of loading a server for a while.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Answers a second.
    pub requests_a_second: f64,
    /// Answers in all.
    pub requests: u64,
    /// What 99 of 100 took at most.
    pub p99_milliseconds: f64,
    /// Connections that failed, answers that did not come, and statuses that are errors.
    pub errors: u64,
}

impl Load {
    /// Loads a port of loopback for so many seconds. A line of `list` is an address, and a tab and a range if only
    /// that is asked for; each connection starts elsewhere in it.
    pub fn run(port: u16, list: &Path, headers: &[&str], connections: u64, time: u64) -> Self {
        let script = list.with_extension("lua");
        fs::write(&script, SCRIPT).expect("script");
        let mut wrk = foreign("wrk");
        wrk.env("LIST", list);
        wrk.args(["--latency", "--timeout", "30s", "-t", "2"]);
        wrk.arg("-c").arg(connections.to_string());
        wrk.arg("-d").arg(format!("{time}s"));
        for header in headers {
            wrk.arg("-H").arg(header);
        }
        wrk.arg("-s").arg(&script);
        let told = output(wrk.arg(format!("http://127.0.0.1:{port}/")));
        Self::read(&told).unwrap_or_else(|| panic!("wrk says {told}"))
    }

    fn read(told: &str) -> Option<Self> {
        let after = |name: &str| {
            let line = told
                .lines()
                .find(|line| line.trim_start().starts_with(name))?;
            Some(line.trim_start().strip_prefix(name)?.trim().to_owned())
        };
        let milliseconds = |text: &str| {
            let split = text.find(|char: char| char.is_ascii_alphabetic())?;
            let number: f64 = text.get(..split)?.parse().ok()?;
            match text.get(split..)? {
                "us" => Some(number / 1e3),
                "ms" => Some(number),
                "s" => Some(number * 1e3),
                _ => None,
            }
        };
        let numbers = |text: String| -> u64 {
            let digits = text.split(|char: char| !char.is_ascii_digit());
            digits.filter_map(|digits| digits.parse::<u64>().ok()).sum()
        };
        let counted = told.lines().find(|line| line.contains(" requests in "))?;
        Some(Self {
            requests: counted.split_whitespace().next()?.parse().ok()?,
            requests_a_second: after("Requests/sec:")?.parse().ok()?,
            p99_milliseconds: milliseconds(&after("99%")?)?,
            errors: after("Socket errors:").map_or(0, numbers)
                + after("Non-2xx or 3xx responses:").map_or(0, numbers),
        })
    }
}

/// Whether all programs that [`Plain`] and [`Load`] need are here; says which are not.
pub fn is_ready() -> bool {
    let missing = ["nginx", "wrk", "curl", "setpriv"]
        .into_iter()
        .find(|program| !is_installed(program));
    if let Some(program) = missing {
        println!("  skipped: {program} is not installed");
    }
    missing.is_none()
}

/// Starts nginx with this configuration; what it complains of goes into a log in `folder`.
fn nginx(folder: &Path, configuration: &str) -> Child {
    let conf = folder.join("conf");
    fs::write(&conf, configuration).expect("configuration");
    let log = fs::File::create(folder.join("log")).expect("log");
    foreign("nginx")
        .arg("-c")
        .arg(&conf)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("spawn")
}

/// Free a moment ago, and nobody else is meant to work here.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0");
    let address = listener.and_then(|listener| listener.local_addr());
    address.expect("a free port").port()
}

fn wait(port: u16, folder: &Path) {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if start.elapsed() > LISTENS_WITHIN {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            panic!("nginx does not listen: {log}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn plain_configuration(folder: &Path, root: &Path, port: u16) -> String {
    let (folder, root) = (folder.display(), root.display());
    format!(
        "daemon off; user root; worker_processes auto; pid {folder}/pid; error_log stderr;
worker_rlimit_nofile 20000; events {{ worker_connections 8192; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; keepalive_timeout 600s;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port} backlog=8192; root {root}; }}
}}
"
    )
}

fn configuration(folder: &Path, root: &Path, port: u16) -> String {
    let (folder, root) = (folder.display(), root.display());
    // One process, so that there is none to be left behind; the temporary folders are never used.
    format!(
        "daemon off; master_process off; user root; pid {folder}/pid; error_log stderr; events {{}}
http {{
    access_log off; sendfile on;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/certificate; ssl_certificate_key {folder}/key;
        root {root};
    }}
}}
"
    )
}

/// How long nginx may take until it listens, and how often that is tried: all it says by itself is
/// what went wrong.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What `wrk` asks for: the lines of a list in their order, each thread from another place on.
const SCRIPT: &str = r#"
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end
local requests, at = {}, 0
function init(args)
  for line in io.lines(os.getenv("LIST")) do
    local path, range = line:match("^([^\t]*)\t(.*)$")
    local headers = {}
    for name, value in pairs(wrk.headers) do headers[name] = value end
    if range then headers["Range"] = range end
    requests[#requests + 1] = wrk.format("GET", path or line, headers)
  end
  at = number * 7919
end
function request()
  at = at + 1
  return requests[at % #requests + 1]
end
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let told = "  Latency Distribution\n     50%  622.00us\n     99%    1.95ms\n  10 requests in 1s\n\
                    \x20 Socket errors: connect 1, read 2, write 0, timeout 3\n  Non-2xx or 3xx responses: 4\n\
                    Requests/sec:  52112.27\nTransfer/sec: 1MB\n";
        let load = Load::read(told).unwrap();
        assert_eq!(load.requests_a_second, 52_112.27);
        assert_eq!(load.p99_milliseconds, 1.95);
        assert_eq!((load.requests, load.errors), (10, 10));
        assert!(Load::read("wrk: nobody is there").is_none());
    }
}
