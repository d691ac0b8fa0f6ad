//! The two conversations of AutoNAT v2, from either end, over streams that are there.

use super::message::{
    Dial, Message, MessageError, Status, decode_nonce, encode_nonce, read, write,
};
use super::{Shared, Told};
use crate::negotiation::is_relayed;
use crate::network::{self, Network};
use crate::reach::state::Outcome;
use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::io;
use std::net::IpAddr;
use tokio::sync::{mpsc, oneshot};

/// Has the other end try `address`. [`Outcome::Reached`] is only what it says: whether it came, who
/// listens knows.
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    address: Multiaddr,
    nonce: u64,
) -> Result<Outcome, MessageError> {
    let request = Message::Request {
        addresses: vec![Some(address)],
        nonce,
    };
    write(&mut stream, &request.encode()).await?;
    let mut answer = Message::decode(&read(&mut stream).await?)?;
    if let Message::DataRequest { bytes, .. } = answer {
        if bytes > DATA_BYTES_MAX {
            return Ok(Outcome::Unanswered);
        }
        let mut left = usize::try_from(bytes).unwrap_or(0);
        while left > 0 {
            let now = left.min(DATA_BYTES_AT_ONCE);
            write(&mut stream, &Message::Data(now).encode()).await?;
            left -= now;
        }
        answer = Message::decode(&read(&mut stream).await?)?;
    }
    // The other end may have closed already, which is none of our business.
    let _ = stream.close().await;
    Ok(match answer {
        Message::Response {
            status: Status::Done,
            at: 0,
            dial: Dial::Done,
        } => Outcome::Reached,
        Message::Response {
            status: Status::Done,
            at: 0,
            dial: Dial::Failed,
        } => Outcome::Refuted,
        _ => Outcome::Unanswered,
    })
}

/// Somebody has come and says a number.
pub(super) async fn hear<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    local: Multiaddr,
    told: mpsc::Sender<Told>,
) -> Result<(), MessageError> {
    let nonce = decode_nonce(&read(&mut stream).await?)?;
    let (known, answer) = oneshot::channel();
    let came = Told::Came {
        nonce,
        local,
        known,
    };
    if told.send(came).await.is_ok() && answer.await == Ok(true) {
        // `OK` is zero, which protobuf does not write.
        write(&mut stream, &[]).await?;
        stream.close().await?;
    }
    Ok(())
}

/// We have come, and say the number.
pub(super) async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    nonce: u64,
) -> Result<(), MessageError> {
    write(&mut stream, &encode_nonce(nonce)).await?;
    // Whatever it says, it has heard us.
    read(&mut stream).await?;
    Ok(())
}

/// Wanted: a dial, and there this number.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(super) peer: PeerId,
    pub(super) address: Multiaddr,
    pub(super) nonce: u64,
    pub(super) done: oneshot::Sender<Tried>,
}

/// How our dial went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    Came,
    /// Somebody was there who did not listen.
    Unheard,
    /// Nobody was there.
    Failed,
    /// We did not dial.
    Not,
}

/// Answers a question of `peer`, whom we see come from `seen`.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    (peer, seen): (PeerId, Multiaddr),
    shared: &Shared,
    told: mpsc::Sender<Told>,
) -> Result<(), MessageError> {
    let Message::Request { addresses, nonce } = Message::decode(&read(&mut stream).await?)? else {
        return Err(MessageError::Unknown);
    };
    let response = match choose(&addresses, shared.network) {
        // Before it costs anybody anything.
        _ if !shared.may_dial(peer) => said(Status::Rejected, 0, Dial::Unused),
        None => said(Status::Refused, 0, Dial::Unused),
        Some((at, address)) => {
            if network::host(&address) != network::host(&seen) {
                collect(&mut stream, at, shared.price()).await?;
            }
            let (done, tried) = oneshot::channel();
            let wish = Wish {
                peer,
                address,
                nonce,
                done,
            };
            let sent = told.send(Told::Wish(wish)).await;
            let tried = match sent {
                Ok(()) => tried.await.unwrap_or(Tried::Not),
                Err(_) => Tried::Not,
            };
            match tried {
                Tried::Came => said(Status::Done, at, Dial::Done),
                Tried::Unheard => said(Status::Done, at, Dial::Unheard),
                Tried::Failed => said(Status::Done, at, Dial::Failed),
                Tried::Not => said(Status::Failed, at, Dial::Unused),
            }
        }
    };
    write(&mut stream, &response.encode()).await?;
    stream.close().await?;
    Ok(())
}

fn said(status: Status, at: u64, dial: Dial) -> Message {
    Message::Response { status, at, dial }
}

/// The first address that we would dial for a stranger: one in the open, by its number, directly.
fn choose(addresses: &[Option<Multiaddr>], network: Network) -> Option<(u64, Multiaddr)> {
    let is_fine = |address: &Multiaddr| {
        let is_known = address
            .iter()
            .any(|part| matches!(part, Protocol::Tcp(_) | Protocol::QuicV1));
        let in_the_open = |ip: IpAddr| !ip.is_unspecified() && !ip.is_multicast();
        network::host(address).is_some_and(in_the_open)
            && is_known
            && !is_relayed(address)
            && network.announces(address)
    };
    (0..)
        .zip(addresses)
        .find_map(|(at, address)| match address {
            Some(address) if is_fine(address) => Some((at, address.clone())),
            _ => None,
        })
}

/// Has the other end send so many bytes: who has others dialled pays for it.
async fn collect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    at: u64,
    price: usize,
) -> Result<(), MessageError> {
    let request = Message::DataRequest {
        at,
        bytes: price as u64,
    };
    write(stream, &request.encode()).await?;
    let mut left = price;
    while left > 0 {
        match Message::decode(&read(stream).await?)? {
            Message::Data(0) => {
                return Err(io::Error::from(io::ErrorKind::InvalidData).into());
            }
            Message::Data(length) => left = left.saturating_sub(length),
            _ => return Err(MessageError::Unknown),
        }
    }
    Ok(())
}

/// Most bytes that we pay for a dial.
const DATA_BYTES_MAX: u64 = 100_000;
/// Bytes sent in one message; with its frame it must be below 4,104.
const DATA_BYTES_AT_ONCE: usize = 4000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_have_nobody_dialled_inside_or_by_name() {
        let peer = PeerId::random();
        let refused = [
            "/ip4/10.0.0.1/tcp/80".to_owned(),
            "/ip4/127.0.0.1/tcp/5001".to_owned(),
            "/ip4/0.0.0.0/tcp/1".to_owned(),
            "/ip6/::ffff:192.168.1.1/tcp/80".to_owned(),
            "/dns4/example.com/tcp/80".to_owned(),
            "/ip4/224.0.0.251/udp/5353/quic-v1".to_owned(),
            format!("/ip4/192.0.2.1/tcp/1/p2p/{peer}/p2p-circuit"),
        ];
        let mut addresses: Vec<Option<Multiaddr>> =
            refused.iter().map(|text| text.parse().ok()).collect();
        assert!(addresses.iter().all(Option::is_some));
        assert_eq!(choose(&addresses, Network::Public), None);
        let good: Multiaddr = "/ip4/192.0.2.1/udp/1/quic-v1".parse().unwrap();
        addresses.extend([None, Some(good.clone())]);
        assert_eq!(choose(&addresses, Network::Public), Some((8, good)));
    }
}
