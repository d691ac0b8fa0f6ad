//! Lookups against name servers that are slow, wrong, hostile or far away.

mod https;
mod server;

use super::ask::Asker;
use super::*;
use futures::future::join_all;
use server::{CUT, HERE, Heard, NXDOMAIN, Over, Question, SERVFAIL, alias, name, record, text};
use std::sync::atomic::{AtomicBool, Ordering};

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

/// Short enough for a test that waits for both.
const SHORT: Times = Times {
    question: Duration::from_millis(60),
    lookup: Duration::from_millis(400),
};
/// Long enough for a busy machine.
const LONG: Times = Times {
    question: Duration::from_secs(60),
    lookup: Duration::from_secs(120),
};

fn dns(server: &Heard, times: Times) -> Dns {
    let settings = Settings {
        resolvers: server.resolvers(),
        ..Settings::default()
    };
    Dns::with(settings, Network::Local, times, Asker::new(times))
}

async fn link(dns: &Dns, name: &str) -> Result<String, LookupError> {
    let target = dns.dnslink(&domain(name)).await?;
    Ok(target.path.to_string())
}

async fn fault(dns: &Dns, name: &str) -> Fault {
    match dns.dnslink(&domain(name)).await.unwrap_err() {
        LookupError::Failed { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_link_is_found_below_its_label_and_asked_for_once() {
    let server = Heard::start(|question| {
        let long = format!("/{}", "a".repeat(300));
        let (one, other) = long.split_at(200);
        let strings = ["dnslink=/ipfs/bafkqaaa", one, other];
        vec![question.answer(
            0,
            &[text(HERE, 300, &["v=spf1"]), text(HERE, 200, &strings)],
        )]
    })
    .await;
    let dns = dns(&server, LONG);
    let found = dns.dnslink(&domain("Example.ORG.")).await.unwrap();
    let expected = format!("/ipfs/bafkqaaa/{}", "a".repeat(300));
    assert_eq!(found.path.to_string(), expected);
    assert_eq!(found.ttl, Some(Duration::from_secs(200)));
    for name in ["example.org", "EXAMPLE.org"] {
        assert_eq!(link(&dns, name).await.unwrap(), expected);
    }
    let known = dns.known(&domain("example.org")).unwrap();
    assert!(known.ttl <= found.ttl, "{known:?}");
    let asked: Vec<String> = server.questions().into_iter().map(|one| one.name).collect();
    assert_eq!(asked, ["_dnslink.example.org."]);
    assert!(matches!(
        dns.known(&domain("other.example")),
        Err(LookupError::Offline(_))
    ));
}

#[tokio::test]
async fn an_answer_is_believed_as_long_as_the_operator_says_at_most() {
    let server = Heard::start(|question| {
        let ttl = if question.name.contains("zero") {
            0
        } else {
            u32::MAX
        };
        vec![question.answer(0, &[text(HERE, ttl, &["dnslink=/ipfs/bafkqaaa"])])]
    })
    .await;
    let ttl_under = async |max_cache_ttl| {
        let settings = Settings {
            resolvers: server.resolvers(),
            max_cache_ttl,
            ..Settings::default()
        };
        let dns = Dns::with(settings, Network::Local, LONG, Asker::new(LONG));
        let before = server.count();
        let ttl = dns
            .dnslink(&domain("a.example"))
            .await
            .unwrap()
            .ttl
            .unwrap();
        dns.dnslink(&domain("a.example")).await.unwrap();
        (ttl, server.count() - before)
    };
    let minute = Duration::from_secs(60);
    assert_eq!(ttl_under(minute).await, (minute, 1));
    assert_eq!(ttl_under(Duration::ZERO).await, (Duration::ZERO, 2));
    let year = Duration::from_secs(365 * 24 * 3600);
    assert_eq!(ttl_under(year).await, (TTL_MAX, 1));
    let zero = dns(&server, LONG).dnslink(&domain("zero.example")).await;
    assert_eq!(zero.unwrap().ttl, Some(TTL_MIN));
}

#[tokio::test]
async fn of_several_links_the_first_by_its_letters_counts() {
    let server = Heard::start(|question| {
        let texts = [
            "dnslink=/ipns/z.example",
            "dnslink=/ipfs/bafkqaaa/b",
            "dnslink=/ipfs/bafkqaaa/a",
        ];
        vec![question.texts(&texts)]
    })
    .await;
    let dns = dns(&server, LONG);
    assert_eq!(link(&dns, "a.example").await.unwrap(), "/ipfs/bafkqaaa/a");
}

#[tokio::test]
async fn what_is_not_there_says_what_is_missing_and_is_remembered() {
    let server = Heard::start(|question| {
        vec![match question.name.as_str() {
            "_dnslink.gone.example." => question.answer(NXDOMAIN, &[]),
            "_dnslink.bare.example." => question.answer(0, &[]),
            _ => question.texts(&["v=spf1", "dnslink=nowhere", "dnslink=/ipfs/\u{1b}[2J"]),
        }]
    })
    .await;
    let dns = dns(&server, LONG);
    for (name, why) in [
        ("gone.example", "there is no name _dnslink.gone.example"),
        (
            "bare.example",
            "there is no TXT record at _dnslink.bare.example",
        ),
        ("wrong.example", "needs /ipfs/CID or /ipns/NAME"),
    ] {
        for _ in 0..2 {
            let error = dns.dnslink(&domain(name)).await.unwrap_err();
            assert!(
                error.is_absent() && error.to_string().contains(why),
                "{error}"
            );
            assert!(!error.to_string().contains('\u{1b}'), "{error}");
        }
        assert!(dns.known(&domain(name)).unwrap_err().is_absent());
    }
    assert_eq!(server.count(), 3);
}

#[tokio::test]
async fn a_failure_is_told_and_not_remembered() {
    let works = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&works);
    let server = Heard::start(move |question| {
        vec![match now.load(Ordering::Relaxed) {
            true => question.texts(&["dnslink=/ipfs/bafkqaaa"]),
            false => question.answer(SERVFAIL, &[]),
        }]
    })
    .await;
    let dns = dns(&server, LONG);
    let error = dns.dnslink(&domain("a.example")).await.unwrap_err();
    assert!(!error.is_absent());
    let text = error.to_string();
    assert!(
        text.contains("Server Failure") || text.contains("ServFail"),
        "{text}"
    );
    assert!(text.contains(&format!("udp://{}", server.at)), "{text}");
    works.store(true, Ordering::Relaxed);
    assert_eq!(link(&dns, "a.example").await.unwrap(), "/ipfs/bafkqaaa");
}

#[tokio::test]
async fn nothing_comes_and_the_lookup_ends() {
    let server = Heard::start(|_| Vec::new()).await;
    let dns = dns(&server, SHORT);
    assert!(matches!(fault(&dns, "a.example").await, Fault::TooSlow(_)));
}

#[tokio::test]
async fn answers_that_nobody_asked_for_are_passed_over() {
    let server = Heard::start(|question| {
        let good = question.texts(&["dnslink=/ipfs/bafkqaaa"]);
        let bad = question.texts(&["dnslink=/ipfs/bafkqaaa/bad"]);
        let other = Question::read(
            &[&[0; 12], name("x.example").as_slice(), &[0, 16, 0, 1]].concat(),
            Over::Udp,
        );
        let mut other = other.texts(&["dnslink=/ipfs/bafkqaaa/bad"]);
        other[..2].copy_from_slice(&good[..2]);
        let mut said: Vec<Vec<u8>> = (0..40)
            .map(|_| question.with_other_number(bad.clone()))
            .collect();
        said.extend([vec![], vec![1], other, good]);
        said
    })
    .await;
    let dns = dns(&server, LONG);
    assert_eq!(link(&dns, "a.example").await.unwrap(), "/ipfs/bafkqaaa");
}

#[tokio::test]
async fn texts_of_other_names_are_not_taken() {
    let server = Heard::start(|question| {
        let other = name("_dnslink.other.example");
        vec![question.answer(
            0,
            &[
                text(&other, 300, &["dnslink=/ipfs/bafkqaaa/a-bad"]),
                text(HERE, 300, &["dnslink=/ipfs/bafkqaaa/good"]),
            ],
        )]
    })
    .await;
    let dns = dns(&server, LONG);
    assert_eq!(
        link(&dns, "a.example").await.unwrap(),
        "/ipfs/bafkqaaa/good"
    );
}

#[tokio::test]
async fn what_is_cut_off_is_asked_for_over_tcp() {
    let server = Heard::start(|question| {
        vec![match question.over {
            Over::Udp => question.answer(CUT, &[]),
            Over::Tcp => question.texts(&["dnslink=/ipfs/bafkqaaa"]),
        }]
    })
    .await;
    let dns = dns(&server, LONG);
    assert_eq!(link(&dns, "a.example").await.unwrap(), "/ipfs/bafkqaaa");
    let ways: Vec<Over> = server.questions().into_iter().map(|one| one.over).collect();
    assert_eq!(ways, [Over::Udp, Over::Tcp]);
}

#[tokio::test]
async fn what_is_cut_off_over_tcp_as_well_is_a_failure_after_a_few_questions() {
    let server = Heard::start(|question| vec![question.answer(CUT, &[])]).await;
    let dns = dns(&server, LONG);
    let fault = fault(&dns, "a.example").await;
    assert!(fault.to_string().contains("cut off"), "{fault}");
    assert!(server.count() <= 2 * (2 + 1), "{}", server.count());
}

#[tokio::test]
async fn thousands_of_texts_are_refused() {
    let server = Heard::start(|question| {
        let many: Vec<Vec<u8>> = (0..2500)
            .map(|at| text(HERE, 300, &[&format!("dnslink={at}")]))
            .collect();
        vec![match question.over {
            Over::Udp => question.answer(CUT, &[]),
            Over::Tcp => question.answer(0, &many),
        }]
    })
    .await;
    let dns = dns(&server, LONG);
    assert_eq!(fault(&dns, "a.example").await, Fault::TooMany(2500));
}

#[tokio::test]
async fn aliases_are_followed_and_the_shortest_time_counts() {
    let server = Heard::start(|question| {
        vec![match question.name.as_str() {
            // All in one answer.
            "_dnslink.a.example." => question.answer(
                0,
                &[
                    alias(HERE, 20, "one.example"),
                    alias(&name("one.example"), 300, "two.example"),
                    text(&name("two.example"), 300, &["dnslink=/ipfs/bafkqaaa/a"]),
                ],
            ),
            // In one after the other.
            "_dnslink.b.example." => question.answer(0, &[alias(HERE, 30, "three.example")]),
            "three.example." => question.texts(&["dnslink=/ipfs/bafkqaaa/b"]),
            _ => question.answer(NXDOMAIN, &[]),
        }]
    })
    .await;
    let dns = dns(&server, LONG);
    for (name, path, ttl) in [
        ("a.example", "/ipfs/bafkqaaa/a", 20),
        ("b.example", "/ipfs/bafkqaaa/b", 30),
    ] {
        let found = dns.dnslink(&domain(name)).await.unwrap();
        assert_eq!(found.path.to_string(), path);
        assert_eq!(found.ttl, Some(Duration::from_secs(ttl)), "{name}");
    }
}

#[tokio::test]
async fn aliases_in_a_circle_end_after_a_few_questions() {
    let server = Heard::start(|question| {
        vec![match question.name.as_str() {
            "_dnslink.a.example." => question.answer(0, &[alias(HERE, 300, "b.example")]),
            "_dnslink.self.example." => {
                question.answer(0, &[alias(HERE, 300, "_dnslink.self.example")])
            }
            "_dnslink.whole.example." => question.answer(
                0,
                &[
                    alias(HERE, 300, "c.example"),
                    alias(&name("c.example"), 300, "_dnslink.whole.example"),
                ],
            ),
            _ => question.answer(0, &[alias(HERE, 300, "_dnslink.a.example")]),
        }]
    })
    .await;
    let dns = dns(&server, LONG);
    for name in ["a.example", "self.example", "whole.example"] {
        let before = server.count();
        let error = dns.dnslink(&domain(name)).await.unwrap_err();
        assert!(server.count() - before <= 20, "{name}: {error}");
    }
}

#[tokio::test]
async fn messages_that_are_none_are_failures() {
    let server = Heard::start(|question| {
        let whole = question.texts(&["dnslink=/ipfs/bafkqaaa"]);
        let head = |count| question.answer(0, &vec![Vec::new(); count]);
        // Where the first answer begins.
        let at = u8::try_from(whole.len() - 2 - 10 - 1 - 22).unwrap();
        vec![match question.name.as_str() {
            // A name that begins where it stands.
            "_dnslink.loop.example." => {
                let mut message = head(1);
                message.extend(text(&[0xc0, at], 300, &["dnslink=/ipfs/bafkqaaa"]));
                message
            }
            // Two names that point at each other.
            "_dnslink.two.example." => {
                let mut message = head(2);
                let owner = [1, b'a', 0xc0, at + 4];
                message.extend(record(&owner, 5, 300, &[1, b'b', 0xc0, at]));
                message.extend(text(&[0xc0, at], 300, &["dnslink=/ipfs/bafkqaaa"]));
                message
            }
            // A string that is longer than its record.
            "_dnslink.long.example." => {
                question.answer(0, &[record(HERE, 16, 300, b"\xffdnslink=/ipfs/bafkqaaa")])
            }
            // More answers than there are.
            "_dnslink.more.example." => head(60_000),
            _ => whole[..whole.len() - 3].to_vec(),
        }]
    })
    .await;
    let dns = dns(&server, SHORT);
    for name in [
        "loop.example",
        "two.example",
        "long.example",
        "more.example",
        "cut.example",
    ] {
        let error = dns.dnslink(&domain(name)).await.unwrap_err();
        assert!(
            matches!(error, LookupError::Failed { .. }),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn texts_that_are_not_utf_8_are_told_and_passed_over() {
    let server = Heard::start(|question| {
        let bad = b"\x1adnslink=/ipfs/bafkqaaa/\xff\xfe\xfd";
        let bad = [&[u8::try_from(bad.len() - 1).unwrap()], &bad[1..]].concat();
        vec![question.answer(0, &[record(HERE, 16, 300, &bad)])]
    })
    .await;
    let error = dns(&server, LONG).dnslink(&domain("a.example")).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("not UTF-8"), "{text}");
}

#[tokio::test]
async fn equal_questions_at_the_same_time_are_one() {
    // Says nothing to the first question; hickory asks again.
    let server = Heard::start(|question| vec![question.texts(&["dnslink=/ipfs/bafkqaaa"])]).await;
    let dns = dns(&server, LONG);
    let name = domain("a.example");
    let all = join_all((0..100).map(|_| dns.dnslink(&name))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn who_leaves_takes_nobodys_question_along() {
    let server = Heard::start(|question| vec![question.texts(&["dnslink=/ipfs/bafkqaaa"])]).await;
    let dns = dns(&server, LONG);
    let name = domain("a.example");
    let (mut first, mut second) = (Box::pin(dns.dnslink(&name)), Box::pin(dns.dnslink(&name)));
    assert!(futures::poll!(first.as_mut()).is_pending());
    assert!(futures::poll!(second.as_mut()).is_pending());
    drop(first);
    assert_eq!(second.await.unwrap().path.to_string(), "/ipfs/bafkqaaa");
    // And when all of them have left, whoever comes asks anew.
    let other = domain("b.example");
    let mut gone = Box::pin(dns.dnslink(&other));
    assert!(futures::poll!(gone.as_mut()).is_pending());
    drop(gone);
    assert!(dns.dnslink(&other).await.is_ok());
}

#[tokio::test]
async fn no_more_names_are_asked_about_than_there_is_room_for() {
    let server = Heard::start(|_| Vec::new()).await;
    let dns = dns(&server, LONG);
    let mut waiting: Vec<_> = (0..WAITING_MAX)
        .map(|at| {
            let dns = dns.clone();
            Box::pin(async move { dns.dnslink(&domain(&format!("n{at}.example"))).await })
        })
        .collect();
    for one in &mut waiting {
        assert!(futures::poll!(one.as_mut()).is_pending());
    }
    let error = dns.dnslink(&domain("late.example")).await.unwrap_err();
    assert!(matches!(error, LookupError::Busy(_)), "{error}");
    assert_eq!(dns.0.places.available_permits(), 0);
    drop(waiting);
    let mut late = Box::pin(async { dns.dnslink(&domain("late.example")).await });
    assert!(futures::poll!(late.as_mut()).is_pending());
}

#[tokio::test]
async fn nobody_outside_the_network_is_asked() {
    let server = Heard::start(|question| vec![question.texts(&["dnslink=/ipfs/bafkqaaa"])]).await;
    let resolvers: Resolvers = [
        (".", Server::System),
        ("near.example", Server::Udp(server.at)),
        ("lan.example", "udp://10.255.255.1".parse().unwrap()),
        (
            "far.example",
            "https://dns.example/dns-query".parse().unwrap(),
        ),
        ("none.example", Server::Nobody),
    ]
    .map(|(suffix, server)| (suffix.parse().unwrap(), server))
    .into_iter()
    .collect();
    for network in [Network::Local, Network::Lan] {
        let settings = Settings {
            resolvers: resolvers.clone(),
            fixed: "fixed.example:/ipfs/bafkqaaa/fixed".parse().unwrap(),
            ..Settings::default()
        };
        let dns = Dns::with(settings, network, SHORT, Asker::new(SHORT));
        for name in ["a.example", "a.far.example", "a.lan.example"] {
            if network == Network::Lan && name == "a.lan.example" {
                continue;
            }
            let error = dns.dnslink(&domain(name)).await.unwrap_err();
            assert!(matches!(error, LookupError::Outside { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("cairn config set dns.resolvers"), "{text}");
        }
        let nobody = dns.dnslink(&domain("a.none.example")).await.unwrap_err();
        assert!(matches!(nobody, LookupError::Nobody(_)), "{nobody}");
        let single = dns.dnslink(&domain("localhost")).await.unwrap_err();
        assert!(matches!(single, LookupError::Single(_)), "{single}");
        assert_eq!(dns.0.asker.ways_known(), 0);
        assert_eq!(server.count(), 0);
        assert_eq!(
            link(&dns, "fixed.example").await.unwrap(),
            "/ipfs/bafkqaaa/fixed"
        );
        let fixed = dns.known(&domain("fixed.example")).unwrap();
        assert_eq!(fixed.ttl, None);
    }
    // The same with one within reach.
    let settings = Settings {
        resolvers,
        ..Settings::default()
    };
    let dns = Dns::with(settings, Network::Local, LONG, Asker::new(LONG));
    assert_eq!(
        link(&dns, "a.near.example").await.unwrap(),
        "/ipfs/bafkqaaa"
    );
    assert_eq!(server.count(), 1);
}

#[test]
fn errors_say_what_to_do() {
    let outside = LookupError::Outside {
        domain: domain("a.example"),
        server: Server::System,
        network: Network::Local,
    };
    assert_eq!(
        outside.to_string(),
        "/ipns/a.example is not looked up: its resolver \"system\" in `dns.resolvers` is outside the network `local`, as \
         it hands questions on to others; name a resolver on this machine there, as in `cairn config set dns.resolvers \
         '{ \".\" = \"udp://127.0.0.1:53\" }'`, set where the name leads in IPFS_NS_MAP, or `cairn config set network \
         public`"
    );
}

#[tokio::test]
async fn what_became_of_lookups_is_counted() {
    let server = Heard::start(|question| vec![question.texts(&["dnslink=/ipfs/bafkqaaa"])]).await;
    let dns = dns(&server, LONG);
    dns.register(&Registry::new()).unwrap();
    for _ in 0..3 {
        dns.dnslink(&domain("a.example")).await.unwrap();
    }
    let count = |result| dns.0.lookups.with_label_values(&[result]).get();
    assert_eq!(
        (count("found"), count("cached"), count("failed")),
        (1, 2, 0)
    );
}
