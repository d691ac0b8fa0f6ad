//! The network as the provider sees it, through [`Routing`].

use super::Peers;
use super::sweep::{Network, Reach};
use crate::dht::table::Contact;
use crate::routing::{Provider, Routing, RoutingError};

impl Network for Routing {
    async fn reach(&self) -> Result<Reach, RoutingError> {
        Self::reach(self).await
    }

    async fn region(&self, keys: Vec<Vec<u8>>, bits: u32) -> Result<Peers, RoutingError> {
        let mut found = Self::region(self, keys, bits).await?.into_iter();
        let mut next = || {
            let contacts = found.next().unwrap_or_default().into_iter();
            contacts
                .map(|found| Contact::new(found.peer, found.addresses))
                .collect()
        };
        Ok(Peers([next(), next()]))
    }

    async fn tell(&self, to: Contact, keys: Vec<Vec<u8>>) -> bool {
        let to = Provider {
            peer: to.peer,
            addresses: to.addresses,
        };
        Self::tell(self, to, keys).await.is_ok()
    }
}
