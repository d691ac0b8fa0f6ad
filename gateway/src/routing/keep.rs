//! `PUT /routing/v1/ipns/<name>`: has the record of a name kept, for whoever brings one that holds.
//!
//! The only thing that others may write, so the operator has to let them. Whatever can be refused without it is
//! refused before the body is read; nothing is told to anybody that was not checked against the name.

use super::{Lookups, request};
use crate::body::Body;
use crate::config::Config;
use crate::error::Failure;
use crate::headers;
use crate::metrics::Kind;
use crate::response::KindExtension;
use bytes::Buf;
use cairn_node::PeerId;
use cairn_node::clock;
use cairn_node::ipns::{RECORD_BYTES_MAX, Record};
use cairn_node::routing::RoutingError;
use http::{HeaderMap, HeaderValue, Response, header};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Why nothing is kept as long as the operator has not said that it may be.
pub(super) fn is_off() -> Failure {
    Failure::Unsupported(
        "this node keeps no records of names for others; `gateway.routing_put` in its configuration lets it".to_owned(),
    )
}

/// Reads a record from the body and has it kept.
pub(super) async fn keep<B>(
    lookups: &dyn Lookups,
    places: &Arc<Semaphore>,
    config: &Config,
    (name, headers): (PeerId, &HeaderMap),
    body: Pin<&mut B>,
) -> Result<Response<Body>, Failure>
where
    B: http_body::Body<Data: Send, Error: fmt::Display> + Send,
{
    if !request::is_name_record(headers) {
        return Err(Failure::MediaType);
    }
    let record = timeout(config.header_timeout.duration(), read(body)).await;
    let record = record.unwrap_or(Err(Failure::SlowUpload))?;
    Record::valid(&name, &record, clock::wall())
        .map_err(|error| Failure::Parameter(error.to_string()))?;
    // Now, or whoever sends slowly would have it.
    let _place = Arc::clone(places)
        .try_acquire_owned()
        .map_err(|_| Failure::Busy)?;
    // It ends by itself before that; and before the gateway gives up on the request as a whole.
    let patience = KEEP_TIME_MAX.min(config.head_timeout.duration() * 3 / 4);
    let kept = timeout(patience, lookups.keep(name, record)).await;
    let took = match kept.unwrap_or(Err(RoutingError::LookupTooSlow)) {
        Ok(took) => took,
        Err(error @ RoutingError::NewerValueKept) => return Err(Failure::Older(error.to_string())),
        Err(error @ RoutingError::InvalidValue(_)) => {
            return Err(Failure::Parameter(error.to_string()));
        }
        Err(RoutingError::Denied(denial)) => return Err(denial.into()),
        Err(RoutingError::Stopping) => return Err(Failure::Stopping),
        Err(error) => return Err(Failure::NotKept(error.to_string())),
    };
    let told = match took {
        0 => "the record is kept here; no other peer is known to have taken it\n".to_owned(),
        1 => "1 peer took the record\n".to_owned(),
        took => format!("{took} peers took the record\n"),
    };
    let mut response = Response::new(Body::whole(told));
    let map = response.headers_mut();
    map.insert(header::CONTENT_TYPE, headers::TEXT);
    map.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    map.insert(header::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    response
        .extensions_mut()
        .insert(KindExtension(Kind::Routing));
    Ok(response)
}

/// A body that is no longer than a record may be.
async fn read<B>(mut body: Pin<&mut B>) -> Result<Vec<u8>, Failure>
where
    B: http_body::Body<Data: Send, Error: fmt::Display> + Send,
{
    let too_large = Failure::TooLarge {
        bytes_max: RECORD_BYTES_MAX,
    };
    if body.size_hint().lower() > RECORD_BYTES_MAX as u64 {
        return Err(too_large);
    }
    let mut record = Vec::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame =
            frame.map_err(|error| Failure::Parameter(format!("the record broke off: {error}")))?;
        // Trailers say nothing that matters here.
        let Ok(mut piece) = frame.into_data() else {
            continue;
        };
        if record.len() + piece.remaining() > RECORD_BYTES_MAX {
            return Err(too_large);
        }
        while piece.has_remaining() {
            let chunk = piece.chunk();
            let length = chunk.len();
            record.extend_from_slice(chunk);
            piece.advance(length);
        }
    }
    Ok(record)
}

/// Records that are being kept at once: each is a lookup and a word to twenty peers.
pub(super) const PUTS_MAX: usize = 8;
/// How long that may take.
const KEEP_TIME_MAX: Duration = Duration::from_secs(40);
