//! Content with a size of which parts may be asked for: one part as 206, several as
//! `multipart/byteranges`.

use super::Context;
use crate::body::{self, Body, Break, Chunks};
use crate::budget;
use crate::error::Failure;
use crate::range::{self, Plan};
use crate::request::Verb;
use crate::{headers, media};
use bytes::Bytes;
use cairn_store::BlockSource;
use cairn_store::source::cut;
use futures::{StreamExt, stream};
use http::{HeaderValue, Response, StatusCode, header};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::{Duration, SystemTime};

/// Content, its size and how to read it.
pub(super) struct Content<R> {
    /// Bytes in all.
    pub(super) size: u64,
    /// What it is; `None` to find out from its first bytes.
    pub(super) media: Option<HeaderValue>,
    /// Its entity tag.
    pub(super) etag: String,
    /// Its time of change, if kept.
    pub(super) modified: Option<SystemTime>,
    /// All of it, if that is here already.
    pub(super) here: Option<Bytes>,
    /// Reads a part.
    pub(super) read: R,
}

impl<R: Fn(Range<u64>) -> Chunks> Content<R> {
    /// Fills `response` with what the request asks for.
    pub(super) async fn fill<S: BlockSource + Clone + 'static>(
        self,
        context: &Context<'_, S>,
        response: &mut Response<Body>,
    ) -> Result<(), Failure> {
        let plan = self.plan(context)?;
        budget::fits(plan.bytes(self.size), context.config).map_err(Failure::Over)?;
        response
            .headers_mut()
            .insert(header::ACCEPT_RANGES, headers::BYTES);
        let broken = |why: Break| why.into_failure(context.reach());
        let idle = context.idle();
        let (media, length, body) = match plan {
            Plan::Unsatisfiable => return Err(Failure::Unsatisfiable { size: self.size }),
            Plan::Whole if context.request.verb == Verb::Head => {
                let media = match self.media.clone() {
                    Some(media) => media,
                    None => self.sniff().await.map_err(broken)?,
                };
                (media, self.size, Body::empty())
            }
            Plan::Whole => {
                let (first, body) = self.send(0..self.size, idle).await.map_err(broken)?;
                let media = self.media.unwrap_or_else(|| media::by_content(&first));
                (media, self.size, body)
            }
            Plan::One(range) => {
                let length = range.end - range.start;
                let shows_start = range.start == 0
                    && (range.end >= media::SNIFFED_BYTES || range.end == self.size);
                let known = match self.media.clone() {
                    None if !shows_start => Some(self.sniff().await.unwrap_or(media::UNKNOWN)),
                    known => known,
                };
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let told = content_range(&range, self.size);
                response
                    .headers_mut()
                    .insert(header::CONTENT_RANGE, headers::value(told));
                let (first, body) = self.send(range, idle).await.map_err(broken)?;
                let media = known.unwrap_or_else(|| media::by_content(&first));
                (media, length, body)
            }
            Plan::Many(ranges) => {
                let media = match self.media.clone() {
                    Some(media) => media,
                    None => self.sniff().await.unwrap_or(media::UNKNOWN),
                };
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let boundary = boundary();
                let (length, chunks) = self.parts(&ranges, &boundary, &media);
                let (_, body) = send(chunks, length, idle).await.map_err(broken)?;
                let media = headers::value(format!("multipart/byteranges; boundary={boundary}"));
                (media, length, body)
            }
        };
        let map = response.headers_mut();
        map.insert(header::CONTENT_TYPE, media);
        map.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        headers::last_modified(map, self.modified);
        *response.body_mut() = body;
        Ok(())
    }

    fn plan<S>(&self, context: &Context<'_, S>) -> Result<Plan, Failure> {
        let request = context.request;
        // Only GET has ranges.
        if request.verb == Verb::Head {
            return Ok(Plan::Whole);
        }
        let Some(asked) = request.headers.get(header::RANGE) else {
            return Ok(Plan::Whole);
        };
        if !headers::if_range(request, &self.etag, self.modified) {
            return Ok(Plan::Whole);
        }
        let most = usize::try_from(context.config.ranges_max.get()).unwrap_or(usize::MAX);
        asked
            .to_str()
            .ok()
            .and_then(|asked| range::plan(asked, self.size, most).ok())
            .ok_or_else(|| {
                let shown: String = asked
                    .as_bytes()
                    .escape_ascii()
                    .to_string()
                    .chars()
                    .take(80)
                    .collect();
                Failure::Parameter(format!(
                    "invalid Range header {shown}: it should read like bytes=0-99 or bytes=-100"
                ))
            })
    }

    /// A part as a body, and its first bytes.
    async fn send(&self, range: Range<u64>, idle: Duration) -> Result<(Bytes, Body), Break> {
        match &self.here {
            Some(here) => {
                let part = cut(here, &range);
                let length = part.len() as u64;
                let body = match length <= WHOLE_BYTES_MAX {
                    true => Body::whole(part.clone()),
                    // Its request runs until all of it is taken.
                    false => Body::stream(one(part.clone()), Some(length), idle),
                };
                Ok((part, body))
            }
            None => {
                let length = range.end - range.start;
                send((self.read)(range), length, idle).await
            }
        }
    }

    async fn sniff(&self) -> Result<HeaderValue, Break> {
        if let Some(here) = &self.here {
            return Ok(media::by_content(here));
        }
        let wanted = self.size.min(media::SNIFFED_BYTES);
        let bytes = usize::try_from(wanted).unwrap_or(usize::MAX);
        let peeked = body::peek((self.read)(0..wanted), bytes).await?;
        Ok(media::by_content(&body::join(peeked.first)))
    }

    /// All parts with their heads, and how long they are together.
    fn parts(&self, ranges: &[Range<u64>], boundary: &str, media: &HeaderValue) -> (u64, Chunks) {
        let media = media.to_str().unwrap_or_default();
        let mut length = 0_u64;
        let mut pieces: Vec<Chunks> = Vec::with_capacity(ranges.len() * 2 + 1);
        for range in ranges {
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: {media}\r\nContent-Range: {}\r\n\r\n",
                content_range(range, self.size)
            );
            length = length
                .saturating_add(head.len() as u64)
                .saturating_add(range.end - range.start);
            pieces.push(one(head.into()));
            pieces.push((self.read)(range.clone()));
        }
        let end = format!("\r\n--{boundary}--\r\n");
        length = length.saturating_add(end.len() as u64);
        pieces.push(one(end.into()));
        (length, stream::iter(pieces).flatten().boxed())
    }
}

/// Bytes that are here, as a stream.
pub(super) fn one(bytes: Bytes) -> Chunks {
    stream::once(std::future::ready(Ok(bytes))).boxed()
}

/// A body of `length` bytes, and its first bytes. What is small is read to its end before anything
/// is answered; of the rest, what types are told by.
async fn send(chunks: Chunks, length: u64, idle: Duration) -> Result<(Bytes, Body), Break> {
    if length == 0 {
        return Ok((Bytes::new(), Body::empty()));
    }
    let wanted = if length <= WHOLE_BYTES_MAX {
        length
    } else {
        media::SNIFFED_BYTES
    };
    let peeked = body::peek(chunks, usize::try_from(wanted).unwrap_or(usize::MAX)).await?;
    if length <= WHOLE_BYTES_MAX {
        let bytes = body::join(peeked.first);
        if bytes.len() as u64 != length {
            return Err(Break::Size);
        }
        return Ok((bytes.clone(), Body::whole(bytes)));
    }
    let first = match peeked.first.first() {
        Some(first) if first.len() as u64 >= media::SNIFFED_BYTES => first.clone(),
        _ => body::join(peeked.first.clone()),
    };
    Ok((
        first,
        Body::stream(peeked.into_chunks(), Some(length), idle),
    ))
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!(
        "bytes {}-{}/{size}",
        range.start,
        range.end.saturating_sub(1)
    )
}

/// Nobody can foresee it, so no content can contain it on purpose.
fn boundary() -> String {
    let random = || RandomState::new().hash_one(0_u8);
    format!("cairn-{:016x}{:016x}", random(), random())
}

/// Content up to this size is read whole before it is sent: it costs one write, and whatever
/// fails is still told by a status.
const WHOLE_BYTES_MAX: u64 = 256 << 10;
