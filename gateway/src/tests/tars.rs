//! TARs: names, and honest ends.

use super::readers::read_tar;
use super::support::Site;

#[tokio::test]
async fn a_tar_has_files_folders_and_links_below_the_cid() {
    use tar::EntryType::{Directory, Regular, Symlink};
    let mut site = Site::new();
    let long = "long-".repeat(40);
    let file = site.file(&[b"hello", b" world"]);
    let link = site.symlink("ą/target");
    let empty = site.folder(&[]);
    let inner = site.folder(&[("file-źł.txt", file), (long.as_str(), file)]);
    let root = site.folder(&[("ą", inner), ("link", link), ("empty", empty)]);
    let answer = site.get(&format!("/ipfs/{root}?format=tar")).await;
    assert_eq!(answer.code(), 200, "{:?}", answer.body);
    assert_eq!(answer.header("content-type"), "application/x-tar");
    assert_eq!(answer.header("etag"), format!("W/\"{root}.x-tar\""));
    assert!(
        answer
            .header("content-disposition")
            .contains(&format!("{root}.tar\""))
    );
    assert_eq!(answer.bytes().len() % 512, 0);
    let entry = |path: &str, kind, text: &str| (format!("{root}{path}"), kind, text.to_owned());
    let mut found = read_tar(answer.bytes());
    found.sort_by(|one, other| one.0.cmp(&other.0));
    let mut expected = [
        entry("/", Directory, ""),
        entry("/empty/", Directory, ""),
        entry("/link", Symlink, "ą/target"),
        entry("/ą/", Directory, ""),
        entry("/ą/file-źł.txt", Regular, "hello world"),
        entry(&format!("/ą/{long}"), Regular, "hello world"),
    ];
    expected.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(found, expected);
    let known = [("if-none-match", answer.header("etag"))];
    assert_eq!(
        site.ask("GET", &format!("/ipfs/{root}?format=tar"), &known)
            .await
            .code(),
        304
    );
    assert_eq!(
        site.head(&format!("/ipfs/{root}?format=tar")).await.headers,
        answer.headers
    );
    let one = site
        .ask(
            "GET",
            &format!("/ipfs/{file}"),
            &[("accept", "application/x-tar")],
        )
        .await;
    assert_eq!(
        read_tar(one.bytes()),
        [(file.to_string(), Regular, "hello world".to_owned())]
    );
}

#[tokio::test]
async fn a_name_inside_is_cleaned_and_one_outside_refused_before_the_first_byte() {
    let mut site = Site::new();
    let file = site.raw("x");
    let inner = site.node(&[("directory/../file", file, 1)], vec![0x08, 1]);
    let root = site.folder(&[("foobar", inner)]);
    let answer = site.get(&format!("/ipfs/{root}?format=tar")).await;
    let paths: Vec<_> = read_tar(answer.bytes())
        .into_iter()
        .map(|(path, ..)| path)
        .collect();
    assert_eq!(
        paths,
        [
            format!("{root}/"),
            format!("{root}/foobar/"),
            format!("{root}/foobar/file")
        ]
    );
    let link = site.symlink("/etc");
    for links in [
        vec![("../../file", file, 1)],
        vec![("a", link, 1), ("a/passwd", file, 1)],
        vec![("a", file, 1), ("a", file, 1)],
        vec![("a\0b", file, 1)],
    ] {
        let evil = site.node(&links, vec![0x08, 1]);
        let root = site.folder(&[("foobar", evil)]);
        let answer = site.get(&format!("/ipfs/{root}?format=tar")).await;
        assert_eq!(answer.code(), 422, "{links:?}");
    }
}

#[tokio::test]
async fn a_bomb_of_folders_ends_early() {
    let mut site = Site::new();
    site.config.archive_entries_max = 1000.try_into().unwrap();
    let mut folder = site.folder(&[]);
    for _ in 0..32 {
        folder = site.folder(&[("a", folder), ("b", folder), ("c", folder), ("d", folder)]);
    }
    let answer = site.get(&format!("/ipfs/{folder}?format=tar")).await;
    assert_eq!(answer.code(), 200);
    assert!(answer.is_broken());
}

#[tokio::test]
async fn a_tar_that_cannot_end_breaks() {
    let mut site = Site::new();
    let chunks: Vec<Vec<u8>> = (0..4_u8).map(|at| vec![at; 50_000]).collect();
    let last = site.raw(chunks[3].clone());
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let file = site.file(&chunks);
    site.lose(&last);
    let answer = site.get(&format!("/ipfs/{file}?format=tar")).await;
    assert_eq!(answer.code(), 200);
    assert!(answer.body.unwrap_err().contains(&last.to_string()));
}
