//! Re-hash what is on disk; name what lies.

use crate::block::Block;
use crate::cid::Cid;
use crate::hash::BATCH;
use crate::log::Position;
use crate::source::SourceError;
use crate::store::{Inner, Store, Walked, blocking, disk, nothing};
use bytes::Bytes;
use std::ops::ControlFlow;

/// What a verification found out about one block, or about bytes that hold none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBlock {
    /// The block; `None` where damage hides which it was.
    pub cid: Option<Cid>,
    /// What is wrong, and where.
    pub why: String,
}

impl Store {
    /// Re-hashes every block. Tells each bad one, and after every batch how many were looked at;
    /// answers how many there were in all.
    pub async fn verify(
        &self,
        mut on_progress: impl FnMut(u64) + Send + 'static,
        mut on_bad: impl FnMut(BadBlock) + Send + 'static,
    ) -> Result<u64, SourceError> {
        let inner = self.inner.clone();
        let verified = blocking(move || {
            let mut seen = 0;
            let mut batch: Vec<(Position, Cid, Bytes)> = Vec::with_capacity(BATCH);
            inner.each_section(|segment, walked| {
                match walked {
                    Walked::Section(found) => {
                        let at = u64::from(found.offset) + u64::from(found.header.prefix);
                        let data = segment
                            .read_unchecked(at, found.header.length.into())
                            .map_err(|error| disk(&found.header.cid, &error))?;
                        let position = Position {
                            segment: segment.id,
                            offset: found.offset,
                        };
                        batch.push((position, found.header.cid, data));
                    }
                    Walked::Gap(gap) => on_bad(BadBlock {
                        cid: None,
                        why: format!(
                            "segment {}: bytes {} to {} hold no readable block",
                            segment.id, gap.from, gap.to
                        ),
                    }),
                }
                if batch.len() == BATCH {
                    seen += inner.check(&mut batch, &mut on_bad);
                    on_progress(seen);
                }
                Ok(ControlFlow::Continue(()))
            })?;
            seen += inner.check(&mut batch, &mut on_bad);
            on_progress(seen);
            Ok(seen)
        });
        verified
            .await
            .unwrap_or_else(|| Err(SourceError::Stopping { cid: nothing() }))
    }
}

impl Inner {
    /// Hashes a batch and empties it; answers how many blocks it had.
    fn check(
        &self,
        batch: &mut Vec<(Position, Cid, Bytes)>,
        on_bad: &mut impl FnMut(BadBlock),
    ) -> u64 {
        let places: Vec<(Position, Cid)> = batch
            .iter()
            .map(|(position, cid, _)| (*position, *cid))
            .collect();
        let blocks = std::mem::take(batch)
            .into_iter()
            .map(|(_, cid, data)| (cid, data))
            .collect();
        let count = places.len() as u64;
        for ((position, cid), verified) in places.into_iter().zip(Block::verify_many(blocks)) {
            if let Err(error) = verified {
                // Reads of it fail from now on, and putting it again writes it again.
                self.mark_damaged(self.index.key(cid.hash()), position);
                on_bad(BadBlock {
                    cid: Some(cid),
                    why: error.to_string(),
                });
            }
        }
        count
    }
}
