//! What differs between a folder and what is known of a path of the file tree: decided without a disk.

use super::{Kind, is_below, walking_order};
use crate::sync::scan::Seen;
use crate::sync::state::Known;
use std::cmp::Ordering;

/// How the two sides differ, by places in the two lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// This entry of the folder, with all that is below it, is not known.
    Here(usize),
    /// This known entry, with all that is below it, is not in the folder.
    There(usize),
    /// One is a folder, the other is none.
    Other(usize, usize),
    /// This file or link may be another one than that: only reading tells.
    Compare(usize, usize),
}

/// Whether what looks the same is read all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Size, times and inode tell.
    Stat,
    /// Only the content does.
    Content,
}

/// Where the two differ. Both are in walking order.
pub fn plan(seen: &[Seen], known: &[Known], trust: Trust) -> Vec<Step> {
    let mut steps = Vec::new();
    let (mut here, mut there) = (0, 0);
    loop {
        match (seen.get(here), known.get(there)) {
            (None, None) => return steps,
            (Some(one), other) if other.is_none_or(|other| before(&one.path, &other.path)) => {
                steps.push(Step::Here(here));
                here = after(seen, here, |seen| &seen.path);
            }
            (one, Some(other)) if one.is_none_or(|one| before(&other.path, &one.path)) => {
                steps.push(Step::There(there));
                there = after(known, there, |known| &known.path);
            }
            (Some(one), Some(other))
                if (one.kind == Kind::Folder) == (other.kind == Kind::Folder) =>
            {
                let looks_the_same = one.kind == other.kind && other.stat == Some(one.found);
                let is_same = looks_the_same && trust == Trust::Stat;
                if one.kind != Kind::Folder && !is_same {
                    steps.push(Step::Compare(here, there));
                }
                here += 1;
                there += 1;
            }
            _ => {
                steps.push(Step::Other(here, there));
                here = after(seen, here, |seen| &seen.path);
                there = after(known, there, |known| &known.path);
            }
        }
    }
}

fn before(one: &str, other: &str) -> bool {
    walking_order(one, other) == Ordering::Less
}

/// The place behind an entry and all that is below it.
pub fn after<T>(list: &[T], at: usize, path: impl Fn(&T) -> &str) -> usize {
    let Some(top) = list.get(at) else {
        return at;
    };
    let rest = list.get(at + 1..).unwrap_or_default();
    let below = rest.partition_point(|entry| is_below(path(entry), path(top)));
    at + 1 + below
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Stat;
    use cairn_store::cid::Cid;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const STAT: Stat = Stat {
        size: 1,
        modified: 2,
        changed: 3,
        inode: 4,
    };

    fn seen(path: &str, kind: Kind, stat: Option<Stat>) -> Seen {
        Seen {
            path: path.to_owned(),
            kind,
            stat,
            found: stat.unwrap_or(STAT),
        }
    }

    fn known(path: &str, kind: Kind, stat: Option<Stat>) -> Known {
        Known {
            path: path.to_owned(),
            kind,
            cid: Some(Cid::default()),
            stat,
        }
    }

    #[test]
    fn what_looks_the_same_is_read_only_if_nothing_is_trusted() {
        let seen = [
            seen("d", Kind::Folder, None),
            seen("d/a", Kind::File, Some(STAT)),
        ];
        let known = [
            known("d", Kind::Folder, None),
            known("d/a", Kind::File, Some(STAT)),
        ];
        assert_eq!(plan(&seen, &known, Trust::Stat), []);
        assert_eq!(plan(&seen, &known, Trust::Content), [Step::Compare(1, 1)]);
    }

    #[test]
    fn any_other_figure_and_none_at_all_means_reading() {
        let others = [
            Stat { size: 9, ..STAT },
            Stat {
                modified: 9,
                ..STAT
            },
            Stat { changed: 9, ..STAT },
            Stat { inode: 9, ..STAT },
        ];
        for other in others {
            let (here, there) = (
                [seen("a", Kind::File, Some(other))],
                [known("a", Kind::File, Some(STAT))],
            );
            assert_eq!(plan(&here, &there, Trust::Stat), [Step::Compare(0, 0)]);
        }
        let (here, there) = (
            [seen("a", Kind::File, None)],
            [known("a", Kind::File, None)],
        );
        assert_eq!(plan(&here, &there, Trust::Stat), [Step::Compare(0, 0)]);
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_replaces_all_of_it() {
        let seen = [
            seen("a", Kind::File, None),
            seen("b", Kind::Folder, None),
            seen("b/x", Kind::File, None),
        ];
        let known = [
            known("a", Kind::Folder, None),
            known("a/y", Kind::File, None),
            known("b", Kind::File, None),
        ];
        assert_eq!(
            plan(&seen, &known, Trust::Stat),
            [Step::Other(0, 0), Step::Other(1, 2)]
        );
    }

    /// A tree of files by path; folders are implied.
    fn tree() -> impl Strategy<Value = BTreeMap<String, u64>> {
        let name = prop::sample::select(vec!["a", "b", "a-", "c"]);
        let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
        prop::collection::btree_map(path, 0..3u64, 0..12).prop_map(|tree| {
            let files = tree.clone();
            let is_folder = |path: &str| files.keys().any(|other| is_below(other, path));
            tree.into_iter()
                .filter(|(path, _)| !is_folder(path))
                .collect()
        })
    }

    /// All entries, folders too, in walking order.
    fn entries(tree: &BTreeMap<String, u64>) -> Vec<(String, Kind, Option<Stat>)> {
        let mut all = BTreeMap::new();
        for (path, version) in tree {
            let mut folder = path.as_str();
            while let Some((above, _)) = folder.rsplit_once('/') {
                all.insert(above.to_owned(), (Kind::Folder, None));
                folder = above;
            }
            let stat = Stat {
                modified: (*version).into(),
                ..STAT
            };
            all.insert(path.clone(), (Kind::File, Some(stat)));
        }
        let mut all: Vec<_> = all
            .into_iter()
            .map(|(path, (kind, stat))| (path, kind, stat))
            .collect();
        all.sort_by(|(one, ..), (other, ..)| walking_order(one, other));
        all
    }

    proptest! {
        #[test]
        fn doing_what_is_planned_makes_both_sides_the_same(here in tree(), there in tree()) {
            let seen: Vec<Seen> = entries(&here).into_iter().map(|(path, kind, stat)| seen(&path, kind, stat)).collect();
            let known: Vec<Known> = entries(&there).into_iter().map(|(path, kind, stat)| known(&path, kind, stat)).collect();
            let mut result: BTreeMap<String, (Kind, Option<Stat>)> =
                known.iter().map(|known| (known.path.clone(), (known.kind, known.stat))).collect();
            for step in plan(&seen, &known, Trust::Stat) {
                match step {
                    Step::Here(at) | Step::Other(at, _) => {
                        let top = seen[at].path.clone();
                        result.retain(|path, _| *path != top && !is_below(path, &top));
                        for seen in &seen[at..after(&seen, at, |seen| &seen.path)] {
                            result.insert(seen.path.clone(), (seen.kind, seen.stat));
                        }
                    }
                    Step::Compare(at, other) => {
                        prop_assert_eq!(&seen[at].path, &known[other].path);
                        prop_assert!(seen[at].stat != known[other].stat);
                        result.insert(seen[at].path.clone(), (seen[at].kind, seen[at].stat));
                    }
                    Step::There(at) => {
                        let top = &known[at].path;
                        prop_assert!(result.contains_key(top));
                        result.retain(|path, _| path != top && !is_below(path, top));
                    }
                }
            }
            let wanted: BTreeMap<_, _> =
                seen.iter().map(|seen| (seen.path.clone(), (seen.kind, seen.stat))).collect();
            prop_assert_eq!(result, wanted);
        }
    }
}
