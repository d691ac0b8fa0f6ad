//! `docs/gateway-tests.md`, which says what is asked of a gateway and which test holds it.

use std::collections::HashSet;
use std::path::Path;

/// The names of all functions below a folder.
fn functions(folder: &Path, found: &mut HashSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("interop") {
            functions(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let after = text.split("fn ").skip(1);
            let names = after.filter_map(|rest| rest.split(['(', '<']).next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn the_list_of_tests_names_tests() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = HashSet::new();
    for folder in ["gateway/src", "node/src/name", "tests"] {
        functions(&top.join(folder), &mut found);
    }
    let list = std::fs::read_to_string(top.join("docs/gateway-tests.md")).unwrap();
    // Every name of a test is a sentence, which no key and no format is.
    let quoted = list.split('`').skip(1).step_by(2);
    let named: Vec<_> = quoted
        .filter(|name| name.matches('_').count() > 2)
        .collect();
    assert!(named.len() > 100, "{}", named.len());
    for name in named {
        assert!(found.contains(name), "no test is called {name}");
    }
}
