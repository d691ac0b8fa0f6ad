//! HTTP/1.1 over a plain socket: what was sent is what comes out, an answer that was cut is an error.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
    /// Trailers of a chunked body, names in lower case.
    pub trailers: BTreeMap<String, String>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header, empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Sends one request on a connection of its own and reads the answer to its end.
pub fn request(
    to: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut socket = TcpStream::connect(to)?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\nte: trailers\r\n");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        head += &format!("host: {to}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    socket.write_all(head.as_bytes())?;
    // A server that refuses early may not read the body.
    let _ = socket.write_all(body);
    read(BufReader::new(socket), method)
}

/// Reads one answer to a request of this method.
pub fn read(mut input: impl BufRead, method: &str) -> io::Result<Answer> {
    let first = line(&mut input)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| wrong(&format!("status line {first:?}")))?;
    let headers = fields(&mut input)?;
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
        trailers: BTreeMap::new(),
    };
    let without_body = method == "HEAD" || status < 200 || status == 204 || status == 304;
    if without_body {
        return Ok(answer);
    }
    if answer.header("transfer-encoding") == "chunked" {
        loop {
            let size = line(&mut input)?;
            let size = u64::from_str_radix(size.trim(), 16).map_err(|_| wrong("chunk size"))?;
            if size == 0 {
                break;
            }
            exactly(&mut input, size, &mut answer.body)?;
            line(&mut input)?;
        }
        answer.trailers = fields(&mut input)?;
    } else if let Some(length) = answer.headers.get("content-length") {
        let length = length.parse().map_err(|_| wrong("content-length"))?;
        exactly(&mut input, length, &mut answer.body)?;
    } else {
        input.read_to_end(&mut answer.body)?;
    }
    Ok(answer)
}

fn fields(input: &mut impl BufRead) -> io::Result<BTreeMap<String, String>> {
    let mut fields = BTreeMap::new();
    loop {
        let line = line(input)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| wrong(&line))?;
        fields.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}

fn exactly(input: &mut impl BufRead, length: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let read = input.take(length).read_to_end(into)? as u64;
    if read == length {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.pop_if(|last| *last == b'\r');
    String::from_utf8(line).map_err(|_| wrong("header bytes"))
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
