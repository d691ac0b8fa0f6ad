//! nginx and haproxy as operators put them in front of a gateway: with connections that are kept, a folder of their own,
//! and a socket in it that nobody else finds. Nothing of the system's own nginx or haproxy is touched.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// nginx, which keeps connections to the gateway and hands bodies on as they come.
    Nginx,
    /// nginx as it is without a word about the version of HTTP: it asks with 1.0, a connection for each request.
    NginxOld,
    /// haproxy, which lets every client have every connection to the gateway.
    Haproxy,
    /// The same, told to let requests pass that it takes for wrong.
    HaproxyLenient,
}

/// A proxy at work. Killed when dropped.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    folder: TempDir,
}

impl Proxy {
    /// Starts one in front of a gateway. `None`, and said so, where it is not installed; where all tests must run
    /// (`CAIRN_SKIP_NOTHING`), that fails.
    pub fn start(kind: Kind, gateway: SocketAddr) -> Option<Self> {
        let program = match kind {
            Kind::Nginx | Kind::NginxOld => "nginx",
            Kind::Haproxy | Kind::HaproxyLenient => "haproxy",
        };
        let Some(program) = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"]
            .map(|folder| PathBuf::from(folder).join(program))
            .into_iter()
            .find(|path| path.exists())
        else {
            let why = format!("{program} is not installed; Debian's package is called so");
            assert!(std::env::var_os("CAIRN_SKIP_NOTHING").is_none(), "{why}");
            crate::tell_skipped(&why);
            return None;
        };
        let folder = tempfile::tempdir().expect("temporary folder");
        let at = folder.path().display().to_string();
        let text = match kind {
            Kind::Nginx => nginx(&at, gateway, KEPT),
            Kind::NginxOld => nginx(&at, gateway, ""),
            Kind::Haproxy => haproxy(&at, gateway, ""),
            Kind::HaproxyLenient => haproxy(&at, gateway, "option accept-invalid-http-request"),
        };
        std::fs::write(folder.path().join("conf"), text).expect("configuration");
        let log = std::fs::File::create(folder.path().join("log")).expect("log");
        // It ends with the test, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        match kind {
            Kind::Nginx | Kind::NginxOld => command.arg("-e").arg("stderr").arg("-c"),
            Kind::Haproxy | Kind::HaproxyLenient => command.arg("-db").arg("-f"),
        };
        let child = command
            .arg(folder.path().join("conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("spawn");
        let mut proxy = Self { child, folder };
        crate::wait_until("the proxy to listen", || {
            let ended = proxy.child.try_wait().expect("wait");
            assert!(ended.is_none(), "it ended: {}", proxy.log());
            UnixStream::connect(proxy.socket()).is_ok()
        });
        Some(proxy)
    }

    /// A connection to it.
    pub fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).expect("connect")
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill(); // Ended already, if it could not start.
        let _ = self.child.wait();
    }
}

/// One process, so that there is none to be left behind.
fn nginx(folder: &str, gateway: SocketAddr, location: &str) -> String {
    format!(
        "daemon off; master_process off; user root; pid {folder}/pid; events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream gateway {{ server {gateway}; keepalive 1; }}
    server {{
        listen unix:{folder}/socket;
        location / {{
            proxy_pass http://gateway; proxy_set_header Host $http_host;
            proxy_request_buffering off; proxy_ignore_client_abort on; {location}
        }}
    }}
}}
"
    )
}

const KEPT: &str = "proxy_http_version 1.1; proxy_set_header Connection \"\";";

fn haproxy(folder: &str, gateway: SocketAddr, front: &str) -> String {
    format!(
        "global
    nbthread 1
    maxconn 512
defaults
    mode http
    timeout connect 60s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend front
    bind unix@{folder}/socket
    {front}
    default_backend back
backend back
    server gateway {gateway}
"
    )
}
