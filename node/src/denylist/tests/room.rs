//! Who gives way where there is not room for all.

use super::*;

/// Two folders, the second one the operator's own, and room for so much.
struct Crowded {
    folders: [TempDir; 2],
    deny: Denylist,
    now: Instant,
}

impl Crowded {
    fn new(room: Room) -> Self {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let shared = Shared {
            folders: folders.iter().map(|it| it.path().to_owned()).collect(),
            room,
            ..Shared::default()
        };
        Self {
            folders,
            deny: Denylist {
                shared: Arc::new(shared),
            },
            now: Instant::now(),
        }
    }

    /// Lists of so many rules, in the first folder or in the second, and how many of them hold then.
    fn hold(&mut self, lists: &[(usize, &str, usize)]) -> Vec<u64> {
        for (folder, name, rules) in lists {
            let rules = (0..*rules).map(|number| format!("/ipns/{name}{number}.example\n"));
            let path = self.folders[*folder].path().join(format!("{name}.deny"));
            fs::write(path, rules.collect::<String>()).unwrap();
        }
        self.deny.reload_at(self.now);
        self.now += REST;
        self.deny.reload_at(self.now);
        self.deny.lists().iter().map(|list| list.rules).collect()
    }
}

#[test]
fn where_there_is_not_room_for_all_the_lists_that_override_others_have_theirs_first() {
    let mut crowded = Crowded::new(Room {
        rules: 10,
        bytes: 1 << 20,
    });
    assert_eq!(crowded.hold(&[(0, "huge", 20)]), [10]);
    // An operator's own are taken whole, whenever they come.
    assert_eq!(crowded.hold(&[(1, "own", 4)]), [6, 4]);
    let path = |text: &str| crowded.deny.check_path(&text.parse().unwrap());
    assert!(path("/ipns/own3.example").is_err() && path("/ipns/huge5.example").is_err());
    assert!(path("/ipns/huge6.example").is_ok());
    let stats = crowded.deny.lists();
    assert_eq!(
        (stats[0].beyond, stats[0].skipped, stats[1].beyond),
        (14, 14, 0)
    );
    assert_eq!(stats[0].faults.len(), 1, "{:?}", stats[0].faults);
    assert_eq!(crowded.deny.shared.metrics.beyond.get(), 14);
    assert_eq!(
        crowded.deny.lacking(),
        Vec::<String>::new(),
        "some of it holds"
    );
    assert_eq!(crowded.hold(&[(1, "own", 10)]), [0, 10]);
    let lacking = crowded.deny.lacking().join("\n");
    assert!(
        lacking.contains("huge.deny") && !lacking.contains("own.deny"),
        "{lacking}"
    );
    // What they leave again is given back.
    assert_eq!(crowded.hold(&[(1, "own", 1)]), [9, 1]);
    assert_eq!(crowded.hold(&[(0, "huge", 3)]), [3, 1]);
}

#[test]
fn no_more_bytes_are_read_of_all_lists_than_may_be() {
    let line = "/ipns/own0.example\n".len() as u64;
    let mut crowded = Crowded::new(Room {
        rules: 1000,
        bytes: 5 * line,
    });
    assert_eq!(crowded.hold(&[(0, "all", 9), (1, "own", 2)]), [3, 2]);
    assert_eq!(crowded.deny.lists()[0].beyond, 1);
}

#[test]
fn of_too_many_lists_those_are_read_that_override_the_others() {
    let mut crowded = Crowded::new(Room::ALL);
    let names: Vec<String> = (0..70).map(|number| format!("list{number:02}-")).collect();
    let lists = names.iter().map(|name| (0, name.as_str(), 1));
    let lists: Vec<_> = lists.chain([(1, "own", 1)]).collect();
    let held = crowded.hold(&lists);
    let left_out = held.iter().filter(|rules| **rules == 0).count();
    assert_eq!((held.len(), left_out), (71, 7));
    assert!(held[..7].iter().all(|rules| *rules == 0));
    let path = |text: &str| crowded.deny.check_path(&text.parse().unwrap());
    assert!(path("/ipns/own0.example").is_err() && path("/ipns/list07-0.example").is_err());
    assert!(path("/ipns/list06-0.example").is_ok());
    assert_eq!(crowded.deny.shared.metrics.failed.get(), 7);
    let troubles = crowded.deny.lacking();
    assert!(
        troubles[0].contains("71 denylists") && troubles[0].contains("first 7"),
        "{troubles:?}"
    );
}
