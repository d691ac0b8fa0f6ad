//! What a site's own `_redirects` file says about a path that does not exist there.
//!
//! Only a host of one root has such a file: elsewhere one root's rules would send visitors of others about. It is read
//! for paths that do not exist, so that a broken one breaks nothing else.

use super::{Context, file};
use crate::body::Body;
use crate::error::Failure;
use crate::host::Origin;
use crate::names::{Led, Names};
use crate::redirects::{FILE_BYTES_MAX, Outcome, Rules, RulesError};
use crate::request::Request;
use cairn_node::name::path::{NamePath, Root};
use cairn_store::dag::path::{self, ResolveError, Resolved};
use cairn_store::unixfs::read::{self, Node};
use cairn_store::{BlockSource, cid};
use futures::{StreamExt, TryStreamExt};
use http::{HeaderValue, Response, StatusCode, header};

/// What is served instead.
pub(super) enum Instead {
    /// Another address.
    Moved(StatusCode, String),
    /// Other content of the site, with a status if it is a page that goes with one.
    Content(Box<(Request, Resolved)>, Option<StatusCode>),
}

/// What is served for a path that leads nowhere; `None` if there is no such rule.
pub(super) async fn instead<S: BlockSource + Clone + 'static>(
    (source, names): (&S, &dyn Names),
    request: &Request,
    led: &Led,
) -> Result<Option<Instead>, Failure> {
    if request.origin == Origin::Path || request.wish.is_some() {
        return Ok(None);
    }
    let asked = &request.asked.segments;
    let segments = &led.content.segments;
    // Where `/` of this host is.
    let top = segments.len().saturating_sub(asked.len());
    let site = segments.get(..top).unwrap_or_default();
    let root = &led.content.root;
    let Some(text) = rules(source, request, led, site).await? else {
        return Ok(None);
    };
    let rules = Rules::parse(&text).map_err(unread)?;
    let path = format!("/{}", asked.join("/"));
    let Some(outcome) = rules.find(&path, request.raw_query.as_deref()) else {
        return Ok(None);
    };
    let (to, status) = match outcome.map_err(unfit)? {
        Outcome::Redirect(status, location) => return Ok(Some(Instead::Moved(status, location))),
        Outcome::Rewrite(to) => (to, None),
        Outcome::Page(status, to) => (to, Some(status)),
    };
    let to = path::segments(to.split('/'))
        .map_err(|why| Failure::Redirects(format!("{to:?} in _redirects is no path: {why}")))?;
    let whole = [site, &to].concat();
    // The operator's rules are for what is really served.
    for (root, segments) in [
        (request.asked.root.clone(), &to),
        (Root::Content(*root), &whole),
    ] {
        let segments = segments.clone();
        names.admits(&NamePath { root, segments })?;
    }
    let resolved = match (path::resolve(source, root, &whole).await, status) {
        (Ok(resolved), _) => resolved,
        (Err(ResolveError::NoLink { .. }), Some(status)) => {
            return Err(Failure::Redirects(format!(
                "the page that _redirects names for the status {} does not exist",
                status.as_u16()
            )));
        }
        (Err(error), _) => return Err(Failure::resolve(request.reach, error)),
    };
    let mut request = request.clone();
    request.asked.segments = to;
    if status.is_some() {
        // They are about what was asked for, which does not exist.
        for name in CONDITIONS {
            request.headers.remove(name);
        }
    }
    let content = Box::new((request, resolved));
    Ok(Some(Instead::Content(content, status)))
}

/// The file, if the site has one.
async fn rules<S: BlockSource + Clone + 'static>(
    source: &S,
    request: &Request,
    led: &Led,
    site: &[String],
) -> Result<Option<Vec<u8>>, Failure> {
    let at = [site, &[NAME.to_owned()]].concat();
    let found = match path::resolve(source, &led.content.root, &at).await {
        Ok(found) => found,
        Err(ResolveError::NoLink { .. }) => return Ok(None),
        Err(error) => return Err(Failure::resolve(request.reach, error)),
    };
    let is_document = !matches!(found.cid.codec(), cid::DAG_PB | cid::RAW);
    if is_document || !found.remainder.is_empty() {
        return Ok(None);
    }
    let failed = |error| Failure::read(request.reach, error);
    let Node::File(file) = read::open(source, &found.cid).await.map_err(failed)? else {
        return Err(Failure::Redirects(format!(
            "could not parse {NAME}: it is no file"
        )));
    };
    if file.size() > FILE_BYTES_MAX as u64 {
        return Err(unread(RulesError::Size));
    }
    let pieces = file.read(source.clone(), 0..file.size()).boxed();
    let pieces: Vec<_> = pieces.try_collect().await.map_err(failed)?;
    Ok(Some(pieces.concat()))
}

/// An address that the site's rules name.
pub(super) fn moved(status: StatusCode, location: String, cache: HeaderValue) -> Response<Body> {
    let mut response = super::elsewhere(status, location);
    // Without it, browsers would keep what a domain's site says today for ever.
    response.headers_mut().insert(header::CACHE_CONTROL, cache);
    response
}

/// A page that goes with a status.
pub(super) async fn page<S: BlockSource + Clone + 'static>(
    context: &Context<'_, S>,
    status: StatusCode,
) -> Result<Response<Body>, Failure> {
    let Node::File(page) = context.open(&context.resolved.cid).await? else {
        return Err(Failure::Redirects(format!(
            "the page that {NAME} names for the status {} is no file",
            status.as_u16()
        )));
    };
    let name = context.request.asked.segments.last().map(String::as_str);
    let mut response = file::serve(context, &page, name).await?;
    *response.status_mut() = status;
    response.headers_mut().remove(header::ACCEPT_RANGES);
    response.headers_mut().remove(header::LAST_MODIFIED);
    Ok(response)
}

fn unread(error: RulesError) -> Failure {
    Failure::Redirects(format!("could not parse {NAME}: {error}"))
}

fn unfit(error: RulesError) -> Failure {
    Failure::Redirects(format!("could not use {NAME}: {error}"))
}

const NAME: &str = "_redirects";
const CONDITIONS: [header::HeaderName; 4] = [
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::RANGE,
    header::IF_RANGE,
];
