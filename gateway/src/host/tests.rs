//! For any host and any path.

use super::*;
use crate::config::{HostName, Hosts};
use proptest::prelude::*;

fn known() -> Known {
    let hosts = ["localhost", "*.gw.example"].map(|name| {
        let name: HostName = name.parse().unwrap();
        (name, Host::default())
    });
    Known::new(&Config {
        hosts: Hosts::from_iter(hosts),
        ..Config::default()
    })
}

fn turn(host: &str, path: &str) -> Result<Turn, Failure> {
    let asking = Asking {
        host,
        is_https: false,
        path,
        query: None,
    };
    known().turn(&asking)
}

#[test]
fn a_gateway_covers_its_names_and_those_below_them() {
    let known = known();
    for (host, is_covered) in [
        ("localhost:8080", true),
        ("bafkqaaa.ipfs.localhost", true),
        ("a.b.ipns.x.gw.example:1", true),
        ("x.gw.example", true),
        ("gw.example", false),
        ("a.ipfx.localhost", false),
        ("127.0.0.1", false),
        ("", false),
    ] {
        assert_eq!(known.covers(host), is_covered, "{host}");
    }
}

proptest! {
    #[test]
    fn below_a_known_host_nothing_is_served_by_path(
        root in "[a-zA-Z0-9.-]{1,70}",
        space in prop::sample::select(vec!["ipfs", "ipns"]),
        gateway in prop::sample::select(vec!["localhost:80", "a.gw.example"]),
        path in "/[ -~]{0,20}",
    ) {
        match turn(&format!("{root}.{space}.{gateway}"), &path) {
            Ok(Turn::Path) => prop_assert!(false, "by path"),
            Ok(Turn::Bound(sites, otherwise)) => {
                prop_assert_eq!(otherwise, Otherwise::First);
                prop_assert!(!sites.is_empty());
            }
            Ok(Turn::Moved(location)) => prop_assert!(location.starts_with("http://"), "{}", location),
            Ok(Turn::Site(site)) => {
                let start = format!("/{space}/");
                prop_assert!(site.root.starts_with(&start));
            }
            Err(_) => {}
        }
    }

    #[test]
    fn a_redirect_stays_on_known_hosts(host in "(localhost|x.gw.example)(:[0-9]{1,5})?", path in "(/ipfs/|/ipns/)?[ -~]{0,90}") {
        if let Ok(Turn::Moved(location)) = turn(&host, &format!("/{path}")) {
            let named = location.strip_prefix("http://").unwrap().split('/').next().unwrap();
            prop_assert!(named.ends_with(&host), "{location}");
            prop_assert!(location.is_ascii() && !location.contains([' ', '\\']), "{location}");
        }
    }

    #[test]
    fn any_host_means_something(host in ".{0,80}", path in "/.{0,40}") {
        let _ = turn(&host, &path);
    }
}

#[test]
fn a_redirect_of_a_key_names_a_known_host_too() {
    let key = "/ipns/12D3KooWLQzUv2FHWGVPXTXSZpdHs7oHbXub2G5WC8Tx4NQhyd2d/@evil.example";
    let Ok(Turn::Moved(location)) = turn("localhost", key) else {
        panic!("it moves")
    };
    assert!(
        location.ends_with(".ipns.localhost/@evil.example"),
        "{location}"
    );
}
