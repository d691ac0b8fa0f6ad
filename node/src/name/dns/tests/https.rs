//! The same over HTTPS (DoH).

use super::server::{Over, Question};
use super::*;
use crate::tasks::Tasks;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

/// A server over HTTPS, and the root that stands for it.
async fn start(
    tasks: &Tasks,
    say: impl Fn(&str, &Question) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
) -> (SocketAddr, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.key_pair.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = futures_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let family = tasks.clone();
    tasks.spawn("name server over HTTPS", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, say) = (acceptor.clone(), say.clone());
            family.spawn("connection", async move {
                let Ok(stream) = acceptor.accept(stream.compat()).await else {
                    return;
                };
                let answer = service_fn(move |request: Request<Incoming>| {
                    let say = say.clone();
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        Ok::<_, Infallible>(say(&path, &Question::read(&body, Over::Tcp)))
                    }
                });
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let stream = TokioIo::new(stream.compat());
                drop(http.serve_connection(stream, answer).await);
            });
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    (address, roots)
}

fn message(bytes: Vec<u8>) -> Response<Full<Bytes>> {
    let media = (header::CONTENT_TYPE, "application/dns-message");
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    response
        .headers_mut()
        .insert(media.0, media.1.parse().unwrap());
    response
}

fn dns_at(address: &str, asker: Asker) -> Dns {
    let settings = Settings {
        resolvers: Resolvers::from_iter([(".".parse().unwrap(), address.parse().unwrap())]),
        ..Settings::default()
    };
    Dns::with(settings, Network::Local, LONG, asker)
}

#[tokio::test]
async fn a_name_server_over_https_is_asked_at_its_path_if_its_certificate_is_believed() {
    let tasks = Tasks::new();
    let (address, roots) = start(&tasks, |path, question| match path {
        "/ask" | "/dns-query" => {
            message(question.texts(&[&format!("dnslink=/ipfs/bafkqaaa{path}")]))
        }
        other => panic!("{other}"),
    })
    .await;
    for (path, asked) in [("", "/dns-query"), ("/ask", "/ask")] {
        let at = format!("https://{address}{path}");
        let dns = dns_at(&at, Asker::trusting(LONG, roots.clone()));
        let expected = format!("/ipfs/bafkqaaa{asked}");
        assert_eq!(link(&dns, "a.example").await.unwrap(), expected);
        assert_eq!(link(&dns, "b.example").await.unwrap(), expected);
        // Mozilla's roots know nothing of it.
        let fault = fault(&dns_at(&at, Asker::new(LONG)), "a.example").await;
        assert!(matches!(fault, Fault::Broken(_)), "{fault}");
    }
}

#[tokio::test]
async fn answers_over_https_that_are_no_dns_are_failures() {
    let tasks = Tasks::new();
    let (address, roots) = start(&tasks, |_, question| match question.name.as_str() {
        "_dnslink.html.example." => Response::new(Full::new(Bytes::from_static(b"<html>"))),
        "_dnslink.error.example." => {
            let mut response = message(b"\x1b[2J".to_vec());
            *response.status_mut() = hyper::StatusCode::BAD_GATEWAY;
            response
        }
        "_dnslink.big.example." => message(vec![b'a'; 4 << 20]),
        _ => message(Vec::new()),
    })
    .await;
    let at = format!("https://{address}");
    let dns = dns_at(&at, Asker::trusting(LONG, roots.clone()));
    for name in ["html.example", "error.example", "empty.example"] {
        let fault = fault(&dns, name).await;
        assert!(!fault.to_string().contains('\u{1b}'), "{fault}");
        assert!(matches!(fault, Fault::Broken(_)), "{name}: {fault}");
    }
    // What is not read of it holds the repeated question up, on the same connection.
    fault(&dns_at(&at, Asker::trusting(SHORT, roots)), "big.example").await;
}
