//! Pins that are made in the background: `pin add --background`, `pin cancel` and `pin retry`.

use super::super::api::Call;
use super::super::arguments::CidText;
use super::super::error::RpcError;
use super::super::reply::Reply;
use super::{Pins, Terms, all_or_none, roots};
use cairn_node::pins::jobs::{JobError, JobState, NOBODY, PinJobs};
use cairn_store::pin::{PINS_AT_ONCE, PinWish};
use cairn_store::{BlockSource, Cid};

/// `pin add --background`: on disk when this is answered.
pub async fn add(call: Call) -> Result<Reply, RpcError> {
    let terms = Terms::read(&call).await?;
    let priority = call.arguments.parsed(&["priority"], "a whole number")?;
    let cids = call.arguments.cids()?;
    let store = call.context.writable_store().await?.clone();
    let jobs = call.context.jobs().await?.clone();
    let session = call.session().await?;
    let roots = roots(&call, &session, "ipfs-path").await?;
    for root in &roots {
        session.admits(root)?;
    }
    // What is pinned and here has nothing to wait for. Where that takes longer to find out, a job does.
    let stands = |root: &Cid| store.pin(root).is_some_and(|pin| pin.mode == terms.mode);
    let (standing, mut waiting): (Vec<Cid>, Vec<Cid>) = roots.into_iter().partition(stands);
    let mut pinned = Vec::new();
    for batch in standing.chunks(PINS_AT_ONCE) {
        let wishes = batch.iter().map(|root| terms.wish(*root)).collect();
        let here = call.context.pin_here(&session, wishes).await?;
        for (root, is_here) in batch.iter().zip(here) {
            let into = if is_here { &mut pinned } else { &mut waiting };
            into.push(*root);
        }
    }
    let wishes: Vec<PinWish> = waiting.iter().map(|root| terms.wish(*root)).collect();
    jobs.add_all(wishes, priority.unwrap_or(0)).await?;
    let text = |roots: &[Cid]| roots.iter().map(|root| cids.text(root)).collect();
    Reply::value(&Pins {
        pins: text(&pinned),
        queued: text(&waiting),
        waits: (!jobs.runs() && !waiting.is_empty()).then(|| NOBODY.to_owned()),
        ..Pins::default()
    })
}

/// `pin cancel`.
pub async fn cancel(call: Call) -> Result<Reply, RpcError> {
    let cids = call.arguments.cids()?;
    call.context.writable_store().await?;
    let session = call.upkeep_session().await?;
    let roots = roots(&call, &session, "ipfs-path").await?;
    let jobs = call.context.jobs().await?;
    all_queued(jobs, &roots, &cids, "nothing was cancelled")?;
    for root in &roots {
        match jobs.cancel(root).await {
            // It was named twice, or pinned at this moment.
            Err(JobError::Unknown(_)) => {}
            cancelled => cancelled?,
        }
    }
    Reply::value(&Pins {
        cancelled: roots.iter().map(|root| cids.text(root)).collect(),
        ..Pins::default()
    })
}

/// Whether there is a job for each.
fn all_queued(
    jobs: &PinJobs,
    roots: &[Cid],
    cids: &CidText,
    nothing: &str,
) -> Result<(), RpcError> {
    let unknown = roots.iter().filter(|root| !jobs.has(root)).map(|root| {
        let why = format!("{} is not in the queue of pins", cids.text(root));
        (JobError::Unknown(*root).into(), why)
    });
    all_or_none(roots.len(), unknown.collect(), nothing)
}

/// `pin retry`: those named, or all that wait or failed.
pub async fn retry(call: Call) -> Result<Reply, RpcError> {
    let cids = call.arguments.cids()?;
    let all = call.arguments.flag(&["all"])?;
    call.context.writable_store().await?;
    let jobs = call.context.jobs().await?;
    let roots = if all {
        let listed = jobs.list().await.into_iter();
        let waiting = listed.filter(|job| {
            matches!(
                job.state,
                JobState::Waiting { .. } | JobState::Failed { .. }
            )
        });
        waiting.map(|job| job.wish.cid).collect()
    } else {
        let session = call.upkeep_session().await?;
        let roots = roots(&call, &session, "ipfs-path").await?;
        all_queued(jobs, &roots, &cids, "nothing is tried again")?;
        roots
    };
    if all {
        for root in &roots {
            match jobs.retry(root).await {
                // It got on by itself since it was listed.
                Err(JobError::NotWaiting(..) | JobError::Unknown(_)) => {}
                retried => retried?,
            }
        }
    } else {
        match jobs.retry_all(&roots).await {
            Err(error @ (JobError::NotWaiting(..) | JobError::Unknown(_))) => {
                let why = error.to_string();
                let refused = vec![(error.into(), why)];
                all_or_none(roots.len(), refused, "nothing is tried again")?;
            }
            retried => retried?,
        }
    }
    Reply::value(&Pins {
        queued: roots.iter().map(|root| cids.text(root)).collect(),
        waits: (!jobs.runs() && !roots.is_empty()).then(|| NOBODY.to_owned()),
        ..Pins::default()
    })
}
