//! `ping`: how long a peer takes to answer.

use super::api::Call;
use super::error::RpcError;
use super::reply::Reply;
use super::swarm::address_of;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One line: a round trip if it has no text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Pong {
    /// Whether an answer came.
    pub success: bool,
    /// The round trip, in nanoseconds.
    pub time: u64,
    /// What is to be told.
    pub text: String,
}

impl Pong {
    fn told(text: String) -> Self {
        Self {
            success: true,
            text,
            ..Self::default()
        }
    }
}

/// `ping`.
pub fn ping(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    let address = address_of(arguments.first("peer ID")?)?;
    let count = arguments.parsed(&["count", "n"], "a number")?;
    let count: u32 = count.unwrap_or(COUNT_DEFAULT);
    if !(1..=COUNT_MAX).contains(&count) {
        return Err(RpcError::wrong(format!(
            "the number of pings must be from 1 to {COUNT_MAX}"
        )));
    }
    let peers = call.context.node()?.peers.clone();
    Ok(Reply::values(move |out| async move {
        let failed = |error: cairn_node::ping::PingError| RpcError::failed(error.to_string());
        let mut pinging = peers.ping(address).await.map_err(failed)?;
        out.value(&Pong::told(format!("PING {}.", pinging.peer())))
            .await?;
        let mut total = Duration::ZERO;
        for number in 0..count {
            if number > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let took = pinging.once().await.map_err(failed)?;
            total += took;
            out.value(&Pong {
                success: true,
                time: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
                text: String::new(),
            })
            .await?;
        }
        let average = (total / count).as_secs_f64() * 1000.0;
        let line = format!("Average latency: {average:.2}ms");
        out.value(&Pong::told(line)).await
    }))
}

/// Pings unless chosen, as in Kubo.
const COUNT_DEFAULT: u32 = 10;
/// More than anybody waits for.
const COUNT_MAX: u32 = 1_000_000;
/// Between an answer and the next ping.
const PAUSE: Duration = Duration::from_secs(1);
