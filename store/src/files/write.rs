//! Writing files.
//!
//! What is small is written in one go, and while it is not flushed the file stays in memory as a draft, so that many
//! small pieces cost no more than their bytes. What is large may come slowly: it is written beside the tree, which
//! others change meanwhile, and takes its place at the end. Two who write one file do so one after the other.

use super::draft::Draft;
use super::operations::Parents;
use super::plan::{Link, Naming, Plan};
use super::state::{Flush, Work, put};
use super::{Files, FilesError, FilesPath};
use crate::cid::Version;
use crate::pin::{PinMode, PinWish, Whole};
use crate::source::BlockSource;
use crate::unixfs::read::{self, Node};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::sync::Arc;

/// How a file is written.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Where the first byte goes; what lies between the end and there is zeros.
    pub offset: u64,
    /// Whether a file that is missing is made.
    pub create: bool,
    /// What becomes of folders that are missing on the way.
    pub parents: Parents,
    /// Whether what was in it goes first.
    pub truncate: bool,
    /// Whether new leaves are raw; else as those that are there, and in a new file as its CID version has it.
    pub raw_leaves: Option<bool>,
    /// How a new file is named; else as the folder it is in.
    pub naming: Option<Naming>,
    /// When it is written out.
    pub flush: Flush,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            offset: 0,
            create: false,
            parents: Parents::There,
            truncate: false,
            raw_leaves: None,
            naming: None,
            flush: Flush::Now,
        }
    }
}

impl Files {
    /// Writes `data` to the file at `path`: all of it or nothing.
    pub async fn write<S: BlockSource + Clone + 'static, E: ToString>(
        &self,
        source: &S,
        path: &FilesPath,
        options: WriteOptions,
        data: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<(), FilesError> {
        let mut data = std::pin::pin!(data);
        let (mut first, mut bytes) = (Vec::new(), 0);
        let mut is_whole = false;
        while bytes <= WRITE_AT_ONCE_MAX {
            let Some(piece) = data.next().await else {
                is_whole = true;
                break;
            };
            let piece = piece.map_err(input)?;
            bytes += piece.len();
            first.push(piece);
        }
        // Goes at the end: who writes the same file waits till then.
        let _turn = self.alone(path).await;
        if is_whole {
            return self.write_at_once(source, path, options, first).await;
        }
        let mut work = self.begin(source).await?;
        let (found, naming) = work.make_place(path, &options).await?;
        let mut draft = work.open_draft(found, naming, &options).await?;
        let view = work.view.clone();
        let store = &self.shared.store;
        // Others go on meanwhile, and what is there of the file may go.
        let hold = store.inner.hold();
        hold.add(draft.cids().map(|cid| store.inner.index.key(cid.hash())));
        // What waits in memory is not of the file that the next flush finds in the tree any more.
        let waiting = draft
            .cids()
            .filter_map(|cid| view.overlay.get(&cid).cloned());
        put(store, Arc::clone(&hold), waiting.collect()).await?;
        drop(work);
        if options.truncate {
            draft.truncate(&view, 0).await?;
        }
        let mut at = options.offset;
        let mut all = futures::stream::iter(first.into_iter().map(Ok)).chain(data);
        while let Some(piece) = all.next().await {
            let piece = piece.map_err(input)?;
            draft.write(&view, at, &piece).await?;
            at += piece.len() as u64;
            put(store, Arc::clone(&hold), draft.take_blocks()).await?;
        }
        let (link, blocks) = draft.finish(&view).await?;
        put(store, Arc::clone(&hold), blocks).await?;
        let mut work = self.begin(source).await?;
        let (now, _) = work.make_place(path, &options).await?;
        if now != found {
            // What was there has gone, and what it shares with this perhaps with it.
            let wish = PinWish::new(link.cid, PinMode::Recursive);
            work.keep([store.pin_fetch(view, &wish, |_| {}).await?]);
        }
        work.keep([Whole::of(hold)]);
        let mut plan = Plan::default();
        plan.put(path, link);
        work.apply(plan).await?;
        work.done(options.flush).await.map(drop)
    }

    /// Writes what is in memory.
    async fn write_at_once<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        path: &FilesPath,
        options: WriteOptions,
        data: Vec<Bytes>,
    ) -> Result<(), FilesError> {
        let mut work = self.begin_drafted(source).await?;
        let is_drafted = matches!(&work.pending.draft, Some((of, _)) if of == path);
        if !is_drafted {
            work.settle().await?;
        }
        let mut draft = match work.pending.draft.take() {
            Some((_, draft)) => draft,
            None => {
                let (found, naming) = work.make_place(path, &options).await?;
                work.open_draft(found, naming, &options).await?
            }
        };
        let length = data.iter().map(Bytes::len).sum::<usize>() as u64;
        let ready = work.make_ready(&mut draft, &options, length).await;
        if let Err(error) = ready {
            if is_drafted {
                // It is as it was.
                work.pending.draft = Some((path.clone(), draft));
            }
            return Err(error);
        }
        let view = work.view.clone();
        if options.truncate {
            draft.truncate(&view, 0).await?;
        }
        let mut at = options.offset;
        for piece in data {
            draft.write(&view, at, &piece).await?;
            at += piece.len() as u64;
        }
        if options.flush == Flush::Later {
            return work.done_drafted(path.clone(), draft).await;
        }
        let (link, blocks) = draft.finish(&view).await?;
        work.add(blocks);
        let mut plan = Plan::default();
        plan.put(path, link);
        work.apply(plan).await?;
        work.done(options.flush).await.map(drop)
    }
}

impl<S: BlockSource + Clone + 'static> Work<S> {
    /// What is at a path that is to be a file, and how it is named if nothing is. Folders that are missing are made
    /// if they may be.
    async fn make_place(
        &mut self,
        path: &FilesPath,
        options: &WriteOptions,
    ) -> Result<(Option<Link>, Naming), FilesError> {
        let Some(parent) = path.parent() else {
            let path = path.to_string();
            return Err(FilesError::NotFile { path });
        };
        self.must_have_parent(path, options.parents).await?;
        if !self.has_parent(path).await? {
            let mut plan = Plan::default();
            self.plan_folders(&mut plan, &parent, options.naming)
                .await?;
            self.apply(plan).await?;
        }
        let (found, naming) = self.find(path).await?;
        if found.is_none() && !options.create {
            return Err(FilesError::NotFound);
        }
        Ok((found, options.naming.unwrap_or(naming)))
    }

    async fn open_draft(
        &self,
        found: Option<Link>,
        naming: Naming,
        options: &WriteOptions,
    ) -> Result<Draft, FilesError> {
        let profile = self.profile().clone();
        let mut draft = match found {
            None => Draft::new(&profile, naming.version == Version::V1, naming),
            Some(link) => match read::open(&self.view, &link.cid).await? {
                Node::File(file) => Draft::open(&self.view, file.cid(), &profile, naming).await?,
                Node::Directory(_) | Node::Symlink(_) => {
                    let path = link.cid.to_string();
                    return Err(FilesError::NotFile { path });
                }
            },
        };
        if let Some(raw_leaves) = options.raw_leaves {
            draft.set_raw_leaves(raw_leaves);
        }
        Ok(draft)
    }

    /// Does all that may fail before anything is changed.
    async fn make_ready(
        &mut self,
        draft: &mut Draft,
        options: &WriteOptions,
        length: u64,
    ) -> Result<(), FilesError> {
        self.put(draft.blocks().to_vec()).await?;
        drop(draft.take_blocks());
        let view = self.view.clone();
        if options.truncate {
            return draft.has_room_for(0, options.offset, length);
        }
        draft.has_room_for(draft.size(), options.offset, length)?;
        draft.load_edges(&view, options.offset, length).await
    }
}

fn input(error: impl ToString) -> FilesError {
    FilesError::Input(error.to_string().into())
}

/// Most bytes that are written in one go, and stay in memory if they are not flushed.
pub const WRITE_AT_ONCE_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::store::Store;
    use crate::unixfs::Profile;

    #[tokio::test]
    async fn what_a_long_write_leaves_of_a_file_that_was_not_flushed_yet_stays() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Store::open(folder.path(), &Config::default(), &mut |_| {}).unwrap();
        let store = open();
        let files = Files::new(store.clone(), Profile::v1_2025()).unwrap();
        let path = FilesPath::parse("/file").unwrap();
        let (short, long) = (vec![7; WRITE_AT_ONCE_MAX], vec![8; 3 * WRITE_AT_ONCE_MAX]);
        let offset = short.len() as u64;
        for (offset, bytes, flush) in [(0, short, Flush::Later), (offset, long, Flush::Now)] {
            let options = WriteOptions {
                offset,
                create: true,
                flush,
                ..WriteOptions::default()
            };
            let data = futures::stream::iter([Ok::<_, String>(Bytes::from(bytes))]);
            files.write(&store, &path, options, data).await.unwrap();
        }
        drop(files);
        store.close().await.unwrap();
        drop(store);
        let store = open();
        let root = store.files_root().unwrap();
        let wish = PinWish::new(root, PinMode::Recursive);
        let whole = store.pin_fetch(store.clone(), &wish, |_| {}).await;
        assert!(whole.is_ok(), "{whole:?}");
    }
}
