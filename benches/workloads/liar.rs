//! A peer that says it has everything, and sends bytes that are something else.
//!
//! It speaks Bitswap 1.2.0 by hand over a stock stack, since a store of ours gives nothing out
//! that does not match its name: whatever is asked for, it has it; whatever is wanted of it, a block of the
//! right size comes, under the right prefix, full of sevens.

use crate::frame::{framed, put_varint, read_message, take_varint};
use crate::stock::{self, Security};
use futures::{AsyncWriteExt, StreamExt};
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;

/// The part of a child that lies: on which address, with blocks of which size.
pub async fn lie(given: &[String]) {
    let [ip, bytes] = given else {
        panic!("an address and a size: {given:?}");
    };
    let bytes: usize = bytes.parse().expect("a size");
    let swarm = stock::swarm(Security::Tls);
    let (address, mut control) = stock::listening(swarm, ip.parse().expect("an address")).await;
    let mut incoming = control.accept(PROTOCOL).expect("accept");
    println!("ready {address}");
    while let Some((peer, stream)) = incoming.next().await {
        #[expect(
            clippy::disallowed_methods,
            reason = "a bench has no shutdown to take part in"
        )]
        tokio::spawn(answer(control.clone(), peer, stream, bytes));
    }
}

/// Answers what comes on one stream until it ends, or nobody listens.
async fn answer(mut control: Control, peer: PeerId, mut stream: Stream, bytes: usize) {
    let Ok(mut out) = control.open_stream(peer, PROTOCOL).await else {
        return;
    };
    while let Ok(message) = read_message(&mut stream).await {
        for (cid, kind) in wants(&message) {
            let answer = match kind {
                Kind::Cancel => continue,
                Kind::Have => presence(&cid),
                Kind::Block => forged(&cid, bytes),
            };
            if out.write_all(&framed(&answer)).await.is_err() || out.flush().await.is_err() {
                return;
            }
        }
    }
}

/// Says of whatever is asked for that it has it, and leaves it at that, until the stream ends.
pub(crate) async fn promise(mut control: Control, peer: PeerId, mut stream: Stream) {
    let Ok(mut out) = control.open_stream(peer, PROTOCOL).await else {
        return;
    };
    while let Ok(message) = read_message(&mut stream).await {
        for (cid, kind) in wants(&message) {
            if matches!(kind, Kind::Cancel) {
                continue;
            }
            let answer = presence(&cid);
            if out.write_all(&framed(&answer)).await.is_err() || out.flush().await.is_err() {
                return;
            }
        }
    }
}

enum Kind {
    Block,
    Have,
    Cancel,
}

fn wants(message: &[u8]) -> Vec<(Vec<u8>, Kind)> {
    let lists = fields(message).filter(|(number, ..)| *number == 1);
    let entries = lists.flat_map(|(_, list, _)| fields(list).filter(|(number, ..)| *number == 1));
    let want = |(_, entry, _): (u64, _, _)| {
        let (mut cid, mut kind) = (Vec::new(), Kind::Block);
        for (number, bytes, value) in fields(entry) {
            match (number, value) {
                (1, _) => cid = bytes.to_vec(),
                (3, 1) => kind = Kind::Cancel,
                (4, 1) => kind = Kind::Have,
                _ => {}
            }
        }
        (cid, kind)
    };
    entries.map(want).collect()
}

/// The fields of a protobuf message: number, bytes, value, whichever it has.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, &[u8], u64)> {
    std::iter::from_fn(move || {
        let tag = take_varint(&mut message)?;
        let value = take_varint(&mut message)?;
        let mut bytes: &[u8] = &[];
        if tag & 7 == 2 {
            (bytes, message) = message.split_at_checked(usize::try_from(value).ok()?)?;
        }
        Some((tag >> 3, bytes, value))
    })
}

fn presence(cid: &[u8]) -> Vec<u8> {
    let mut presence = Vec::new();
    put_bytes(&mut presence, 1, cid);
    let mut message = Vec::new();
    put_bytes(&mut message, 4, &presence);
    message
}

fn forged(cid: &[u8], bytes: usize) -> Vec<u8> {
    // All of a CID but its digest, which for SHA2-256 is its last 32 bytes.
    let (prefix, _) = cid.split_at(cid.len().saturating_sub(32));
    let (mut block, mut message) = (
        Vec::with_capacity(bytes + 16),
        Vec::with_capacity(bytes + 32),
    );
    put_bytes(&mut block, 1, prefix);
    put_bytes(&mut block, 2, &vec![7; bytes]);
    put_bytes(&mut message, 3, &block);
    message
}

pub(crate) fn put_bytes(to: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(to, number << 3 | 2);
    put_varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// The part that [`lie`] plays.
pub const PART: &str = "lie";
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/bitswap/1.2.0");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wants_are_read_and_what_is_sent_has_the_shape_of_a_block() {
        let mut cid = vec![1, 0x55, 0x12, 0x20];
        cid.extend([9; 32]);
        let (mut entry, mut list, mut message) = (Vec::new(), Vec::new(), Vec::new());
        put_bytes(&mut entry, 1, &cid);
        put_varint(&mut entry, 4 << 3);
        put_varint(&mut entry, 1);
        put_bytes(&mut list, 1, &entry);
        put_bytes(&mut message, 1, &list);
        let wants = wants(&message);
        assert!(matches!(&wants[..], [(name, Kind::Have)] if *name == cid));
        let sent = forged(&cid, 1000);
        let (number, block, _) = fields(&sent).next().unwrap();
        let parts: Vec<_> = fields(block)
            .map(|(number, bytes, _)| (number, bytes.len()))
            .collect();
        assert_eq!((number, parts), (3, vec![(1, 4), (2, 1000)]));
    }
}
