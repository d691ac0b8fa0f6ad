//! Tests of peers from whom little comes, in simulated time.

use super::late::{GAP_MAX, OWED_MAX, REPEAT, STALL};
use super::*;
use crate::bitswap::client::crowd::tests::name;
use crate::bitswap::seeds;

const SESSION: SessionId = SessionId(1);
const IDLE: Duration = Duration::from_secs(30);

/// What came of one peer that was asked for one block and sends `bytes` every `pause`, within `time`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    stalls: usize,
    searches: usize,
    given_up_at: Option<Duration>,
}

/// A peer that was asked for one block.
fn asked(now: Instant) -> (Client, PeerId) {
    let (mut client, peer) = (Client::default(), PeerId::random());
    client.open(SESSION, IDLE, now);
    client.connected(peer, now);
    client.want(SESSION, name(0), now);
    client.settle(now);
    let lines = client.entries(&peer, 10);
    assert_eq!(lines.len(), 1, "{lines:?}");
    (client, peer)
}

fn sees(bytes: u64, pause: Duration, time: Duration) -> (Client, PeerId, Seen) {
    let start = Instant::now();
    let (mut client, peer) = asked(start);
    let (mut now, mut next, mut seen) = (start, start + pause, Seen::default());
    while now < start + time && seen.given_up_at.is_none() {
        now += TICK;
        while next <= now {
            client.flows(&peer, bytes, now);
            next += pause;
        }
        seen.stalls += client.tick(now);
        client.settle(now);
        while let Some(action) = client.poll() {
            match action {
                Action::Search { .. } => seen.searches += 1,
                Action::GiveUp { .. } => seen.given_up_at = Some(now - start),
                Action::Disconnect(_) => panic!("it did nothing wrong"),
            }
        }
    }
    (client, peer, seen)
}

#[test]
fn who_sends_slowly_is_waited_for_as_long_as_bytes_come() {
    // 1 MiB at 10,000 bytes a second, as pieces of a stream and as records of TLS and of Noise.
    for (bytes, pause) in [(1000, 100), (16_000, 1600), (64_000, 6400)] {
        let time = Duration::from_secs(105);
        let (mut client, peer, seen) = sees(bytes, Duration::from_millis(pause), time);
        assert_eq!(seen.given_up_at, None, "{bytes} every {pause} ms");
        let now = Instant::now() + time;
        let received = client.block(&peer, &name(0), 1 << 20, now);
        assert_eq!(received, Received::Wanted(name(0)));
    }
    // Once it is known to send in lumps its silence is not taken for failure.
    let (.., seen) = sees(16_000, Duration::from_secs(3), OWED_LONGEST);
    assert_eq!((seen.stalls, seen.given_up_at), (1, None));
}

/// When a second piece of work is given up, all of which only a peer has that sends so much a tick of what the first
/// waits for, within `time`.
fn second_given_up_at(bytes: u64, time: Duration) -> Option<Duration> {
    let start = Instant::now();
    let (mut client, peer) = asked(start);
    let stranger = seeds::peer(1);
    client.connected(stranger, start);
    let (mut now, second) = (start, SessionId(2));
    let mut wait = |client: &mut Client, time| {
        let end = now + time;
        while now < end {
            now += TICK;
            client.flows(&peer, bytes, now);
            client.tick(now);
            client.settle(now);
            let is_over =
                |action| matches!(action, Action::GiveUp { session, .. } if session == second);
            if std::iter::from_fn(|| client.poll()).any(is_over) {
                break;
            }
        }
        now
    };
    let begun = wait(&mut client, OWED_MAX);
    assert!(client.peers[&peer].suspect);
    client.open(second, IDLE, begun);
    client.want(second, name(1), begun);
    client.settle(begun);
    client.presence(&stranger, &name(1), PresenceKind::DontHave, begun);
    client.presence(&peer, &name(1), PresenceKind::Have, begun);
    client.settle(begun);
    let ended = wait(&mut client, time);
    (ended < begun + time).then(|| ended - begun)
}

#[test]
fn who_waits_for_its_turn_at_somebody_slow_waits_as_long_as_who_has_it() {
    assert_eq!(second_given_up_at(1000, Duration::from_secs(105)), None);
    let ever = second_given_up_at(1000, OWED_LONGEST * 2);
    let ever = ever.expect("bytes alone keep it alive");
    assert!(ever > OWED_LONGEST / 2, "{ever:?}");
}

#[test]
fn nobody_is_heard_from_because_we_say_again_what_we_said() {
    let start = Instant::now();
    let (mut client, peer) = asked(start);
    client.connected(seeds::peer(1), start);
    let (mut now, lump) = (start, Duration::from_millis(6400));
    // Records of 64 KiB, and then nothing any more; something is said again before that is a failure.
    let silent_from = start + OWED_MAX + REPEAT;
    loop {
        now += TICK;
        let at = now - start;
        if now <= silent_from && at.as_millis().is_multiple_of(lump.as_millis()) {
            client.flows(&peer, 64_000, now);
        }
        if at == OWED_MAX {
            assert!(client.peers[&peer].suspect);
            // One that waits for its turn there, and one that the other says nothing about.
            client.want(SESSION, name(1), now);
            client.want(SESSION, name(2), now);
            client.settle(now);
            client.presence(&peer, &name(1), PresenceKind::Have, now);
        }
        client.tick(now);
        client.settle(now);
        let gives_up = |action| matches!(action, Action::GiveUp { .. });
        if std::iter::from_fn(|| client.poll()).any(gives_up) {
            break;
        }
        assert!(now < silent_from + IDLE + GAP_MAX, "it is waited for still");
    }
    assert!(now > silent_from);
}

#[test]
fn others_are_looked_for_while_somebody_owes_a_block_for_long() {
    let (.., seen) = sees(1000, TICK, OWED_MAX);
    assert_eq!(seen.searches, 0, "bytes come");
    let (.., seen) = sees(1000, TICK, OWED_MAX + Duration::from_secs(60));
    assert!((6..=7).contains(&seen.searches), "{seen:?}");
}

#[test]
fn bytes_that_never_become_a_block_are_waited_for_as_long_as_the_largest_takes() {
    let (.., seen) = sees(500, TICK, OWED_LONGEST * 2);
    let given_up_at = seen.given_up_at.unwrap();
    assert!(given_up_at > OWED_LONGEST, "{given_up_at:?}");
    assert!(
        given_up_at <= OWED_LONGEST + IDLE + 2 * TICK,
        "{given_up_at:?}"
    );
}

#[test]
fn who_sends_more_than_it_can_owe_is_not_waited_for() {
    // A megabyte a second: 30 seconds are more than some blocks can be.
    let (.., seen) = sees(100_000, TICK, OWED_LONGEST);
    let most = OWED_MAX + IDLE + 2 * TICK;
    assert!(
        seen.given_up_at
            .is_some_and(|at| at > OWED_MAX && at <= most),
        "{seen:?}"
    );
}

#[test]
fn who_said_to_lack_it_is_not_asked_again_because_of_other_bytes() {
    let start = Instant::now();
    let (mut client, peer) = asked(start);
    client.presence(&peer, &name(0), PresenceKind::DontHave, start);
    let mut now = start;
    while now < start + REPEAT - TICK {
        now += TICK;
        client.flows(&peer, 64 << 10, now);
        client.tick(now);
        client.settle(now);
        assert_eq!(client.entries(&peer, 10), []);
    }
    while now < start + IDLE {
        now += TICK;
        client.flows(&peer, 64 << 10, now);
        client.tick(now);
        client.settle(now);
        if !client.entries(&peer, 10).is_empty() {
            client.presence(&peer, &name(0), PresenceKind::DontHave, now);
        }
    }
    let gives_up = |action| matches!(action, Action::GiveUp { .. });
    assert!(std::iter::from_fn(|| client.poll()).any(gives_up));
}

#[test]
fn a_byte_now_and_then_is_no_progress() {
    for (bytes, pause) in [(1, 1), (1000, 2), (0, 1)] {
        let (.., seen) = sees(bytes, Duration::from_secs(pause), IDLE * 4);
        assert!(seen.stalls > 0, "{bytes} every {pause} s");
        assert_eq!(seen.given_up_at, Some(IDLE), "{bytes} every {pause} s");
    }
}

#[test]
fn silence_after_bytes_is_noticed_soon() {
    let (mut client, _, seen) = sees(64 << 10, TICK, Duration::from_secs(1));
    assert_eq!(seen.stalls, 0);
    let (mut now, mut waited) = (Instant::now() + Duration::from_secs(1), Duration::ZERO);
    while client.tick(now) == 0 {
        (now, waited) = (now + TICK, waited + TICK);
        assert!(waited <= STALL + 2 * TICK, "{waited:?}");
    }
}

#[test]
fn who_was_held_up_by_us_is_not_silent_for_it() {
    let (mut client, peer, seen) = sees(1000, TICK, Duration::from_secs(1));
    assert_eq!(seen.stalls, 0);
    let mut now = Instant::now() + Duration::from_secs(1);
    let (held, after) = (now + Duration::from_secs(60), now + Duration::from_secs(70));
    while now < after {
        now += TICK;
        match now < held {
            true => client.excuse(&peer, now),
            false => client.flows(&peer, 1000, now),
        }
        assert_eq!(client.tick(now), 0);
    }
}

#[test]
fn excuses_and_new_names_keep_no_work_alive_for_ever() {
    let start = Instant::now();
    let mut client = Client::default();
    client.open(SESSION, IDLE, start);
    client.want(SESSION, name(0), start);
    let (mut now, mut next) = (start, 0);
    let gives_up = |action| matches!(action, Action::GiveUp { .. });
    loop {
        let peer = seeds::peer(next);
        client.connected(peer, now);
        client.presence(&peer, &name(0), PresenceKind::Have, now);
        client.settle(now);
        // It is another before it would be given up.
        for _ in 0..600 {
            now += TICK;
            client.excuse(&peer, now);
            client.flows(&peer, 1000, now);
            client.tick(now);
            client.settle(now);
        }
        if std::iter::from_fn(|| client.poll()).any(gives_up) {
            break;
        }
        client.disconnected(&peer);
        next += 1;
        assert!(now < start + OWED_LONGEST * 2, "it is waited for still");
    }
    assert!(now > start + OWED_LONGEST);
}
