//! What a web server does with the same file: nginx over TLS on loopback, and `curl`.

use crate::process::{foreign, is_installed, run, seconds};
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
        // Free a moment ago, and nobody else is meant to work here.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let conf = folder.join("conf");
        fs::write(&conf, configuration(folder, root, port)).expect("configuration");
        let log = fs::File::create(folder.join("log")).expect("log");
        let child = foreign("nginx")
            .arg("-c")
            .arg(&conf)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("spawn");
        let server = Self {
            child,
            port,
            folder: folder.to_owned(),
        };
        server.wait();
        Some(server)
    }

    fn wait(&self) {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if start.elapsed() > LISTENS_WITHIN {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                panic!("nginx does not listen: {log}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
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
