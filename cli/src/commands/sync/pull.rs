//! From the path to the folder: what differs is fetched beside its place first, then moved into it.
//!
//! What was changed in the folder since the last sync, or never was synced, is not touched unless that is said
//! (`--force`): the command ends and names it, before anything was changed. Moving into place is `place`.

use super::listing::{Way, entries_of, root_of};
use super::place::{Growing, Placed};
use super::{Change, Failure, Job, Shell, runtime};
use crate::commands::content::write_tree;
use crate::extract::Target;
use crate::output::escape_line;
use crate::sync::plan::{Step, Trust, after, plan};
use crate::sync::scan::{Scan, Seen, is_temporary};
use crate::sync::state::Known;
use crate::sync::{Kind, is_below, walking_order};
use cairn_store::cid::Cid;
use std::collections::{HashMap, HashSet};

impl Job {
    /// The root that the folder has then; `None` if it was only tried.
    pub(super) async fn pull(&self, shell: &mut Shell) -> Result<Option<Cid>, Failure> {
        let path = &self.path;
        let root = root_of(shell, path, Way::Pull).await?;
        let root =
            root.ok_or_else(|| Failure::runtime(format!("there is no {path} in the file tree")))?;
        let state = self.state_of(Some(&root))?;
        let is_remembered = state.is_some();
        let (listed, before) = match state {
            Some(state) => (state.entries.clone(), state.entries),
            None => {
                let before = self.place.load().map_err(runtime)?;
                let before = before.filter(|state| state.settings == self.settings());
                (
                    entries_of(shell, path, &root).await?,
                    before.map(|state| state.entries).unwrap_or_default(),
                )
            }
        };
        let scan = self.scan().await?;
        let before: HashMap<&str, &Known> = before
            .iter()
            .map(|known| (known.path.as_str(), known))
            .collect();
        let with_stats = |listed: Vec<Known>| -> Vec<Known> {
            let listed = listed.into_iter();
            listed.map(|known| with_stat(known, &before)).collect()
        };
        let mut there = with_stats(listed);
        let mut steps = plan(&scan.entries, &there, self.trust());
        // Of folders is only remembered that they were there.
        if is_remembered && lacks_cid(&steps, &there) {
            there = with_stats(entries_of(shell, path, &root).await?);
            steps = plan(&scan.entries, &there, self.trust());
        }
        if let Some(known) = there.iter().find(|known| is_ours(&known.path)) {
            return Err(Failure::runtime(format!(
                "{path}/{} in the file tree has a name that sync keeps for what is not in its place yet; move it \
                 (`cairn files mv`)",
                escape_line(&known.path)
            )));
        }
        if is_remembered && steps.is_empty() {
            return Ok(Some(root).filter(|_| !self.arguments.dry_run));
        }
        let todo = self.todo(&scan, &there, &steps, &before).await?;
        if !todo.lost.is_empty() && !self.arguments.force {
            return Err(would_be_lost(&todo.lost));
        }
        if self.arguments.dry_run {
            todo.tell(self, shell, |_| false)?;
            return Ok(None);
        }
        let (placed, growing) = self.carry_out(shell, &todo, &scan.entries).await?;
        let failed: HashSet<&str> = placed.failed.iter().map(|(path, _)| &path[..]).collect();
        let is_left = |path: &str| {
            let mut all = std::iter::successors(Some(path), |path| Some(path.rsplit_once('/')?.0));
            all.any(|path| failed.contains(path))
        };
        todo.tell(self, shell, is_left)?;
        let now = by_path(&scan.entries);
        let new = by_path(&placed.seen);
        let entries = there.iter().map(|known| Known {
            stat: match new.get(known.path.as_str()) {
                Some(seen) => seen.stat,
                None => now
                    .get(known.path.as_str())
                    .filter(|seen| seen.kind == known.kind)
                    .and_then(|seen| known.stat.filter(|stat| *stat == seen.found).or(seen.stat)),
            },
            ..known.clone()
        });
        let failure = placed.failure(&self.folder);
        let Some(failure) = failure else {
            self.keep_state(root, entries.collect())?;
            remove(growing).await;
            return Ok(Some(root));
        };
        // What is left as it was is known as it was; and that the folder has this root is not said.
        let left = before.values().filter(|known| is_left(&known.path));
        let done = entries.filter(|known| !is_left(&known.path));
        let mut entries: Vec<Known> = done.chain(left.copied().cloned()).collect();
        entries.sort_by(|one, other| walking_order(&one.path, &other.path));
        self.keep_state(Cid::default(), entries)?;
        remove(growing).await;
        Err(failure)
    }

    /// What has to be done, and what would be lost by it.
    async fn todo(
        &self,
        scan: &Scan,
        there: &[Known],
        steps: &[Step],
        before: &HashMap<&str, &Known>,
    ) -> Result<Todo, Failure> {
        let here = scan.entries.as_slice();
        // Files whose content decides: equal to what comes, or to what was synced.
        let mut asked = Vec::new();
        for step in steps {
            let range = match step {
                Step::Here(at) | Step::Other(at, _) => *at..after(here, *at, |seen| &seen.path),
                Step::Compare(at, _) => *at..*at + 1,
                Step::There(_) => continue,
            };
            for seen in here.get(range).unwrap_or_default() {
                let is_compared =
                    matches!(step, Step::Compare(..)) && self.trust() == Trust::Content;
                if seen.kind != Kind::Folder && (is_compared || !is_untouched(seen, before)) {
                    asked.push(seen.path.as_str());
                }
            }
        }
        let cids = self.hash(asked).await?;
        let has = |seen: &Seen, known: Option<&Known>| {
            let cid = cids.get(&seen.path).map(|(_, cid)| *cid);
            cid.is_some() && known.is_some_and(|known| known.cid == cid && known.kind == seen.kind)
        };
        let mut todo = Todo::default();
        for step in steps {
            let removed = match step {
                Step::Here(at) | Step::Other(at, _) => *at..after(here, *at, |seen| &seen.path),
                Step::Compare(at, other) => {
                    let (Some(seen), Some(known)) = (here.get(*at), there.get(*other)) else {
                        continue;
                    };
                    if has(seen, Some(known)) {
                        continue;
                    }
                    *at..*at + 1
                }
                Step::There(_) => 0..0,
            };
            for seen in here.get(removed).unwrap_or_default() {
                let old = before.get(seen.path.as_str()).copied();
                if !is_untouched(seen, before) && !has(seen, old) {
                    todo.lost.push(seen.path.clone());
                }
            }
            match step {
                Step::Here(at) => todo
                    .remove
                    .extend(here.get(*at).map(|seen| seen.path.clone())),
                Step::There(at) | Step::Other(_, at) | Step::Compare(_, at) => {
                    let fetched = there
                        .get(*at)
                        .and_then(|known| Some((known.path.clone(), known.cid?)));
                    todo.fetch.extend(fetched);
                }
            }
        }
        let special = todo.special(&scan.left_out);
        todo.lost.extend(special);
        Ok(todo)
    }

    /// Gives what was moved into place, as it looks there, and what could not be; and where what was there before is
    /// until the caller has noted it.
    async fn carry_out(
        &self,
        shell: &Shell,
        todo: &Todo,
        before: &[Seen],
    ) -> Result<(Placed, Option<Growing>), Failure> {
        if todo.is_nothing() {
            return Ok((Placed::default(), None));
        }
        let growing = Growing::new(&self.folder)?;
        for (at, (_, cid)) in todo.fetch.iter().enumerate() {
            let target = Target::At(growing.path(at));
            let question = shell.question("get").arg(format!("/ipfs/{cid}"));
            write_tree(shell, question, target).await?;
        }
        let broke = || super::broke("moving files into place");
        let fetched: Vec<String> = todo.fetch.iter().map(|(path, _)| path.clone()).collect();
        let finished = tokio::task::spawn_blocking(move || {
            let grown = growing.finish(&fetched);
            (growing, grown)
        });
        let (growing, grown) = finished.await.map_err(|_| broke())?;
        let grown = grown?;
        // Fetching may have taken long, and having it on the disk as well.
        let now = self.look().await?;
        let changed = todo.changed(before, &now);
        if !changed.is_empty() && !self.arguments.force {
            return Err(would_be_lost(&changed));
        }
        let now = Some(now.entries).filter(|_| !self.arguments.force);
        let folder = self.folder.clone();
        let removed = todo.remove.clone();
        let placed = tokio::task::spawn_blocking(move || {
            let placed = growing.place(&folder, grown, &removed, now.as_deref());
            (placed, Some(growing))
        });
        placed.await.map_err(|_| broke())
    }
}

/// Removes what stepped aside.
async fn remove(growing: Option<Growing>) {
    // It may be much; nothing is lost if the program ends meanwhile.
    let _ = tokio::task::spawn_blocking(move || drop(growing)).await;
}

/// Whether something of that name would be taken for what is not in its place yet.
fn is_ours(path: &str) -> bool {
    path.split('/').any(is_temporary)
}

/// What has to be done.
#[derive(Debug, Default)]
struct Todo {
    /// With all that is below it.
    fetch: Vec<(String, Cid)>,
    remove: Vec<String>,
    /// What is nowhere else and would be gone.
    lost: Vec<String>,
}

impl Todo {
    fn is_nothing(&self) -> bool {
        self.fetch.is_empty() && self.remove.is_empty()
    }

    /// All that is to be touched, with what is below it.
    fn tops(&self) -> impl Iterator<Item = &str> {
        let fetched = self.fetch.iter().map(|(path, _)| path);
        self.remove.iter().chain(fetched).map(String::as_str)
    }

    /// What of `left_out`, in walking order, is to be touched: it is neither file nor folder nor link, and so nowhere else.
    fn special(&self, left_out: &[String]) -> Vec<String> {
        let below = |top| {
            let at = left_out.partition_point(|path| walking_order(path, top).is_lt());
            let rest = left_out.get(at..).unwrap_or_default().iter();
            rest.take_while(move |path| *path == top || is_below(path, top))
        };
        self.tops().flat_map(below).cloned().collect()
    }

    /// What of all that is to be touched is not what it was any more.
    fn changed(&self, before: &[Seen], now: &Scan) -> Vec<String> {
        let mut changed = self.special(&now.left_out);
        for top in self.tops() {
            let (before, now) = (inside(before, top), inside(&now.entries, top));
            let before: HashMap<&str, &Seen> = by_path(before);
            let same = |seen: &&Seen| {
                let old = before.get(seen.path.as_str());
                old.is_some_and(|old| {
                    old.kind == seen.kind && (seen.kind == Kind::Folder || old.found == seen.found)
                })
            };
            // What went away meanwhile is no loss.
            let others = now.iter().filter(|seen| !same(seen));
            changed.extend(others.map(|seen| seen.path.clone()));
        }
        changed
    }

    /// Tells all but what is left as it was.
    fn tell(
        &self,
        job: &Job,
        shell: &mut Shell,
        is_left: impl Fn(&str) -> bool,
    ) -> Result<(), Failure> {
        for path in self.remove.iter().filter(|path| !is_left(path)) {
            job.tell(shell, Change::Removed, path)?;
        }
        for (path, _) in self.fetch.iter().filter(|(path, _)| !is_left(path)) {
            job.tell(shell, Change::Put, path)?;
        }
        Ok(())
    }
}

/// An entry and all that is below it, of a list in walking order.
fn inside<'a>(list: &'a [Seen], top: &str) -> &'a [Seen] {
    let at = list.binary_search_by(|seen| walking_order(&seen.path, top));
    at.map_or(&[], |at| {
        let end = after(list, at, |seen| &seen.path);
        list.get(at..end).unwrap_or_default()
    })
}

fn by_path(list: &[Seen]) -> HashMap<&str, &Seen> {
    list.iter().map(|seen| (seen.path.as_str(), seen)).collect()
}

/// Whether something has to be fetched of which it is not known what.
fn lacks_cid(steps: &[Step], there: &[Known]) -> bool {
    let mut fetched = steps.iter().filter_map(|step| match step {
        Step::There(at) | Step::Other(_, at) => there.get(*at),
        Step::Here(_) | Step::Compare(..) => None,
    });
    fetched.any(|known| known.cid.is_none())
}

/// What the file looked like, if the same content was synced before.
fn with_stat(known: Known, before: &HashMap<&str, &Known>) -> Known {
    let old = before.get(known.path.as_str());
    let stat = old
        .filter(|old| old.cid == known.cid && old.kind == known.kind)
        .and_then(|old| old.stat);
    Known { stat, ..known }
}

/// Whether it is certainly what was synced.
fn is_untouched(seen: &Seen, before: &HashMap<&str, &Known>) -> bool {
    let Some(old) = before.get(seen.path.as_str()) else {
        // An empty folder is no loss.
        return seen.kind == Kind::Folder;
    };
    seen.kind == Kind::Folder || old.kind == seen.kind && old.stat == Some(seen.found)
}

fn would_be_lost(paths: &[String]) -> Failure {
    let named: Vec<_> = paths
        .iter()
        .take(LOST_NAMED)
        .map(|path| escape_line(path))
        .collect();
    let more = match paths.len().saturating_sub(LOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Failure::runtime(format!(
        "nothing was changed: {}{more} changed in the folder since the last sync, or never came from the file tree, and would be \
         overwritten or removed; --force does that",
        named.join(", ")
    ))
}

/// Most paths that an error names.
const LOST_NAMED: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Stat;

    fn seen(path: &str, kind: Kind, inode: u64) -> Seen {
        let found = Stat {
            size: 1,
            modified: 2,
            changed: 3,
            inode,
        };
        Seen {
            path: path.to_owned(),
            kind,
            stat: None,
            found,
        }
    }

    #[test]
    fn what_changes_while_others_are_fetched_is_seen_where_it_would_be_lost() {
        let before = [
            seen("a", Kind::Folder, 1),
            seen("a/one", Kind::File, 2),
            seen("a/two", Kind::File, 3),
            seen("b", Kind::File, 4),
            seen("elsewhere", Kind::File, 5),
        ];
        let todo = Todo {
            fetch: vec![
                ("b".to_owned(), Cid::default()),
                ("c".to_owned(), Cid::default()),
            ],
            remove: vec!["a".to_owned()],
            lost: Vec::new(),
        };
        let changed = |now: &[Seen], left_out: &[&str]| {
            let scan = Scan {
                entries: now.to_vec(),
                left_out: left_out.iter().map(|path| (*path).to_owned()).collect(),
            };
            todo.changed(&before, &scan)
        };
        assert_eq!(changed(&before, &[]), [""; 0]);
        // A folder that is filled looks another way itself, and that alone is no loss.
        let now = [
            seen("a", Kind::Folder, 9),
            seen("a/new", Kind::File, 6),
            seen("a/two", Kind::File, 7),
            seen("b", Kind::Link, 4),
            seen("c", Kind::File, 8),
            seen("elsewhere", Kind::File, 9),
        ];
        assert_eq!(changed(&now, &[]), ["a/new", "a/two", "b", "c"]);
        assert_eq!(changed(&[], &[]), [""; 0]);
        // Of sockets and their like nothing is anywhere else.
        let special = ["a/x/socket", "a-socket", "b", "elsewhere/socket"];
        assert_eq!(changed(&before, &special), ["a/x/socket", "b"]);
    }
}
