//! What all pages of our own look like: readable on a phone, in dark and light, without a script.

use crate::encode::{FINGERPRINT, fingerprint};

/// The beginning of a page; its title follows.
pub(crate) const HEAD_TITLE: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>";
/// From the title to the style.
pub(crate) const HEAD_STYLE: &str = "</title>\n<style>";
/// The style.
pub(crate) const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1b1f24;--soft:#616a75;--line:#e3e6ea;--back:#fff;--hover:#f4f6f8;--link:#0b5cad}\
@media(prefers-color-scheme:dark){:root{--text:#e4e7eb;--soft:#97a1ad;--line:#2c333b;--back:#14181c;--hover:#1d2329;--link:#7cb8f5}}\
body{margin:0 auto;max-width:64rem;padding:1.5rem 1rem 3rem;background:var(--back);color:var(--text);font:16px/1.5 system-ui,sans-serif}\
h1{font-size:1.15rem;margin:0 0 .25rem;overflow-wrap:anywhere}\
.path{font-weight:400;unicode-bidi:isolate}\
.about{margin:0 0 1rem;color:var(--soft);font-size:.85rem;overflow-wrap:anywhere}\
.cid,.hash{font-family:ui-monospace,monospace;font-size:.8rem}\
code{font-family:ui-monospace,monospace;font-size:.9rem}\
.note{border:1px solid var(--line);border-radius:.4rem;padding:.6rem .8rem}\
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}\
table{width:100%;border-collapse:collapse}\
td{padding:.4rem .5rem;border-top:1px solid var(--line)}\
tr:hover{background:var(--hover)}\
.name{overflow-wrap:anywhere;unicode-bidi:isolate}\
.hash{white-space:nowrap}.hash a{color:var(--soft)}\
.size{white-space:nowrap;text-align:right;color:var(--soft);font-variant-numeric:tabular-nums}\
@media(max-width:36rem){.hash{display:none}}";
/// From the style to what is shown.
pub(crate) const HEAD_END: &str = "</style>\n</head>\n<body>\n";

/// Changes with everything above.
pub(crate) const VERSION: u64 = {
    let mut hash = fingerprint(FINGERPRINT, HEAD_TITLE.as_bytes());
    hash = fingerprint(hash, HEAD_STYLE.as_bytes());
    hash = fingerprint(hash, STYLE.as_bytes());
    fingerprint(hash, HEAD_END.as_bytes())
};
