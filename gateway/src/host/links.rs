//! Where a folder's page links to, which depends on the host it is served at.

use super::Origin;
use crate::encode;
use crate::request::Request;

/// The links of one page. All addresses are encoded and may stand in a quoted attribute.
#[derive(Debug)]
pub(crate) struct Links<'a> {
    request: &'a Request,
}

impl<'a> Links<'a> {
    pub(crate) const fn new(request: &'a Request) -> Self {
        Self { request }
    }

    /// The folder's path at this host, decoded, without a slash at its end.
    pub(crate) fn folder(&self) -> String {
        let asked = &self.request.asked;
        let mut out = match self.request.origin {
            Origin::Path => asked.root.to_string(),
            Origin::Subdomain(_) | Origin::DnsLink(_) => String::new(),
        };
        for name in &asked.segments {
            out.push('/');
            out.push_str(name);
        }
        out
    }

    /// The address of what is `depth` names below the root, on the way to the folder.
    pub(crate) fn crumb(&self, depth: usize) -> String {
        let asked = &self.request.asked;
        let mut out = match &self.request.origin {
            Origin::Path => asked.root.to_string(),
            Origin::Subdomain(gateway) => format!("//{gateway}{}", asked.root),
            Origin::DnsLink(host) if depth == 0 => format!("//{host}/"),
            Origin::DnsLink(host) => format!("//{host}"),
        };
        for name in asked.segments.iter().take(depth) {
            out.push('/');
            out.push_str(name);
        }
        encode::html(&encode::path(&out))
    }

    /// How the links to entries by their CIDs begin and end.
    pub(crate) fn entries(&self) -> Entries {
        let start = match &self.request.origin {
            Origin::Path => "/ipfs/".to_owned(),
            Origin::Subdomain(gateway) => format!("//{gateway}/ipfs/"),
            Origin::DnsLink(_) => return Entries::Explained,
        };
        Entries::Below(start)
    }
}

/// Links to entries by their CIDs.
#[derive(Debug, Clone)]
pub(crate) enum Entries {
    /// To the same gateway, below this.
    Below(String),
    /// A domain's own site has no content of others: to a page that explains the CID.
    Explained,
}

impl Entries {
    /// The attributes of a link to content that has no name.
    pub(crate) fn content(&self, cid: &str) -> String {
        match self {
            Self::Below(start) => format!("href=\"{start}{cid}\""),
            Self::Explained => self.link(cid, ""),
        }
    }

    /// The attributes of one link.
    pub(crate) fn link(&self, cid: &str, name: &str) -> String {
        match self {
            Self::Below(start) => {
                // Encoded twice, as every other gateway does; once would be enough.
                let name = encode::query(&encode::segment(name));
                format!("href=\"{start}{cid}?filename={name}\"")
            }
            Self::Explained => {
                format!("href=\"{EXPLAINER}{cid}\" target=\"_blank\" rel=\"noreferrer noopener\"")
            }
        }
    }
}

/// Reads a CID in the browser; what stands behind `#` is not sent anywhere.
const EXPLAINER: &str = "https://cid.ipfs.tech/#";
