//! Changes of the tree that are made together: one entry a path, so that every folder is written once.

use super::FilesPath;
use crate::cid::Cid;
use crate::cid::{HashKind, Version};
use crate::unixfs::import::Metadata;
use std::collections::BTreeMap;

/// One change of the tree. Folders that are missing on the way are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// What is at `path` from now on, whatever was there. All below it is in the store and held by the caller, or in
    /// the tree already.
    Put {
        /// Where.
        path: FilesPath,
        /// Its root.
        cid: Cid,
        /// Cumulative size of its DAG.
        tsize: u64,
    },
    /// Nothing is at `path` from now on, whether or not there was.
    Remove {
        /// Where.
        path: FilesPath,
    },
    /// There is a folder at `path` from now on: the one that is there, or an empty one.
    MakeFolder {
        /// Where.
        path: FilesPath,
    },
}

/// How the CIDs of a folder's blocks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Naming {
    /// The CID version.
    pub version: Version,
    /// The hash.
    pub hash: HashKind,
}

/// A link to a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) cid: Cid,
    pub(super) tsize: u64,
}

/// What a path becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Becomes {
    /// What it was.
    #[default]
    Same,
    Gone,
    Link(Link),
    /// The folder that it was, or an empty one.
    Folder,
    /// An empty folder, whatever it was.
    Empty,
}

/// What happens at a path and below it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) becomes: Becomes,
    pub(super) below: BTreeMap<String, Plan>,
    /// The mode and the time that the folder has from now on.
    pub(super) metadata: Option<Metadata>,
    /// How the folder is named from now on.
    pub(super) naming: Option<Naming>,
}

impl Plan {
    pub(super) fn at(&mut self, path: &FilesPath) -> &mut Self {
        let names = path.names().iter();
        names.fold(self, |plan, name| {
            plan.below.entry(name.clone()).or_default()
        })
    }

    pub(super) fn put(&mut self, path: &FilesPath, link: Link) {
        *self.at(path) = Self {
            becomes: Becomes::Link(link),
            ..Self::default()
        };
    }

    pub(super) fn remove(&mut self, path: &FilesPath) {
        *self.at(path) = Self {
            becomes: Becomes::Gone,
            ..Self::default()
        };
    }

    pub(super) fn make_folder(&mut self, path: &FilesPath) {
        let plan = self.at(path);
        plan.becomes = match (plan.becomes, plan.below.is_empty()) {
            (Becomes::Same, _) => Becomes::Folder,
            // What was put below it since it went is in it again.
            (Becomes::Gone, _) => Becomes::Empty,
            (other, _) => other,
        };
    }

    pub(super) fn take(&mut self, change: Change) {
        match change {
            Change::Put { path, cid, tsize } => self.put(&path, Link { cid, tsize }),
            Change::Remove { path } => self.remove(&path),
            Change::MakeFolder { path } => self.make_folder(&path),
        }
    }

    /// Whether nothing but removing happens below.
    pub(super) fn only_removes(&self) -> bool {
        let removes = |plan: &Self| {
            matches!(plan.becomes, Becomes::Same | Becomes::Gone) && plan.only_removes()
        };
        self.metadata.is_none() && self.naming.is_none() && self.below.values().all(removes)
    }

    /// Whether nothing happens.
    pub(super) fn is_idle(&self) -> bool {
        self.becomes == Becomes::Same
            && self.metadata.is_none()
            && self.naming.is_none()
            && self.below.values().all(Self::is_idle)
    }
}
