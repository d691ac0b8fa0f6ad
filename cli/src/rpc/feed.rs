//! From a flat list of paths, in walking order, to folders that an importer enters and leaves.

use super::entries::Content;
use super::error::RpcError;
use cairn_store::sink::BlockSink;
use cairn_store::unixfs::import::{Added, Event, ImportError, Importer, Metadata};
use std::path::Path;

/// An importer that is fed with paths.
pub(super) struct Feed<S, F> {
    /// What it feeds.
    pub(super) importer: Importer<S, F>,
    /// The folders entered, by the names that came.
    open: Vec<String>,
}

impl<S: BlockSink, F: FnMut(Event)> Feed<S, F> {
    /// Nothing is entered yet.
    pub(super) const fn new(importer: Importer<S, F>) -> Self {
        Self {
            importer,
            open: Vec::new(),
        }
    }

    /// Takes an entry, which stays where it lies if it is a file and that is said. `named` gives what is at the top
    /// its name there.
    pub(super) fn take(
        &mut self,
        path: &str,
        metadata: Metadata,
        place: Option<&Path>,
        content: Content<'_>,
        named: &mut dyn FnMut(&str) -> String,
    ) -> Result<(), RpcError> {
        let (folders, name) = path
            .rsplit_once('/')
            .map_or((None, path), |(folders, name)| (Some(folders), name));
        let folders: Vec<&str> = folders
            .map(|path| path.split('/').collect())
            .unwrap_or_default();
        let shared = self
            .open
            .iter()
            .zip(&folders)
            .take_while(|(open, wanted)| open == *wanted)
            .count();
        self.leave_to(shared)?;
        for folder in folders.iter().skip(shared) {
            // A folder that nobody sent by itself.
            self.enter(folder, Metadata::default(), named)?;
        }
        match content {
            Content::Folder => self.enter(name, metadata, named),
            Content::Link(target) => {
                let name = self.name_inside(name, named);
                Ok(self.importer.symlink(&name, &target, metadata)?)
            }
            Content::File(mut content) => {
                let name = self.name_inside(name, named);
                let importer = &mut self.importer;
                let added = match place {
                    Some(place) => importer.file_in_place(&name, &mut content, metadata, place),
                    None => importer.file(&name, &mut content, metadata),
                };
                added.map_err(|error| match error {
                    // The importer knows the entry by our name for it.
                    ImportError::Read { source, .. } => {
                        RpcError::failed(format!("cannot read {path}: {source}"))
                    }
                    other => other.into(),
                })
            }
        }
    }

    /// Leaves the folders that are deeper than `depth`.
    pub(super) fn leave_to(&mut self, depth: usize) -> Result<(), RpcError> {
        while self.open.len() > depth {
            self.importer.leave()?;
            self.open.pop();
        }
        Ok(())
    }

    /// What is at the top.
    pub(super) fn finish(mut self) -> Result<Vec<Added>, RpcError> {
        self.leave_to(0)?;
        Ok(self.importer.finish()?)
    }

    fn enter(
        &mut self,
        name: &str,
        metadata: Metadata,
        named: &mut dyn FnMut(&str) -> String,
    ) -> Result<(), RpcError> {
        let inside = self.name_inside(name, named);
        self.importer.enter(&inside, metadata)?;
        self.open.push(name.to_owned());
        Ok(())
    }

    fn name_inside(&self, name: &str, named: &mut dyn FnMut(&str) -> String) -> String {
        if self.open.is_empty() {
            named(name)
        } else {
            name.to_owned()
        }
    }
}
