//! Folders: their `index.html`, or a page that lists them.
//!
//! The page is made from the folder's own links; children are never fetched. Names are foreign:
//! they are escaped as text, encoded as addresses, and cannot pose as other names. Some of its
//! strings are what tests of gateways look for, to the letter.

use super::{Context, answer, file, moved, not_modified};
use crate::body::{Body, Break};
use crate::budget::{self, Limit};
use crate::encode::{self, fingerprint};
use crate::error::Failure;
use crate::headers::{self, Match};
use crate::host::{Entries, Links};
use crate::metrics::Kind;
use crate::page::{self, HEAD_END, HEAD_STYLE, HEAD_TITLE, STYLE};
use crate::request::Verb;
use bytes::Bytes;
use cairn_store::BlockSource;
use cairn_store::dag::Bound;
use cairn_store::unixfs::read::{Directory, Entry, Node, ReadError};
use futures::{Stream, StreamExt, stream};
use http::{HeaderValue, Response, header};
use std::fmt::Write;
use std::pin::Pin;

/// The answer for a client that has the page already, found without reading the folder.
pub(super) fn known<S: BlockSource + Clone + 'static>(
    context: &Context<'_, S>,
) -> Option<Response<Body>> {
    // Most requests name no version at all.
    context.request.header(header::IF_NONE_MATCH)?;
    let etag = page_etag(context);
    (headers::if_none_match(context.request, &etag) == Match::Named)
        .then(|| not_modified(Kind::Directory, headers::value(etag), context.page_cache()))
}

/// The folder: its index, or its page.
pub(super) async fn serve<S: BlockSource + Clone + 'static>(
    context: &Context<'_, S>,
    directory: &Directory,
) -> Result<Response<Body>, Failure> {
    let request = context.request;
    let is_go_tool = request.query.first("go-get") == Some("1");
    if !request.has_trailing_slash() && !is_go_tool {
        let mut response = moved(request.with_trailing_slash());
        // Without it, browsers would keep what a name says today for ever.
        let map = response.headers_mut();
        map.insert(header::CACHE_CONTROL, context.cache());
        return Ok(response);
    }
    let failed = |error| Failure::read(request.reach, error);
    if let Some(entry) = directory
        .find(&context.source, INDEX)
        .await
        .map_err(failed)?
    {
        context.admits_below(INDEX)?;
        let Node::File(index) = context.open(&entry.cid).await? else {
            return Err(Failure::Broken(format!("{INDEX} is not a file")));
        };
        let name = request.query.first("filename").unwrap_or(INDEX);
        return file::serve(context, &index, Some(name)).await;
    }
    let etag = page_etag(context);
    if headers::if_none_match(request, &etag) == Match::Any {
        return Ok(not_modified(
            Kind::Directory,
            headers::value(etag),
            context.page_cache(),
        ));
    }
    let mut response = answer(Kind::Directory, &etag, headers::HTML, context.page_cache());
    let map = response.headers_mut();
    map.insert(header::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    map.insert(header::CONTENT_SECURITY_POLICY, headers::OWN_PAGE_POLICY);
    if request.verb == Verb::Head {
        return Ok(response);
    }
    let listing = Listing::read(context, directory).await?;
    let page = Page::new(context, listing);
    if page.rest.is_none() && page.entries.len() <= ENTRIES_AT_ONCE {
        let html = page.html();
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(html.len()));
        *response.body_mut() = Body::whole(html);
    } else {
        *response.body_mut() = Body::stream(page.stream(), None, context.idle());
    }
    Ok(response)
}

fn page_etag<S>(context: &Context<'_, S>) -> String {
    let most = context.config.listing_entries_max.get();
    let version = fingerprint(TEMPLATE_VERSION, &most.to_be_bytes());
    format!("\"DirIndex-{version:016x}_CID-{}\"", context.resolved.cid)
}

/// The entries that are shown.
struct Listing {
    /// All of them, by name; of a very large folder the first that it has.
    entries: Vec<Entry>,
    /// The others of a very large folder.
    rest: Option<Rest>,
    /// Whether there are more than are shown.
    is_cut: bool,
}

/// Entries that come as they are read.
struct Rest {
    found: Pin<Box<dyn Stream<Item = Result<Entry, ReadError>> + Send>>,
    /// How many more are shown.
    left: usize,
    /// How many more bytes of a page are begun.
    bytes_left: usize,
}

impl Listing {
    async fn read<S: BlockSource + Clone + 'static>(
        context: &Context<'_, S>,
        directory: &Directory,
    ) -> Result<Self, Failure> {
        let most = usize::try_from(context.config.listing_entries_max.get()).unwrap_or(usize::MAX);
        let budget = budget::of_listing(context.config);
        let mut found = Box::pin(directory.entries(context.source.clone(), budget));
        let segments = &context.request.asked.segments;
        let address: usize = segments.iter().map(|name| name.len() + 1).sum();
        let (mut entries, mut rest, mut is_cut, mut page_bytes) =
            (Vec::new(), None, false, 0_usize);
        while let Some(entry) = found.next().await {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if matches!(error.bound(), Some(Bound::Entries(_))) => {
                    is_cut = true;
                    break;
                }
                Err(error) => return Err(Failure::read(context.request.reach, error)),
            };
            // A row repeats the folder's address, and a name stands in it three times.
            let row_bytes = ROW_BYTES + address + 3 * entry.name.len();
            page_bytes = page_bytes.saturating_add(row_bytes);
            if entries.len() >= most {
                is_cut = true;
                break;
            }
            entries.push(entry);
            if entries.len() > SORTED_ENTRIES_MAX || page_bytes > SORTED_BYTES_MAX {
                rest = Some(Rest {
                    left: most - entries.len(),
                    bytes_left: PAGE_BYTES_MAX,
                    found,
                });
                break;
            }
        }
        if rest.is_none() {
            entries.sort_by(|one, other| one.name.cmp(&other.name));
        }
        Ok(Self {
            entries,
            rest,
            is_cut,
        })
    }
}

/// The page, ready to be written.
struct Page {
    head: String,
    /// The folder's path at this host, without a slash at its end.
    address: String,
    /// How entries are linked to by their CIDs.
    by_cid: Entries,
    entries: Vec<Entry>,
    rest: Option<Rest>,
    foot: String,
}

impl Page {
    fn new<S>(context: &Context<'_, S>, listing: Listing) -> Self {
        let asked = &context.request.asked;
        let links = Links::new(context.request);
        let address = links.folder();
        let mut title = asked.root.to_string();
        let (space, root) = title.split_at(SPACE_BYTES);
        let mut crumbs = format!("{space}<a href=\"{}\">{root}</a>", links.crumb(0));
        for (above, name) in asked.segments.iter().enumerate() {
            let shown = encode::html(&encode::visible(name));
            let _ = write!(
                crumbs,
                "/<a href=\"{}\">{shown}</a>",
                links.crumb(above + 1)
            );
            title.push('/');
            title.push_str(&shown);
        }
        let count = match (listing.entries.len(), &listing.rest) {
            (1, None) => "1 entry".to_owned(),
            (count, None) => format!("{count} entries"),
            (count, Some(_)) => format!("{count} entries and more"),
        };
        let mut head = format!(
            "{HEAD_TITLE}Index of {title}{HEAD_STYLE}{STYLE}{HEAD_END}<h1>Index of <span class=\"path\">{crumbs}</span></h1>\n\
             <p class=\"about\"><span class=\"cid\">{}</span> \u{b7} {count}</p>\n",
            context.resolved.cid
        );
        if listing.is_cut {
            let _ = writeln!(
                head,
                "<p class=\"note\">This folder has more entries than one page shows: these are \
                 {} of them. {ANY_ENTRY}</p>",
                listing.entries.len()
            );
        }
        if listing.rest.is_some() {
            let _ = writeln!(
                head,
                "<p class=\"note\">This folder is very large: its entries come in the order in which they are \
                 stored. {ANY_ENTRY}</p>"
            );
        }
        head.push_str(TABLE);
        if !asked.segments.is_empty() {
            let up = format!("{address}/..");
            let _ = writeln!(
                head,
                "<tr><td class=\"name\">{}</td><td class=\"hash\"></td><td></td></tr>",
                link(&up, "..")
            );
        }
        Self {
            head,
            address,
            by_cid: links.entries(),
            entries: listing.entries,
            rest: listing.rest,
            foot: FOOT.to_owned(),
        }
    }

    fn html(self) -> String {
        let mut out = self.head;
        out.reserve(self.entries.len() * ROW_BYTES + self.foot.len());
        for entry in &self.entries {
            row(&mut out, (&self.address, &self.by_cid), entry);
        }
        out.push_str(&self.foot);
        out
    }

    /// Row by row, so that the page of a large folder never exists as a whole.
    fn stream(self) -> crate::body::Chunks {
        let head = stream::iter([Ok(Bytes::from(self.head))]);
        let foot = stream::iter([Ok(Bytes::from(self.foot))]);
        let mut entries = self.entries.into_iter();
        let (address, by_cid) = (self.address.clone(), self.by_cid.clone());
        let rows = stream::iter(std::iter::from_fn(move || {
            let mut out = String::new();
            for entry in entries.by_ref().take(ROWS_PER_CHUNK) {
                row(&mut out, (&address, &by_cid), &entry);
            }
            (!out.is_empty()).then(|| Ok(Bytes::from(out)))
        }));
        let (address, by_cid) = (self.address, self.by_cid);
        let rest = stream::try_unfold(self.rest, move |rest| {
            let (address, by_cid) = (address.clone(), by_cid.clone());
            async move {
                let Some(mut rest) = rest else {
                    return Ok(None);
                };
                let mut out = String::new();
                let goes_on = rest.rows(&mut out, (&address, &by_cid)).await?;
                Ok(Some((Bytes::from(out), goes_on.then_some(rest))))
            }
        });
        head.chain(rows).chain(rest).chain(foot).boxed()
    }
}

impl Rest {
    /// Some more rows; false if they were the last.
    async fn rows(&mut self, out: &mut String, place: (&str, &Entries)) -> Result<bool, Break> {
        for _ in 0..ROWS_PER_CHUNK {
            let entry = match self.found.next().await {
                None => return Ok(false),
                Some(Ok(entry)) if self.left > 0 && self.bytes_left > 0 => entry,
                Some(Err(error)) if error.bound().is_none() => return Err(error.into()),
                Some(more) => {
                    let why = match more.err().and_then(|error| error.bound()) {
                        None | Some(Bound::Entries(_)) => String::new(),
                        Some(bound) => format!(": {}", Limit::Request(bound)),
                    };
                    let _ = writeln!(
                        out,
                        "<tr><td colspan=\"3\">This folder has more entries than one page shows{why}. {ANY_ENTRY}</td></tr>"
                    );
                    return Ok(false);
                }
            };
            let before = out.len();
            row(out, place, &entry);
            self.left -= 1;
            self.bytes_left = self.bytes_left.saturating_sub(out.len() - before);
        }
        Ok(true)
    }
}

fn row(out: &mut String, (folder, by_cid): (&str, &Entries), entry: &Entry) {
    let cid = entry.cid.to_string();
    let by_cid = by_cid.link(&cid, &entry.name);
    let shown = encode::html(&encode::visible(&entry.name));
    let name = match entry.name.as_str() {
        // No address says these: browsers take them for this folder and the one above.
        "" | "." | ".." => shown,
        // A slash would begin another name, and two of them another host.
        name => {
            let below = encode::path(name).replace('/', "%2F");
            let address = format!("{}/{below}", encode::path(folder));
            format!("<a href=\"{}\">{shown}</a>", encode::html(&address))
        }
    };
    let _ = writeln!(
        out,
        "<tr><td class=\"name\">{}</td>\
         <td class=\"hash\"><a class=\"ipfs-hash\" translate=\"no\" {by_cid}>{}</a></td>\
         <td class=\"size\">{}</td></tr>",
        name,
        short(&cid),
        size(entry.tsize),
    );
}

/// A link to a path of this host; `shown` is HTML.
fn link(path: &str, shown: &str) -> String {
    format!(
        "<a href=\"{}\">{shown}</a>",
        encode::html(&encode::path(path))
    )
}

/// A CID by its ends.
fn short(cid: &str) -> String {
    match (
        cid.get(..4),
        cid.len().checked_sub(6).and_then(|from| cid.get(from..)),
    ) {
        (Some(start), Some(end)) if cid.len() > 12 => format!("{start}\u{2026}{end}"),
        _ => cid.to_owned(),
    }
}

/// A size for people, in three digits.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    for unit in UNITS {
        if tenths < 10_240 {
            return if tenths < 1000 {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            } else {
                format!("{} {unit}", tenths / 10)
            };
        }
        tenths /= 1024;
    }
    format!("{bytes} B")
}

const INDEX: &str = "index.html";
const ANY_ENTRY: &str =
    "Any entry can be opened by its name, and <code>cairn ls</code> lists them all.";
/// What is sorted is held: so many entries, and so many bytes of rows before names are encoded.
const SORTED_ENTRIES_MAX: usize = 10_000;
const SORTED_BYTES_MAX: usize = 16 << 20;
/// Most bytes of the rows that are not sorted.
const PAGE_BYTES_MAX: usize = 1 << 30;
/// Up to so many entries the page is made at once and its length is told.
const ENTRIES_AT_ONCE: usize = 1000;
const ROWS_PER_CHUNK: usize = 256;
const ROW_BYTES: usize = 400;

/// Changes with everything below; raise the number when the rows themselves change.
const TEMPLATE_VERSION: u64 = {
    let mut hash = fingerprint(page::VERSION, b"rows 3");
    hash = fingerprint(hash, TABLE.as_bytes());
    fingerprint(hash, FOOT.as_bytes())
};

const TABLE: &str = "<table>\n";
const FOOT: &str = "</table>\n</body>\n</html>\n";

/// `/ipfs/` or `/ipns/`.
const SPACE_BYTES: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (150 << 10, "150 KiB"),
            (1 << 20, "1.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
