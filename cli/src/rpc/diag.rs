//! `diag`: what the layers below the exchange can do.

use super::api::Call;
use super::error::RpcError;
use super::reply::Reply;
use super::swarm::address_of;
use cairn_node::perf::{Perf, PerfError, Run};
use cairn_node::{Multiaddr, PeerId};
use cairn_store::config::ByteSize;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// One way of a measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Measured {
    /// Whom with.
    pub peer: String,
    /// Where the connection leads that was measured.
    pub address: String,
    /// `upload` or `download`.
    pub direction: String,
    /// Streams at once.
    pub streams: u64,
    /// Bytes over all of them.
    pub bytes: u64,
    /// Time until the last of them was through.
    pub seconds: f64,
    /// Bytes a second.
    pub rate: f64,
}

/// Who sends.
#[derive(Debug, Clone, Copy)]
enum Direction {
    Upload,
    Download,
}

/// A peer, and where the connection to it leads.
struct Way {
    peer: PeerId,
    address: Multiaddr,
}

/// `diag perf`: the raw path to a peer, one way after the other.
pub fn perf(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    let address = address_of(arguments.first("peer")?)?;
    let bytes = |name: &str| -> Result<u64, RpcError> {
        let given: Option<ByteSize> = arguments.parsed(&[name], "a size like 64MiB")?;
        Ok(given.map_or(BYTES_DEFAULT, |size| size.0))
    };
    let (upload, download) = (bytes("upload")?, bytes("download")?);
    if upload == 0 && download == 0 {
        return Err(RpcError::wrong(
            "upload and download are both 0, so there is nothing to measure; give one of them some bytes, as 64MiB",
        ));
    }
    let streams: u64 = arguments.parsed(&["streams"], "a number")?.unwrap_or(1);
    if !(1..=STREAMS_MAX).contains(&streams) {
        return Err(RpcError::wrong(format!(
            "streams must be from 1 to {STREAMS_MAX}"
        )));
    }
    let online = call.context.node()?;
    let (peers, perf) = (online.peers.clone(), online.perf.clone());
    Ok(Reply::values(move |out| async move {
        let (peer, address) = peers.way(address).await?;
        let way = Way { peer, address };
        // Whether it answers at all is found out before bytes are poured: a stream that is refused
        // while it is written to says only that it is closed.
        way.run(&perf, Direction::Upload, 0).await?;
        for (direction, bytes) in [(Direction::Upload, upload), (Direction::Download, download)] {
            if bytes > 0 {
                out.value(&way.measure(&perf, direction, bytes, streams).await?)
                    .await?;
            }
        }
        Ok(())
    }))
}

impl Way {
    /// One stream.
    async fn run(&self, perf: &Perf, direction: Direction, bytes: u64) -> Result<Run, PerfError> {
        let (upload, download) = match direction {
            Direction::Upload => (bytes, 0),
            Direction::Download => (0, bytes),
        };
        let address = Some(self.address.clone());
        perf.run_over(self.peer, address, upload, download).await
    }

    async fn measure(
        &self,
        perf: &Perf,
        direction: Direction,
        bytes: u64,
        streams: u64,
    ) -> Result<Measured, PerfError> {
        let began = Instant::now();
        let runs = (0..streams).map(|at| {
            // The first take what does not divide evenly.
            let own = bytes / streams + u64::from(at < bytes % streams);
            self.run(perf, direction, own)
        });
        let runs: Vec<Run> = try_join_all(runs).await?;
        let seconds = match runs.as_slice() {
            // Without the opening of the stream.
            [run] => run.upload + run.download,
            _ => began.elapsed(),
        }
        .as_secs_f64();
        Ok(Measured {
            peer: self.peer.to_string(),
            address: self.address.to_string(),
            direction: match direction {
                Direction::Upload => "upload",
                Direction::Download => "download",
            }
            .to_owned(),
            streams,
            bytes,
            seconds,
            rate: rate(bytes, seconds),
        })
    }
}

fn rate(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        bytes as f64 / seconds
    } else {
        0.0
    }
}

/// Sent each way unless chosen: enough to be past the start, and a second's work on a fast path.
const BYTES_DEFAULT: u64 = 256 << 20;
/// Most streams at once: as many as the other end answers.
const STREAMS_MAX: u64 = 16;
