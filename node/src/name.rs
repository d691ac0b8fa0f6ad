//! Names, and what they lead to: from `/ipns/NAME/…` to `/ipfs/CID/…`.
//!
//! A name is a key's (an IPNS record tells where it leads) or a domain (a DNSLink does). [`path`] reads paths that
//! begin with either, [`follow`] goes from name to name until content is reached, and asks whoever implements
//! [`Names`](follow::Names). What a domain is stands in [`domain`], what a DNSLink is in [`dnslink`], and [`dns`]
//! looks one up.

pub mod dns;
pub mod dnslink;
pub mod domain;
pub mod follow;
pub mod path;
