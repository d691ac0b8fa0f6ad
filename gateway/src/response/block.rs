//! Blocks as they are: raw, and documents of the codecs that are formats of their own.

use super::{Context, answer, not_modified, ranged};
use crate::body::Body;
use crate::error::Failure;
use crate::format::Format;
use crate::headers::{self, Disposition, Match};
use crate::metrics::Kind;
use crate::request::Verb;
use bytes::Bytes;
use cairn_store::BlockSource;
use cairn_store::source::cut;
use http::{HeaderValue, Response, header};

/// The block under its CID, for whoever checks it.
pub(super) async fn serve_raw<S: BlockSource + Clone + 'static>(
    context: &Context<'_, S>,
) -> Result<Response<Body>, Failure> {
    let mut response = serve(context, Kind::Raw, Format::Raw).await?;
    let disposition = context.disposition(Disposition::Attachment, "bin");
    response
        .headers_mut()
        .insert(header::CONTENT_DISPOSITION, disposition);
    Ok(response)
}

/// A document, named as `format`.
pub(super) async fn serve_document<S: BlockSource + Clone + 'static>(
    context: &Context<'_, S>,
    format: Format,
) -> Result<Response<Body>, Failure> {
    let mut response = serve(context, Kind::Dag, format).await?;
    let (otherwise, extension) = match format {
        Format::Json | Format::DagJson => (Disposition::Inline, "json"),
        _ => (Disposition::Attachment, "cbor"),
    };
    let disposition = context.disposition(otherwise, extension);
    response
        .headers_mut()
        .insert(header::CONTENT_DISPOSITION, disposition);
    Ok(response)
}

async fn serve<S: BlockSource + Clone + 'static>(
    context: &Context<'_, S>,
    kind: Kind,
    format: Format,
) -> Result<Response<Body>, Failure> {
    let etag = context.etag(&format!(".{}", format.name()));
    let matched = headers::if_none_match(context.request, &etag);
    if matched == Match::Named {
        return Ok(not_modified(kind, headers::value(etag), context.cache()));
    }
    let (size, data) = read(context).await?;
    if matched == Match::Any {
        return Ok(not_modified(kind, headers::value(etag), context.cache()));
    }
    let media = HeaderValue::from_static(format.media_type());
    let mut response = answer(kind, &etag, media.clone(), context.cache());
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    let content = ranged::Content {
        size,
        media: Some(media),
        etag,
        modified: None,
        here: Some(data.clone()),
        read: |range| ranged::one(cut(&data, &range)),
    };
    content.fill(context, &mut response).await?;
    Ok(response)
}

/// Size and bytes; without the bytes where only the size is needed.
async fn read<S: BlockSource>(context: &Context<'_, S>) -> Result<(u64, Bytes), Failure> {
    let cid = &context.resolved.cid;
    let absent = || Failure::absent(context.request.reach, cid);
    if context.request.verb == Verb::Head {
        let size = context.source.size(cid).await.map_err(Failure::source)?;
        return Ok((size.ok_or_else(absent)?, Bytes::new()));
    }
    let block = context.source.block(cid).await.map_err(Failure::source)?;
    let (_, data) = block.ok_or_else(absent)?.into_parts();
    Ok((data.len() as u64, data))
}
