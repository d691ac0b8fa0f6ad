//! Files and symbolic links.

use super::{Context, ahead, answer, not_modified, ranged};
use crate::body::Body;
use crate::error::Failure;
use crate::headers::{self, Disposition, Match};
use crate::media;
use crate::metrics::Kind;
use crate::request::Verb;
use cairn_store::BlockSource;
use cairn_store::unixfs::read::{File, Symlink};
use http::{HeaderValue, Response, header};

/// A file, or a folder through a file; the entity tag is that of where the path led.
pub(super) async fn serve<S: BlockSource + Clone + 'static>(
    context: &Context<'_, S>,
    file: &File,
    name: Option<&str>,
) -> Result<Response<Body>, Failure> {
    let request = context.request;
    let etag = context.etag("");
    let modified = headers::modified(file.mtime());
    if headers::if_none_match(request, &etag) == Match::Any
        || headers::not_modified_since(request, modified)
    {
        return Ok(not_modified(
            Kind::File,
            headers::value(etag),
            context.cache(),
        ));
    }
    let mut response = answer(Kind::File, &etag, media::UNKNOWN, context.cache());
    if let Some(disposition) = disposition(context, name) {
        response
            .headers_mut()
            .insert(header::CONTENT_DISPOSITION, disposition);
    }
    let content = ranged::Content {
        size: file.size(),
        media: name.and_then(media::by_name),
        etag,
        modified,
        here: file.here().cloned(),
        read: |range| ahead::read(file, context.source.clone(), range, context.leave),
    };
    content.fill(context, &mut response).await?;
    Ok(response)
}

/// Where a link points; following it is up to the client.
pub(super) fn serve_symlink<S: BlockSource + Clone + 'static>(
    context: &Context<'_, S>,
    link: Symlink,
) -> Response<Body> {
    let etag = context.etag("");
    let modified = headers::modified(link.mtime);
    if headers::if_none_match(context.request, &etag) == Match::Any
        || headers::not_modified_since(context.request, modified)
    {
        return not_modified(Kind::File, headers::value(etag), context.cache());
    }
    let media = HeaderValue::from_static("inode/symlink");
    let mut response = answer(Kind::File, &etag, media, context.cache());
    let map = response.headers_mut();
    map.insert(header::CONTENT_LENGTH, HeaderValue::from(link.target.len()));
    headers::last_modified(map, modified);
    if context.request.verb == Verb::Get {
        *response.body_mut() = Body::whole(link.target);
    }
    response
}

/// Plain files have none: browsers then use the address.
fn disposition<S: BlockSource + Clone + 'static>(
    context: &Context<'_, S>,
    name: Option<&str>,
) -> Option<HeaderValue> {
    let asked = context
        .request
        .query
        .first("filename")
        .filter(|name| !name.is_empty());
    match (
        Disposition::wanted(context.request, Disposition::Inline),
        asked,
    ) {
        (disposition, Some(asked)) => Some(disposition.header(asked)),
        (Disposition::Inline, None) => None,
        (Disposition::Attachment, None) => {
            let cid = context.resolved.cid.to_string();
            Some(Disposition::Attachment.header(name.unwrap_or(&cid)))
        }
    }
}
