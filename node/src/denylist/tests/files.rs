//! Files that come, change, break and go, and what holds meanwhile.

use super::*;
use std::io::Write;
use std::os::unix::fs::symlink;

#[test]
fn what_is_changed_added_and_removed_is_taken_up() {
    let bench = Bench::of(&format!("/ipfs/{OTHER}\n"));
    assert!(!bench.rest(), "nothing changed");
    assert!(!bench.denies_block(OLD));
    bench.write("a.deny", format!("/ipfs/{OLD}\n"));
    assert!(bench.denies_block(OLD) && !bench.denies_block(OTHER));
    bench.write("b.deny", format!("/ipfs/{OTHER}\n"));
    assert!(bench.denies_block(OTHER));
    // Neither of these is a list.
    bench.write("c.txt", format!("!/ipfs/{OTHER}\n"));
    bench.write(".d.deny", format!("!/ipfs/{OTHER}\n"));
    assert!(bench.denies_block(OTHER));
    fs::rename(bench.file("b.deny"), bench.file("b.old")).unwrap();
    bench.rest();
    assert!(!bench.denies_block(OTHER) && bench.denies_block(OLD));
}

fn append(bench: &Bench, text: &str) {
    let mut file = fs::OpenOptions::new();
    let mut file = file.append(true).open(bench.file("a.deny")).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    bench.look();
}

#[test]
fn what_is_appended_holds_at_the_next_look_but_for_half_a_line() {
    let bench = Bench::of(&format!("/ipfs/{OTHER}\n"));
    append(&bench, &format!("/ipfs/{OLD}\n/ipns/long.ex"));
    assert!(bench.denies_block(OLD) && bench.denies_block(OTHER));
    // It is the name of a domain, but not the one that is meant.
    assert!(!bench.denies("/ipns/long.ex"));
    assert_eq!((bench.stat().rules, bench.stat().is_settling), (2, true));
    append(&bench, "ample\n/ipns/last.example");
    assert!(bench.denies("/ipns/long.example") && !bench.denies("/ipns/long.ex"));
    assert!(!bench.denies("/ipns/last.example"));
    // Nothing more comes.
    bench.rest();
    assert!(bench.denies("/ipns/last.example"));
    assert_eq!((bench.stat().rules, bench.stat().is_settling), (4, false));
}

#[test]
fn a_list_that_is_written_anew_denies_what_it_did_until_it_is_whole() {
    let bench = Bench::of(&format!("/ipfs/{OTHER}\n/ipfs/{OLD}\n"));
    for half in [
        String::new(),
        format!("/ipfs/{OTHER}\n/ip"),
        // Longer than before, and something else.
        format!("/ipns/a.example\n/ipns/b.example\n/ipfs/{OTHER}\n# {OTHER}\n"),
    ] {
        fs::write(bench.file("a.deny"), &half).unwrap();
        assert!(bench.look(), "{half}");
        assert!(
            bench.denies_block(OLD) && bench.denies_block(OTHER),
            "{half}"
        );
        assert!(bench.stat().is_settling, "{half}");
        // It goes on before it has rested long enough.
        bench.now.set(bench.now.get() + REST / 2);
    }
    bench.write("a.deny", format!("/ipns/a.example\n/ipfs/{OTHER}\n"));
    assert!(!bench.denies_block(OLD) && bench.denies_block(OTHER));
    assert!(bench.denies("/ipns/a.example") && !bench.stat().is_settling);
    // A moment without a file is no end of it either.
    fs::remove_file(bench.file("a.deny")).unwrap();
    bench.look();
    assert!(bench.denies_block(OTHER) && bench.stat().is_settling);
    fs::write(bench.file("a.deny"), format!("/ipfs/{OLD}\n")).unwrap();
    bench.look();
    assert!(bench.denies_block(OTHER) && !bench.denies_block(OLD));
    bench.rest();
    assert!(!bench.denies_block(OTHER) && bench.denies_block(OLD));
}

#[test]
fn a_file_that_is_again_what_it_was_has_not_changed() {
    let bench = Bench::of(&format!("/ipfs/{OLD}\n"));
    let aside = bench.folder.path().with_extension("aside");
    fs::rename(bench.folder.path(), &aside).unwrap();
    bench.look();
    assert!(bench.stat().is_settling && bench.denies_block(OLD));
    fs::rename(&aside, bench.folder.path()).unwrap();
    bench.look();
    assert!(!bench.stat().is_settling && bench.denies_block(OLD));
    assert!(!bench.rest());
}

#[test]
fn a_list_that_breaks_keeps_what_it_had_until_it_is_whole_again() {
    let bench = Bench::of(&format!("name: good\n---\n/ipfs/{OLD}\n"));
    for broken in [
        &b"version: 2\n---\n"[..],
        b"a: [\n---\n",
        b"name: \xff\n---\n",
    ] {
        bench.write("a.deny", broken);
        assert!(bench.denies_block(OLD), "{broken:?}");
        let stat = bench.stat();
        assert!(stat.error.is_some() && stat.rules == 1, "{stat:?}");
        assert!(!bench.rest(), "told once");
        assert_eq!(bench.deny.lacking(), Vec::<String>::new(), "its rules hold");
        assert_eq!(bench.deny.shared.metrics.failed.get(), 1);
    }
    bench.write("a.deny", "name: empty\n---\n");
    assert!(!bench.denies_block(OLD));
    assert_eq!(bench.stat().error, None);
    assert_eq!(bench.deny.shared.metrics.failed.get(), 0);
}

#[test]
fn a_list_that_never_was_whole_is_one_of_which_nothing_holds() {
    let bench = Bench::of(&format!("version: 3\n---\n/ipfs/{OLD}\n"));
    assert!(!bench.denies_block(OLD));
    let lacking = bench.deny.lacking().join("\n");
    assert!(
        lacking.contains("a.deny: it is of the version"),
        "{lacking}"
    );
    bench.write("a.deny", format!("---\n/ipfs/{OLD}\n"));
    assert!(bench.denies_block(OLD));
    assert_eq!(bench.deny.lacking(), Vec::<String>::new());
}

#[test]
fn what_is_no_file_is_told_and_a_list_that_becomes_one_keeps_its_rules() {
    let bench = Bench::of(&format!("/ipfs/{OLD}\n"));
    fs::create_dir(bench.file("folder.deny")).unwrap();
    symlink("nowhere", bench.file("link.deny")).unwrap();
    bench.rest();
    let lacking = bench.deny.lacking().join("\n");
    assert!(
        lacking.contains("folder.deny: it cannot be read: it is no file"),
        "{lacking}"
    );
    assert!(
        lacking.contains("link.deny: it cannot be read: it is a link to nothing"),
        "{lacking}"
    );
    assert!(bench.denies_block(OLD));
    assert!(!bench.rest(), "told once");
    // Nor may root read this, as others may not read a file of somebody else.
    fs::remove_file(bench.file("a.deny")).unwrap();
    symlink("a.deny", bench.file("a.deny")).unwrap();
    bench.rest();
    assert!(bench.denies_block(OLD));
    let stat = bench.deny.lists().remove(0);
    assert!(
        stat.error
            .is_some_and(|why| why.contains("it cannot be read"))
    );
    // It may be read again, although it is not another then.
    fs::remove_file(bench.file("a.deny")).unwrap();
    bench.write("a.deny", format!("/ipfs/{OTHER}\n"));
    assert!(bench.denies_block(OTHER) && !bench.denies_block(OLD));
}

#[test]
fn folders_that_are_not_there_are_no_trouble_and_may_come_later() {
    let folder = tempfile::tempdir().unwrap();
    let later = folder.path().join("later");
    let deny = Denylist::new(vec![later.clone()]);
    assert!(!deny.reload());
    fs::create_dir(&later).unwrap();
    fs::write(later.join("a.deny"), format!("/ipfs/{OLD}")).unwrap();
    assert!(deny.reload());
    assert!(deny.check_block(&OLD.parse().unwrap()).is_err());
}

#[test]
fn a_folder_that_cannot_be_read_is_told_and_its_lists_hold_on() {
    let bench = Bench::of(&format!("/ipfs/{OLD}\n"));
    let aside = bench.folder.path().with_extension("aside");
    fs::rename(bench.folder.path(), &aside).unwrap();
    fs::write(bench.folder.path(), "no folder").unwrap();
    bench.rest();
    let (troubles, holds) = (bench.deny.troubles(), bench.denies_block(OLD));
    fs::remove_file(bench.folder.path()).unwrap();
    fs::rename(&aside, bench.folder.path()).unwrap();
    assert!(
        holds && troubles[0].contains("cannot be read"),
        "{troubles:?}"
    );
    bench.rest();
    assert_eq!(bench.deny.troubles(), Vec::<String>::new());
}
