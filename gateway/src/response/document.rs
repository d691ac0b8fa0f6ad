//! Documents as pages: what a block of dag-json, dag-cbor or cbor says, with links to follow.
//!
//! A page shows a document and is none: it has its own entity tag, and whoever wants the bytes finds the links to
//! them on it. What is inside is foreign and may be anything: it is escaped, made visible, and cut where a page ends.

use super::{Context, answer, not_modified};
use crate::body::Body;
use crate::encode::{self, fingerprint};
use crate::error::Failure;
use crate::headers::{self, Match};
use crate::host::{Entries, Links};
use crate::metrics::Kind;
use crate::page::{self, HEAD_END, HEAD_STYLE, HEAD_TITLE, STYLE};
use crate::request::Verb;
use cairn_store::dag::value::{self, Value};
use cairn_store::{BlockSource, cid};
use http::{HeaderValue, Response, header};
use std::fmt::Write;

/// Whether a browser asks for a page about a document of this codec. Browsers show plain JSON themselves.
pub(super) fn is_wanted<S: BlockSource + Clone + 'static>(context: &Context<'_, S>) -> bool {
    let request = context.request;
    let is_for_people = request
        .header(header::ACCEPT)
        .is_some_and(|accept| accept.contains("text/html"));
    let has_page = matches!(context.codec(), cid::DAG_JSON | cid::DAG_CBOR | cid::CBOR);
    has_page
        && is_for_people
        && request.wish.is_none()
        && request.query.first("download") != Some("true")
}

/// The page.
pub(super) async fn serve<S: BlockSource + Clone + 'static>(
    context: &Context<'_, S>,
) -> Result<Response<Body>, Failure> {
    let shown = &context.resolved.cid;
    let etag = format!("\"DagIndex-{TEMPLATE_VERSION:016x}_CID-{shown}\"");
    let matched = headers::if_none_match(context.request, &etag);
    if matched == Match::Named {
        return Ok(not_modified(
            Kind::Dag,
            headers::value(etag),
            context.page_cache(),
        ));
    }
    let block = context.source.block(shown).await.map_err(Failure::source)?;
    let block = block.ok_or_else(|| Failure::absent(context.request.reach, shown))?;
    if matched == Match::Any {
        return Ok(not_modified(
            Kind::Dag,
            headers::value(etag),
            context.page_cache(),
        ));
    }
    let document = value::from_block(&block).map_err(|error| Failure::Broken(error.to_string()))?;
    let html = html(context, &document, block.data().len());
    let mut response = answer(Kind::Dag, &etag, headers::HTML, context.page_cache());
    let map = response.headers_mut();
    map.insert(header::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    map.insert(header::CONTENT_SECURITY_POLICY, headers::OWN_PAGE_POLICY);
    map.insert(header::CONTENT_LENGTH, HeaderValue::from(html.len()));
    if context.request.verb == Verb::Get {
        *response.body_mut() = Body::whole(html);
    }
    Ok(response)
}

fn html<S>(context: &Context<'_, S>, document: &Value, bytes: usize) -> String {
    let shown = context.resolved.cid;
    let codec = cid::codec_name(shown.codec()).unwrap_or("document");
    let mut out = format!(
        "{HEAD_TITLE}{shown}{HEAD_STYLE}{STYLE}{OWN_STYLE}{HEAD_END}<h1>{codec} <span class=\"cid\">{shown}</span></h1>\n\
         <p class=\"about\">{bytes} bytes \u{b7} <a href=\"?format=raw\">block</a> \u{b7} \
         <a href=\"?format={}\">document</a></p>\n",
        match shown.codec() {
            cid::CBOR => "cbor",
            _ => codec,
        },
    );
    let mut writer = Writer {
        links: Links::new(context.request).entries(),
        out: &mut out,
        values: 0,
        is_cut: false,
    };
    writer.value(document, 0);
    if writer.is_cut {
        out.push_str(
            "<p class=\"note\">The document goes on: this page shows its beginning. The links above give it whole.</p>\n",
        );
    }
    out.push_str("</body>\n</html>\n");
    out
}

struct Writer<'a> {
    links: Entries,
    out: &'a mut String,
    values: usize,
    is_cut: bool,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) {
        self.values += 1;
        if self.values > VALUES_SHOWN_MAX
            || depth > DEPTH_SHOWN_MAX
            || self.out.len() > PAGE_BYTES_MAX
        {
            self.is_cut = true;
            self.out.push('\u{2026}');
            return;
        }
        match value {
            Value::Null => self.simple("null"),
            Value::Bool(true) => self.simple("true"),
            Value::Bool(false) => self.simple("false"),
            Value::Integer(number) => self.simple(&number.to_string()),
            Value::Float(number) => self.simple(&number.to_string()),
            Value::Text(text) => self.text(text),
            Value::Bytes(bytes) => {
                let start = bytes.get(..BYTES_SHOWN_MAX).unwrap_or(bytes);
                self.is_cut |= start.len() < bytes.len();
                self.out.push_str("<code class=\"bytes\">");
                for byte in start {
                    // Writing to a String cannot fail.
                    let _ = write!(self.out, "{byte:02x}");
                }
                let more = if start.len() < bytes.len() {
                    "\u{2026}"
                } else {
                    ""
                };
                let _ = write!(
                    self.out,
                    "{more}</code> <small>{} bytes</small>",
                    bytes.len()
                );
            }
            Value::Link(to) => {
                let shown = to.to_string();
                let to = self.links.content(&shown);
                let _ = write!(self.out, "<span class=\"cid\"><a {to}>{shown}</a></span>");
            }
            Value::List(items) => {
                self.out.push_str("<ol start=\"0\">");
                for item in items {
                    self.out.push_str("<li>");
                    self.value(item, depth + 1);
                    self.out.push_str("</li>\n");
                    if self.is_full() {
                        break;
                    }
                }
                self.out.push_str("</ol>");
            }
            Value::Map(entries) => {
                self.out.push_str("<dl>");
                for (name, item) in entries {
                    self.out.push_str("<dt>");
                    self.text(name);
                    self.out.push_str("</dt><dd>");
                    self.value(item, depth + 1);
                    self.out.push_str("</dd>\n");
                    if self.is_full() {
                        break;
                    }
                }
                self.out.push_str("</dl>");
            }
        }
    }

    fn is_full(&mut self) -> bool {
        let is_full = self.values >= VALUES_SHOWN_MAX || self.out.len() > PAGE_BYTES_MAX;
        self.is_cut |= is_full;
        is_full
    }

    fn simple(&mut self, text: &str) {
        self.out.push_str("<code>");
        self.out.push_str(text);
        self.out.push_str("</code>");
    }

    fn text(&mut self, text: &str) {
        let (start, more) = match text.char_indices().nth(TEXT_CHARS_MAX) {
            Some((end, _)) => (text.get(..end).unwrap_or_default(), "\u{2026}"),
            None => (text, ""),
        };
        self.is_cut |= !more.is_empty();
        self.out.push_str("<span class=\"name\">");
        self.out.push_str(&encode::html(&encode::visible(start)));
        self.out.push_str(more);
        self.out.push_str("</span>");
    }
}

/// Values on one page.
const VALUES_SHOWN_MAX: usize = 10_000;
/// Levels of lists and maps on one page: browsers nest a few hundred elements.
const DEPTH_SHOWN_MAX: usize = 64;
/// Characters of one text.
const TEXT_CHARS_MAX: usize = 10_000;
/// Bytes of one string of bytes.
const BYTES_SHOWN_MAX: usize = 256;
/// After so many bytes of a page nothing new is begun.
const PAGE_BYTES_MAX: usize = 2 << 20;

/// Changes with everything a page is made of; raise the number when the code above makes it otherwise.
const TEMPLATE_VERSION: u64 = {
    let hash = fingerprint(page::VERSION, b"document 2");
    fingerprint(hash, OWN_STYLE.as_bytes())
};

const OWN_STYLE: &str = "\
dl,ol{margin:0;padding-left:1.5rem;border-left:1px solid var(--line)}\
dl{padding-left:.8rem}dt{color:var(--soft);font-size:.85rem}dd{margin:0 0 .35rem .8rem}\
li::marker{color:var(--soft);font-size:.8rem}\
code,.bytes{font-family:ui-monospace,monospace;font-size:.85rem;overflow-wrap:anywhere}\
small{color:var(--soft)}.cid{overflow-wrap:anywhere}";
