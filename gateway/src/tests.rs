//! The gateway as clients see it: requests in, answers out, over content made by hand.
//!
//! `support` makes content and asks; the others ask about one subject each. `wire` asks over real
//! connections on loopback, `visitors` as a peer does.

mod access;
mod archives;
mod bombs;
mod budgets;
mod documents;
mod files;
mod folders;
mod hostile;
mod hosts;
mod ipns;
mod names;
mod proxy;
mod redirects;
mod routing;
mod support;
mod traversal;
mod visitors;
mod wire;
