//! Pins that are made in the background: `pin add --background`, `pin cancel` and `pin retry`.

use super::super::api::Call;
use super::super::error::RpcError;
use super::super::reply::Reply;
use super::{Pins, Terms, roots};
use cairn_node::pins::jobs::{JobError, JobState, NOBODY};
use cairn_store::pin::PinWish;
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
    // What is pinned has nothing to wait for.
    let stands = |root: &Cid| store.pin(root).is_some_and(|pin| pin.mode == terms.mode);
    let (pinned, waiting): (Vec<Cid>, Vec<Cid>) = roots.into_iter().partition(stands);
    for root in &pinned {
        let done = jobs.pin(session.clone(), terms.wish(*root), |_| {});
        done.await?;
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
    if let Some(unknown) = roots.iter().find(|root| !jobs.has(root)) {
        return Err(JobError::Unknown(*unknown).into());
    }
    for root in &roots {
        jobs.cancel(root).await?;
    }
    Reply::value(&Pins {
        cancelled: roots.iter().map(|root| cids.text(root)).collect(),
        ..Pins::default()
    })
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
        roots(&call, &session, "ipfs-path").await?
    };
    for root in &roots {
        match jobs.retry(root).await {
            // It got on by itself since it was listed.
            Err(JobError::NotWaiting(..) | JobError::Unknown(_)) if all => {}
            retried => retried?,
        }
    }
    Reply::value(&Pins {
        queued: roots.iter().map(|root| cids.text(root)).collect(),
        waits: (!jobs.runs() && !roots.is_empty()).then(|| NOBODY.to_owned()),
        ..Pins::default()
    })
}
