//! What somebody pastes to ask whether it is denied: a path, a CID, a name, or the URL of a gateway's page.
//!
//! In a URL names are percent-encoded, in paths they are not, and a pasted path may be of either kind: where both can be
//! read, both are asked about.

use super::super::error::RpcError;
use super::super::follow;
use cairn_node::name::path::NamePath;
use percent_encoding::percent_decode_str;

/// The paths that a text may stand for, the likeliest first; never none.
pub(super) fn readings(text: &str) -> Result<Vec<NamePath>, RpcError> {
    let text = text.trim();
    if let Some(page) = page(text) {
        return Ok(vec![read(&decoded(&page)?)?]);
    }
    if ["ipfs://", "ipns://"]
        .iter()
        .any(|it| starts_with(text, it))
    {
        // As browsers have them in their address bar.
        let (scheme, rest) = text.split_at("ipfs".len());
        let path = format!("{}{}", scheme.to_ascii_lowercase(), address(rest));
        return Ok(vec![read(&decoded(&path)?)?]);
    }
    let as_it_is = read(text)?;
    let encoded = decoded(text).and_then(|text| read(&text)).ok();
    let encoded = encoded.filter(|path| *path != as_it_is);
    Ok([as_it_is].into_iter().chain(encoded).collect())
}

/// A path; or a domain, with a path below it or without.
fn read(text: &str) -> Result<NamePath, RpcError> {
    let path = text.parse::<NamePath>();
    match path {
        Err(_) if !text.starts_with('/') && text.contains('.') => follow::named(text),
        path => path.map_err(|error| follow::wrong(&error)),
    }
}

/// The path of what a gateway shows at a URL: below its own name, at the root's own host, or at that of a site.
fn page(url: &str) -> Option<String> {
    let schemes = ["http://", "https://"];
    let scheme = schemes.iter().find(|it| starts_with(url, it))?;
    let url = address(url.get(scheme.len()..)?);
    let (authority, path) = match url.find('/') {
        Some(at) => url.split_at(at),
        None => (url, "/"),
    };
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    let mut labels = host.splitn(3, '.');
    let (root, space) = (labels.next()?, labels.next());
    let has_host = labels.next().is_some();
    if let Some(space) = space.filter(|it| has_host && ["ipfs", "ipns"].contains(it)) {
        return Some(format!("/{space}/{root}{path}"));
    }
    let is_path = ["/ipfs/", "/ipns/"].iter().any(|it| path.starts_with(it));
    Some(match is_path {
        true => path.to_owned(),
        false => format!("/ipns/{host}{path}"),
    })
}

/// An address without its query and without what only browsers read.
fn address(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or_default()
}

fn starts_with(text: &str, start: &str) -> bool {
    let head = text.get(..start.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(start))
}

fn decoded(text: &str) -> Result<String, RpcError> {
    let text = percent_decode_str(text).decode_utf8();
    let text = text.map_err(|_| RpcError::wrong("the address is percent-encoded, but no UTF-8"))?;
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "bafkreihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq";
    const KEY: &str = "k51qzi5uqu5dhmzyv3zac033i7rl9hkgczxyl81lwoukda2htteop7d3x0y1mf";

    fn texts(text: &str) -> Vec<String> {
        let readings = readings(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        readings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn whatever_is_pasted_is_understood() {
        for (text, path) in [
            ("CID", "/ipfs/CID"),
            (" /ipfs/CID/a b\n", "/ipfs/CID/a b"),
            ("ipfs://CID/a%20b?x#y", "/ipfs/CID/a b"),
            ("IPNS://KEY", "/ipns/KEY"),
            ("/ipns/example.org/a", "/ipns/example.org/a"),
            ("example.org/a", "/ipns/example.org/a"),
            (
                "https://gateway.example/ipfs/CID/a%20b?format=raw#x",
                "/ipfs/CID/a b",
            ),
            ("http://127.0.0.1:8080/ipns/KEY/", "/ipns/KEY"),
            ("http://CID.ipfs.localhost:8080/a/", "/ipfs/CID/a"),
            ("https://CID.ipfs.dweb.example/a?b=/ipfs/c", "/ipfs/CID/a"),
            ("https://KEY.ipns.dweb.example", "/ipns/KEY"),
            (
                "https://en-wikipedia--on--ipfs-org.ipns.dweb.example/wiki/",
                "/ipns/en-wikipedia--on--ipfs-org/wiki",
            ),
            (
                "HTTPS://Docs.Example.org/a%2520b",
                "/ipns/docs.example.org/a%20b",
            ),
        ] {
            let [text, path] = [text, path].map(|it| it.replace("CID", CID).replace("KEY", KEY));
            assert_eq!(texts(&text), [path], "{text}");
        }
        let both = [format!("/ipfs/{CID}/a%20b"), format!("/ipfs/{CID}/a b")];
        assert_eq!(texts(&both[0]), both);
    }

    #[test]
    fn what_is_neither_path_nor_url_says_why() {
        for text in [
            "",
            "nothing",
            "/other/x",
            "https://",
            "ipfs://CID/%ff",
            "/ipfs/example.org",
        ] {
            let text = text.replace("CID", CID);
            assert!(!readings(&text).unwrap_err().message().is_empty(), "{text}");
        }
    }
}
