//! libp2p's TLS with the cipher this processor is fastest at.
//!
//! The library's own upgrade lists ChaCha20 first, so two of its peers never use AES, which most
//! processors do in hardware at two to three times the speed. Its configuration cannot be changed,
//! but what is hard in it is public: making the certificate, and parsing and checking the peer's.
//! What a peer sees is the same protocol.
//!
//! The certificate is self-signed and carries the peer's key and that key's signature; there is no
//! chain and no name. Only TLS 1.3, and no session is ever resumed: each connection proves anew who
//! it is.

mod handshake;
mod record;
#[cfg(feature = "bench")]
mod stream;

pub(super) use record::{FRAME_BODY_BYTES, Opener, Sealer};

use libp2p::PeerId;
use libp2p::identity::Keypair;
use libp2p::tls::certificate::{self, GenError, ParseError};
use libp2p::tls::{make_client_config, make_server_config};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite as suite, default_provider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName,
    PeerMisbehaved, ServerConfig, SignatureScheme, SupportedCipherSuite, version,
};
use std::io;
use std::sync::Arc;

/// Both halves of the protocol, for one key.
#[derive(Clone)]
pub(super) struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// Why a connection was not secured.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("TLS handshake: {0}")]
    Handshake(#[from] io::Error),
    #[error("the peer's certificate is not one of libp2p: {0}")]
    Certificate(#[from] ParseError),
    #[error("the peer did not show exactly one certificate")]
    NotOneCertificate,
    #[error("TLS cannot be set up: {0}")]
    Settings(rustls::Error),
}

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsKeyError {
    #[error(transparent)]
    Certificate(#[from] GenError),
    #[error(transparent)]
    Settings(#[from] rustls::Error),
}

impl Tls {
    pub(super) fn new(keys: &Keypair) -> Result<Self, TlsKeyError> {
        let mut provider = default_provider();
        provider.cipher_suites = suites();
        let provider = Arc::new(provider);
        let verifier = Arc::new(Verifier);
        let versions = [&version::TLS13];
        let alpn = vec![ALPN.to_vec()];

        // The library's own are taken apart for the part that shows our certificate.
        let theirs = make_server_config(keys)?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_cert_resolver(theirs.cert_resolver);
        server.alpn_protocols.clone_from(&alpn);
        // Or peers with the library's own list would have us use ChaCha20.
        server.ignore_client_order = true;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        // Records are sealed and opened by us (`tls/record.rs`).
        server.enable_secret_extraction = true;

        let theirs = make_client_config(keys, None)?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(theirs.client_auth_cert_resolver);
        client.alpn_protocols = alpn;
        client.enable_sni = false;
        client.resumption = Resumption::disabled();
        client.enable_secret_extraction = true;

        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

/// The cipher suites, the fastest first.
fn suites() -> Vec<SupportedCipherSuite> {
    let (aes_128, aes_256) = (
        suite::TLS13_AES_128_GCM_SHA256,
        suite::TLS13_AES_256_GCM_SHA384,
    );
    let chacha = suite::TLS13_CHACHA20_POLY1305_SHA256;
    if has_aes() {
        vec![aes_128, aes_256, chacha]
    } else {
        vec![chacha, aes_128, aes_256]
    }
}

/// Whether this processor does AES by itself.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn peer_of(connection: &CommonState) -> Result<PeerId, TlsError> {
    match connection.peer_certificates() {
        Some([certificate]) => Ok(certificate::parse(certificate)?.peer_id()),
        _ => Err(TlsError::NotOneCertificate),
    }
}

/// Accepts certificates that prove their own peer id. *Which* peer it should be is the swarm's
/// question.
#[derive(Debug)]
struct Verifier;

fn check(first: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
    if !more.is_empty() {
        return Err(CertificateError::BadEncoding.into());
    }
    match certificate::parse(first) {
        Ok(_) => Ok(()),
        Err(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
    }
}

fn check_signature(
    message: &[u8],
    shown: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let bad = |_| rustls::Error::from(CertificateError::BadSignature);
    certificate::parse(shown)
        .map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?
        .verify_signature(signed.scheme, message, signed.signature())
        .map_err(bad)?;
    Ok(HandshakeSignatureValid::assertion())
}

/// Only TLS 1.3 is enabled, so that nobody gets here.
fn too_old() -> rustls::Error {
    PeerMisbehaved::SelectedUnofferedCipherSuite.into()
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        first: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        check(first, more).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        first: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        check(first, more).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

/// The application protocol that says libp2p.
const ALPN: &[u8] = b"libp2p";

/// Signatures we can check, in the order of preference.
const SCHEMES: [SignatureScheme; 9] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::records::{Incoming, Outgoing, Secured, Step};
    use crate::swarm::tests::{Pipe, pipe};
    use futures::io::{AsyncReadExt, AsyncWriteExt};
    use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
    use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
    use rustls::pki_types::{IpAddr, Ipv4Addr};

    fn nobody() -> ServerName<'static> {
        ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])))
    }

    /// Our end of a connection, its records opened and sealed by hand.
    struct Ours {
        socket: Pipe,
        secured: Secured,
    }

    impl Ours {
        async fn write(&mut self, bytes: &[u8]) {
            let mut out = Outgoing::default();
            self.secured.sealer.seal(b"", bytes, &mut out).unwrap();
            self.socket.write_all(out.bytes()).await.unwrap();
        }

        /// The next record's bytes; `None` at the end.
        async fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
            let incoming = &mut self.secured.incoming;
            loop {
                match self.secured.opener.open(incoming.bytes())? {
                    Step::Record { taken, plain } => {
                        let bytes = incoming.bytes()[plain].to_vec();
                        incoming.done(taken);
                        if !bytes.is_empty() {
                            return Ok(Some(bytes));
                        }
                    }
                    Step::Incomplete => {
                        let count = self.socket.read(incoming.room()).await?;
                        assert!(count > 0, "no end was said");
                        incoming.took(count);
                    }
                    Step::End => return Ok(None),
                }
            }
        }

        async fn read_exact(&mut self, count: usize) -> Vec<u8> {
            let mut seen = std::mem::take(&mut self.secured.plain);
            while seen.len() < count {
                seen.extend(self.read().await.unwrap().expect("no end"));
            }
            seen
        }
    }

    async fn dial(keys: &Keypair, mut socket: Pipe) -> Result<Ours, TlsError> {
        let tls = Tls::new(keys).unwrap();
        let secured = tls.connect(&mut socket, Incoming::new(0)).await?;
        Ok(Ours { socket, secured })
    }

    async fn listen(keys: &Keypair, mut socket: Pipe) -> Result<Ours, TlsError> {
        let tls = Tls::new(keys).unwrap();
        let secured = tls.accept(&mut socket, Incoming::new(0)).await?;
        Ok(Ours { socket, secured })
    }

    fn keys() -> (Keypair, Keypair) {
        (Keypair::generate_ed25519(), Keypair::generate_secp256k1())
    }

    async fn two_of_us() -> (Ours, Ours) {
        let ((ours, theirs), (left, right)) = (keys(), pipe());
        let (out, arrived) = futures::join!(dial(&ours, left), listen(&theirs, right));
        let (out, arrived) = (out.unwrap(), arrived.unwrap());
        assert_eq!(out.secured.peer, theirs.public().to_peer_id());
        assert_eq!(arrived.secured.peer, ours.public().to_peer_id());
        (out, arrived)
    }

    #[tokio::test]
    async fn two_of_us_know_each_other_and_hear_the_end() {
        let (mut out, mut arrived) = two_of_us().await;
        out.write(b"hello").await;
        assert_eq!(arrived.read_exact(5).await, b"hello");
        let mut end = Outgoing::default();
        out.secured.sealer.goodbye(&mut end).unwrap();
        out.socket.write_all(end.bytes()).await.unwrap();
        assert_eq!(arrived.read().await.unwrap(), None);
    }

    /// A client and a server made of stock rustls, with libp2p's certificates.
    fn stock(keys: &Keypair, tickets: usize) -> (TlsConnector, TlsAcceptor) {
        let client = make_client_config(keys, None).unwrap();
        let mut server = make_server_config(keys).unwrap();
        server.send_tls13_tickets = tickets;
        (Arc::new(client).into(), Arc::new(server).into())
    }

    async fn with_stock(out: bool) -> (Ours, TlsStream<Pipe>) {
        let ((ours, theirs), (left, right)) = (keys(), pipe());
        let (client, server) = stock(&theirs, 2);
        if out {
            let (us, them) = futures::join!(dial(&ours, left), server.accept(right));
            (us.unwrap(), them.unwrap().into())
        } else {
            let (us, them) = futures::join!(listen(&ours, left), client.connect(nobody(), right));
            (us.unwrap(), them.unwrap().into())
        }
    }

    #[tokio::test]
    async fn stock_tls_reads_what_we_write_and_the_other_way() {
        for out in [true, false] {
            let (mut us, mut them) = with_stock(out).await;
            let suite = them.get_ref().1.negotiated_cipher_suite().unwrap().suite();
            assert_eq!(suite, suites()[0].suite());
            let long: Vec<u8> = (0..=250).cycle().take(300_000).collect();
            let ours = async {
                us.write(&long).await;
                assert!(us.read_exact(long.len()).await == long);
            };
            let theirs = async {
                let mut seen = vec![0; long.len()];
                them.read_exact(&mut seen).await.unwrap();
                assert!(seen == long);
                them.write_all(&long).await.unwrap();
                them.close().await.unwrap();
            };
            futures::join!(ours, theirs);
            assert_eq!(us.read().await.unwrap(), None, "the end is said");
        }
    }

    #[tokio::test]
    async fn keys_change_on_either_side_and_nothing_is_lost() {
        for out in [true, false] {
            let (mut us, mut them) = with_stock(out).await;
            for round in 0..4u8 {
                // We change ours by ourselves, and theirs asks for ours.
                if let crate::swarm::records::Sealer::Tls(sealer) = &mut us.secured.sealer {
                    sealer.change_after(3);
                }
                match &mut them {
                    TlsStream::Client(them) => them.get_mut().1.refresh_traffic_keys(),
                    TlsStream::Server(them) => them.get_mut().1.refresh_traffic_keys(),
                }
                .unwrap();
                let ours = async {
                    for _ in 0..5 {
                        us.write(&[round; 10]).await;
                    }
                    assert_eq!(us.read_exact(10).await, [round; 10]);
                    us.write(&[99]).await;
                };
                let theirs = async {
                    let mut seen = [0; 50];
                    them.read_exact(&mut seen).await.unwrap();
                    assert_eq!(seen, [round; 50]);
                    them.write_all(&[round; 10]).await.unwrap();
                    them.flush().await.unwrap();
                    them.read_exact(&mut seen[..1]).await.unwrap();
                    assert_eq!(seen[0], 99);
                };
                futures::join!(ours, theirs);
            }
        }
    }

    #[tokio::test]
    async fn a_peer_that_asks_for_a_change_of_keys_gets_it() {
        let (mut out, mut arrived) = two_of_us().await;
        for _ in 0..3 {
            let mut asks = Outgoing::default();
            if let crate::swarm::records::Sealer::Tls(sealer) = &mut out.secured.sealer {
                sealer.ask_for_change(&mut asks).unwrap();
            }
            out.socket.write_all(asks.bytes()).await.unwrap();
            out.write(b"new").await;
            assert_eq!(arrived.read_exact(3).await, b"new");
            arrived.write(b"too").await;
            assert_eq!(out.read_exact(3).await, b"too");
        }
    }

    #[tokio::test]
    async fn records_that_no_honest_peer_sends_end_the_connection() {
        let hostile: [(&[u8], u8); 8] = [
            (&[], 0),                   // nothing but padding
            (&[], 22),                  // an empty handshake record
            (&[1, 0, 0, 0], 22),        // a new handshake
            (&[24, 0, 0, 1, 2], 22),    // a change of keys of an unknown kind
            (&[24, 0, 0, 1, 0, 4], 22), // something behind a change of keys
            (&[4, 1, 0, 0], 22),        // a message of 64 KiB
            (&[2, 40], 21),             // a fatal alert
            (&[1], 20),                 // a change of cipher
        ];
        for (plain, kind) in hostile {
            let (mut out, mut arrived) = two_of_us().await;
            let mut sealed = Outgoing::default();
            if let crate::swarm::records::Sealer::Tls(sealer) = &mut out.secured.sealer {
                sealer.anything(plain, kind, &mut sealed);
            }
            out.socket.write_all(sealed.bytes()).await.unwrap();
            assert!(arrived.read().await.is_err(), "{plain:?} of kind {kind}");
        }
        for bytes in [
            &[22, 3, 3, 0, 1, 0][..], // not sealed
            &[23, 3, 1, 0, 1, 0],     // another version
            &[23, 3, 3, 0xff, 0xff],  // too long
            &[
                23, 3, 3, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17,
            ], // forged
            &[23, 3, 3, 0, 1, 0],     // shorter than a tag
        ] {
            let (mut out, mut arrived) = two_of_us().await;
            out.socket.write_all(bytes).await.unwrap();
            assert!(arrived.read().await.is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_ticket_in_two_records_is_passed_over() {
        let (mut out, mut arrived) = two_of_us().await;
        let mut sealed = Outgoing::default();
        if let crate::swarm::records::Sealer::Tls(sealer) = &mut out.secured.sealer {
            sealer.anything(&[4, 0, 0, 3, 1], 22, &mut sealed);
            sealer.anything(&[2, 3], 22, &mut sealed);
        }
        out.socket.write_all(sealed.bytes()).await.unwrap();
        out.write(b"on").await;
        assert_eq!(arrived.read_exact(2).await, b"on");
    }

    #[tokio::test]
    async fn the_library_is_understood_both_ways() {
        let (ours, theirs) = keys();
        let library = libp2p::tls::Config::new(&theirs).unwrap();
        let (left, right) = pipe();
        let (out, arrived) = futures::join!(
            library.clone().upgrade_outbound(left, "/tls/1.0.0"),
            listen(&ours, right),
        );
        assert_eq!(out.unwrap().0, ours.public().to_peer_id());
        assert_eq!(arrived.unwrap().secured.peer, theirs.public().to_peer_id());
        let (left, right) = pipe();
        let (out, arrived) = futures::join!(
            dial(&ours, left),
            library.upgrade_inbound(right, "/tls/1.0.0"),
        );
        assert_eq!(out.unwrap().secured.peer, theirs.public().to_peer_id());
        assert_eq!(arrived.unwrap().0, ours.public().to_peer_id());
    }

    #[test]
    fn certificates_that_prove_nothing_are_refused() {
        let keys = Keypair::generate_ed25519();
        let (good, _) = certificate::generate(&keys).unwrap();
        assert!(check(&good, &[]).is_ok());
        assert!(
            check(&good, std::slice::from_ref(&good)).is_err(),
            "a chain"
        );
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bytes = good.to_vec();
            bytes[at] ^= 1;
            assert!(check(&bytes.into(), &[]).is_err(), "changed at {at}");
        }
        assert!(check(&Vec::new().into(), &[]).is_err());
    }

    #[tokio::test]
    async fn somebody_who_shows_no_certificate_is_refused() {
        let (left, right) = pipe();
        let server = Keypair::generate_ed25519();
        let mut anonymous = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier))
            .with_no_client_auth();
        anonymous.alpn_protocols = vec![ALPN.to_vec()];
        let connector = TlsConnector::from(Arc::new(anonymous));
        let (_, arrived) =
            futures::join!(connector.connect(nobody(), left), listen(&server, right));
        assert!(matches!(arrived, Err(TlsError::Handshake(_))));
    }
}
