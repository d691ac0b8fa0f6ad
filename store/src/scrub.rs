//! Re-hash what is on disk; name what lies.

use crate::block::Block;
use crate::cid::Cid;
use crate::hash::BATCH;
use crate::source::SourceError;
use crate::store::{Store, blocking, disk};
use std::ops::ControlFlow;

/// What a verification found out about one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBlock {
    /// The block.
    pub cid: Cid,
    /// What is wrong with it.
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
            let mut batch = Vec::with_capacity(BATCH);
            let mut check = |batch: &mut Vec<_>| {
                let cids: Vec<Cid> = batch.iter().map(|(cid, _)| *cid).collect();
                for (cid, verified) in cids
                    .into_iter()
                    .zip(Block::verify_many(std::mem::take(batch)))
                {
                    seen += 1;
                    if let Err(error) = verified {
                        let key = inner.index.key(cid.hash());
                        // Reads of it fail from now on, and putting it again writes it again.
                        inner.mark_damaged(key);
                        on_bad(BadBlock {
                            cid,
                            why: error.to_string(),
                        });
                    }
                }
                on_progress(seen);
                seen
            };
            inner.each_section(|segment, found| {
                let at = u64::from(found.offset) + u64::from(found.header.prefix);
                let data = segment
                    .read_unchecked(at, found.header.length.into())
                    .map_err(|error| disk(&found.header.cid, &error))?;
                batch.push((found.header.cid, data));
                if batch.len() == BATCH {
                    check(&mut batch);
                }
                Ok(ControlFlow::Continue(()))
            })?;
            Ok(check(&mut batch))
        });
        verified.await.unwrap_or(Ok(0))
    }
}
