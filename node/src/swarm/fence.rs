//! The fence around the network: the transport that opens no socket outside it.
//!
//! It stands where dials, listens and accepts happen, so no protocol can go round it: a behaviour
//! could not see the addresses that *other* behaviours add to a dial. Addresses of our own that
//! lie outside are never heard of above, so nothing can announce them.
//!
//! It also asks the gate: whether an address is filtered, and when a dial may begin (`gate.rs`). Names stand
//! before it in the transport, so that what they mean is asked about and not they.
//!
//! Inside `local` and `lan` it also gives TCP a head start over QUIC: there, where round trips are
//! short, TCP carries several times as much.

use super::filters::Filter;
use super::gate::Gate;
use crate::config::is_quic;
use crate::network::Network;
use futures::FutureExt;
use futures::future::BoxFuture;
use libp2p::Multiaddr;
use libp2p::core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// `inner`, within `network`.
#[derive(Debug)]
pub(super) struct Fence<T> {
    inner: T,
    network: Network,
    gate: Arc<Gate>,
}

/// Why nothing is dialled there, by the setting that says so.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Refusal {
    #[error("it is outside the network `{0}`; `cairn config set network` changes that")]
    Outside(Network),
    #[error(
        "it is an address of one link (fe80::…) and does not say which, so it leads nowhere; use another of the peer's \
         addresses"
    )]
    NoZone,
    #[error("it is in {0}, which is in `swarm.filters`; `cairn swarm filters rm {0}` takes it out")]
    Filtered(Filter),
    #[error(
        "there is no QUIC in a private network (swarm.key), whose key it does not know; use the peer's address over TCP \
         or WebSocket"
    )]
    Quic,
}

impl<T> Fence<T> {
    pub(super) fn new(inner: T, network: Network, gate: Arc<Gate>) -> Self {
        Self {
            inner,
            network,
            gate,
        }
    }

    /// Why a dial to this address is turned away, counted if it is.
    fn turns_away(&self, address: &Multiaddr) -> Option<Refusal> {
        if !self.network.allows(address) {
            self.gate.outside.dial();
            return Some(Refusal::Outside(self.network));
        }
        if !Network::leads_somewhere(address) {
            return Some(Refusal::NoZone);
        }
        if let Some(filter) = self.gate.filter_of(address) {
            self.gate.filtered.dial();
            return Some(Refusal::Filtered(filter));
        }
        // Nothing here would know what to do with it; now it is said why.
        (self.gate.is_private() && is_quic(address)).then_some(Refusal::Quic)
    }

    /// The same for an arrival from there.
    fn keeps_out(&self, address: &Multiaddr) -> bool {
        if !self.network.allows(address) {
            self.gate.outside.arrival();
            return true;
        }
        let is_filtered = self.gate.is_filtered(address);
        if is_filtered {
            self.gate.filtered.arrival();
        }
        is_filtered
    }

    fn head_start(&self, address: &Multiaddr) -> Option<Duration> {
        (is_quic(address) && self.network != Network::Public).then_some(QUIC_WAITS)
    }
}

impl<T> Transport for Fence<T>
where
    T: Transport + Unpin,
    T::Output: 'static,
    T::Error: From<io::Error> + Send + 'static,
    T::Dial: Send + 'static,
{
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = BoxFuture<'static, Result<T::Output, T::Error>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<T::Error>> {
        if !self.network.may_listen(&address) {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<T::Error>> {
        if let Some(refusal) = self.turns_away(&address) {
            return Err(TransportError::Other(io::Error::other(refusal).into()));
        }
        let wait = self.head_start(&address);
        let (gate, toll) = (Arc::clone(&self.gate), self.gate.toll(&address));
        // The inner future does nothing until it is polled.
        let dial = self.inner.dial(address, options)?;
        Ok(async move {
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
            }
            // Held for as long as the dial is under way.
            let _pass = toll.pay().await.map_err(|full| {
                gate.overflow(full);
                io::Error::other(full)
            })?;
            dial.await
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<T::ListenerUpgrade, T::Error>> {
        loop {
            let Poll::Ready(event) = Pin::new(&mut self.inner).poll(cx) else {
                return Poll::Pending;
            };
            let outside = match &event {
                TransportEvent::NewAddress { listen_addr, .. }
                | TransportEvent::AddressExpired { listen_addr, .. } => {
                    !self.network.allows(listen_addr) || !Network::leads_somewhere(listen_addr)
                }
                TransportEvent::Incoming { send_back_addr, .. } => self.keeps_out(send_back_addr),
                TransportEvent::ListenerClosed { .. } | TransportEvent::ListenerError { .. } => {
                    false
                }
            };
            // What is outside is dropped here: an arrival with its socket.
            if !outside {
                return Poll::Ready(event);
            }
        }
    }
}

/// How long a QUIC dial waits for TCP to be faster, in networks with short round trips.
const QUIC_WAITS: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::{Ready, ready};
    use libp2p::core::Endpoint;
    use libp2p::core::transport::PortUse;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    type Event = TransportEvent<Ready<io::Result<()>>, io::Error>;

    /// Remembers what reached it.
    #[derive(Default)]
    struct Inner {
        dialled: Vec<Multiaddr>,
        listened: Vec<Multiaddr>,
        events: VecDeque<Event>,
    }

    impl Transport for Inner {
        type Output = ();
        type Error = io::Error;
        type ListenerUpgrade = Ready<io::Result<()>>;
        type Dial = Ready<io::Result<()>>;

        fn listen_on(
            &mut self,
            _: ListenerId,
            address: Multiaddr,
        ) -> Result<(), TransportError<io::Error>> {
            self.listened.push(address);
            Ok(())
        }
        fn remove_listener(&mut self, _: ListenerId) -> bool {
            false
        }
        fn dial(
            &mut self,
            address: Multiaddr,
            _: DialOpts,
        ) -> Result<Self::Dial, TransportError<io::Error>> {
            self.dialled.push(address);
            Ok(ready(Ok(())))
        }
        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Event> {
            self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
        }
    }

    const DIAL: DialOpts = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };

    fn fence(network: Network) -> Fence<Inner> {
        Fence::new(Inner::default(), network, Arc::default())
    }

    fn incoming(from: &str) -> Event {
        TransportEvent::Incoming {
            listener_id: ListenerId::next(),
            upgrade: ready(Ok(())),
            local_addr: "/ip4/127.0.0.1/tcp/1".parse().unwrap(),
            send_back_addr: from.parse().unwrap(),
        }
    }

    fn listening(on: &str) -> Event {
        TransportEvent::NewAddress {
            listener_id: ListenerId::next(),
            listen_addr: on.parse().unwrap(),
        }
    }

    #[test]
    fn what_lies_outside_is_not_seen_inside() {
        let mut fence = fence(Network::Local);
        fence.inner.events.extend([
            incoming("/ip4/192.0.2.1/tcp/9"),
            listening("/ip4/192.168.1.7/tcp/1"),
            incoming("/ip4/127.0.0.1/tcp/7"),
            listening("/ip4/127.0.0.1/tcp/1"),
        ]);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let first = Pin::new(&mut fence).poll(&mut cx);
        assert!(matches!(
            first,
            Poll::Ready(TransportEvent::Incoming { send_back_addr, .. })
                if send_back_addr == "/ip4/127.0.0.1/tcp/7".parse().unwrap()
        ));
        let second = Pin::new(&mut fence).poll(&mut cx);
        assert!(matches!(
            second,
            Poll::Ready(TransportEvent::NewAddress { listen_addr, .. })
                if listen_addr == "/ip4/127.0.0.1/tcp/1".parse().unwrap()
        ));
        assert!(Pin::new(&mut fence).poll(&mut cx).is_pending());
        assert_eq!(fence.gate.outside().arrivals(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn quic_waits_for_tcp_where_round_trips_are_short() {
        let mut fence = fence(Network::Local);
        let mut dial = |address: &str| fence.dial(address.parse().unwrap(), DIAL).unwrap();
        let mut quic = dial("/ip4/127.0.0.1/udp/1/quic-v1");
        let tcp = dial("/ip4/127.0.0.1/tcp/1");
        assert!((&mut quic).now_or_never().is_none());
        assert!(tcp.now_or_never().is_some());
        quic.await.unwrap();
    }

    proptest! {
        #[test]
        fn only_addresses_inside_reach_a_socket(ip: u32, port: u16, wide: bool) {
            let network = if wide { Network::Lan } else { Network::Local };
            let mut fence = fence(network);
            let address: Multiaddr =
                format!("/ip4/{}/tcp/{port}", std::net::Ipv4Addr::from(ip)).parse().unwrap();
            let dialled = fence.dial(address.clone(), DIAL).is_ok();
            prop_assert_eq!(dialled, network.allows(&address));
            prop_assert_eq!(fence.inner.dialled.len(), usize::from(dialled));
            prop_assert_eq!(fence.gate.outside().dials(), u64::from(!dialled));
            let listens = fence.listen_on(ListenerId::next(), address.clone()).is_ok();
            prop_assert_eq!(listens, network.may_listen(&address));
            prop_assert_eq!(fence.inner.listened.len(), usize::from(listens));
        }
    }
}
