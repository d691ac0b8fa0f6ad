//! Peers that do not keep to the handshake, and connections that do not end well: what comes over
//! the socket is made by hand, so that nothing here depends on how our side is built.
//!
//! Whatever they send, nobody panics, nobody is taken for a peer that is none, what is given up is
//! counted, and an honest peer connects afterwards.

use super::*;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use futures::{AsyncRead, AsyncWrite};
use futures_rustls::{TlsAcceptor, TlsConnector};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::sign;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};

/// What a stranger shows instead of what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Right,
    Expired,
    NotYetValid,
    NoExtension,
    /// The proof is another peer's, made for another certificate.
    SomebodyElsesProof,
    /// The proof names a peer whose key did not sign it.
    WrongKey,
    GarbledExtension,
    /// The same, behind another.
    TwoCertificates,
    NoCertificate,
}

const WRONG: [Shown; 8] = [
    Shown::Expired,
    Shown::NotYetValid,
    Shown::NoExtension,
    Shown::SomebodyElsesProof,
    Shown::WrongKey,
    Shown::GarbledExtension,
    Shown::TwoCertificates,
    Shown::NoCertificate,
];

const EXTENSION: [u64; 9] = [1, 3, 6, 1, 4, 1, 53594, 1, 1];

/// One of ASN.1's values of fewer than 64 KiB.
fn asn1(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match (high, low) {
        (0, low) if low < 0x80 => vec![low],
        (0, low) => vec![0x81, low],
        (high, low) => vec![0x82, high, low],
    };
    [&[tag][..], &length[..], content].concat()
}

/// The certificate extension that says who it is: `named`, as `signer` says of `certificate`.
fn proof(named: &Keypair, signer: &Keypair, certificate: &KeyPair) -> CustomExtension {
    let said = [
        &b"libp2p-tls-handshake:"[..],
        &certificate.public_key_der()[..],
    ]
    .concat();
    let public = asn1(4, &named.public().encode_protobuf());
    let signature = asn1(4, &signer.sign(&said).unwrap());
    CustomExtension::from_oid_content(&EXTENSION, asn1(0x30, &[public, signature].concat()))
}

fn certificate(shown: Shown, keys: &Keypair) -> Arc<CertifiedKey> {
    let other = Keypair::generate_ed25519();
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let extension = match shown {
        Shown::NoExtension => None,
        Shown::SomebodyElsesProof => Some(proof(&other, &other, &KeyPair::generate().unwrap())),
        Shown::WrongKey => Some(proof(&other, keys, &pair)),
        Shown::GarbledExtension => {
            let garbled = vec![0x30, 0x82, 0xff, 0xff, 4, 2];
            Some(CustomExtension::from_oid_content(&EXTENSION, garbled))
        }
        _ => Some(proof(keys, keys, &pair)),
    };
    params.custom_extensions.extend(extension);
    match shown {
        Shown::Expired => params.not_after = rcgen::date_time_ymd(2001, 1, 1),
        Shown::NotYetValid => params.not_before = rcgen::date_time_ymd(2999, 1, 1),
        _ => {}
    }
    let one = params.self_signed(&pair).unwrap().der().clone();
    let chain = match shown {
        Shown::TwoCertificates => vec![one.clone(), one],
        _ => vec![one],
    };
    let key = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
    let key = sign::any_supported_type(&key).unwrap();
    Arc::new(CertifiedKey::new(chain, key))
}

/// Shows what it was told to.
#[derive(Debug)]
struct Liar(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Liar {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Liar {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

const ALPN: &[&[u8]] = &[b"libp2p"];

fn liar(shown: Shown, keys: &Keypair) -> Arc<Liar> {
    let shows = (shown != Shown::NoCertificate).then(|| certificate(shown, keys));
    Arc::new(Liar(shows))
}

/// The library's own caller, but for what it shows and means.
fn caller(shown: Shown, alpn: &[&[u8]]) -> TlsConnector {
    let keys = Keypair::generate_ed25519();
    let mut config = tls::make_client_config(&keys, None).unwrap();
    config.client_auth_cert_resolver = liar(shown, &keys);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.enable_sni = false;
    TlsConnector::from(Arc::new(config))
}

/// The library's own listener, but for what it shows.
fn called(shown: Shown, keys: &Keypair) -> TlsAcceptor {
    let mut config = tls::make_server_config(keys).unwrap();
    config.cert_resolver = liar(shown, keys);
    TlsAcceptor::from(Arc::new(config))
}

type Socket = Compat<TcpStream>;

/// How multistream-select begins, and what follows.
fn line(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap();
    [&[length][..], text.as_bytes(), b"\n"].concat()
}

fn hello() -> Vec<u8> {
    line("/multistream/1.0.0")
}

async fn dial(node: &TestNode) -> Socket {
    let address = node.peers.listening().await.remove(0);
    let mut parts = address.iter();
    let (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) = (parts.next(), parts.next()) else {
        panic!("{address}");
    };
    TcpStream::connect((ip, port)).await.unwrap().compat()
}

/// Dials and agrees on a security protocol; what comes then is ours.
async fn dial_for(node: &TestNode, security: &str) -> Socket {
    let mut socket = dial(node).await;
    let proposal = [hello(), line(security)].concat();
    socket.write_all(&proposal).await.unwrap();
    let mut answer = vec![0; proposal.len()];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, proposal);
    socket
}

/// Whether the other end goes on to the next protocol, as with somebody that it believes.
async fn is_believed<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> bool {
    let mut answer = vec![0; hello().len()];
    let asked = stream.write_all(&hello()).await.is_ok() && stream.flush().await.is_ok();
    asked && stream.read_exact(&mut answer).await.is_ok() && answer == hello()
}

async fn calls(node: &TestNode, shown: Shown, alpn: &[&[u8]]) -> bool {
    let socket = dial_for(node, "/tls/1.0.0").await;
    let name = ServerName::try_from("nobody").unwrap();
    match caller(shown, alpn).connect(name, socket).await {
        Ok(stream) => timeout(WATCHDOG, is_believed(stream)).await.unwrap(),
        Err(_) => false,
    }
}

/// The node calls somebody who answers like this: whether it believes, and says so.
async fn is_called(node: &TestNode, shown: Shown) -> (bool, bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let keys = Keypair::generate_ed25519();
    let peer = keys.public().to_peer_id();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{peer}")
        .parse()
        .unwrap();
    let answer = async {
        let mut socket = listener.accept().await.unwrap().0.compat();
        let proposal = [hello(), line("/tls/1.0.0")].concat();
        let mut asked = vec![0; proposal.len()];
        socket.read_exact(&mut asked).await.unwrap();
        assert_eq!(asked, proposal);
        socket.write_all(&proposal).await.unwrap();
        let Ok(mut stream) = called(shown, &keys).accept(socket).await else {
            return false;
        };
        if !timeout(WATCHDOG, is_believed(&mut stream)).await.unwrap() {
            return false;
        }
        // What it speaks then, so that it has a connection for a moment.
        drop(stream.write_all(&line("/yamux/1.0.0")).await);
        drop(stream.flush().await);
        true
    };
    let (connected, believed) = futures::join!(node.peers.connect(address), answer);
    (believed, connected.is_ok())
}

/// Somebody honest connects, and nothing broke.
async fn is_well(mut node: TestNode) {
    let alone = async {
        while !node.peers.connected().await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(WATCHDOG, alone).await.expect("nobody left in time");
    let mut honest = TestNode::start(&[TCP]).await;
    honest.join(&mut node).await;
    node.stop().await;
    honest.stop().await;
}

async fn until_failed(node: &TestNode, count: f64) {
    let wait = async {
        while node.metric("cairn_arrivals_failed_total") < count {
            tokio::task::yield_now().await;
        }
    };
    timeout(WATCHDOG, wait).await.expect("a count in time");
}

#[tokio::test]
async fn a_caller_is_believed_with_a_certificate_that_proves_who_it_is_and_no_other() {
    let node = TestNode::start(&[TCP]).await;
    assert!(calls(&node, Shown::Right, ALPN).await);
    for shown in WRONG {
        assert!(!calls(&node, shown, ALPN).await, "{shown:?}");
    }
    until_failed(&node, WRONG.len() as f64).await;
    is_well(node).await;
}

#[tokio::test]
async fn who_is_called_is_believed_with_such_a_certificate_and_no_other() {
    let node = TestNode::start(&[TCP]).await;
    let (believed, _) = is_called(&node, Shown::Right).await;
    assert!(believed);
    for shown in WRONG {
        assert_eq!(is_called(&node, shown).await, (false, false), "{shown:?}");
    }
    assert!(node.metric("cairn_dials_failed_total") >= WRONG.len() as f64);
    is_well(node).await;
}

#[tokio::test]
async fn who_means_another_protocol_inside_tls_is_refused() {
    let node = TestNode::start(&[TCP]).await;
    let others: [&[&[u8]]; 2] = [&[b"h2"], &[b"http/1.1", b"libp2p2"]];
    for wrong in others {
        assert!(!calls(&node, Shown::Right, wrong).await, "{wrong:?}");
    }
    let among_others: &[&[u8]] = &[b"h2", b"libp2p"];
    assert!(calls(&node, Shown::Right, among_others).await);
    is_well(node).await;
}

/// A greeting of TLS 1.2, as written down in RFC 5246.
fn old_greeting() -> Vec<u8> {
    let suites = [0xc0, 0x2b, 0xc0, 0x2f, 0x00, 0x9c];
    let groups = [0, 10, 0, 4, 0, 2, 0, 23];
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3];
    let extensions = [groups, signatures].concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, u8::try_from(suites.len()).unwrap()]);
    body.extend(suites);
    body.extend([1, 0, 0, u8::try_from(extensions.len()).unwrap()]);
    body.extend(extensions);
    let length = u8::try_from(body.len()).unwrap();
    let handshake = [&[1, 0, 0, length][..], &body[..]].concat();
    [&[22, 3, 1, 0, length + 4][..], &handshake[..]].concat()
}

#[tokio::test]
async fn plain_text_garbage_and_older_versions_end_the_connection() {
    let node = TestNode::start(&[TCP]).await;
    let mut random = StdRng::seed_from_u64(4);
    let mut garbage = vec![0; 5000];
    random.fill(&mut garbage[..]);
    let said: [(&str, Vec<u8>); 9] = [
        ("/tls/1.0.0", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("/tls/1.0.0", [hello(), line("/yamux/1.0.0")].concat()),
        ("/tls/1.0.0", old_greeting()),
        ("/tls/1.0.0", garbage.clone()),
        // A record of the largest size and more, and an alert out of nowhere.
        (
            "/tls/1.0.0",
            [&[22, 3, 1, 0xff, 0xff][..], &garbage[..]].concat(),
        ),
        ("/tls/1.0.0", vec![21, 3, 3, 0, 2, 2, 40]),
        ("/noise", [&[0, 32][..], &garbage[..31], &[0; 40]].concat()),
        (
            "/noise",
            [&[0xff, 0xff][..], &garbage.repeat(14)[..]].concat(),
        ),
        ("/noise", vec![0; 200]),
    ];
    let count = said.len() as f64;
    for (security, bytes) in said {
        let mut socket = dial_for(&node, security).await;
        // It may be gone before it heard all.
        drop(socket.write_all(&bytes).await);
        drop(socket.close().await);
        let mut rest = Vec::new();
        let end = timeout(WATCHDOG, socket.read_to_end(&mut rest)).await;
        end.expect("an end in time").ok();
        assert!(rest.len() < 1000, "{} bytes for that", rest.len());
    }
    until_failed(&node, count).await;
    is_well(node).await;
}

/// Changes one byte of what is written.
struct Mutated {
    socket: Socket,
    at: usize,
    by: u8,
    written: usize,
}

impl AsyncRead for Mutated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_read(cx, out)
    }
}

impl AsyncWrite for Mutated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (from, at, by) = (self.written, self.at, self.by);
        let mut bytes = bytes.to_vec();
        if let Some(byte) = at.checked_sub(from).and_then(|at| bytes.get_mut(at)) {
            *byte ^= by;
        }
        let poll = Pin::new(&mut self.socket).poll_write(cx, &bytes);
        if let Poll::Ready(Ok(count)) = poll {
            self.written += count;
        }
        poll
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

/// A caller who gives up, since a changed length may have both wait for the other.
async fn calls_mutated(node: &TestNode, at: usize, by: u8) -> Option<(bool, usize)> {
    let mutated = Mutated {
        socket: dial_for(node, "/tls/1.0.0").await,
        at,
        by,
        written: 0,
    };
    let call = async {
        let name = ServerName::try_from("nobody").unwrap();
        let connected = caller(Shown::Right, ALPN).connect(name, mutated).await;
        let Ok(mut stream) = connected else {
            return (false, 0);
        };
        let believed = is_believed(&mut stream).await;
        (believed, stream.get_ref().0.written)
    };
    timeout(HANDSHAKE_SHORT, call).await.ok()
}

#[tokio::test]
async fn a_handshake_with_any_byte_changed_is_refused_or_means_the_same() {
    let hasty = Config {
        handshake_timeout: HANDSHAKE_SHORT,
        ..config(&[TCP])
    };
    let keys = Keypair::generate_ed25519();
    let node = TestNode::with(&keys, hasty).await.unwrap();
    let (believed, length) = calls_mutated(&node, usize::MAX, 0).await.unwrap();
    assert!(believed && length > 500);
    let mut random = StdRng::seed_from_u64(5);
    let mut refused = 0;
    for _ in 0..MUTATIONS {
        let (at, by) = (random.random_range(0..length), random.random_range(1..=255));
        match calls_mutated(&node, at, by).await {
            // What names the version of a record means nothing any more.
            Some((true, _)) => {}
            Some((false, _)) | None => refused += 1,
        }
    }
    assert!(refused >= MUTATIONS * 9 / 10, "{refused} of {MUTATIONS}");
    is_well(node).await;
}

#[tokio::test]
async fn half_a_handshake_is_given_up_in_time_and_stops_nobody_meanwhile() {
    let hasty = Config {
        handshake_timeout: HANDSHAKE_SHORT,
        ..config(&[TCP])
    };
    let keys = Keypair::generate_ed25519();
    let mut node = TestNode::with(&keys, hasty).await.unwrap();
    let mut halves = vec![dial(&node).await, dial(&node).await];
    halves[1].write_all(&hello()[..5]).await.unwrap();
    for (security, bytes) in [
        ("/tls/1.0.0", vec![22, 3]),
        ("/tls/1.0.0", old_greeting()[..30].to_vec()),
        ("/tls/1.0.0", vec![22, 3, 1, 0x40, 0]),
        ("/noise", vec![0]),
        ("/noise", vec![0, 32, 7, 7, 7]),
    ] {
        let mut half = dial_for(&node, security).await;
        half.write_all(&bytes).await.unwrap();
        halves.push(half);
    }
    // And one that has gone through, but says no word of what is to be spoken then.
    let socket = dial_for(&node, "/tls/1.0.0").await;
    let name = ServerName::try_from("nobody").unwrap();
    let silent = caller(Shown::Right, ALPN)
        .connect(name, socket)
        .await
        .unwrap();
    let mut honest = TestNode::start(&[TCP]).await;
    honest.join(&mut node).await;
    let count = halves.len() as f64 + 1.0;
    for mut half in halves {
        let mut rest = Vec::new();
        let end = half.read_to_end(&mut rest);
        timeout(WATCHDOG, end).await.expect("an end in time").ok();
    }
    until_failed(&node, count).await;
    drop(silent);
    assert_eq!(node.peers.connected().await.len(), 1);
    node.stop().await;
    honest.stop().await;
}

/// A stream of Yamux that is opened and reset at once.
fn open_and_reset(stream: u32) -> Vec<u8> {
    let frame = |flags: u8| {
        let head = [0, 1, 0, flags];
        [head, stream.to_be_bytes(), [0; 4]].concat()
    };
    [frame(1), frame(8)].concat()
}

/// Opens streams and resets them until the connection ends; says how many.
async fn storm<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> u32 {
    let (mut read, mut write) = stream.split();
    let mut opened = 0;
    let open = async {
        while opened < STORM {
            let next = opened..opened + STORM_STEP;
            opened = next.end;
            let frames: Vec<u8> = next.flat_map(|at| open_and_reset(2 * at + 1)).collect();
            if write.write_all(&frames).await.is_err() || write.flush().await.is_err() {
                return;
            }
        }
    };
    let mut sink = futures::io::sink();
    // Whatever is answered is read, or neither side would get on.
    let listen = futures::io::copy(&mut read, &mut sink);
    futures::future::select(std::pin::pin!(open), std::pin::pin!(listen)).await;
    opened
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_opens_streams_in_a_storm_loses_its_connection_and_nobody_else_does() {
    let mut node = TestNode::start(&[TCP]).await;
    let mut honest = TestNode::start(&[TCP]).await;
    honest.join(&mut node).await;
    let socket = dial_for(&node, "/tls/1.0.0").await;
    let name = ServerName::try_from("nobody").unwrap();
    let mut stream = caller(Shown::Right, ALPN)
        .connect(name, socket)
        .await
        .unwrap();
    assert!(is_believed(&mut stream).await);
    let muxer = line("/yamux/1.0.0");
    stream.write_all(&muxer).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; muxer.len()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, muxer);
    let opened = timeout(WATCHDOG, storm(stream))
        .await
        .expect("an end in time");
    assert!(opened < STORM, "the storm goes on");
    let alone = async {
        while node.peers.connected().await.len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(WATCHDOG, alone).await.expect("its end in time");
    assert_eq!(node.peers.connected().await[0].peer, honest.id());
    node.stop().await;
    honest.stop().await;
}

/// Long enough for two on loopback, when others compute too.
const HANDSHAKE_SHORT: Duration = Duration::from_secs(2);
const MUTATIONS: usize = 60;
/// More than anybody opens who is not at war.
const STORM: u32 = 3_000_000;
const STORM_STEP: u32 = 1000;
