//! What commands work on: the repository, opened when first needed, and the node, if one runs.

use super::error::RpcError;
use crate::config::Root;
use crate::output::{self, Progress};
use crate::repository::Repository;
use cairn_node::bitswap::policy::DenyContent;
use cairn_node::denylist::Denylist;
use cairn_node::keystore::{Keystore, OWN};
use cairn_node::name::Names;
use cairn_node::name::dns::{Dns, Fixed};
use cairn_node::name::resolver::Resolver;
use cairn_node::perf::Perf;
use cairn_node::pins::Follows;
use cairn_node::pins::jobs::{PINS_FETCHED_AT_ONCE, PinJobs};
use cairn_node::routing::Routing;
use cairn_node::swarm::Peers;
use cairn_node::tasks::Tasks;
use cairn_node::{Exchange, Multiaddr, Node, PeerId};
use cairn_store::files::Files;
use cairn_store::pin::{PinMode, PinProgress, PinWish};
use cairn_store::sink::PutError;
use cairn_store::source::BlockSource;
use cairn_store::store::OpenEvent;
use cairn_store::unixfs::Profile;
use cairn_store::{Cid, Store};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// What commands work on. Commands that need no blocks (`config`, `cid`, `version`) never open
/// the store, so they work beside another process that has it.
#[derive(Debug)]
pub struct Context {
    /// Where everything lies.
    pub repository: Repository,
    content: OnceCell<Content>,
    identity: OnceCell<Identity>,
    keystore: OnceLock<Arc<Keystore>>,
    resolver: OnceCell<Resolver>,
    follows: OnceCell<Follows>,
    jobs: OnceCell<PinJobs>,
    fixed: Fixed,
    denylist: OnceCell<Denylist>,
    files: OnceCell<Files>,
    system_denylists: Vec<PathBuf>,
    online: Option<Online>,
    stop: Option<CancellationToken>,
    roots: Vec<Root>,
}

/// The blocks.
#[derive(Debug, Clone)]
pub struct Content {
    /// What is here.
    pub store: Store,
    /// What is here or can be had.
    pub exchange: Exchange,
    /// What the store was opened with; the file may say something else by now.
    pub settings: cairn_store::config::Config,
}

/// Who we are.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Our name.
    pub peer_id: PeerId,
    /// Our public key, as libp2p encodes it.
    pub public_key: Vec<u8>,
}

/// A running node, as commands see it. Whoever stops the node owns it; this only borrows it.
#[derive(Debug)]
pub struct Online {
    /// Connections.
    pub peers: Peers,
    /// Providers.
    pub routing: Routing,
    /// The raw path to peers.
    pub perf: Perf,
    /// What is given to no peer.
    pub denied: DenyContent,
    node: Weak<Node>,
}

impl Online {
    /// Handles on `node`, which gives `denied` to nobody.
    pub fn new(node: &Arc<Node>, denied: DenyContent) -> Self {
        Self {
            peers: node.peers(),
            routing: node.routing(),
            perf: node.measuring(),
            denied,
            node: Arc::downgrade(node),
        }
    }

    /// The node, while it runs. Held only as long as one question takes.
    pub fn node(&self) -> Result<Arc<Node>, RpcError> {
        self.node
            .upgrade()
            .ok_or_else(|| RpcError::failed("the node is stopping"))
    }
}

impl Context {
    /// A repository on its own, not opened yet.
    pub fn offline(repository: Repository) -> Self {
        Self {
            repository,
            content: OnceCell::new(),
            identity: OnceCell::new(),
            keystore: OnceLock::new(),
            resolver: OnceCell::new(),
            follows: OnceCell::new(),
            jobs: OnceCell::new(),
            fixed: Fixed::default(),
            denylist: OnceCell::new(),
            files: OnceCell::new(),
            system_denylists: Vec::new(),
            online: None,
            stop: None,
            roots: Vec::new(),
        }
    }

    /// An opened store without a node.
    pub fn with_store(
        repository: Repository,
        store: Store,
        settings: cairn_store::config::Config,
    ) -> Self {
        let content = Content {
            exchange: Exchange::offline(store.clone()),
            store,
            settings,
        };
        Self {
            content: OnceCell::new_with(Some(content)),
            ..Self::offline(repository)
        }
    }

    /// A daemon, with a node or without; `stop` asks it to end.
    pub fn daemon(
        repository: Repository,
        content: Content,
        online: Option<Online>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            content: OnceCell::new_with(Some(content)),
            online,
            stop: Some(stop),
            ..Self::offline(repository)
        }
    }

    /// The same, with keys that were opened already.
    #[must_use]
    pub fn with_keystore(self, keystore: Arc<Keystore>) -> Self {
        Self {
            keystore: OnceLock::from(keystore),
            ..self
        }
    }

    /// The same, where the operator fixed where some names lead.
    #[must_use]
    pub fn with_fixed(self, fixed: Fixed) -> Self {
        Self { fixed, ..self }
    }

    /// The same, with the folders of denylists that programs share.
    #[must_use]
    pub fn with_system_denylists(self, system_denylists: Vec<PathBuf>) -> Self {
        Self {
            system_denylists,
            ..self
        }
    }

    /// The same, with the lists that a daemon has read.
    #[must_use]
    pub fn with_denylist(self, denylist: Denylist) -> Self {
        Self {
            denylist: OnceCell::new_with(Some(denylist)),
            ..self
        }
    }

    /// The same, where files below these folders alone may be added in place by whoever asks a daemon.
    #[must_use]
    pub fn with_roots(self, roots: Vec<Root>) -> Self {
        Self { roots, ..self }
    }

    /// Folders that files must lie in to be added in place, if this is a daemon: as they were at its start, so that
    /// who reaches it cannot let himself in.
    pub fn roots(&self) -> Option<&[Root]> {
        self.stop.as_ref().map(|_| self.roots.as_slice())
    }

    /// What is not wanted here.
    pub async fn denylist(&self) -> Result<&Denylist, RpcError> {
        self.denylist
            .get_or_try_init(|| async {
                let config = self.repository.config()?;
                let denylist = self.repository.denylist(&config, &self.system_denylists);
                let reading = denylist.clone();
                let read = tokio::task::spawn_blocking(move || reading.reload());
                read.await.map_err(|_| broke("reading denylists"))?;
                Ok(denylist)
            })
            .await
    }

    /// The same, with what a daemon follows names with.
    #[must_use]
    pub fn with_resolver(self, resolver: Resolver) -> Self {
        Self {
            resolver: OnceCell::new_with(Some(resolver)),
            ..self
        }
    }

    /// What follows names: the daemon's, or one that asks nobody but DNS.
    pub async fn resolver(&self) -> Result<&Resolver, RpcError> {
        self.resolver
            .get_or_try_init(|| async {
                let config = self.repository.config()?;
                let store = self.store().await?.clone();
                let names = Names::new(store, None, config.names.options(), &Tasks::new());
                let dns = Dns::new(config.dns.settings(&self.fixed), config.network);
                let denylist = self.denylist().await?.clone();
                Ok(Resolver::new(names, dns).denying(denylist))
            })
            .await
    }

    /// Pins that follow names: the daemon's, or what is noted of them.
    pub async fn follows(&self) -> Result<&Follows, RpcError> {
        self.follows
            .get_or_try_init(|| async {
                let exchange = self.content().await?.exchange.clone();
                let resolver = self.resolver().await?.clone();
                Ok(Follows::new(exchange, resolver, None))
            })
            .await
    }

    /// Pins what somebody asked for and tells the network of it. All commands that pin do it here: what a followed name
    /// was pinned for before is kept for itself from now on.
    pub async fn pin<S: BlockSource + Clone + 'static>(
        &self,
        source: S,
        cid: Cid,
        mode: PinMode,
        name: Option<String>,
        on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<(), RpcError> {
        let wish = PinWish::new(cid, mode).named(name);
        self.jobs().await?.pin(source, wish, on_progress).await?;
        self.announce(&cid);
        Ok(())
    }

    /// [`Context::pin`] with all that may be wished, that fetches what is missing of a pin that stands, too.
    pub async fn pin_whole<S: BlockSource + Clone + 'static>(
        &self,
        source: S,
        wish: PinWish,
        on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<(), RpcError> {
        let cid = wish.cid;
        let jobs = self.jobs().await?;
        jobs.pin_whole(source, wish, on_progress).await?;
        self.announce(&cid);
        Ok(())
    }

    /// Pins those of many that reach little and only what is here, at most
    /// [`PINS_AT_ONCE`](cairn_store::pin::PINS_AT_ONCE), in one commit; tells which.
    pub async fn pin_here<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        wishes: Vec<PinWish>,
    ) -> Result<Vec<bool>, RpcError> {
        let roots: Vec<Cid> = wishes.iter().map(|wish| wish.cid).collect();
        let made = self.jobs().await?.pin_here(source, wishes).await?;
        for (root, _) in roots.iter().zip(&made).filter(|(_, made)| **made) {
            self.announce(root);
        }
        Ok(made)
    }

    /// Pins that are made in the background: the daemon's, or those that wait for one.
    pub async fn jobs(&self) -> Result<&PinJobs, RpcError> {
        self.jobs
            .get_or_try_init(|| async {
                let follows = self.follows().await?.clone();
                Ok(PinJobs::new(follows, PINS_FETCHED_AT_ONCE))
            })
            .await
    }

    /// The same, with a daemon's jobs.
    #[must_use]
    pub fn with_jobs(self, jobs: PinJobs) -> Self {
        Self {
            jobs: OnceCell::new_with(Some(jobs)),
            ..self
        }
    }

    /// Names of keys.
    pub async fn names(&self) -> Result<&Names, RpcError> {
        Ok(self.resolver().await?.names())
    }

    /// The same, with a daemon's pins that follow names.
    #[must_use]
    pub fn with_follows(self, follows: Follows) -> Self {
        Self {
            follows: OnceCell::new_with(Some(follows)),
            ..self
        }
    }

    /// What asks the daemon to end, if this is one.
    pub const fn stop(&self) -> Option<&CancellationToken> {
        self.stop.as_ref()
    }

    /// The blocks; opens the store if that was not done yet.
    pub async fn content(&self) -> Result<&Content, RpcError> {
        self.content
            .get_or_try_init(|| async {
                let config = self.repository.config()?;
                let settings = config.storage.clone();
                let repository = self.repository.clone();
                let opened = tokio::task::spawn_blocking(move || {
                    repository.open_store(&config, &mut tell_opening())
                });
                let store = opened.await.map_err(|_| broke("opening the store"))??;
                let denylist = self.denylist().await?.clone();
                Ok(Content {
                    exchange: Exchange::offline(store.clone()).denying(denylist),
                    store,
                    settings,
                })
            })
            .await
    }

    /// The file tree.
    pub async fn files(&self) -> Result<&Files, RpcError> {
        self.files
            .get_or_try_init(|| async {
                let store = self.store().await?.clone();
                Ok(Files::new(store, Profile::v1_2025())?)
            })
            .await
    }

    /// Writes what of the file tree waits to be flushed.
    pub async fn flush_files(&self) -> Result<(), RpcError> {
        match self.files.get() {
            Some(files) if !self.store().await?.is_read_only() => {
                Ok(files.flush_all().await.map(drop)?)
            }
            _ => Ok(()),
        }
    }

    /// The blocks that are here.
    pub async fn store(&self) -> Result<&Store, RpcError> {
        Ok(&self.content().await?.store)
    }

    /// The same for what changes them: a repository that cannot be written says so before any work.
    pub async fn writable_store(&self) -> Result<&Store, RpcError> {
        let store = self.store().await?;
        if store.is_read_only() {
            return Err(PutError::ReadOnly.into());
        }
        Ok(store)
    }

    /// Who we are.
    pub async fn identity(&self) -> Result<&Identity, RpcError> {
        self.identity
            .get_or_try_init(|| async {
                let public = self.repository.public_keys()?.public(OWN)?;
                Ok(Identity {
                    peer_id: public.to_peer_id(),
                    public_key: public.encode_protobuf(),
                })
            })
            .await
    }

    /// Says that no daemon runs, or why none can: there is no repository.
    pub fn no_daemon(&self, otherwise: RpcError) -> RpcError {
        match self.repository.must_exist() {
            Ok(()) => otherwise,
            Err(missing) => missing.into(),
        }
    }

    /// The keys that names are published under; a daemon has had the secret for them since it started.
    pub fn keystore(&self) -> Result<Arc<Keystore>, RpcError> {
        if let Some(keys) = self.keystore.get() {
            return Ok(Arc::clone(keys));
        }
        let keys = Arc::new(self.repository.keystore()?);
        Ok(Arc::clone(self.keystore.get_or_init(|| keys)))
    }

    /// The node, or the error that there is none.
    pub fn node(&self) -> Result<&Online, RpcError> {
        let none = || match &self.stop {
            Some(_) => RpcError::daemon_offline(),
            None => self.no_daemon(RpcError::offline()),
        };
        self.online.as_ref().ok_or_else(none)
    }

    /// Whether a node runs.
    pub const fn is_online(&self) -> bool {
        self.online.is_some()
    }

    /// Tells the network, if there is one, that we have this.
    pub fn announce(&self, cid: &Cid) {
        if let Some(online) = &self.online {
            online.routing.announce(*cid);
        }
    }

    /// Where the node listens, with its name at the end.
    pub async fn listening(&self) -> Vec<Multiaddr> {
        match &self.online {
            Some(online) => online.peers.listening().await,
            None => Vec::new(),
        }
    }

    /// What peers are told of where it is, without its name.
    pub fn told(&self) -> Vec<Multiaddr> {
        match &self.online {
            Some(online) => online.peers.reach().told,
            None => Vec::new(),
        }
    }

    /// Closes the store, if it is open.
    pub async fn close(&self) -> Result<(), RpcError> {
        let flushed = self.flush_files().await;
        match self.content.get() {
            Some(content) => {
                content.store.close().await?;
                flushed
            }
            None => Ok(()),
        }
    }
}

/// A thread of ours panicked.
pub fn broke(what: &str) -> RpcError {
    RpcError::failed(format!("{what} broke down; this is a bug in cairn"))
}

/// Tells on standard error what opening a store does, if it takes long enough to wonder.
pub fn tell_opening() -> impl FnMut(OpenEvent) {
    let mut figure: Option<Progress> = None;
    move |event| match event {
        OpenEvent::Rebuilding { done, total } => {
            let figure = figure.get_or_insert_with(|| {
                let size = output::human_bytes(total);
                output::note(&format!("rebuilding the index from {size} of blocks"));
                Progress::share()
            });
            figure.at_share(done, total);
        }
        OpenEvent::Notice(text) => {
            let note = || output::note(&output::escape_line(&text));
            match &figure {
                Some(figure) => figure.beside(note),
                None => note(),
            }
        }
    }
}
