//! Writing files.
//!
//! What is small is written in one go, and while it is not flushed the file stays in memory as a draft, so that many
//! small pieces cost no more than their bytes. What is large may come slowly: it is written beside the tree, which
//! others change meanwhile, and takes its place at the end. Two who write one file do so one after the other.

use super::draft::Draft;
use super::operations::Parents;
use super::plan::{Link, Naming, Plan};
use super::state::{Flush, Pending, Work, put};
use super::view::View;
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
        if let Some(naming) = options.naming
            && naming.hash.digest_bytes().is_none()
        {
            return Err(FilesError::Hash(naming.hash));
        }
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
        let mut fresh = None;
        // What is flushed at once may fail till the end, which leaves only what is in the tree as it was.
        if !is_drafted || options.flush == Flush::Now {
            work.settle().await?;
            let (found, naming) = work.make_place(path, &options).await?;
            fresh = Some(work.open_draft(found, naming, &options).await?);
        }
        let length = data.iter().map(Bytes::len).sum::<usize>() as u64;
        // Till all is done that may fail, or that nobody may wait for, a draft that waits stays where it is.
        work.make_ready(&mut fresh, &options, length).await?;
        let has_waited = fresh.is_none();
        let waiting = work.pending.draft.take().map(|(_, draft)| draft);
        let Some(mut draft) = fresh.or(waiting) else {
            return Ok(()); // One of both there is.
        };
        let view = work.view.clone();
        if let Err(why) = write_all(&mut draft, &view, &options, data).await {
            return Err(match has_waited {
                // Half of what was to be written is in it.
                true => work.lose_draft(path, why),
                false => why,
            });
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

    /// Does all that may fail before anything is changed: of a fresh draft, or of the one that waits.
    async fn make_ready(
        &mut self,
        fresh: &mut Option<Draft>,
        options: &WriteOptions,
        length: u64,
    ) -> Result<(), FilesError> {
        fn chosen<'a>(
            fresh: &'a mut Option<Draft>,
            pending: &'a mut Pending,
        ) -> Option<&'a mut Draft> {
            let waiting = pending.draft.as_mut().map(|(_, draft)| draft);
            fresh.as_mut().or(waiting)
        }
        let blocks = chosen(fresh, &mut self.pending).map(|draft| draft.blocks().to_vec());
        self.put(blocks.unwrap_or_default()).await?;
        let view = self.view.clone();
        let Some(draft) = chosen(fresh, &mut self.pending) else {
            return Ok(());
        };
        drop(draft.take_blocks());
        if options.truncate {
            return draft.has_room_for(0, options.offset, length);
        }
        draft.has_room_for(draft.size(), options.offset, length)?;
        draft.load_edges(&view, options.offset, length).await
    }
}

async fn write_all<S: BlockSource + Clone + 'static>(
    draft: &mut Draft,
    view: &View<S>,
    options: &WriteOptions,
    data: Vec<Bytes>,
) -> Result<(), FilesError> {
    if options.truncate {
        draft.truncate(view, 0).await?;
    }
    let mut at = options.offset;
    for piece in data {
        draft.write(view, at, &piece).await?;
        at += piece.len() as u64;
    }
    Ok(())
}

fn input(error: impl ToString) -> FilesError {
    FilesError::Input(error.to_string().into())
}

/// Most bytes that are written in one go, and stay in memory if they are not flushed; few in tests, so that small
/// files go the way of large ones.
pub const WRITE_AT_ONCE_MAX: usize = if cfg!(test) { 400 } else { 1 << 20 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BLOCK_BYTES_MAX, Block, Prefix};
    use crate::chunk::Chunker;
    use crate::cid::{self, Cid, HashKind};
    use crate::config::Config;
    use crate::source::SourceError;
    use crate::store::{Keep, Store};
    use crate::unixfs::Profile;
    use futures::{FutureExt, TryStreamExt};

    #[tokio::test]
    async fn what_a_long_write_leaves_of_a_file_that_was_not_flushed_yet_stays() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Store::open(folder.path(), &Config::default(), &mut |_| {}).unwrap();
        let store = open();
        // So that the first part is whole, and goes into the second file as it is.
        let profile = Profile {
            chunker: Chunker::Size(u32::try_from(WRITE_AT_ONCE_MAX).unwrap()),
            ..Profile::v1_2025()
        };
        let files = Files::new(store.clone(), profile).unwrap();
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
    /// A store that does not give its blocks.
    #[derive(Debug, Clone)]
    struct Bad(Store, How);

    #[derive(Debug, Clone, Copy)]
    enum How {
        Fails,
        Hangs,
    }

    impl BlockSource for Bad {
        async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
            match self.1 {
                How::Fails => {
                    let why = "of a test".into();
                    Err(SourceError::Disk { cid: *cid, why })
                }
                How::Hangs => std::future::pending().await,
            }
        }

        fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
            self.0.admits(cid)
        }
    }

    async fn write<S: BlockSource + Clone + 'static>(
        files: &Files,
        source: &S,
        path: &str,
        offset: u64,
        data: &'static str,
        flush: Flush,
    ) -> Result<(), FilesError> {
        let options = WriteOptions {
            offset,
            create: true,
            parents: Parents::Made,
            flush,
            ..WriteOptions::default()
        };
        let data = futures::stream::iter([Ok::<_, String>(Bytes::from(data))]);
        let path = FilesPath::parse(path).unwrap();
        files.write(source, &path, options, data).await
    }

    #[tokio::test]
    async fn what_can_never_be_a_file_is_told_as_lost_once_and_leaves_the_tree_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &Config::default(), &mut |_| {}).unwrap();
        let files = Files::new(store.clone(), Profile::v1_2025()).unwrap();
        let path = FilesPath::parse("/large").unwrap();
        // As a raw leaf it is as large as a block may be, and as a node too large.
        let prefix = Prefix {
            version: Version::V1,
            codec: cid::RAW,
            hash: HashKind::Sha2_256,
        };
        let leaf = Block::new(prefix, vec![7; BLOCK_BYTES_MAX].into()).unwrap();
        let link = Link {
            cid: *leaf.cid(),
            tsize: BLOCK_BYTES_MAX as u64,
        };
        store.put(vec![leaf], Keep::Kept).await.unwrap();
        let mut work = files.begin(&store).await.unwrap();
        let mut plan = Plan::default();
        plan.put(&path, link);
        work.apply(plan).await.unwrap();
        work.done(Flush::Now).await.unwrap();
        let as_node = |pieces: &'static [&'static str]| {
            let options = WriteOptions {
                raw_leaves: Some(false),
                flush: Flush::Later,
                ..WriteOptions::default()
            };
            let data = pieces
                .iter()
                .map(|piece| Ok::<_, String>(Bytes::from(*piece)));
            files.write(&store, &path, options, futures::stream::iter(data))
        };
        let is_lost = |told: FilesError| {
            let text = told.to_string();
            let is_one = matches!(told, FilesError::Lost { operations: 1, .. });
            assert!(is_one && text.contains("written to /large"), "{text}");
        };
        // Who looks is told.
        as_node(&[]).await.unwrap();
        is_lost(files.stat(&store, &path).await.unwrap_err());
        assert!(files.is_flushed().unwrap());
        // So is who writes more.
        as_node(&[]).await.unwrap();
        is_lost(as_node(&["x"]).await.unwrap_err());
        assert!(files.is_flushed().unwrap());
        let (now, _) = files
            .begin(&store)
            .await
            .unwrap()
            .find(&path)
            .await
            .unwrap();
        assert_eq!(now, Some(link));
        write(&files, &store, "/other", 0, "text", Flush::Now)
            .await
            .unwrap();
        assert_eq!(content(&files, &store, "/other").await, "text");
    }

    #[tokio::test]
    async fn a_hash_that_does_not_take_everything_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &Config::default(), &mut |_| {}).unwrap();
        let files = Files::new(store.clone(), Profile::v1_2025()).unwrap();
        let path = FilesPath::parse("/file").unwrap();
        for flush in [Flush::Later, Flush::Now] {
            let options = WriteOptions {
                create: true,
                naming: Some(Naming {
                    version: Version::V1,
                    hash: HashKind::Identity,
                }),
                flush,
                ..WriteOptions::default()
            };
            let data = futures::stream::iter([Ok::<_, String>(Bytes::from(vec![7; 129]))]);
            let refused = files.write(&store, &path, options, data).await.unwrap_err();
            assert!(matches!(refused, FilesError::Hash(_)), "{refused}");
            assert!(files.is_flushed().unwrap());
        }
    }

    async fn content(files: &Files, store: &Store, path: &str) -> String {
        let opened = files.open(store, &FilesPath::parse(path).unwrap()).await;
        let opened = opened.unwrap();
        let Node::File(file) = opened.node else {
            panic!("{path} is no file");
        };
        let read: Vec<Bytes> = file
            .read(opened.view, 0..u64::MAX)
            .try_collect()
            .await
            .unwrap();
        String::from_utf8(read.concat()).unwrap()
    }

    #[tokio::test]
    async fn what_was_written_and_not_flushed_outlives_those_who_fail_or_leave() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &Config::default(), &mut |_| {}).unwrap();
        let profile = Profile {
            chunker: Chunker::Size(4),
            ..Profile::v1_2025()
        };
        let files = Files::new(store.clone(), profile).unwrap();
        let (failing, hanging) = (
            Bad(store.clone(), How::Fails),
            Bad(store.clone(), How::Hangs),
        );
        write(&files, &store, "/d/file", 0, "0123456789", Flush::Now)
            .await
            .unwrap();
        write(&files, &store, "/d/file", 0, "one", Flush::Later)
            .await
            .unwrap();
        let path = FilesPath::parse("/d/file").unwrap();
        // Who looks has it put into its folder first.
        let looked = files.open(&failing, &path).await.unwrap_err();
        assert!(
            looked.to_string().contains("written to /d/file"),
            "{looked}"
        );
        assert!(files.open(&hanging, &path).now_or_never().is_none());
        // Who writes more reads what is beside it, or all of the file if that is flushed.
        for flush in [Flush::Later, Flush::Now] {
            let failed = write(&files, &failing, "/d/file", 5, "x", flush).await;
            assert!(failed.is_err());
            let left = write(&files, &hanging, "/d/file", 5, "x", flush).now_or_never();
            assert!(left.is_none());
        }
        write(&files, &store, "/d/file", 9, "nine", Flush::Later)
            .await
            .unwrap();
        assert_eq!(content(&files, &store, "/d/file").await, "one345678nine");
        files.flush_all().await.unwrap();
        assert_eq!(content(&files, &store, "/d/file").await, "one345678nine");
    }
}
