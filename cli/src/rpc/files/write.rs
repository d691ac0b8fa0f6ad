//! `files write`: what comes with a request, into a file of the tree while it comes.

use super::change::{naming, parents};
use super::number;
use crate::rpc::api::Call;
use crate::rpc::entries::{Content, Entries};
use crate::rpc::error::RpcError;
use crate::rpc::reply::Reply;
use bytes::Bytes;
use cairn_store::files::{FilesError, FilesPath, WriteOptions};
use futures::stream;
use std::io::Read;
use tokio::sync::mpsc;

/// `files write`.
pub async fn write(call: Call) -> Result<Reply, RpcError> {
    let path = FilesPath::parse(call.arguments.first("path")?)?;
    let offset = number(&call, &["offset", "o"])?.unwrap_or(0);
    let offset =
        u64::try_from(offset).map_err(|_| RpcError::failed("cannot have negative write offset"))?;
    // The last is what one client calls it.
    let count = number(&call, &["count", "n", "length"])?;
    let count = count.map(u64::try_from).transpose();
    let count = count.map_err(|_| RpcError::failed("cannot have negative byte count"))?;
    let arguments = &call.arguments;
    let options = WriteOptions {
        offset,
        create: arguments.flag(&["create", "e"])?,
        parents: parents(arguments)?,
        truncate: arguments.flag(&["truncate", "t"])?,
        raw_leaves: arguments.choice(&["raw-leaves"])?,
        naming: naming(arguments)?,
        flush: call.flush()?,
    };
    let source = call.tree_source().await?;
    let Call {
        context, upload, ..
    } = call;
    let files = context.files().await?;
    let (queue, pieces) = mpsc::channel::<Result<Bytes, String>>(PIECES_WAITING_MAX);
    let pieces = stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    });
    let reading = upload.on_thread(move |entries: &mut dyn Entries| {
        let read = send(entries, count.unwrap_or(u64::MAX), &queue);
        // Who writes must know that this is not all: else half of it would be the file.
        if let Err(error) = &read {
            let _ = queue.blocking_send(Err(error.message().to_owned()));
        }
        read
    });
    let writing = files.write(&source, &path, options, pieces);
    let (read, written) = futures::join!(reading, Box::pin(writing));
    match written {
        // What was wrong with the request says more.
        Err(FilesError::Input(_)) => read.and(Ok(Reply::Empty)),
        Err(error) => Err(match error {
            FilesError::NotFile { .. } => RpcError::failed(format!("{path} was not a file")),
            error => error.into(),
        }),
        Ok(()) => {
            read?;
            Ok(Reply::Empty)
        }
    }
}

/// Sends the bytes of the one file.
fn send(
    entries: &mut dyn Entries,
    count: u64,
    queue: &mpsc::Sender<Result<Bytes, String>>,
) -> Result<(), RpcError> {
    let Some(entry) = entries.next()? else {
        return Err(RpcError::wrong("file argument \"data\" is required"));
    };
    let Content::File(content) = entry.content else {
        return Err(RpcError::failed("expected a regular file"));
    };
    let mut content = content.take(count);
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        (&mut content)
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Ok(());
        }
        if queue.blocking_send(Ok(Bytes::from(piece))).is_err() {
            return Ok(()); // It cannot be written, and whoever writes says why.
        }
    }
}

/// How much is read at once.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait to be written.
const PIECES_WAITING_MAX: usize = 8;
