//! `repo verify`: every block against its name, and what is done about the bad ones.
//!
//! A bad block is named. With `heal` peers are asked for it, with `drop` it is deleted: so it is whole
//! again, or absent instead of damaged; with both, what no peer has is deleted. Where damage hides which
//! block it was, `heal` reads what is pinned until it has met as many damaged blocks as are hidden, and
//! `drop` deletes it without a name. Blocks in the user's files come after ([`in_place`]).

mod in_place;

use super::super::api::Call;
use super::super::arguments::CidText;
use super::super::error::RpcError;
use super::super::reply::{Reply, Sink};
use cairn_node::Session;
use cairn_store::dag::walk::{Missing, Options, walk};
use cairn_store::pin::PinMode;
use cairn_store::source::SourceError;
use cairn_store::store::Keep;
use cairn_store::verify::{BadBlock, Section};
use cairn_store::{Block, BlockSource, Cid, Store};
use futures::{StreamExt, stream};
use in_place::InPlaceSums;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// A line of `repo verify`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VerifyLine {
    /// Something found, or the result.
    pub msg: String,
    /// Blocks read so far.
    pub progress: u64,
    /// Bytes read so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Bytes to read.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl VerifyLine {
    fn told(msg: String) -> Self {
        Self {
            msg,
            ..Self::default()
        }
    }
}

/// What is done about bad blocks.
struct Cure {
    store: Store,
    /// Who is asked for them.
    peers: Option<Session>,
    /// What happens to those that are not healed.
    rest: Rest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Stays,
    Dropped,
}

/// What became of the bad blocks.
#[derive(Default)]
struct Sums {
    bad: u64,
    /// Those of them whose names are not known.
    hidden: u64,
    healed: u64,
    dropped: u64,
    /// What peers were asked for in vain.
    given_up: HashSet<Cid>,
    /// Where the hidden ones lie, that may be healed before they are dropped.
    hiding: Vec<Section>,
    in_place: InPlaceSums,
}

/// `repo verify`.
pub async fn verify(call: Call) -> Result<Reply, RpcError> {
    let cids = call.arguments.cids()?;
    let content = call.context.content().await?;
    let store = content.store.clone();
    let heals = call.arguments.flag(&["heal"])?;
    let drops = call.arguments.flag(&["drop"])?;
    let patience = call.arguments.duration(&["heal-timeout"])?;
    if heals && !call.is_online().await? {
        return Err(RpcError::offline());
    }
    if heals || drops {
        call.context.writable_store().await?;
    }
    let peers = content
        .exchange
        .session(Some(patience.unwrap_or(HEAL_TIMEOUT)));
    let cure = Cure {
        store,
        peers: heals.then_some(peers),
        rest: if drops { Rest::Dropped } else { Rest::Stays },
    };
    Ok(Reply::values(move |out| async move {
        let sums = cure.verify(&cids, &out).await?;
        out.value(&VerifyLine::told(sums.result()?)).await
    }))
}

impl Cure {
    async fn verify(&self, cids: &CidText, out: &Sink) -> Result<Sums, RpcError> {
        let (found, told) = mpsc::channel(FOUND_WAITING_MAX);
        let teller = out.clone();
        let verifying = self.store.verify(
            move |now| {
                teller.offer(&VerifyLine {
                    msg: String::new(),
                    progress: now.blocks,
                    bytes: now.bytes,
                    total: now.total,
                });
            },
            move |bad| {
                let _ = found.blocking_send(bad);
            },
        );
        let (verified, cured) = tokio::join!(verifying, self.treat_all(told, cids, out));
        verified?;
        let mut sums = cured?;
        if sums.hidden > 0
            && let Some(peers) = &self.peers
        {
            self.heal_hidden(peers, cids, out, &mut sums).await?;
            if self.rest == Rest::Dropped {
                self.drop_hidden(out, &mut sums).await?;
            }
        }
        sums.in_place = self.verify_in_place(cids, out).await?;
        if sums.healed + sums.in_place.healed > 0 {
            // What comes from peers is durable with somebody's commit: this one.
            self.store.put(Vec::new(), Keep::Kept).await?;
        }
        Ok(sums)
    }

    /// Does what is to be done about each bad block, and tells it.
    async fn treat_all(
        &self,
        mut told: mpsc::Receiver<BadBlock>,
        cids: &CidText,
        out: &Sink,
    ) -> Result<Sums, RpcError> {
        let mut sums = Sums::default();
        let mut batch = Vec::new();
        while told.recv_many(&mut batch, FOUND_WAITING_MAX).await > 0 {
            for (bad, outcome) in self.treat(std::mem::take(&mut batch)).await {
                let name = bad.cid.map_or_else(
                    || "a block".to_owned(),
                    |cid| format!("block {}", cids.text(&cid)),
                );
                sums.count(&bad, &outcome);
                let msg = format!("{name} was corrupt ({}){}", bad.why, outcome.text());
                out.value(&VerifyLine::told(msg)).await?;
            }
        }
        Ok(sums)
    }

    async fn treat(&self, batch: Vec<BadBlock>) -> Vec<(BadBlock, Outcome)> {
        let heal = |bad: BadBlock| async {
            let outcome = match (&self.peers, bad.cid) {
                (Some(peers), Some(cid)) => Outcome::of(&peers.block(&cid).await),
                (None, _) | (_, None) => Outcome::Stays,
            };
            (bad, outcome)
        };
        let mut treated: Vec<_> = stream::iter(batch)
            .map(heal)
            .buffered(HEALS_AT_ONCE)
            .collect()
            .await;
        if self.rest == Rest::Dropped {
            // What is hidden may be met by its name before it is dropped.
            let waits = |bad: &BadBlock| bad.cid.is_none() && self.peers.is_some();
            let (_, mut sick): (Vec<_>, Vec<_>) = treated
                .iter_mut()
                .partition(|(bad, outcome)| waits(bad) || *outcome == Outcome::Healed);
            let sections = sick.iter().map(|(bad, _)| bad.section).collect();
            let dropped = self.store.drop_damaged(sections).await;
            for (at, (_, outcome)) in sick.iter_mut().enumerate() {
                *outcome = match dropped.as_ref().map(|dropped| dropped.get(at)) {
                    Ok(Some(true)) => Outcome::Dropped,
                    Ok(_) => {
                        Outcome::NotDropped("it is no longer the block that lay there".to_owned())
                    }
                    Err(error) => Outcome::NotDropped(error.to_string()),
                };
            }
        }
        treated
    }

    /// Drops what is still hidden after everything pinned has been read.
    async fn drop_hidden(&self, out: &Sink, sums: &mut Sums) -> Result<(), RpcError> {
        let dropped = self.store.drop_damaged(std::mem::take(&mut sums.hiding));
        let dropped = dropped.await?.into_iter().filter(|went| *went).count() as u64;
        if dropped > 0 {
            sums.dropped += dropped;
            sums.hidden = sums.hidden.saturating_sub(dropped);
            let msg = format!("{dropped} hidden blocks dropped");
            out.value(&VerifyLine::told(msg)).await?;
        }
        Ok(())
    }

    /// Reads what is pinned, so that what damage hides is met by its name and fetched.
    async fn heal_hidden(
        &self,
        peers: &Session,
        cids: &CidText,
        out: &Sink,
        sums: &mut Sums,
    ) -> Result<(), RpcError> {
        let source = Healing {
            store: self.store.clone(),
            peers: peers.clone(),
            given_up: Arc::new(std::mem::take(&mut sums.given_up)),
            met: Arc::default(),
        };
        let pins = self.store.pin_pages().map(|pin| (pin.cid, pin.mode));
        let files = self.store.files_root();
        let files = files.map(|root| (root, PinMode::Recursive));
        for (root, mode) in pins.chain(files) {
            let options = Options {
                missing: Missing::Tell,
                max_depth: (mode == PinMode::Direct).then_some(0),
                ..Options::default()
            };
            let mut visits = std::pin::pin!(walk(source.clone(), root, options));
            while let Some(visit) = visits.next().await {
                if let Err(error) = visit {
                    tracing::warn!(%root, %error, "not read to its end");
                }
                for (cid, outcome) in source.take() {
                    if outcome == Outcome::Healed {
                        sums.healed += 1;
                        sums.hidden = sums.hidden.saturating_sub(1);
                    }
                    let msg = format!("block {} was hidden{}", cids.text(&cid), outcome.text());
                    out.value(&VerifyLine::told(msg)).await?;
                }
                if sums.hidden == 0 {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The store, and peers for what is damaged in it.
#[derive(Clone)]
struct Healing {
    store: Store,
    peers: Session,
    /// What peers were asked for already, in vain.
    given_up: Arc<HashSet<Cid>>,
    /// What was damaged, and what became of it.
    met: Arc<Mutex<Vec<(Cid, Outcome)>>>,
}

impl BlockSource for Healing {
    async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        let stored = self.store.block(cid).await;
        let damaged = matches!(stored, Err(SourceError::Damaged { .. }));
        if !damaged || self.given_up.contains(cid) {
            return stored;
        }
        let fetched = self.peers.block(cid).await;
        let outcome = Outcome::of(&fetched);
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.push((*cid, outcome));
        fetched
    }

    fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
        self.store.admits(cid)
    }
}

impl Healing {
    fn take(&self) -> Vec<(Cid, Outcome)> {
        std::mem::take(&mut self.met.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What became of a bad block.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Stays,
    Healed,
    NotHealed(String),
    Dropped,
    NotDropped(String),
}

impl Outcome {
    /// What asking peers came to.
    fn of(fetched: &Result<Option<Block>, SourceError>) -> Self {
        match fetched {
            Ok(Some(_)) => Self::Healed,
            Ok(None) => Self::NotHealed("there is nobody to ask".to_owned()),
            Err(error) => Self::NotHealed(error.to_string()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Stays => String::new(),
            Self::Healed => ", healed".to_owned(),
            Self::NotHealed(why) => format!(", not healed: {why}"),
            Self::Dropped => ", dropped".to_owned(),
            Self::NotDropped(why) => format!(", not dropped: {why}"),
        }
    }
}

impl Sums {
    fn count(&mut self, bad: &BadBlock, outcome: &Outcome) {
        self.bad += 1;
        let Some(cid) = bad.cid else {
            if *outcome == Outcome::Dropped {
                self.dropped += 1;
            } else {
                self.hidden += 1;
                if self.hiding.len() < HIDING_MAX {
                    self.hiding.push(bad.section);
                }
            }
            return;
        };
        match outcome {
            Outcome::Healed => self.healed += 1,
            Outcome::Dropped => self.dropped += 1,
            Outcome::NotHealed(_) if self.given_up.len() < GIVEN_UP_MAX => {
                self.given_up.insert(cid);
            }
            Outcome::Stays | Outcome::NotHealed(_) | Outcome::NotDropped(_) => {}
        }
    }

    /// The last line; a failure if something stays bad.
    fn result(&self) -> Result<String, RpcError> {
        let in_place = self.in_place;
        if self.bad == 0 && in_place.lost == 0 {
            let lie = match in_place.read {
                0 => String::new(),
                read => format!(" {read} of them lie in files in place."),
            };
            return Ok(format!("verify complete, all blocks validated.{lie}"));
        }
        let cured = |figures: [(u64, &str); 2]| {
            let told = figures.into_iter().filter(|(count, _)| *count > 0);
            told.map(|(count, what)| format!(", {count} {what}"))
                .collect::<String>()
        };
        let mut text = format!("verify complete, {} blocks corrupt", self.bad);
        text.push_str(&cured([(self.healed, "healed"), (self.dropped, "dropped")]));
        if in_place.lost > 0 {
            text.push_str(&format!(
                "; {} of {} blocks in files in place cannot be read from there",
                in_place.lost, in_place.read
            ));
            let figures = [
                (in_place.healed, "healed"),
                (in_place.forgotten, "forgotten"),
            ];
            text.push_str(&cured(figures));
        }
        if self.hidden > 0 {
            text.push_str(&format!(
                "; the names of {} are lost, `cairn repo verify --drop` removes them",
                self.hidden
            ));
        }
        if self.healed + self.dropped < self.bad || in_place.is_bad() {
            return Err(RpcError::failed(text));
        }
        Ok(text)
    }
}

/// How long a bad block is looked for without any progress, unless chosen.
const HEAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bad blocks that wait to be told.
const FOUND_WAITING_MAX: usize = 64;
/// Most bad blocks that peers are asked for at once.
const HEALS_AT_ONCE: usize = 32;
/// Most hidden blocks that are remembered to be dropped; the rest is for the next time.
const HIDING_MAX: usize = 64 << 10;
/// Most blocks that are remembered as asked for in vain.
const GIVEN_UP_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_bad_is_a_failure() {
        let sums = |bad, hidden, healed, dropped| Sums {
            bad,
            hidden,
            healed,
            dropped,
            ..Sums::default()
        };
        let whole = sums(0, 0, 0, 0).result().unwrap();
        assert_eq!(whole, "verify complete, all blocks validated.");
        let cured = sums(3, 0, 2, 1).result().unwrap();
        assert_eq!(
            cured,
            "verify complete, 3 blocks corrupt, 2 healed, 1 dropped"
        );
        let told = sums(3, 0, 0, 0).result().unwrap_err();
        assert_eq!(told.message(), "verify complete, 3 blocks corrupt");
        let in_files = |lost, healed, forgotten| Sums {
            in_place: InPlaceSums {
                read: 9,
                lost,
                healed,
                forgotten,
            },
            ..Sums::default()
        };
        assert_eq!(
            in_files(0, 0, 0).result().unwrap(),
            "verify complete, all blocks validated. 9 of them lie in files in place."
        );
        let cured = "verify complete, 0 blocks corrupt; 3 of 9 blocks in files in place cannot be read from there, 1 \
                     healed, 2 forgotten";
        assert_eq!(in_files(3, 1, 2).result().unwrap(), cured);
        assert!(in_files(3, 1, 1).result().is_err());
        let hidden = sums(3, 1, 2, 0).result().unwrap_err();
        assert!(
            hidden.message().contains("2 healed; the names of 1"),
            "{hidden}"
        );
    }
}
