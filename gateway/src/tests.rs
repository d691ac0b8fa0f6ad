//! The gateway as clients see it: requests in, answers out, over content made by hand.
//!
//! `support` makes content and asks, `readers` read archives, `suite` has the content of the public suite; the others ask
//! about one subject each. `wire` asks over real connections on loopback, `visitors` as a peer does.

mod access;
mod bombs;
mod budgets;
mod cars;
mod documents;
mod domains;
mod files;
mod folders;
mod hostile;
mod hosts;
mod ipns;
mod known_hosts;
mod listed;
mod names;
mod order;
mod proxy;
mod readers;
mod redirects;
mod routing;
mod suite;
mod support;
mod tars;
mod traversal;
mod visitors;
mod wire;
