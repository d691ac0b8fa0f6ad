//! Peers that say of themselves what they should not, in answer to identify: made by hand, over a stock stack.
//!
//! Whatever they say, nothing is believed that their connection does not prove, what is kept of it is bounded, and an
//! honest peer connects and finds what it looks for meanwhile.

use super::*;
use crate::protobuf::put_bytes;
use bytes::BytesMut;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::PeerRecord;

/// A peer that answers identify with `said`, and tells how often it was asked to the end.
struct Talker {
    peer: PeerId,
    asked: mpsc::Receiver<()>,
    tasks: Tasks,
}

impl Talker {
    /// Calls a node.
    async fn calls(node: &TestNode, keys: &Keypair, said: Vec<u8>) -> Self {
        let tasks = Tasks::new();
        let mut questions = call_by_hand(node, keys, &tasks).await;
        let (tell, asked) = mpsc::channel(9);
        tasks.spawn("talk", async move {
            while let Some((_, mut stream)) = questions.next().await {
                // It may be refused before all is written.
                let _ = stream.write_all(&said).await;
                let _ = stream.close().await;
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                if tell.send(()).await.is_err() {
                    return;
                }
            }
        });
        let peer = keys.public().to_peer_id();
        Self { peer, asked, tasks }
    }

    async fn was_asked(&mut self) {
        let asked = timeout(WATCHDOG, self.asked.recv()).await;
        asked.expect("a question in time").unwrap();
    }
}

fn framed(parts: &[BytesMut]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        let mut length = unsigned_varint::encode::usize_buffer();
        out.extend(unsigned_varint::encode::usize(part.len(), &mut length));
        out.extend_from_slice(part);
    }
    out
}

/// What anybody says.
fn usual(key: &[u8]) -> BytesMut {
    let mut part = BytesMut::new();
    put_bytes(&mut part, 1, key);
    put_bytes(&mut part, 5, b"ipfs/0.1.0");
    put_bytes(&mut part, 6, b"stranger/1");
    part
}

async fn row(node: &TestNode, peer: PeerId) -> Connected {
    let all = node.peers.connected().await;
    all.into_iter().find(|row| row.peer == peer).unwrap()
}

/// Somebody honest connects beside it, and finds what it looks for.
async fn serves_the_honest(node: &mut TestNode) {
    let mut honest = TestNode::start(&[TCP]).await;
    honest.join(node).await;
    honest.routing.provide(cid(1)).await.unwrap();
    let mut seeker = TestNode::start(&[TCP]).await;
    seeker.join(node).await;
    seeker.find_one(cid(1), honest.id()).await;
    for node in [seeker, honest] {
        node.stop().await;
    }
}

#[tokio::test]
async fn who_says_a_mebibyte_or_shows_a_key_that_is_too_long_is_known_to_nobody() {
    let mut node = TestNode::start(&[TCP]).await;
    let mut talkers = Vec::new();
    // Libp2p's own takes the long key, and finds that it is another peer's; what it cannot read is asked once more.
    for (is_large, questions) in [(true, 2), (false, 1)] {
        let keys = Keypair::generate_ed25519();
        let mut said = usual(&keys.public().encode_protobuf());
        match is_large {
            true => put_bytes(&mut said, 6, &vec![b'a'; 1 << 20]),
            false => put_bytes(&mut said, 1, &crate::public_key::tests::rsa_of(8200)),
        }
        let mut talker = Talker::calls(&node, &keys, framed(&[said])).await;
        for _ in 0..questions {
            talker.was_asked().await;
        }
        talkers.push(talker);
    }
    // What was said came long before what the honest say.
    serves_the_honest(&mut node).await;
    for talker in &talkers {
        let row = row(&node, talker.peer).await;
        assert_eq!((row.agent, row.protocols.len()), (None, 0));
    }
    node.stop().await;
    talkers.iter().for_each(|talker| talker.tasks.abort());
}

#[tokio::test]
async fn who_speaks_1800_protocols_is_kept_with_as_many_as_there_is_room_for() {
    let mut node = TestNode::start(&[TCP]).await;
    let keys = Keypair::generate_ed25519();
    let mut parts = vec![usual(&keys.public().encode_protobuf())];
    parts.extend(vec![BytesMut::new(); 3]);
    for at in 0..1800 {
        put_bytes(&mut parts[at % 4], 3, format!("/{at:04}/1").as_bytes());
    }
    let talker = Talker::calls(&node, &keys, framed(&parts)).await;
    let peer = talker.peer;
    node.until(|event| matches!(event, Event::Identified(who) if *who == peer))
        .await;
    let row = row(&node, peer).await;
    assert_eq!(row.agent.as_deref(), Some("stranger/1"));
    assert_eq!(row.protocols.len(), 64);
    serves_the_honest(&mut node).await;
    node.stop().await;
    talker.tasks.abort();
}

#[tokio::test]
async fn what_another_key_has_signed_says_nothing_of_who_shows_it() {
    let mut node = TestNode::start(&[TCP]).await;
    let (keys, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let elsewhere: Multiaddr = "/ip4/127.0.0.1/tcp/4".parse().unwrap();
    let own: Multiaddr = "/ip4/127.0.0.1/tcp/5".parse().unwrap();
    let record = PeerRecord::new(&other, vec![elsewhere.clone()]).unwrap();
    let record = record.into_signed_envelope().into_protobuf_encoding();
    let mut said = usual(&keys.public().encode_protobuf());
    put_bytes(&mut said, 2, &own.to_vec());
    put_bytes(&mut said, 8, &record);
    let talker = Talker::calls(&node, &keys, framed(&[said])).await;
    let peer = talker.peer;
    node.until(|event| matches!(event, Event::Identified(who) if *who == peer))
        .await;
    // What it says itself is taken, and of the other nothing is known.
    let known = node.peers.known().await;
    let at = |peer: PeerId| -> Vec<Multiaddr> {
        let of_peer = known.iter().filter(|(who, _)| *who == peer);
        of_peer.flat_map(|(_, all)| all.clone()).collect()
    };
    assert_eq!(at(peer), [own]);
    assert_eq!(at(other.public().to_peer_id()), []);
    // Nor is anybody believed who shows the other's key.
    let said = usual(&other.public().encode_protobuf());
    let mut liar = Talker::calls(&node, &Keypair::generate_ed25519(), framed(&[said])).await;
    liar.was_asked().await;
    serves_the_honest(&mut node).await;
    assert_eq!(row(&node, liar.peer).await.agent, None);
    node.stop().await;
    talker.tasks.abort();
    liar.tasks.abort();
}
