//! `cat`: the bytes of files, one after the other.

use super::api::{Call, resolve_to_block};
use super::error::RpcError;
use super::reply::Reply;
use cairn_store::unixfs::read::{self, File, Node};
use futures::StreamExt;
use std::ops::Range;

/// What is said of a folder: the words of Kubo, which its clients know.
pub const IS_FOLDER: &str = "this dag node is a directory";

/// `cat`. Every file is opened before the first byte goes out.
pub async fn cat(call: Call) -> Result<Reply, RpcError> {
    let paths = call.paths("ipfs-path").await?;
    let offset: u64 = call
        .arguments
        .parsed(&["offset", "o"], "a number of bytes")?
        .unwrap_or(0);
    let length: u64 = call
        .arguments
        .parsed(&["length", "l"], "a number of bytes")?
        .unwrap_or(u64::MAX);
    let session = call.session().await?;
    let mut files = Vec::new();
    for path in &paths {
        let cid = resolve_to_block(&session, path).await?;
        match read::open(&session, &cid).await? {
            Node::File(file) => files.push(file),
            Node::Directory(_) => return Err(RpcError::failed(IS_FOLDER)),
            Node::Symlink(link) => {
                return Err(RpcError::failed(format!(
                    "this dag node is a symbolic link to {}",
                    link.target
                )));
            }
        }
    }
    let (parts, total) = cut(files, offset, length);
    Ok(Reply::bytes(
        "text/plain",
        Some(total),
        move |out| async move {
            for (file, range) in parts {
                let mut bytes = std::pin::pin!(file.read(session.clone(), range));
                while let Some(piece) = bytes.next().await {
                    out.bytes(piece?).await?;
                }
            }
            Ok(())
        },
    ))
}

/// Which range of which file lies between `offset` and `offset + length` of all of them.
fn cut(files: Vec<File>, offset: u64, length: u64) -> (Vec<(File, Range<u64>)>, u64) {
    let sizes: Vec<u64> = files.iter().map(File::size).collect();
    let ranges = ranges(&sizes, offset, length);
    let total = ranges.iter().map(|range| range.end - range.start).sum();
    let parts = files
        .into_iter()
        .zip(ranges)
        .filter(|(_, range)| !range.is_empty())
        .collect();
    (parts, total)
}

fn ranges(sizes: &[u64], mut offset: u64, mut length: u64) -> Vec<Range<u64>> {
    sizes
        .iter()
        .map(|size| {
            let start = offset.min(*size);
            let taken = length.min(size - start);
            offset -= start;
            length -= taken;
            start..start + taken
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_and_length_run_across_files() {
        assert_eq!(ranges(&[10, 10], 0, u64::MAX), [0..10, 0..10]);
        assert_eq!(ranges(&[10, 10], 5, 10), [5..10, 0..5]);
        assert_eq!(ranges(&[10, 10], 12, 3), [10..10, 2..5]);
        assert_eq!(ranges(&[10, 10], 100, 3), [10..10, 10..10]);
        assert_eq!(ranges(&[10, 10], 3, 0), [3..3, 0..0]);
    }
}
