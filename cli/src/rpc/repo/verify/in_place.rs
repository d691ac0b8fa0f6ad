//! `repo verify` of blocks that lie in the user's files: read from there. What cannot be is fetched from peers, and is a
//! block here from then on, or is forgotten; not where the file's folder is gone too, for its disk may just not be
//! mounted.

use super::{Cure, FOUND_WAITING_MAX, HEALS_AT_ONCE, Outcome, Rest, VerifyLine};
use crate::rpc::arguments::CidText;
use crate::rpc::context::broke;
use crate::rpc::error::RpcError;
use crate::rpc::reply::Sink;
use cairn_store::BlockSource;
use cairn_store::filestore::{Forgotten, InPlace};
use cairn_store::reference::{Lost, Why};
use cairn_store::source::SourceError;
use futures::{StreamExt, stream};
use std::ops::ControlFlow;
use tokio::sync::mpsc;

/// What became of blocks in files.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct InPlaceSums {
    pub(super) read: u64,
    pub(super) lost: u64,
    pub(super) healed: u64,
    pub(super) forgotten: u64,
}

impl InPlaceSums {
    fn count(&mut self, outcome: &Outcome) {
        self.lost += 1;
        match outcome {
            Outcome::Healed => self.healed += 1,
            Outcome::Dropped => self.forgotten += 1,
            Outcome::Stays | Outcome::NotHealed(_) | Outcome::NotDropped(_) => {}
        }
    }

    /// Whether something stays lost.
    pub(super) const fn is_bad(self) -> bool {
        self.healed + self.forgotten < self.lost
    }
}

impl Cure {
    /// Reads every block that lies in a file, and tells of each that cannot be had from there.
    pub(super) async fn verify_in_place(
        &self,
        cids: &CidText,
        out: &Sink,
    ) -> Result<InPlaceSums, RpcError> {
        let (finds, mut found) = mpsc::channel(FOUND_WAITING_MAX);
        let finding = self
            .store
            .references(move |one| match finds.blocking_send(one) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            });
        let treating = async move {
            let mut sums = InPlaceSums::default();
            let mut some = Vec::new();
            while found.recv_many(&mut some, FOUND_WAITING_MAX).await > 0 {
                sums.read += some.len() as u64;
                for (one, lost, outcome) in self.treat_in_place(std::mem::take(&mut some)).await? {
                    sums.count(&outcome);
                    let msg = format!(
                        "block {} was added in place and cannot be read from there ({lost}){}",
                        cids.text(&one.cid),
                        outcome.text()
                    );
                    out.value(&VerifyLine::told(msg)).await?;
                }
            }
            Ok::<_, RpcError>(sums)
        };
        let (done, sums) = tokio::join!(finding, treating);
        let sums = sums?;
        done?;
        Ok(sums)
    }

    async fn treat_in_place(
        &self,
        found: Vec<InPlace>,
    ) -> Result<Vec<(InPlace, Lost, Outcome)>, RpcError> {
        let reading = tokio::task::spawn_blocking(move || {
            let lost = found.into_iter().filter_map(|found| {
                let lost = found.read().err()?;
                let is_away = is_away(&lost);
                Some((found, lost, is_away))
            });
            lost.collect::<Vec<_>>()
        });
        let lost = reading.await.map_err(|_| broke("reading a file"))?;
        let drops = self.rest == Rest::Dropped;
        let heal = |(found, lost, is_away): (InPlace, Lost, bool)| async move {
            let outcome = match &self.peers {
                None => Outcome::Stays,
                Some(peers) => match peers.block(&found.cid).await {
                    Err(SourceError::Elsewhere { .. }) => {
                        Outcome::NotHealed("no peer has it".to_owned())
                    }
                    fetched => Outcome::of(&fetched),
                },
            };
            let outcome = match outcome {
                Outcome::Stays | Outcome::NotHealed(_) if drops && is_away => {
                    Outcome::NotDropped(AWAY.to_owned())
                }
                outcome => outcome,
            };
            (found, lost, outcome)
        };
        let mut treated: Vec<_> = stream::iter(lost)
            .map(heal)
            .buffered(HEALS_AT_ONCE)
            .collect()
            .await;
        if drops {
            let mut sick: Vec<_> = treated
                .iter_mut()
                .filter(|(.., outcome)| matches!(outcome, Outcome::Stays | Outcome::NotHealed(_)))
                .collect();
            let places = sick.iter().map(|(found, ..)| found.clone()).collect();
            let fates = self.store.forget_lost(places).await?;
            for ((.., outcome), fate) in sick.iter_mut().zip(fates) {
                *outcome = match fate {
                    Forgotten::Yes => Outcome::Dropped,
                    Forgotten::Whole => Outcome::NotDropped("the file has it again".to_owned()),
                    Forgotten::Replaced => {
                        Outcome::NotDropped("it does not lie there any more".to_owned())
                    }
                    Forgotten::Held => {
                        Outcome::NotDropped("something works with it at this moment".to_owned())
                    }
                };
            }
        }
        Ok(treated)
    }
}

/// Whether a file is gone with its folder, as those on a disk are that is not mounted. Blocks.
fn is_away(lost: &Lost) -> bool {
    let folder = lost.path.parent();
    lost.why == Why::Gone && folder.is_some_and(|folder| !folder.is_dir())
}

/// Why such a one is not forgotten.
const AWAY: &str =
    "its folder is not there: mount it, or `cairn filestore verify --remove-bad-blocks` forgets it";
