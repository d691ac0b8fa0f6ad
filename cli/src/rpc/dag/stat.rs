//! `dag stat`: how many blocks and bytes DAGs have, and how much they share.

use super::super::api::{Call, resolve_to_block};
use super::super::error::RpcError;
use super::super::reply::Reply;
use cairn_store::dag::walk::{Options, Visit, walk};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// The answer; with progress, a line of it for every so many blocks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Summary {
    /// Blocks, each counted once.
    pub unique_blocks: u64,
    /// Their bytes.
    pub total_size: u64,
    /// Bytes that several of the DAGs share.
    pub shared_size: u64,
    /// Bytes with repetitions over bytes without; 0 while counting.
    pub ratio: f32,
    /// One for each DAG.
    pub dag_stats: Vec<DagStat>,
}

/// One DAG.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DagStat {
    /// Its root.
    pub cid: String,
    /// Bytes of its blocks, each counted once.
    pub size: u64,
    /// Its blocks.
    pub num_blocks: u64,
}

/// `dag stat`.
pub async fn stat(call: Call) -> Result<Reply, RpcError> {
    let paths = call.paths("root").await?;
    let progress = call.arguments.choice(&["progress", "p"])?.unwrap_or(false);
    let cids = call.arguments.cids()?;
    let session = call.session().await?;
    Ok(Reply::values(move |out| async move {
        let mut summary = Summary::default();
        let mut redundant: u64 = 0;
        // Only several DAGs can share blocks; one is walked without repetitions anyway.
        let mut seen = (paths.len() > 1).then(HashSet::new);
        for path in &paths {
            let root = resolve_to_block(&session, path).await?;
            let mut dag = DagStat {
                cid: cids.text(&root),
                ..DagStat::default()
            };
            let mut visits = std::pin::pin!(walk(session.clone(), root, Options::default()));
            while let Some(visit) = visits.next().await {
                let Visit::Block { block, .. } = visit? else {
                    continue;
                };
                let size = block.data().len() as u64;
                dag.size += size;
                dag.num_blocks += 1;
                redundant += size;
                if seen.as_mut().is_none_or(|seen| seen.insert(*block.cid())) {
                    summary.total_size += size;
                    summary.unique_blocks += 1;
                }
                if progress && dag.num_blocks.is_multiple_of(PROGRESS_BLOCKS) {
                    let mut now = summary.clone();
                    now.dag_stats.push(dag.clone());
                    out.offer(&now);
                }
            }
            summary.dag_stats.push(dag);
        }
        summary.shared_size = redundant - summary.total_size;
        summary.ratio = ratio(redundant, summary.total_size);
        out.value(&summary).await
    }))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a ratio is told with a handful of digits"
)]
fn ratio(redundant: u64, total: u64) -> f32 {
    if total == 0 {
        return 1.0;
    }
    (redundant as f64 / total as f64) as f32
}

/// How many blocks are seen between two lines of progress.
const PROGRESS_BLOCKS: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_of_nothing_is_one() {
        assert!((ratio(0, 0) - 1.0).abs() < f32::EPSILON);
        assert!((ratio(30, 20) - 1.5).abs() < f32::EPSILON);
    }
}
