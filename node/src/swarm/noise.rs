//! libp2p's Noise (XX, Curve25519, ChaCha20-Poly1305, SHA-256) with records that are sealed and opened
//! where they lie.
//!
//! snow does the handshake and gives us both keys; the records behind it are two bytes of length
//! and what ChaCha20-Poly1305 makes of up to 64 KiB, numbered, with nothing else to them. Who the
//! other end is stands in the handshake: its key, and that key's signature of the one that the
//! handshake proves.

use super::records::{
    Cipher, Incoming, Key, NONCE_BYTES, Opener as AnyOpener, Order, Outgoing, Sealer as AnySealer,
    Secured, Step, TAG_BYTES, invalid,
};
use crate::public_key;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::identity::{Keypair, PeerId};
use snow::{Builder, HandshakeState};
use std::io;
use std::sync::Arc;

/// Our half of every handshake. Cheap to clone.
#[derive(Clone)]
pub(super) struct Noise {
    secret: Arc<[u8]>,
    /// What tells the other end who we are.
    payload: Arc<[u8]>,
}

/// Why a connection was not secured.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoiseError {
    #[error("Noise handshake: {0}")]
    Io(#[from] io::Error),
    #[error("Noise handshake: {0}")]
    Protocol(#[from] snow::Error),
    #[error("the peer does not prove who it is: {0}")]
    Identity(&'static str),
}

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoiseKeyError {
    #[error("{0}")]
    Protocol(#[from] snow::Error),
    #[error("{0}")]
    Signing(#[from] libp2p::identity::SigningError),
}

impl Noise {
    pub(super) fn new(keys: &Keypair) -> Result<Self, NoiseKeyError> {
        let pair = Builder::new(PATTERN.parse()?).generate_keypair()?;
        let signature = keys.sign(&signed(&pair.public))?;
        let mut payload = Vec::new();
        put(&mut payload, IDENTITY_KEY, &keys.public().encode_protobuf());
        put(&mut payload, IDENTITY_SIGNATURE, &signature);
        Ok(Self {
            secret: pair.private.into(),
            payload: payload.into(),
        })
    }

    /// Lets a peer that dialled us prove who it is.
    pub(super) async fn accept<S>(
        &self,
        socket: &mut S,
        mut incoming: Incoming,
    ) -> Result<Secured, NoiseError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let builder = Builder::new(PATTERN.parse()?).local_private_key(&self.secret)?;
        let mut state = builder.build_responder()?;
        receive(&mut state, socket, &mut incoming).await?;
        send(&mut state, socket, &self.payload).await?;
        let theirs = receive(&mut state, socket, &mut incoming).await?;
        let peer = identify(&state, &theirs)?;
        let (to_us, to_them) = state.dangerously_get_raw_split();
        Ok(secured(peer, &to_them, &to_us, incoming)?)
    }

    /// Lets a peer that we dialled prove who it is.
    pub(super) async fn connect<S>(
        &self,
        socket: &mut S,
        mut incoming: Incoming,
    ) -> Result<Secured, NoiseError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let builder = Builder::new(PATTERN.parse()?).local_private_key(&self.secret)?;
        let mut state = builder.build_initiator()?;
        send(&mut state, socket, &[]).await?;
        let theirs = receive(&mut state, socket, &mut incoming).await?;
        let peer = identify(&state, &theirs)?;
        send(&mut state, socket, &self.payload).await?;
        let (to_them, to_us) = state.dangerously_get_raw_split();
        Ok(secured(peer, &to_them, &to_us, incoming)?)
    }
}

fn secured(peer: PeerId, to_them: &[u8], to_us: &[u8], incoming: Incoming) -> io::Result<Secured> {
    let cipher = |key: &[u8]| {
        let key = Key::chacha(key)?;
        io::Result::Ok(Cipher::new(key, [0; NONCE_BYTES], Order::LittleEndian, 0))
    };
    Ok(Secured {
        peer,
        sealer: AnySealer::Noise(Sealer(cipher(to_them)?)),
        opener: AnyOpener::Noise(Opener(cipher(to_us)?)),
        incoming,
        plain: Vec::new(),
    })
}

/// What the identity key signs.
fn signed(handshake_key: &[u8]) -> Vec<u8> {
    [b"noise-libp2p-static-key:", handshake_key].concat()
}

/// Who the other end is, proven.
fn identify(state: &HandshakeState, payload: &[u8]) -> Result<PeerId, NoiseError> {
    let (mut key, mut signature) = (None, None);
    let mut rest = payload;
    while let Some((field, value, after)) = take(rest) {
        match field {
            IDENTITY_KEY => key = Some(value),
            IDENTITY_SIGNATURE => signature = Some(value),
            // Extensions: none that we use.
            _ => {}
        }
        rest = after;
    }
    if !rest.is_empty() {
        return Err(NoiseError::Identity("its payload is malformed"));
    }
    let key = key.ok_or(NoiseError::Identity("it shows no key"))?;
    let key = public_key::read(key)
        .map_err(|_| NoiseError::Identity("its key is malformed, or longer than one may be"))?;
    let shown = state
        .get_remote_static()
        .ok_or(NoiseError::Identity("it has no handshake key"))?;
    if key.verify(&signed(shown), signature.unwrap_or_default()) {
        Ok(key.to_peer_id())
    } else {
        Err(NoiseError::Identity("its signature does not fit"))
    }
}

async fn send<S: AsyncWrite + Unpin>(
    state: &mut HandshakeState,
    socket: &mut S,
    payload: &[u8],
) -> Result<(), NoiseError> {
    let mut message = vec![0; LENGTH_BYTES + payload.len() + HANDSHAKE_BYTES_MORE_MAX];
    let body = message.get_mut(LENGTH_BYTES..).unwrap_or_default();
    let length = state.write_message(payload, body)?;
    let [.., high, low] = length.to_be_bytes();
    if let Some(front) = message.first_chunk_mut() {
        *front = [high, low];
    }
    message.truncate(LENGTH_BYTES + length);
    socket.write_all(&message).await?;
    socket.flush().await?;
    Ok(())
}

async fn receive<S: AsyncRead + Unpin>(
    state: &mut HandshakeState,
    socket: &mut S,
    incoming: &mut Incoming,
) -> Result<Vec<u8>, NoiseError> {
    loop {
        if let Some((length, rest)) = incoming.bytes().split_first_chunk::<LENGTH_BYTES>() {
            let length = usize::from(u16::from_be_bytes(*length));
            if length > HANDSHAKE_BYTES_MAX {
                return Err(invalid(format!("a handshake message of {length} bytes")).into());
            }
            if let Some(message) = rest.get(..length) {
                let mut payload = vec![0; length];
                let count = state.read_message(message, &mut payload)?;
                payload.truncate(count);
                incoming.done(LENGTH_BYTES + length);
                return Ok(payload);
            }
        }
        let count = socket.read(incoming.room()).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        incoming.took(count);
    }
}

/// Writes a field of bytes as protobuf does.
fn put(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    let mut length = unsigned_varint::encode::usize_buffer();
    out.push(field << 3 | BYTES_ON_THE_WIRE);
    out.extend_from_slice(unsigned_varint::encode::usize(value.len(), &mut length));
    out.extend_from_slice(value);
}

/// The first field of bytes, and what follows it.
fn take(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (length, rest) = unsigned_varint::decode::usize(rest).ok()?;
    let (value, rest) = rest.split_at_checked(length)?;
    (tag & 7 == BYTES_ON_THE_WIRE).then_some((tag >> 3, value, rest))
}

/// Seals what we send.
pub(super) struct Sealer(Cipher);

impl Sealer {
    pub(super) fn seal(&mut self, bytes: &[u8], out: &mut Outgoing) -> io::Result<()> {
        for plain in bytes.chunks(PLAIN_BYTES_MAX) {
            let sealed = plain.len() + TAG_BYTES;
            let [.., high, low] = sealed.to_be_bytes();
            let room = out.room(LENGTH_BYTES + sealed);
            let (front, rest) = room
                .split_first_chunk_mut::<LENGTH_BYTES>()
                .ok_or_else(|| io::Error::other("no room for a record"))?;
            *front = [high, low];
            self.0.seal(&[], plain, &[], rest)?;
            out.took(LENGTH_BYTES + sealed);
        }
        Ok(())
    }
}

/// Opens what we receive.
pub(super) struct Opener(Cipher);

impl Opener {
    pub(super) fn open(&mut self, bytes: &mut [u8]) -> io::Result<Step> {
        let Some((length, rest)) = bytes.split_first_chunk_mut::<LENGTH_BYTES>() else {
            return Ok(Step::Incomplete);
        };
        let sealed = usize::from(u16::from_be_bytes(*length));
        let Some(record) = rest.get_mut(..sealed) else {
            return Ok(Step::Incomplete);
        };
        let plain = self.0.open(&[], record)?;
        Ok(Step::Record {
            taken: LENGTH_BYTES + sealed,
            plain: LENGTH_BYTES..LENGTH_BYTES + plain,
        })
    }
}

/// What peers call the handshake.
const PATTERN: &str = "Noise_XX_25519_ChaChaPoly_SHA256";
const LENGTH_BYTES: usize = 2;
/// What a record may hold.
const PLAIN_BYTES_MAX: usize = u16::MAX as usize - TAG_BYTES;
/// The body of a multiplexer's frame, in one record.
pub(super) const FRAME_BODY_BYTES: usize = PLAIN_BYTES_MAX;
/// Fields of a handshake's payload.
const IDENTITY_KEY: u8 = 1;
const IDENTITY_SIGNATURE: u8 = 2;
const BYTES_ON_THE_WIRE: u8 = 2;
/// Keys and tags in a handshake message beside its payload.
const HANDSHAKE_BYTES_MORE_MAX: usize = 128;
/// The longest handshake message that is taken: RSA keys and signatures are below 2 KiB.
const HANDSHAKE_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::tests::{Pipe, pipe};
    use futures::FutureExt;
    use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
    use libp2p::noise;

    /// Bytes sealed by us, as the library reads them, and the other way.
    async fn talk(mut ours: Secured, mut socket: Pipe, mut theirs: noise::Output<Pipe>) {
        let mut out = Outgoing::default();
        let long = vec![3; 200_000];
        ours.sealer.seal(b"head", &long, &mut out).unwrap();
        let send = async {
            socket.write_all(out.bytes()).await.unwrap();
            let mut seen = Vec::new();
            while seen.len() < long.len() {
                match ours.opener.open(ours.incoming.bytes()).unwrap() {
                    Step::Record { taken, plain } => {
                        seen.extend_from_slice(&ours.incoming.bytes()[plain]);
                        ours.incoming.done(taken);
                    }
                    Step::Incomplete => {
                        let count = socket.read(ours.incoming.room()).await.unwrap();
                        ours.incoming.took(count);
                    }
                    Step::End => panic!("no end was said"),
                }
            }
            assert!(seen == long);
        };
        let receive = async {
            let mut seen = vec![0; 4 + long.len()];
            theirs.read_exact(&mut seen).await.unwrap();
            assert_eq!(&seen[..4], b"head");
            assert!(seen[4..] == long);
            theirs.write_all(&long).await.unwrap();
            theirs.flush().await.unwrap();
        };
        futures::join!(send, receive);
    }

    #[tokio::test]
    async fn the_library_is_understood_both_ways() {
        let (ours, theirs) = (Keypair::generate_ed25519(), Keypair::generate_secp256k1());
        let (us, library) = (
            Noise::new(&ours).unwrap(),
            noise::Config::new(&theirs).unwrap(),
        );
        let (mut left, right) = pipe();
        let (arrived, out) = futures::join!(
            us.accept(&mut left, Incoming::new(0)),
            library.clone().upgrade_outbound(right, "/noise"),
        );
        let (arrived, (seen, out)) = (arrived.unwrap(), out.unwrap());
        assert_eq!(seen, ours.public().to_peer_id());
        assert_eq!(arrived.peer, theirs.public().to_peer_id());
        talk(arrived, left, out).await;
        let (mut left, right) = pipe();
        let (out, arrived) = futures::join!(
            us.connect(&mut left, Incoming::new(0)),
            library.upgrade_inbound(right, "/noise"),
        );
        let (out, (seen, arrived)) = (out.unwrap(), arrived.unwrap());
        assert_eq!(seen, ours.public().to_peer_id());
        assert_eq!(out.peer, theirs.public().to_peer_id());
        talk(out, left, arrived).await;
    }

    /// Why somebody refuses the peer that it called.
    async fn refused(calls: &Noise, called: &Noise) -> NoiseError {
        let (mut left, mut right) = pipe();
        let connect = async {
            let out = calls.connect(&mut left, Incoming::new(0)).await;
            left.close().await.unwrap();
            out.map(|_| ())
        };
        let accept = called.accept(&mut right, Incoming::new(0)).map(|_| ());
        let (out, ()) = futures::join!(connect, accept);
        out.unwrap_err()
    }

    #[tokio::test]
    async fn who_signs_another_key_is_refused() {
        let keys = Keypair::generate_ed25519();
        let honest = Noise::new(&keys).unwrap();
        // Shows somebody else's proof with a handshake key of its own.
        let thief = Noise {
            payload: Arc::clone(&honest.payload),
            ..Noise::new(&Keypair::generate_ed25519()).unwrap()
        };
        let empty = Noise {
            payload: Arc::new([]),
            ..honest.clone()
        };
        let malformed = Noise {
            payload: Arc::new([0x0a, 200, 1]),
            ..honest.clone()
        };
        for hostile in [thief, empty, malformed] {
            let refused = refused(&honest, &hostile).await;
            assert!(matches!(refused, NoiseError::Identity(_)), "{refused}");
        }
    }

    #[tokio::test]
    async fn of_an_rsa_key_that_is_too_long_no_signature_is_checked() {
        let honest = Noise::new(&Keypair::generate_ed25519()).unwrap();
        for (bits, why) in [
            (2048, "its signature does not fit"),
            (8200, "its key is malformed, or longer than one may be"),
        ] {
            let mut payload = Vec::new();
            let key = public_key::tests::rsa_of(bits);
            put(&mut payload, IDENTITY_KEY, &key);
            put(&mut payload, IDENTITY_SIGNATURE, &[7; 256]);
            let hostile = Noise {
                payload: payload.into(),
                ..Noise::new(&Keypair::generate_ed25519()).unwrap()
            };
            let refused = refused(&honest, &hostile).await;
            let is_so = matches!(refused, NoiseError::Identity(said) if said == why);
            assert!(is_so, "{bits}: {refused}");
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_handshake_end_it() {
        for bytes in [&[0, 1, 7][..], &[0xff, 0xff, 1], &[0, 0], &[0]] {
            let us = Noise::new(&Keypair::generate_ed25519()).unwrap();
            let (mut left, mut right) = pipe();
            right.write_all(bytes).await.unwrap();
            right.close().await.unwrap();
            assert!(us.accept(&mut left, Incoming::new(0)).await.is_err());
        }
    }
}
