//! What peers ask: each stream is read by a task of its own, which has the worker answer one question at a time.

use super::{Count, Message, Worker};
use crate::dht::Request;
use crate::dht::acquaintance::Met;
use crate::dht::behaviour::Arrival;
use crate::dht::message::{Kind, Record};
use crate::dht::own::Own;
use crate::dht::streams::{self, StreamError};
use crate::dht::table::{Contact, Group};
use crate::dht::values::Key;
use crate::network::{Network, Realm};
use libp2p::PeerId;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Who asks, and where.
#[derive(Debug, Clone, Copy)]
struct Asker {
    peer: PeerId,
    realm: Realm,
    /// The network that its connection comes from, where that matters. It need not have said who it is.
    group: Option<Group>,
}

/// What a peer's stream has to say.
#[derive(Debug)]
pub(super) struct Asked {
    by: Asker,
    message: Message,
    /// Whether this node provides itself what it is asked for.
    is_own: bool,
    reply: oneshot::Sender<Option<Message>>,
}

impl Worker {
    pub(super) fn on_arrival(&mut self, arrival: Arrival) {
        let Arrival {
            peer,
            realm,
            group,
            stream,
        } = arrival;
        let by = Asker { peer, realm, group };
        let all = self.serving.number();
        let of_peer = self.served.get(&peer).map_or(0, Count::number);
        if all >= STREAMS_MAX || of_peer >= STREAMS_PER_PEER_MAX {
            tracing::debug!(%peer, "DHT stream refused: too many are being answered");
            self.parts.metrics.dht_refused.inc();
            return;
        }
        let of_peer = self.served.entry(peer).or_default();
        let counted = [of_peer.one_more(), self.serving.one_more()];
        let (room, questions) = (self.room.clone(), self.questions.0.clone());
        let own = self.parts.own.clone();
        let stop = self.parts.tasks.stopping();
        self.parts.tasks.spawn("dht answers", async move {
            let answer = |message| answer(by, message, &own, &questions);
            let served = streams::serve(stream, &room, answer);
            if let Some(Err(error)) = stop.run_until_cancelled(served).await {
                tracing::debug!(%peer, %error, "DHT stream ended");
            }
            drop(counted);
        });
    }

    pub(super) fn on_asked(&mut self, asked: Asked) {
        let Asked {
            by,
            message,
            is_own,
            reply,
        } = asked;
        let answer = self.answer(by, message, is_own);
        // The peer may have gone.
        let _ = reply.send(answer);
    }

    fn answer(&mut self, by: Asker, message: Message, is_own: bool) -> Option<Message> {
        let (from, realm) = (by.peer, by.realm);
        let (now, wall) = (Instant::now(), crate::clock::wall());
        self.parts.metrics.asked(message.kind);
        let group = by.group_in(self.network, self.met.get(&from));
        let (_, dht) = self.realms.iter_mut().find(|(at, _)| *at == realm)?;
        let Message { kind, key, .. } = message;
        let request = match kind {
            Kind::Ping => return Some(Message::new(kind, key)),
            Kind::AddProvider => {
                // Whoever speaks for others is not listened to.
                let own = message.providers.into_iter().find(|own| own.peer == from);
                let addresses = own?.addresses;
                dht.asked_from(&from, group, Request::Provides(key, addresses), now);
                return None;
            }
            Kind::PutValue => {
                let record = message.record?;
                let (value, sender) = (record.value.clone(), Some((from, group)));
                let kept = (self.values).keep(key.clone(), value, sender, now, wall);
                let record = Record {
                    received: String::new(),
                    ..record
                };
                return kept.ok().map(|()| Message {
                    record: Some(record),
                    ..Message::new(kind, key)
                });
            }
            Kind::FindNode => Request::Nearest(key.clone()),
            Kind::GetProviders => Request::Providers(key.clone()),
            Kind::GetValue => Request::Value(key.clone()),
        };
        let answer = dht.asked(&from, request, now)?;
        let mut nearer = answer.nearer;
        if kind == Kind::FindNode
            && let Ok(wanted) = PeerId::from_bytes(&key)
            && wanted != from
            && !nearer.iter().any(|contact| contact.peer == wanted)
            && let Some(contact) = self.near(realm, wanted)
        {
            nearer.insert(0, contact);
        }
        let record = (kind == Kind::GetValue)
            .then(|| self.values.of(&key, now, wall))
            .flatten();
        let others = answer.providers.into_iter();
        let others = others.filter(|contact| !is_own || contact.peer != self.local);
        let others = others.map(|contact| self.with_own_addresses(realm, contact));
        // Where this node has no address for them, they may find one.
        let itself = || self.with_own_addresses(realm, Contact::new(self.local, Vec::new()));
        let own = is_own.then(itself);
        Some(Message {
            record: record.map(|value| Record {
                key: key.clone(),
                value,
                received: String::new(),
            }),
            nearer,
            providers: own.into_iter().chain(others).collect(),
            ..Message::new(kind, key)
        })
    }

    /// A peer that is connected, whether it serves or not, or this node itself.
    fn near(&self, realm: Realm, peer: PeerId) -> Option<Contact> {
        let addresses = match peer == self.local {
            true => self.addresses.clone(),
            false => self.met.get(&peer)?.addresses.clone(),
        };
        let fits = |address: &_| self.network.fits(realm, address);
        let addresses: Vec<_> = addresses.into_iter().filter(fits).collect();
        (!addresses.is_empty()).then(|| Contact::new(peer, addresses))
    }

    fn with_own_addresses(&self, realm: Realm, contact: Contact) -> Contact {
        match contact.peer == self.local {
            true => self.near(realm, contact.peer).unwrap_or(contact),
            false => contact,
        }
    }
}

impl Asker {
    /// The network that its records are counted for, if any is.
    fn group_in(&self, network: Network, met: Option<&Met>) -> Option<Group> {
        let group = self.group.or_else(|| met.and_then(|met| met.group));
        group.filter(|_| network == Network::Public && self.realm == Realm::Wan)
    }
}

/// Has the worker answer one question. Values are checked before, since that takes long.
async fn answer(
    by: Asker,
    message: Message,
    own: &Own,
    questions: &mpsc::Sender<Asked>,
) -> Result<Option<Message>, StreamError> {
    if message.kind == Kind::PutValue {
        let is_valid = message.record.as_ref().is_some_and(|record| {
            let key = Key::parse(&message.key).filter(|_| record.key == message.key);
            key.is_some_and(|key| key.check(&record.value, crate::clock::wall()).is_ok())
        });
        if !is_valid {
            return Err(StreamError::Refused);
        }
    }
    let is_answered = message.kind != Kind::AddProvider;
    let is_own = message.kind == Kind::GetProviders && own.has(&by.peer, &message.key).await;
    let (reply, answer) = oneshot::channel();
    let question = Asked {
        by,
        message,
        is_own,
        reply,
    };
    questions
        .send(question)
        .await
        .map_err(|_| StreamError::Refused)?;
    match answer.await {
        Ok(None) if is_answered => Err(StreamError::Refused),
        Ok(answer) => Ok(answer),
        Err(_) => Err(StreamError::Refused),
    }
}

/// Streams that are answered at once, over all peers.
const STREAMS_MAX: usize = 1024;
/// Streams of one peer that are answered at once.
const STREAMS_PER_PEER_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_said_who_it_is_is_counted_for_the_network_that_it_comes_from() {
        let [here, there] = [1, 2].map(|at| Some(Group::of([10, at, 0, 1].into())));
        let by = |realm, group| Asker {
            peer: PeerId::random(),
            realm,
            group,
        };
        let met = Met {
            group: there,
            ..Met::default()
        };
        let counted = |by: Asker, met| by.group_in(Network::Public, met);
        assert_eq!(counted(by(Realm::Wan, here), None), here);
        assert_eq!(counted(by(Realm::Wan, here), Some(&met)), here);
        assert_eq!(counted(by(Realm::Wan, None), Some(&met)), there);
        assert_eq!(counted(by(Realm::Lan, here), Some(&met)), None);
        assert_eq!(by(Realm::Wan, here).group_in(Network::Lan, None), None);
    }
}
