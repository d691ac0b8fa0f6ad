//! From the folder to the path: what changed is added, then all of it takes its place in the tree at once.

use super::listing::{Way, entries_of, root_of};
use super::{Change, Failure, Job, Shell};
use crate::output::{Progress, escape_line};
use crate::rpc::entries::{LocalUpload, Source};
use crate::rpc::sync::{PLAN, Plan, SyncLine};
use crate::sync::plan::{Step, after, plan};
use crate::sync::scan::Seen;
use crate::sync::state::Known;
use crate::sync::{Kind, walking_order};
use cairn_store::cid::Cid;
use std::collections::HashMap;

impl Job {
    /// The root that the path has then; `None` if it was only tried.
    pub(super) async fn push(&self, shell: &mut Shell) -> Result<Option<Cid>, Failure> {
        let root = root_of(shell, &self.path, Way::Push).await?;
        let state = self.state_of(root.as_ref())?;
        let is_remembered = state.is_some();
        let known = match (root, state) {
            (_, Some(state)) => state.entries,
            (Some(root), None) => self.with_stats(entries_of(shell, &self.path, &root).await?)?,
            (None, None) => Vec::new(),
        };
        let scan = self.scan().await?;
        // More often a disk that is not mounted than what somebody wants.
        if scan.entries.is_empty() && !known.is_empty() && !self.arguments.force {
            return Err(Failure::runtime(format!(
                "nothing was changed: {} is empty, and {} in the file tree holds {} files and folders, which would be removed; \
                 if the folder is not on a disk that has to be mounted, --force does that",
                self.folder.display(),
                escape_line(&self.path),
                known.len()
            )));
        }
        let steps = plan(&scan.entries, &known, self.trust());
        if is_remembered && steps.is_empty() {
            return Ok(root.filter(|_| !self.arguments.dry_run));
        }
        let cids = self.hash(compared(&steps, &scan.entries)).await?;
        let now = Now::after(&scan.entries, &known, &steps, &cids);
        let plan = now.plan();
        plan.check().map_err(Failure::Runtime)?;
        if self.arguments.dry_run {
            now.tell(self, shell)?;
            return Ok(None);
        }
        if let (Some(root), true) = (root, now.is_the_same()) {
            if now.learned || !is_remembered {
                self.keep_state(root, now.entries)?;
            }
            return Ok(Some(root));
        }
        let (root, added) = self.send(shell, root, &plan, now.bytes).await?;
        now.tell(self, shell)?;
        self.keep_state(root, now.with(added))?;
        Ok(Some(root))
    }

    /// What is known of files by an older state, for those that are what they were then.
    fn with_stats(&self, listed: Vec<Known>) -> Result<Vec<Known>, Failure> {
        let Some(state) = self
            .place
            .load()
            .map_err(super::runtime)?
            .filter(|state| state.settings == self.settings())
        else {
            return Ok(listed);
        };
        let before: HashMap<&str, &Known> = state
            .entries
            .iter()
            .map(|known| (known.path.as_str(), known))
            .collect();
        let with_stat = |known: Known| match before.get(known.path.as_str()) {
            Some(old) if old.cid == known.cid && old.kind == known.kind => Known {
                stat: old.stat,
                ..known
            },
            _ => known,
        };
        Ok(listed.into_iter().map(with_stat).collect())
    }

    /// Adds what is new and has the tree take it; gives the new root, and what each path that was added is.
    async fn send(
        &self,
        shell: &Shell,
        root: Option<Cid>,
        plan: &Plan,
        bytes: u64,
    ) -> Result<(Cid, HashMap<String, (Kind, Cid)>), Failure> {
        let mut sources = vec![Source::Bytes(
            serde_json::to_vec(plan).map_err(super::runtime)?,
            PLAN.to_owned(),
        )];
        for (at, path) in plan.put.iter().enumerate() {
            sources.push(Source::Named(self.folder.join(path), at.to_string()));
        }
        let progress = match shell.wants_progress(None) {
            true => Progress::bytes(Some(bytes)),
            false => Progress::none(),
        };
        let upload = LocalUpload {
            sources,
            walk: self.walk(),
            meter: progress.meter(),
        };
        let question = shell
            .question("sync/apply")
            .arg(&self.path)
            .maybe("expect", root)
            .maybe("chunker", self.arguments.chunker.as_ref())
            .upload(upload);
        let mut answer = shell.ask(question).await?;
        let mut added = HashMap::new();
        let mut last = None;
        loop {
            let lines: Vec<SyncLine> = answer.values().await?;
            if lines.is_empty() {
                break;
            }
            for line in lines {
                match line {
                    SyncLine::Added { path, hash, kind } => {
                        let cid = Cid::try_from(hash.as_str()).map_err(super::runtime)?;
                        added.insert(path, (kind, cid));
                    }
                    SyncLine::Root { root } => {
                        last = Some(Cid::try_from(root.as_str()).map_err(super::runtime)?);
                    }
                }
            }
        }
        let root = last.ok_or_else(|| Failure::runtime("the answer ended without a root"))?;
        Ok((root, added))
    }
}

/// The files that have to be read.
fn compared<'a>(steps: &[Step], seen: &'a [Seen]) -> Vec<&'a str> {
    let read = steps.iter().filter_map(|step| match step {
        Step::Compare(here, _) => seen.get(*here),
        _ => None,
    });
    read.map(|seen| seen.path.as_str()).collect()
}

/// What is to be done, and what is known when it is.
#[derive(Debug, Default)]
struct Now {
    put: Vec<String>,
    removed: Vec<String>,
    /// Bytes of what is put.
    bytes: u64,
    entries: Vec<Known>,
    /// Whether files turned out to be what they were.
    learned: bool,
}

impl Now {
    fn after(
        seen: &[Seen],
        known: &[Known],
        steps: &[Step],
        cids: &HashMap<String, (Kind, Cid)>,
    ) -> Self {
        let mut now = Self::default();
        let mut differ = steps.iter().peekable();
        let (mut here, mut there) = (0, 0);
        while here < seen.len() || there < known.len() {
            let step = differ.next_if(|step| match step {
                Step::Here(at) => *at == here,
                Step::There(at) => *at == there,
                Step::Other(at, _) | Step::Compare(at, _) => *at == here,
            });
            match step {
                Some(Step::There(at)) => {
                    now.removed
                        .extend(known.get(*at).map(|known| known.path.clone()));
                    there = after(known, there, |known| &known.path);
                }
                Some(Step::Here(_)) => {
                    let end = after(seen, here, |seen| &seen.path);
                    now.put(seen, here..end);
                    here = end;
                }
                Some(Step::Other(..)) => {
                    let end = after(seen, here, |seen| &seen.path);
                    now.put(seen, here..end);
                    here = end;
                    there = after(known, there, |known| &known.path);
                }
                Some(Step::Compare(..)) => {
                    if let (Some(one), Some(other)) = (seen.get(here), known.get(there)) {
                        match cids.get(&one.path) {
                            Some((kind, cid)) if *kind == one.kind && Some(*cid) == other.cid => {
                                now.learned |= one.stat.is_some();
                                now.entries.push(Known {
                                    kind: one.kind,
                                    stat: one.stat,
                                    ..other.clone()
                                });
                            }
                            _ => now.put(seen, here..here + 1),
                        }
                    }
                    here += 1;
                    there += 1;
                }
                None => {
                    let same = known.get(there).cloned();
                    now.entries.extend(same.map(|known| Known {
                        // What is below it may change.
                        cid: known.cid.filter(|_| known.kind != Kind::Folder),
                        ..known
                    }));
                    here += 1;
                    there += 1;
                }
            }
        }
        now
    }

    fn put(&mut self, seen: &[Seen], range: std::ops::Range<usize>) {
        let all = seen.get(range).unwrap_or_default();
        self.put.extend(all.first().map(|seen| seen.path.clone()));
        for seen in all {
            if seen.kind == Kind::File {
                self.bytes = self.bytes.saturating_add(seen.found.size);
            }
            self.entries.push(Known {
                path: seen.path.clone(),
                kind: seen.kind,
                cid: None,
                stat: seen.stat,
            });
        }
    }

    /// What is known with what was added: what the files were when they were read, which may be later than they were
    /// looked at.
    fn with(self, mut added: HashMap<String, (Kind, Cid)>) -> Vec<Known> {
        let mut entries = self.entries;
        for known in &mut entries {
            match added.remove(&known.path) {
                Some((kind, cid)) if kind == known.kind => {
                    known.cid = Some(cid).filter(|_| kind != Kind::Folder);
                }
                Some((kind, cid)) => {
                    *known = Known {
                        kind,
                        cid: Some(cid).filter(|_| kind != Kind::Folder),
                        stat: None,
                        path: std::mem::take(&mut known.path),
                    };
                }
                // Gone before it was read.
                None if known.cid.is_none() => known.stat = None,
                None => {}
            }
        }
        // Came before it was read.
        entries.extend(added.into_iter().map(|(path, (kind, cid))| Known {
            path,
            kind,
            cid: Some(cid).filter(|_| kind != Kind::Folder),
            stat: None,
        }));
        entries.sort_by(|one, other| walking_order(&one.path, &other.path));
        entries
    }

    fn plan(&self) -> Plan {
        Plan {
            put: self.put.clone(),
            remove: self.removed.clone(),
        }
    }

    fn is_the_same(&self) -> bool {
        self.put.is_empty() && self.removed.is_empty()
    }

    fn tell(&self, job: &Job, shell: &mut Shell) -> Result<(), Failure> {
        for path in &self.removed {
            job.tell(shell, Change::Removed, path)?;
        }
        for path in &self.put {
            job.tell(shell, Change::Put, path)?;
        }
        Ok(())
    }
}
