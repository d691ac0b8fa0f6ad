//! The asking end: in this process over a repository that we open, or over HTTP to a daemon.

use super::api::Api;
use super::entries::{LocalEntries, LocalUpload};
use super::error::{ErrorBody, RpcError};
use super::manner::Manner;
use super::patience::Patience;
use super::reply::{CONTENT_LENGTH_HINT, told_in_trailer};
use super::{FORM, PREFIX, multipart};
use crate::config::duration::Interval;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, TE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    command: String,
    pairs: Vec<(String, String)>,
    upload: Option<LocalUpload>,
}

impl Question {
    /// A command without arguments.
    pub fn new(command: &str) -> Self {
        Self {
            command: command.to_owned(),
            pairs: Vec::new(),
            upload: None,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(self, value: impl ToString) -> Self {
        self.with("arg", value)
    }

    /// More arguments.
    #[must_use]
    pub fn args<T: ToString>(self, values: impl IntoIterator<Item = T>) -> Self {
        values
            .into_iter()
            .fold(self, |question, value| question.arg(value))
    }

    /// An option.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.pairs.push((name.to_owned(), value.to_string()));
        self
    }

    /// An option, if it was chosen.
    #[must_use]
    pub fn maybe<T: ToString>(self, name: &str, value: Option<T>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// An option that may be given more than once.
    #[must_use]
    pub fn each<T: ToString>(self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        values
            .into_iter()
            .fold(self, |question, value| question.with(name, value))
    }

    /// Files of this machine.
    #[must_use]
    pub fn upload(mut self, upload: LocalUpload) -> Self {
        self.upload = Some(upload);
        self
    }

    fn manner(&self, daemon: Option<SocketAddr>) -> Manner {
        let mut pairs = self.pairs.iter();
        let is_offline = pairs.any(|(name, value)| name == "offline" && value == "true");
        Manner::of(daemon, &self.command, is_offline)
    }

    /// What `--timeout` gave it.
    fn timeout(&self) -> Option<Duration> {
        let mut pairs = self.pairs.iter();
        let (_, time) = pairs.find(|(name, _)| name == "timeout")?;
        time.parse().ok().map(|Interval(time)| time)
    }

    /// Where it goes, and what goes in the body: arguments that are too long for an address.
    fn path_and_form(&self) -> (String, Option<String>) {
        let mut query = String::new();
        for (name, value) in &self.pairs {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(name);
            query.push('=');
            query.extend(utf8_percent_encode(value, &ENCODED));
        }
        let path = format!("{PREFIX}{}", self.command);
        if query.is_empty() {
            (path, None)
        } else if query.len() > QUERY_BYTES_MAX && self.upload.is_none() {
            (path, Some(query))
        } else {
            (format!("{path}?{query}"), None)
        }
    }
}

/// Who is asked.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// The commands themselves, in this process.
    Here(Api),
    /// A daemon.
    There(Box<Remote>),
}

/// A daemon.
#[derive(Debug, Clone)]
pub struct Remote {
    address: SocketAddr,
    /// Which process it is, if that is known.
    process: Option<String>,
    authorization: Option<HeaderValue>,
    client: Client<HttpConnector, Body>,
}

impl Remote {
    /// The daemon at `address`; `credentials` as `--api-auth` takes them.
    pub fn new(address: SocketAddr, credentials: Option<&str>) -> Result<Self, RpcError> {
        let authorization = credentials
            .map(|text| {
                let value = match text.split_once(':') {
                    Some(("bearer", token)) => format!("Bearer {token}"),
                    Some(("basic", pair)) => {
                        format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes()))
                    }
                    _ => format!("Bearer {text}"),
                };
                let mut value = HeaderValue::from_str(&value)
                    .map_err(|_| RpcError::wrong("the credentials hold control characters"))?;
                value.set_sensitive(true);
                Ok::<_, RpcError>(value)
            })
            .transpose()?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIME_MAX));
        Ok(Self {
            address,
            process: None,
            authorization,
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// The same, which is this process.
    #[must_use]
    pub fn run_by(mut self, process: String) -> Self {
        self.process = Some(process);
        self
    }

    /// Whether nobody is there. Who takes no connection in time is, and hangs.
    pub async fn is_gone(&self) -> bool {
        let connecting = tokio::net::TcpStream::connect(self.address);
        let connected = tokio::time::timeout(CONNECT_TIME_MAX, connecting).await;
        connected.is_ok_and(|connected| connected.is_err())
    }

    /// Whether it answers something that costs nothing, whatever it says. A call that is refused at once is
    /// a sign as well: then the call that is waited for breaks off by itself. The connection is not kept, for
    /// there are as many of these as commands that wait.
    pub(super) async fn gives_a_sign(&self) -> bool {
        let request = self.post(&format!("{PREFIX}version"));
        let request = request.header(CONNECTION, "close").body(Body::empty());
        let Ok(request) = request else {
            return true;
        };
        let asked = self.client.request(request).await;
        asked.map_or_else(|error| !is_not_taken(&error), |_| true)
    }

    /// It is there and does not do its work: `why` is what was seen.
    pub(super) fn hangs(&self, why: &str) -> RpcError {
        RpcError::failed(format!(
            "{} does not answer: {why}; it hangs or was stopped: look at its log, let it go \
             on (`kill -CONT`) or end it (`kill`, then `kill -9`), and start it again with `cairn daemon`",
            self.named()
        ))
    }

    /// It may be there: nothing came from it for `time` seconds, and it is waited for all the same.
    pub(super) fn is_silent(&self, time: u64) -> String {
        format!(
            "nothing came from {} for {time} s, not even its version; it has much to do or hangs: still waiting",
            self.named()
        )
    }

    /// No connection in time. Of a process that is known to run only that it hangs is left.
    fn takes_no_connection(&self) -> RpcError {
        let why = format!(
            "it took no connection within {} s",
            CONNECT_TIME_MAX.as_secs()
        );
        match &self.process {
            Some(_) => self.hangs(&why),
            None => RpcError::failed(format!(
                "{} does not answer: {why}; the address is wrong, a firewall keeps it away, or it hangs",
                self.named()
            )),
        }
    }

    fn named(&self) -> String {
        match &self.process {
            Some(process) => format!("the daemon at {} ({process})", self.address),
            None => format!("the daemon at {}", self.address),
        }
    }

    /// A request to `path`, without a body.
    fn post(&self, path: &str) -> http::request::Builder {
        let request = Request::post(format!("http://{}{path}", self.address))
            .header(HOST, self.address.to_string())
            .header(TE, "trailers");
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        }
    }

    async fn send(&self, question: Question) -> Result<Answer, RpcError> {
        let manner = question.manner(Some(self.address));
        let patience = Patience::with(self, question.timeout());
        let (path, form) = question.path_and_form();
        let mut request = self.post(&path);
        let told = Told::default();
        let body = match (question.upload, form) {
            (None, None) => Body::empty(),
            (None, Some(form)) => {
                request = request.header(CONTENT_TYPE, FORM);
                Body::from(form)
            }
            (Some(upload), _) => {
                let boundary = new_boundary();
                let media = format!("multipart/form-data; boundary={boundary}");
                request = request.header(CONTENT_TYPE, media);
                upload_body(upload, boundary, told.clone())
            }
        };
        let request = request
            .body(body)
            .map_err(|error| RpcError::wrong(format!("cannot be asked: {error}")))?;
        let asking = self.client.request(request);
        match patience.wait(asking).await? {
            Ok(response) => {
                let asked = Asked {
                    told,
                    manner,
                    patience,
                };
                Answer::new(response.map(Body::new), asked).await
            }
            Err(error) if is_not_taken(&error) => Err(self.takes_no_connection()),
            Err(error) if !error.is_connect() => Err(told.or(manner.broke_off(&innermost(&error)))),
            Err(error) => Err(told.or(RpcError::failed(format!(
                "the daemon at {} cannot be asked: {}",
                self.address,
                innermost(&error)
            )))),
        }
    }
}

/// Why an upload broke off. That is what to tell, not what became of the request or the answer
/// then. Cheap to clone.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Option<RpcError>>>);

impl Told {
    fn tell(&self, error: RpcError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// What was told, else `other`.
    fn or(&self, other: RpcError) -> RpcError {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.clone().unwrap_or(other)
    }
}

/// Whether a connection was not taken in time. One that was up may time out, too.
fn is_not_taken(error: &legacy::Error) -> bool {
    error.is_connect() && is_timeout(error)
}

fn is_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut layers = std::iter::successors(Some(error), |layer| layer.source());
    layers.any(|layer| {
        let io = layer.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut)
    })
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// Files as a multipart body, read on a thread of their own while the body is sent.
fn upload_body(upload: LocalUpload, boundary: String, told: Told) -> Body {
    let (queue, mut pieces) = mpsc::channel::<Result<Bytes, RpcError>>(PIECES_WAITING_MAX);
    // The thread ends by itself when the request does.
    drop(tokio::task::spawn_blocking(move || {
        let mut entries = LocalEntries::new(upload);
        let written = multipart::write(&mut entries, &boundary, |bytes| {
            queue
                .blocking_send(Ok(bytes))
                .map_err(|_| RpcError::reader_gone())
        });
        if let Err(error) = written {
            // Before the body breaks, so that whoever sees that finds the reason.
            told.tell(error.clone());
            // Nobody takes it if the request broke already.
            let _ = queue.blocking_send(Err(error));
        }
    }));
    Body::from_stream(futures::stream::poll_fn(move |context| {
        pieces.poll_recv(context)
    }))
}

impl Endpoint {
    /// Asks; a failure before the first byte of the answer is an error.
    pub async fn ask(&self, question: Question) -> Result<Answer, RpcError> {
        match self {
            Self::There(remote) => remote.send(question).await,
            Self::Here(api) => {
                let manner = question.manner(None);
                let (path, form) = question.path_and_form();
                let mut request = Request::post(path);
                if form.is_some() {
                    request = request.header(CONTENT_TYPE, FORM);
                }
                let mut request = request
                    .body(form.map(Body::from).unwrap_or_default())
                    .map_err(|error| RpcError::wrong(format!("cannot be asked: {error}")))?;
                if let Some(upload) = question.upload {
                    request.extensions_mut().insert(upload);
                }
                let asked = Asked {
                    manner,
                    ..Asked::default()
                };
                Answer::new(api.handle(request).await, asked).await
            }
        }
    }
}

/// What is answered, piece by piece.
#[derive(Debug)]
pub struct Answer {
    body: Body,
    /// How many bytes a stream will have, if that is known.
    pub length: Option<u64>,
    line: BytesMut,
    asked: Asked,
}

/// How it was asked for: what is added to a failure, and how long the next piece may take.
#[derive(Debug, Default)]
struct Asked {
    told: Told,
    manner: Manner,
    patience: Patience,
}

impl Answer {
    async fn new(response: Response<Body>, asked: Asked) -> Result<Self, RpcError> {
        let (parts, body) = response.into_parts();
        if !parts.status.is_success() {
            let error = asked.patience.wait(failure(parts.status, body)).await?;
            return Err(asked.told.or(asked.manner.failed(error)));
        }
        let length = parts
            .headers
            .get(CONTENT_LENGTH_HINT)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok());
        Ok(Self {
            body,
            length,
            line: BytesMut::new(),
            asked,
        })
    }

    /// The pieces as a body, for who reads them on a thread. Failures are errors of it.
    pub fn into_body(self) -> Body {
        let pieces = futures::stream::try_unfold(self, |mut answer| async move {
            let piece = answer.piece().await?;
            Ok::<_, RpcError>(piece.map(|piece| (piece, answer)))
        });
        Body::from_stream(pieces)
    }

    /// The next bytes.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, RpcError> {
        loop {
            let Some(frame) = self.asked.patience.wait(self.body.frame()).await? else {
                return Ok(None);
            };
            let Asked { told, manner, .. } = &self.asked;
            let frame = frame.map_err(|error| told.or(manner.broke_off(&innermost(&error))))?;
            match frame.into_data() {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(frame) => {
                    if let Some(error) = frame.trailers_ref().and_then(told_in_trailer) {
                        return Err(told.or(manner.failed(error)));
                    }
                }
            }
        }
    }

    /// The next values: as many as have arrived, at least one; empty at the end.
    pub async fn values<T: DeserializeOwned>(&mut self) -> Result<Vec<T>, RpcError> {
        let mut values = Vec::new();
        while values.is_empty() {
            let Some(bytes) = self.piece().await? else {
                let rest = std::mem::take(&mut self.line);
                if !rest.iter().all(u8::is_ascii_whitespace) {
                    values.push(parse(&rest)?);
                }
                return Ok(values);
            };
            self.line.extend_from_slice(&bytes);
            while let Some(end) = memchr::memchr(b'\n', &self.line) {
                let line = self.line.split_to(end + 1);
                if !line.iter().all(u8::is_ascii_whitespace) {
                    values.push(parse(&line)?);
                }
            }
            if self.line.len() > LINE_BYTES_MAX {
                return Err(RpcError::failed("the answer holds a line that is too long"));
            }
        }
        Ok(values)
    }

    /// The only value.
    pub async fn value<T: DeserializeOwned>(mut self) -> Result<T, RpcError> {
        let mut found = None;
        loop {
            let values = self.values().await?;
            if values.is_empty() {
                break;
            }
            found = values.into_iter().last();
        }
        found.ok_or_else(|| RpcError::failed("the answer is empty"))
    }
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, RpcError> {
    serde_json::from_slice(line)
        .map_err(|error| RpcError::failed(format!("the answer cannot be understood: {error}")))
}

async fn failure(status: StatusCode, body: Body) -> RpcError {
    let body = Limited::new(body, ERROR_BYTES_MAX).collect().await;
    let bytes = body
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(told) => RpcError::with_status(status, told.message),
        Err(_) => RpcError::with_status(
            status,
            format!("{status}: {}", String::from_utf8_lossy(&bytes).trim()),
        ),
    }
}

/// What separates the parts of an upload: made anew each time, so that no file can hold it.
fn new_boundary() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("cairn-{:016x}{:016x}", random(), random())
}

/// What need not be encoded in a query.
const ENCODED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/')
    .remove(b':');
/// Longest query in an address; what is longer goes into the body.
const QUERY_BYTES_MAX: usize = 32 << 10;
/// Most pieces of an upload that wait to be sent.
const PIECES_WAITING_MAX: usize = 8;
/// How long a daemon may take to accept a connection: the system does that, even for one that hangs, as long
/// as few wait.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest line of an answer.
const LINE_BYTES_MAX: usize = 256 << 20;
/// Longest error.
const ERROR_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::reply::Reply;

    #[test]
    fn questions_are_encoded_so_that_they_read_back() {
        let question = Question::new("ls").arg("a b&c=d/é").with("stream", true);
        let (text, form) = question.path_and_form();
        assert_eq!(form, None);
        assert_eq!(text, "/api/v0/ls?arg=a%20b%26c%3Dd/%C3%A9&stream=true");
        let query = text.split_once('?').unwrap().1;
        let arguments = crate::rpc::arguments::Arguments::parse(query).unwrap();
        assert_eq!(arguments.all(), ["a b&c=d/é"]);
    }

    #[tokio::test]
    async fn only_a_connection_that_was_not_taken_is_told_as_such() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = Remote::new(listener.local_addr().unwrap(), None).unwrap();
        let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
        let body = futures::stream::iter([Err::<Bytes, _>(late)]);
        let request = remote.post("/").body(Body::from_stream(body)).unwrap();
        let error = remote.client.request(request).await.unwrap_err();
        assert!(is_timeout(&error), "{error:?}");
        assert!(!is_not_taken(&error), "{error:?}");
    }

    #[test]
    fn a_process_that_nobody_knows_is_not_told_to_be_killed() {
        let remote = Remote::new("192.0.2.1:5001".parse().unwrap(), None).unwrap();
        let told = remote.takes_no_connection().to_string();
        assert!(
            told.contains("firewall") && !told.contains("kill"),
            "{told}"
        );
        let told = remote.run_by("process 7".to_owned()).takes_no_connection();
        assert!(told.to_string().contains("kill -CONT"), "{told}");
    }

    #[tokio::test]
    async fn values_arrive_whole_however_they_are_cut() {
        let pieces = ["{\"a\":", "1}\n{\"a\"", ":2}\n", "{\"a\":3}"];
        let stream =
            futures::stream::iter(pieces.map(|piece| Ok::<_, RpcError>(Bytes::from(piece))));
        let response = Response::new(Body::from_stream(stream));
        let mut answer = Answer::new(response, Asked::default()).await.unwrap();
        let mut seen: Vec<serde_json::Value> = Vec::new();
        loop {
            let values = answer.values().await.unwrap();
            if values.is_empty() {
                break;
            }
            seen.extend(values);
        }
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[2]["a"], 3);
    }

    #[tokio::test]
    async fn an_error_behind_values_is_an_error() {
        let reply = Reply::values(|out| async move {
            out.value(&1).await?;
            Err(RpcError::failed("late"))
        });
        let response = reply.into_response(None).await;
        let mut answer = Answer::new(response, Asked::default()).await.unwrap();
        assert_eq!(answer.values::<u8>().await.unwrap(), [1]);
        assert_eq!(answer.values::<u8>().await.unwrap_err().message(), "late");
    }

    #[tokio::test]
    async fn a_status_with_a_body_is_told_by_its_text() {
        let reply = Reply::values(|_| async { Err(RpcError::failed("early")) });
        let response = reply.into_response(None).await;
        let error = Answer::new(response, Asked::default()).await.unwrap_err();
        assert_eq!(error.message(), "early");
    }
}
