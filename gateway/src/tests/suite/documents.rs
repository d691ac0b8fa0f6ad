//! Documents of the suite, by every way in which they are asked for.

use super::super::support::{Answer, Site};
use super::{DAG_CBOR, DAG_JSON, LISTED_FILE, car};

const JSON_IN_A_FILE: &str = "bafkreibrppizs3g7axs2jdlnjua6vgpmltv7k72l7v7sa6mmht6mne3qqe";
const NAME_JSON: &str = "k51qzi5uqu5dhjghbwdvbo6mi40htrq6e2z4pwgp15pgv3ho1azvidttzh8yy2";
const NAME_CBOR: &str = "k51qzi5uqu5dghjous0agrwavl8vzl64xckoqzwqeqwudfr74kfd11zcyk3b7l";
const IMMUTABLE: &str = "public, max-age=29030400, immutable";

/// A document: its CAR, what its codec is called, what plain kin it has, and what browsers do with it.
struct Document {
    car: &'static str,
    name: &'static str,
    plain: &'static str,
    disposition: &'static str,
}

const DOCUMENTS: [Document; 6] = [
    Document {
        car: "plain-json.car",
        name: "json",
        plain: "json",
        disposition: "inline",
    },
    Document {
        car: "plain-cbor-that-can-be-dag-json.car",
        name: "json",
        plain: "json",
        disposition: "inline",
    },
    Document {
        car: "plain-cbor.car",
        name: "cbor",
        plain: "cbor",
        disposition: "attachment",
    },
    Document {
        car: "plain-cbor-that-can-be-dag-cbor.car",
        name: "cbor",
        plain: "cbor",
        disposition: "attachment",
    },
    Document {
        car: "dag-json-traversal.car",
        name: "dag-json",
        plain: "json",
        disposition: "inline",
    },
    Document {
        car: "dag-cbor-traversal.car",
        name: "dag-cbor",
        plain: "cbor",
        disposition: "attachment",
    },
];

fn media(name: &str) -> String {
    match name.strip_prefix("dag-") {
        Some(_) => format!("application/vnd.ipld.{name}"),
        None => format!("application/{name}"),
    }
}

/// What is asked with, and the format that it asks for.
fn ways(document: &Document) -> Vec<(String, String, &'static str)> {
    let mut ways = vec![(String::new(), String::new(), document.name)];
    for name in [document.name, document.plain] {
        ways.push((format!("?format={name}"), String::new(), name));
        ways.push((String::new(), media(name), name));
        // The query beats what is accepted.
        let raw = "application/vnd.ipld.raw".to_owned();
        ways.push((format!("?format={name}"), raw, name));
    }
    ways
}

#[tokio::test]
async fn a_document_is_its_block_under_the_type_that_was_asked_for() {
    let site = Site::suite();
    for document in DOCUMENTS {
        let (cid, block) = &car(document.car)[0];
        for (query, accept, format) in ways(&document) {
            let path = format!("/ipfs/{cid}{query}");
            let accept = [("accept", accept.as_str())];
            let answer = site.ask("GET", &path, &accept).await;
            assert_eq!(
                (answer.code(), answer.bytes()),
                (200, &block.data()[..]),
                "{path}"
            );
            let disposition = format!(
                "{}; filename=\"{cid}.{}\"",
                document.disposition, document.plain
            );
            for (header, value) in [
                ("content-type", media(format)),
                ("content-length", block.data().len().to_string()),
                ("etag", format!("\"{cid}.{format}\"")),
                ("x-ipfs-path", format!("/ipfs/{cid}")),
                ("x-ipfs-roots", cid.to_string()),
                ("cache-control", IMMUTABLE.to_owned()),
                ("x-content-type-options", "nosniff".to_owned()),
            ] {
                assert_eq!(answer.header(header), value, "{path} {accept:?} {header}");
            }
            assert!(
                answer
                    .header("content-disposition")
                    .starts_with(&disposition)
            );
            let head = site.ask("HEAD", &path, &accept).await;
            assert_eq!((head.code(), &head.headers), (200, &answer.headers));
            let known = [accept[0], ("if-none-match", answer.header("etag"))];
            assert_eq!(site.ask("GET", &path, &known).await.code(), 304);
        }
        for (query, told) in [
            ("filename=foobar.x", document.disposition),
            ("filename=foobar.x&download=true", "attachment"),
        ] {
            let path = format!("/ipfs/{cid}?format={}&{query}", document.name);
            let answer = site.get(&path).await;
            let told = format!("{told}; filename=\"foobar.x\"; filename*=UTF-8''foobar.x");
            assert_eq!(answer.header("content-disposition"), told);
        }
    }
}

#[tokio::test]
async fn a_document_has_parts_like_any_other_content() {
    let site = Site::suite();
    for document in DOCUMENTS {
        let (cid, block) = &car(document.car)[0];
        let data = block.data();
        let size = data.len();
        for (query, accept, format) in ways(&document) {
            let ask = async |range: &str| -> Answer {
                let headers = [("accept", accept.as_str()), ("range", range)];
                site.ask("GET", &format!("/ipfs/{cid}{query}"), &headers)
                    .await
            };
            let one = ask("bytes=3-11").await;
            assert_eq!(
                (one.code(), one.bytes()),
                (206, &data[3..12]),
                "{query} {accept}"
            );
            assert_eq!(one.header("content-range"), format!("bytes 3-11/{size}"));
            assert_eq!(one.header("content-type"), media(format));
            let end = ask("bytes=-4").await;
            assert_eq!((end.code(), end.bytes()), (206, &data[size - 4..]));
            let many = ask("bytes=1-2,5-5").await;
            assert_eq!(many.code(), 206);
            let kind = many.header("content-type");
            let boundary = kind
                .strip_prefix("multipart/byteranges; boundary=")
                .unwrap();
            let mut expected = Vec::new();
            for (first, last) in [(1, 2), (5, 5)] {
                let head = format!(
                    "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n",
                    media(format)
                );
                expected.extend_from_slice(head.as_bytes());
                expected.extend_from_slice(&data[first..=last]);
            }
            expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
            assert_eq!(many.bytes(), expected);
            let outside = ask(&format!("bytes={size}-")).await;
            assert_eq!(outside.code(), 416);
            assert_eq!(outside.header("content-range"), format!("bytes */{size}"));
        }
    }
}

#[tokio::test]
async fn no_document_is_turned_into_another() {
    let site = Site::suite();
    for (root, format) in [
        (LISTED_FILE, "dag-json"),
        (LISTED_FILE, "dag-cbor"),
        (DAG_JSON, "dag-cbor"),
        (DAG_JSON, "cbor"),
        (DAG_CBOR, "dag-json"),
        (DAG_CBOR, "json"),
        (DAG_CBOR, "tar"),
        (DAG_JSON, "tar"),
    ] {
        let accept = match format {
            "tar" => "application/x-tar".to_owned(),
            format => media(format),
        };
        for (query, accept) in [(format!("?format={format}"), ""), (String::new(), &accept)] {
            for method in ["GET", "HEAD"] {
                let path = format!("/ipfs/{root}{query}");
                let answer = site.ask(method, &path, &[("accept", accept)]).await;
                assert_eq!(answer.code(), 406, "{method} {path} {accept}");
            }
        }
    }
}

#[tokio::test]
async fn paths_lead_along_the_links_of_documents_and_end_at_blocks() {
    let site = Site::suite();
    let hello = b"\xa1ehellorthis is not a link".as_slice();
    for (root, format, leaf) in [
        (
            DAG_JSON,
            "dag-json",
            &b"{\"hello\":\"this is not a link\"}"[..],
        ),
        (DAG_CBOR, "dag-cbor", hello),
    ] {
        for query in [String::new(), format!("?format={format}")] {
            let path = format!("/ipfs/{root}/foo/link/bar{query}");
            let answer = site.get(&path).await;
            assert_eq!((answer.code(), answer.bytes()), (200, leaf), "{path}");
            assert_eq!(answer.header("x-ipfs-roots").split(',').count(), 3);
            for (below, code) in [
                ("foo", 501),
                ("foo/link/bar/hello", 501),
                ("foo/i-do-not-exist", 404),
                ("foo/link/bar/hello/x", 404),
                ("bar", 404),
            ] {
                let path = format!("/ipfs/{root}/{below}{query}");
                assert_eq!(site.get(&path).await.code(), code, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn json_in_a_file_is_known_as_such() {
    let site = Site::suite();
    for (query, accept) in [
        ("", ""),
        ("", "application/json"),
        ("?format=json", "application/vnd.ipld.raw"),
        ("?format=json", ""),
    ] {
        for method in ["GET", "HEAD"] {
            let path = format!("/ipfs/{JSON_IN_A_FILE}{query}");
            let answer = site.ask(method, &path, &[("accept", accept)]).await;
            assert_eq!(answer.code(), 200, "{method} {path}");
            assert_eq!(answer.header("content-type"), "application/json");
            assert_eq!(answer.header("content-length"), "37");
        }
    }
}

#[tokio::test]
async fn under_a_name_a_document_is_the_same_for_as_long_as_the_name_holds() {
    let site = Site::suite();
    let browser = [("accept", "text/html")];
    for (name, root, format) in [
        (NAME_JSON, DAG_JSON, "dag-json"),
        (NAME_CBOR, DAG_CBOR, "dag-cbor"),
    ] {
        for query in [String::new(), format!("?format={format}")] {
            let here = site.get(&format!("/ipfs/{root}{query}")).await;
            let path = format!("/ipns/{name}{query}");
            let named = site.get(&path).await;
            assert_eq!((here.code(), named.code()), (200, 200), "{path}");
            assert_eq!(here.bytes(), named.bytes());
            for header in [
                "content-type",
                "etag",
                "x-ipfs-roots",
                "content-disposition",
            ] {
                assert_eq!(here.header(header), named.header(header), "{path} {header}");
            }
            assert_eq!(named.header("x-ipfs-path"), format!("/ipns/{name}"));
            assert_eq!(named.header("cache-control"), "public, max-age=1234");
            assert_eq!(named.header("last-modified"), "");
        }
        for (path, cache) in [
            (
                format!("/ipfs/{root}/"),
                "public, max-age=604800, stale-while-revalidate=2678400",
            ),
            (format!("/ipns/{name}/"), "public, max-age=1234"),
        ] {
            let page = site.ask("GET", &path, &browser).await;
            assert_eq!(
                (page.code(), page.header("content-type")),
                (200, "text/html")
            );
            let etag = page.header("etag");
            assert!(
                etag.starts_with("\"DagIndex-") && etag.contains(root),
                "{etag}"
            );
            assert_eq!(page.header("content-disposition"), "");
            assert_eq!(page.header("cache-control"), cache, "{path}");
            assert!(page.text().ends_with("</html>\n"));
        }
    }
}
