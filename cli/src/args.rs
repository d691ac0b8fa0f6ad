//! The command tree. What each command does is in [`crate::commands`]; what it means, in
//! [`crate::rpc`].
//!
//! The tree and what holds for all of it stand here; what each command takes stands with its like.

mod content;
mod dag;
mod files;
mod filestore;
mod key;
mod name;
mod network;
mod program;
mod repo;
mod sync;

pub use content::{AddArgs, CatArgs, DnsArgs, GetArgs, LsArgs, RefsArgs, RefsCommand, ResolveArgs};
pub use dag::{BlockCommand, BlockPutArgs, CidCommand, DagCommand, DagImportArgs, DagPutArgs};
pub use files::{FilesArgs, FilesCommand, FilesStatArgs, FilesWriteArgs, NamingArgs};
pub use filestore::FilestoreCommand;
pub use key::{BaseArgs, KeyCommand};
pub use name::{NameCommand, NameInspectArgs, NamePublishArgs, NamePubsubCommand, NameResolveArgs};
pub use network::{
    BitswapCommand, BitswapStatArgs, DenylistCommand, DiagCommand, IdArgs, PingArgs,
    ProvideCommand, RoutingCommand, StatsCommand, SwarmAddrsArgs, SwarmAddrsCommand, SwarmCommand,
    SwarmFiltersArgs, SwarmFiltersCommand, SwarmPeeringCommand,
};
pub use program::{
    BootstrapArgs, BootstrapCommand, ConfigArgs, ConfigCommand, DaemonArgs, InitArgs, LogCommand,
    ServeArgs, VersionArgs,
};
pub use repo::{ImportKuboArgs, PinCommand, RepoCommand, RepoStatArgs};
pub use sync::SyncArgs;

use crate::config::duration::Interval;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// A content-addressed storage node that speaks IPFS.
#[derive(Debug, Parser)]
#[command(
    name = "cairn",
    version,
    about,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Arguments {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    /// Reads a command line. Kubo's scripts write every flag as `--flag=true` or `--flag=false`
    /// where they like, so that is understood too.
    pub fn read<T: Into<OsString> + Clone>(
        line: impl IntoIterator<Item = T> + Clone,
    ) -> Result<Self, clap::Error> {
        match Self::try_parse_from(line.clone()) {
            Err(error) if error.kind() == ErrorKind::TooManyValues => {
                let matches = with_values(Self::command()).try_get_matches_from(line)?;
                Self::from_arg_matches(&matches)
            }
            read => read,
        }
    }
}

/// The same commands, whose flags may have a value.
fn with_values(command: clap::Command) -> clap::Command {
    command
        .mut_args(|argument| match argument.get_action() {
            ArgAction::SetTrue => argument
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .value_parser(clap::value_parser!(bool))
                .default_value("false")
                .default_missing_value("true"),
            _ => argument,
        })
        .mut_subcommands(with_values)
}

/// What holds for every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The repository [default: $CAIRN_PATH, else ~/.cairn].
    #[arg(long, global = true, value_name = "PATH")]
    pub repo_dir: Option<PathBuf>,
    /// Ask the daemon at this address, as /ip4/127.0.0.1/tcp/5001.
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub api: Option<String>,
    /// Credentials for the RPC, as `bearer:TOKEN`.
    #[arg(long, global = true, value_name = "CREDENTIALS")]
    pub api_auth: Option<String>,
    /// Fetch nothing from peers and ask no name server; for `daemon`, start without a network.
    #[arg(long, global = true)]
    pub offline: bool,
    /// Give up after this time, as 30s or 5m.
    #[arg(long, global = true, value_name = "TIME")]
    pub timeout: Option<Interval>,
    /// Answer with the RPC's JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// How to answer.
    #[arg(
        long,
        visible_alias = "encoding",
        global = true,
        value_enum,
        value_name = "FORMAT"
    )]
    pub enc: Option<Encoding>,
    /// Multibase to write CIDs in, as base32 or base36.
    #[arg(long, global = true, value_name = "BASE")]
    pub cid_base: Option<String>,
    /// Write CIDv0 as CIDv1 where a base was chosen.
    #[arg(long, global = true, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub upgrade_cidv0_in_output: Option<bool>,
    /// Kubo's; answers are always streamed.
    #[arg(long, global = true, hide = true)]
    pub stream_channels: bool,
    /// The old name of `--log debug`.
    #[arg(short = 'D', long, global = true, hide = true)]
    pub debug: bool,
    /// What to log to standard error: a level or directives [default: $CAIRN_LOG].
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,
}

impl Global {
    /// Whether the answer is wanted as the RPC gives it.
    pub fn wants_json(&self) -> bool {
        self.json || self.enc == Some(Encoding::Json)
    }
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    /// For people.
    Text,
    /// The RPC's JSON.
    Json,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Make a repository.
    Init(InitArgs),
    /// Run the node.
    Daemon(DaemonArgs),
    /// Add paths and serve them: the shortest way to a running node.
    Serve(ServeArgs),
    /// Stop the daemon.
    Shutdown,
    /// Add files and folders.
    Add(Box<AddArgs>),
    /// Print the bytes of files.
    Cat(CatArgs),
    /// Write a file or a tree to the disk.
    Get(GetArgs),
    /// List what is in folders.
    Ls(LsArgs),
    /// List references between blocks.
    Refs(RefsArgs),
    /// Follow a path to the content it names.
    Resolve(ResolveArgs),
    /// Tell where a domain's DNSLink leads.
    Dns(DnsArgs),
    /// Single blocks, as they are.
    #[command(subcommand)]
    Block(BlockCommand),
    /// Structured blocks, and CARs.
    #[command(subcommand)]
    Dag(DagCommand),
    /// Files and folders that are changed by path (MFS).
    Files(FilesArgs),
    /// Pin content, so that it is kept, and unpin it.
    #[command(subcommand)]
    Pin(PinCommand),
    /// Tell where a block is, or how it is looked for, as it happens.
    Explain {
        /// A CID, or a path whose blocks are explained one after the other.
        path: String,
    },
    /// Print who this node is.
    Id(IdArgs),
    /// Keep a folder and a path of the file tree the same, in one direction.
    Sync(Box<SyncArgs>),
    /// Connections to peers.
    #[command(subcommand)]
    Swarm(SwarmCommand),
    /// Send pings to a peer and time the answers.
    Ping(PingArgs),
    /// What the network is told of.
    #[command(subcommand)]
    Provide(ProvideCommand),
    /// What is not wanted here.
    #[command(subcommand)]
    Denylist(DenylistCommand),
    /// Names that may change what they point at (IPNS).
    #[command(subcommand)]
    Name(NameCommand),
    /// Who has what.
    #[command(subcommand)]
    Routing(RoutingCommand),
    /// Figures of the running node.
    #[command(subcommand)]
    Stats(StatsCommand),
    /// The exchange of blocks.
    #[command(subcommand)]
    Bitswap(BitswapCommand),
    /// Whether the node is well, and how fast what lies below the exchange is.
    #[command(subcommand)]
    Diag(DiagCommand),
    /// Blocks that lie in files of yours (`add --nocopy`).
    #[command(subcommand)]
    Filestore(FilestoreCommand),
    /// Keys that names are published under.
    #[command(subcommand)]
    Key(KeyCommand),
    /// The repository: sizes, garbage, damage.
    #[command(subcommand)]
    Repo(RepoCommand),
    /// Read and change the configuration.
    Config(ConfigArgs),
    /// Whom to ask first.
    Bootstrap(BootstrapArgs),
    /// Print the program's version.
    Version(VersionArgs),
    /// CIDs written another way.
    #[command(subcommand)]
    Cid(CidCommand),
    /// What the daemon logs.
    #[command(subcommand)]
    Log(LogCommand),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::read(line.split(' '))
    }

    #[test]
    fn the_tree_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn kubos_flags_are_understood() {
        for line in [
            "cairn add -r -Q --cid-version=1 --raw-leaves dir",
            "cairn add --raw-leaves=false --pin=false -w a b",
            "cairn add -rq -s size-1024 -t -H --only-hash x",
            "cairn cat -o 5 -l 3 ipfs://bafkqaaa/a",
            "cairn get -o out -a -C -l 9 /ipfs/bafkqaaa",
            "cairn ls -v --size=false --resolve-type=false -s bafkqaaa",
            "cairn refs -r -u --max-depth=-1 bafkqaaa",
            "cairn refs -e bafkqaaa",
            "cairn refs local",
            "cairn resolve -r=false --dht-record-count=4 --dht-timeout 5s /ipns/example.org/a",
            "cairn dns -r=false example.org",
            "cairn files ls -l -U /a",
            "cairn files ls",
            "cairn files stat --with-local --format=<hash> /ipfs/bafkqaaa",
            "cairn files cp -p --force --flush=false /ipfs/bafkqaaa /a/",
            "cairn files -f=false mv /a /b",
            "cairn files rm -r --force /a /b",
            "cairn files mkdir -p --cid-version 1 --hash=blake3 /a",
            "cairn files read -o 5 -n 3 /a",
            "cairn files write -e -t -p -o 3 -n 5 --raw-leaves=false /a file",
            "cairn files flush",
            "cairn files chcid --cid-ver=0 /a",
            "cairn files chmod 0644 /a",
            "cairn files touch --mtime=-5 --mtime-nsecs 3 /a",
            "cairn pin ls --type=recursive -q --names --enc=json",
            "cairn pin add --recursive=false --name x bafkqaaa",
            "cairn pin add --background --priority -3 --expire-in 24h --max-size 2GiB --meta a=b --meta c=d bafkqaaa",
            "cairn pin ls -l --status all --expires-before 24h --meta a=b",
            "cairn pin ls --status queued,failed --status expired",
            "cairn pin cancel bafkqaaa",
            "cairn pin retry --all",
            "cairn pin rm -r bafkqaaa",
            "cairn pin update --unpin=false a b",
            "cairn block put --cid-codec=dag-cbor --mhtype blake3 --pin file",
            "cairn dag import --pin-roots=false --stats a.car",
            "cairn dag stat --progress=false bafkqaaa",
            "cairn block put --mhlen=-1 file",
            "cairn daemon --migrate --enable-gc --init",
            "cairn daemon --migrate=true -D --stream-channels",
            "cairn init -e",
            "cairn bootstrap add --default",
            "cairn swarm addrs local --id",
            "cairn swarm addrs",
            "cairn swarm peers -v --latency --streams --direction --identify",
            "cairn swarm filters",
            "cairn swarm filters add /ip4/10.0.0.0/ipcidr/8 /ip4/11.0.0.0/ipcidr/8",
            "cairn swarm filters rm all",
            "cairn swarm peering add /ip4/127.0.0.1/tcp/1/p2p/x",
            "cairn swarm peering ls",
            "cairn swarm peering rm x y",
            "cairn ping -n 3 /ip4/127.0.0.1/tcp/1/p2p/x",
            "cairn ping --count=3 x",
            "cairn name publish -k self -t 24h --ttl 5m --resolve=false -Q --allow-offline bafkqaaa",
            "cairn name publish --key=self --lifetime 1h --v1compat=false --ipns-base b58mh --sequence 3 /ipns/x",
            "cairn name pubsub state",
            "cairn name pubsub subs --ipns-base b58mh",
            "cairn name pubsub cancel /ipns/x",
            "cairn name resolve",
            "cairn name resolve -n -s -r=false /ipns/x",
            "cairn name inspect --verify x --dump file",
            "cairn name get x",
            "cairn name put -f --allow-offline x file",
            "cairn denylist ls",
            "cairn denylist check /ipns/example.org/a",
            "cairn diag healthy",
            "cairn config network lan",
            "cairn config network",
            "cairn config set fetch.connections 5",
            "cairn config show --json",
            "cairn bootstrap",
            "cairn bootstrap rm all",
            "cairn repo stat -H -s",
            "cairn repo snapshot x",
            "cairn add --nocopy x",
            "cairn filestore ls --file-order",
            "cairn filestore verify --remove-bad-blocks bafkqaaa",
            "cairn filestore dups",
            "cairn --repo-dir /x repo restore --verify --new-identity y",
            "cairn explain /ipfs/bafkqaaa/a",
            "cairn diag perf /ip4/127.0.0.1/tcp/1/p2p/x --upload 64MiB --download=0 --streams 4",
            "cairn cid format -f %P -b base32 -v 1 --mc dag-pb bafkqaaa",
            "cairn version -n",
            "cairn --repo-dir /x --timeout 5s --offline --api /ip4/127.0.0.1/tcp/1 id",
            "cairn id --timeout 5s --api-auth bearer:x",
            "cairn log level all debug",
            "cairn serve a b",
            "cairn sync -cwq --publish photos /photos",
            "cairn sync photos --publish=site --watch",
            "cairn sync --pull --force photos /photos -n",
            "cairn key gen --type=rsa --size=2048 mykey",
            "cairn key gen -t ed25519 -s -1 mykey --ipns-base b58mh",
            "cairn key list -l",
            "cairn key ls -l --ipns-base=base36",
            "cairn key rm -l a b",
            "cairn key rename -f a b",
            "cairn key rename --force=true a b",
            "cairn key export -o file --format=pem-pkcs8-cleartext a",
            "cairn key import -f pem-pkcs8-cleartext a file.pem",
            "cairn key import --allow-any-key-type a -",
            "cairn key sign --key a file",
            "cairn key verify -k a -s uAAAA file",
            "cairn key seal --old-passphrase-file x",
            "cairn key seal --plain --old-key-file x",
            "cairn add -rQ --trickle=false --quiet=true --wrap-with-directory=false a",
            "cairn --offline=true refs --recursive=true -u bafkqaaa",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn a_flag_means_what_its_value_says() {
        let read = parse("cairn add -rQ --trickle=false --hidden=true a").unwrap();
        let Command::Add(add) = read.command else {
            panic!("not add");
        };
        assert!(add.recursive && add.quieter && add.hidden && add.pin);
        assert!(!add.trickle && !add.quiet);
        assert!(parse("cairn add --trickle=perhaps a").is_err());
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "cairn",
            "cairn nonsense",
            "cairn cat",
            "cairn refs",
            "cairn cat -o -1 x",
            "cairn id --timeout soon",
            "cairn id --enc=xml",
            "cairn pin",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
