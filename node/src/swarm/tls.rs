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

use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncWrite, FutureExt};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::PeerId;
use libp2p::identity::Keypair;
use libp2p::tls::certificate::{self, GenError, ParseError};
use libp2p::tls::{make_client_config, make_server_config};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite as suite, default_provider};
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName, UnixTime};
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
}

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsKeyError {
    #[error(transparent)]
    Certificate(#[from] GenError),
    #[error(transparent)]
    Settings(#[from] rustls::Error),
}

type Secured<C> = Result<(PeerId, TlsStream<C>), TlsError>;

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

        let theirs = make_client_config(keys, None)?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(theirs.client_auth_cert_resolver);
        client.alpn_protocols = alpn;
        client.enable_sni = false;
        client.resumption = Resumption::disabled();

        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }

    pub(super) fn accept<C>(self, socket: C) -> BoxFuture<'static, Secured<C>>
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        async move {
            let stream = TlsAcceptor::from(self.server).accept(socket).await?;
            let peer = peer_of(stream.get_ref().1)?;
            Ok((peer, stream.into()))
        }
        .boxed()
    }

    pub(super) fn connect<C>(self, socket: C) -> BoxFuture<'static, Secured<C>>
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        async move {
            // Never sent: an address is no server name.
            let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
            let connector = TlsConnector::from(self.client);
            let stream = connector.connect(nobody, socket).await?;
            let peer = peer_of(stream.get_ref().1)?;
            Ok((peer, stream.into()))
        }
        .boxed()
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
    use futures::io::{AsyncReadExt, AsyncWriteExt};
    use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
    use tokio_util::compat::TokioAsyncReadCompatExt;

    type Pipe = tokio_util::compat::Compat<tokio::io::DuplexStream>;

    fn pipe() -> (Pipe, Pipe) {
        let (left, right) = tokio::io::duplex(64 << 10);
        (left.compat(), right.compat())
    }

    fn suite_of<C>(stream: &TlsStream<C>) -> rustls::CipherSuite {
        stream
            .get_ref()
            .1
            .negotiated_cipher_suite()
            .unwrap()
            .suite()
    }

    #[tokio::test]
    async fn two_of_us_know_each_other_and_use_the_fastest_cipher() {
        let (ours, theirs) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (left, right) = pipe();
        let (out, arrived) = futures::join!(
            Tls::new(&ours).unwrap().connect(left),
            Tls::new(&theirs).unwrap().accept(right),
        );
        let ((them, mut out), (us, mut arrived)) = (out.unwrap(), arrived.unwrap());
        assert_eq!(them, theirs.public().to_peer_id());
        assert_eq!(us, ours.public().to_peer_id());
        assert_eq!(suite_of(&out), suites()[0].suite());
        let (sent, seen) = futures::join!(
            async {
                out.write_all(b"hello").await?;
                out.close().await
            },
            async {
                let mut seen = Vec::new();
                arrived.read_to_end(&mut seen).await.map(|_| seen)
            }
        );
        sent.unwrap();
        assert_eq!(seen.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn the_library_is_understood_both_ways_and_does_not_choose_the_cipher() {
        let (ours, theirs) = (Keypair::generate_ed25519(), Keypair::generate_secp256k1());
        let library = libp2p::tls::Config::new(&theirs).unwrap();
        let us = Tls::new(&ours).unwrap();
        let (left, right) = pipe();
        let (out, arrived) = futures::join!(
            library.clone().upgrade_outbound(left, "/tls/1.0.0"),
            us.clone().accept(right),
        );
        let ((us_seen, _), (them_seen, arrived)) = (out.unwrap(), arrived.unwrap());
        assert_eq!(us_seen, ours.public().to_peer_id());
        assert_eq!(them_seen, theirs.public().to_peer_id());
        assert_eq!(suite_of(&arrived), suites()[0].suite());
        let (left, right) = pipe();
        let (out, arrived) = futures::join!(
            us.connect(left),
            library.upgrade_inbound(right, "/tls/1.0.0"),
        );
        assert_eq!(out.unwrap().0, theirs.public().to_peer_id());
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
        let server = Tls::new(&Keypair::generate_ed25519()).unwrap();
        let mut anonymous = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier))
            .with_no_client_auth();
        anonymous.alpn_protocols = vec![ALPN.to_vec()];
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
        let connector = TlsConnector::from(Arc::new(anonymous));
        let (_, arrived) = futures::join!(connector.connect(name, left), server.accept(right));
        assert!(matches!(arrived, Err(TlsError::Handshake(_))));
    }
}
