//! The asking side of every command: arguments into a question, the answer into text.
//!
//! [`Shell`] knows whom to ask: the daemon if one runs, else the repository itself. With `--json`
//! the answer is printed as it comes; else each command renders it as Kubo prints it.

pub mod add;
pub mod block;
pub mod config;
pub mod content;
pub mod dag;
pub mod denylist;
pub mod diag;
pub mod explain;
pub mod files;
pub mod filestore;
pub mod import_kubo;
pub mod key;
pub mod name;
pub mod network;
pub mod pin;
pub mod program;
pub mod provide;
pub mod repo;
pub mod restore;
pub mod sync;

use crate::args::{Arguments, Command, Global, RepoCommand};
use crate::config::address::ListenAddress;
use crate::config::{ConfigError, Environment};
use crate::exit::Failure;
use crate::logging::Form;
use crate::output::{self, Printer};
use crate::repository::{Listener, Repository};
use crate::rpc::api::Api;
use crate::rpc::client::{Answer, Endpoint, Question, Remote};
use crate::rpc::context::Context;
use crate::rpc::entries::Source;
use crate::rpc::error::KEPT;
use crate::rpc::reply::json_line;
use crate::{daemon, logging};
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a command.
pub async fn run(arguments: Arguments, environment: Environment) -> Result<(), Failure> {
    let Arguments { global, command } = arguments;
    let path = global
        .repo_dir
        .clone()
        .unwrap_or_else(|| environment.repository.clone());
    let repository = Repository::at(path).with_passphrase(environment.passphrase.clone());
    start_logging(&global, &environment, &repository, &command)?;
    match command {
        // These run until they are told to stop, and hear the signals themselves.
        Command::Daemon(arguments) => {
            daemon::run(repository, &global, &arguments, environment).await
        }
        Command::Serve(arguments) => {
            daemon::serve(repository, &global, arguments, environment).await
        }
        command => {
            let kept = what_is_kept(&command);
            let stopped = |failure: Failure| match goes_on(&command) {
                true => Ok(()),
                false => Err(failure),
            };
            let interrupted = stopped(Failure::runtime(format!("interrupted{kept}")));
            let terminated = stopped(Failure::runtime(format!("terminated{kept}")));
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hang_up = signal(SignalKind::hangup())?;
            let work = Box::pin(run_short(command, global, environment, repository));
            tokio::select! {
                result = work => result,
                // Dropping the work lets it remove what it began.
                _ = tokio::signal::ctrl_c() => interrupted,
                _ = terminate.recv() => terminated,
                _ = hang_up.recv() => Err(Failure::runtime("the terminal was closed")),
            }
        }
    }
}

/// Whether a command goes on until somebody ends it, which is no failure then.
fn goes_on(command: &Command) -> bool {
    matches!(command, Command::Sync(arguments) if arguments.watch)
}

/// What becomes of the blocks that a command fetched before it was stopped.
fn what_is_kept(command: &Command) -> String {
    match command {
        Command::Get(_) | Command::Cat(_) | Command::Pin(_) => format!("; {KEPT}"),
        Command::Repo(RepoCommand::ImportKubo(_)) => "; the same command again goes on".to_owned(),
        _ => String::new(),
    }
}

fn start_logging(
    global: &Global,
    environment: &Environment,
    repository: &Repository,
    command: &Command,
) -> Result<(), Failure> {
    let debug = global.debug.then(|| "debug".to_owned());
    let chosen = global
        .log
        .clone()
        .or(debug)
        .or_else(|| environment.log.clone());
    let (level, form) = match (chosen, command) {
        (Some(level), _) => (level, Form::Log),
        (None, Command::Daemon(_) | Command::Serve(_)) if repository.exists() => {
            let level = repository.config()?.log.level;
            return logging::start(&level, Form::Log).map_err(|_| {
                let error = ConfigError::of_level(&level);
                repository.config_error(error).into()
            });
        }
        (None, Command::Daemon(_) | Command::Serve(_)) => ("warn".to_owned(), Form::Log),
        (None, _) => (logging::PLAIN.to_owned(), Form::Plain),
    };
    logging::start(&level, form).map_err(|error| Failure::Usage(error.to_string()))
}

async fn run_short(
    command: Command,
    global: Global,
    environment: Environment,
    repository: Repository,
) -> Result<(), Failure> {
    if let Command::Init(arguments) = &command {
        return program::init(&repository, arguments);
    }
    if let Command::Repo(RepoCommand::Restore {
        snapshot,
        verify,
        new_identity,
    }) = command
    {
        let whose = restore::Whose::of(new_identity);
        return restore::restore(&global, &repository, snapshot, whose, verify).await;
    }
    let mut shell = Shell::new(global, repository, &environment).await?;
    let result = Box::pin(dispatch(&mut shell, command, &environment)).await;
    let closed = shell.close().await;
    result.and(closed)
}

async fn dispatch(
    shell: &mut Shell,
    command: Command,
    environment: &Environment,
) -> Result<(), Failure> {
    match command {
        // Handled before there is a shell.
        Command::Init(_) | Command::Daemon(_) | Command::Serve(_) => Ok(()),
        Command::Shutdown => program::shutdown(shell).await,
        Command::Add(arguments) => add::add(shell, *arguments).await,
        Command::Cat(arguments) => content::cat(shell, arguments).await,
        Command::Get(arguments) => content::get(shell, arguments).await,
        Command::Ls(arguments) => content::ls(shell, arguments).await,
        Command::Refs(arguments) => content::refs(shell, arguments).await,
        Command::Resolve(arguments) => content::resolve(shell, arguments).await,
        Command::Dns(arguments) => content::dns(shell, arguments).await,
        Command::Block(command) => block::block(shell, command).await,
        Command::Dag(command) => dag::dag(shell, command).await,
        Command::Pin(command) => pin::pin(shell, command).await,
        Command::Explain { path } => explain::explain(shell, path).await,
        Command::Files(arguments) => files::files(shell, arguments).await,
        Command::Filestore(command) => filestore::filestore(shell, command).await,
        Command::Id(arguments) => network::id(shell, arguments).await,
        Command::Sync(arguments) => sync::sync(shell, *arguments).await,
        Command::Swarm(command) => network::swarm(shell, command).await,
        Command::Ping(arguments) => network::ping(shell, arguments).await,
        Command::Provide(command) => provide::provide(shell, command).await,
        Command::Denylist(command) => denylist::denylist(shell, command).await,
        Command::Name(command) => name::name(shell, command).await,
        Command::Routing(command) => network::routing(shell, command).await,
        Command::Stats(command) => network::stats(shell, command).await,
        Command::Bitswap(command) => network::bitswap(shell, command).await,
        Command::Diag(command) => diag::diag(shell, command).await,
        Command::Key(command) => key::key(shell, command).await,
        Command::Repo(command) => repo::repo(shell, command).await,
        Command::Config(arguments) => config::config(shell, arguments, environment).await,
        Command::Bootstrap(arguments) => config::bootstrap(shell, arguments).await,
        Command::Version(arguments) => program::version(shell, arguments).await,
        Command::Cid(command) => program::cid(shell, command).await,
        Command::Log(command) => program::log(shell, command).await,
    }
}

/// What a command works with: whom to ask, how to print.
#[derive(Debug)]
pub struct Shell {
    /// What holds for every command.
    pub global: Global,
    /// The repository.
    pub repository: Repository,
    /// Standard output.
    pub printer: Printer,
    endpoint: Endpoint,
}

impl Shell {
    /// Finds out whom to ask.
    async fn new(
        global: Global,
        repository: Repository,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let endpoint = endpoint(&global, &repository, environment).await?;
        Ok(Self::over(endpoint, global, repository))
    }

    /// A shell that asks `endpoint`.
    pub fn over(endpoint: Endpoint, global: Global, repository: Repository) -> Self {
        Self {
            global,
            repository,
            printer: Printer::default(),
            endpoint,
        }
    }

    /// A question with what holds for every command.
    pub fn question(&self, command: &str) -> Question {
        let global = &self.global;
        Question::new(command)
            .maybe("offline", global.offline.then_some(true))
            .maybe("timeout", global.timeout)
            .maybe("cid-base", global.cid_base.as_ref())
            .maybe("upgrade-cidv0-in-output", global.upgrade_cidv0_in_output)
    }

    /// Asks.
    pub async fn ask(&self, question: Question) -> Result<Answer, Failure> {
        Ok(self.endpoint.ask(question).await?)
    }

    /// Looks again where the daemon of the repository listens, which another one may do elsewhere.
    pub fn find_again(&mut self) -> Result<(), Failure> {
        let is_named = self.global.api.is_some();
        let listener = self.repository.listener(Listener::Api);
        if let (Endpoint::There(_), false, Some(address)) = (&self.endpoint, is_named, listener) {
            let credentials = credentials(&self.global, &self.repository, address);
            let remote = Remote::new(address.0, credentials.as_deref())?;
            let remote = remote.run_by(self.repository.holder());
            self.endpoint = Endpoint::There(Box::new(remote));
        }
        Ok(())
    }

    /// Whether a daemon answers.
    pub const fn is_remote(&self) -> bool {
        matches!(self.endpoint, Endpoint::There(_))
    }

    /// Prints an answer as it comes.
    pub async fn print_raw(&mut self, question: Question) -> Result<(), Failure> {
        let mut answer = self.ask(question).await?;
        while let Some(piece) = answer.piece().await? {
            self.printer.bytes(&piece)?;
            self.printer.flush()?;
        }
        Ok(())
    }

    /// Prints each value of an answer as `render` writes it, or with `--json` as it comes.
    pub async fn print_each<T, F>(&mut self, question: Question, render: F) -> Result<(), Failure>
    where
        T: DeserializeOwned,
        F: FnMut(T, &mut Printer) -> Result<(), Failure>,
    {
        if self.global.wants_json() {
            return self.print_raw(question).await;
        }
        self.render_each(question, render).await
    }

    /// The same where values may tell of failures: true if some did.
    pub async fn print_tested<T, F>(
        &mut self,
        question: Question,
        mut is_failure: impl FnMut(&T) -> bool,
        render: F,
    ) -> Result<bool, Failure>
    where
        T: DeserializeOwned,
        F: FnMut(T, &mut Printer) -> Result<(), Failure>,
    {
        let mut failed = false;
        let look = |value: &T| failed |= is_failure(value);
        self.print_seen(question, look, render).await?;
        Ok(failed)
    }

    /// The same where somebody looks at each value, however it is printed.
    pub async fn print_seen<T, F>(
        &mut self,
        question: Question,
        mut look: impl FnMut(&T),
        mut render: F,
    ) -> Result<(), Failure>
    where
        T: DeserializeOwned,
        F: FnMut(T, &mut Printer) -> Result<(), Failure>,
    {
        if !self.global.wants_json() {
            let seen = |value: T, printer: &mut Printer| {
                look(&value);
                render(value, printer)
            };
            return self.render_each(question, seen).await;
        }
        self.render_each(question, |value: serde_json::Value, printer| {
            printer.bytes(&json_line(&value)?)?;
            if let Ok(value) = serde_json::from_value(value) {
                look(&value);
            }
            Ok(())
        })
        .await
    }

    async fn render_each<T, F>(&mut self, question: Question, mut render: F) -> Result<(), Failure>
    where
        T: DeserializeOwned,
        F: FnMut(T, &mut Printer) -> Result<(), Failure>,
    {
        let mut answer = self.ask(question).await?;
        loop {
            let values = match answer.values().await {
                Ok(values) => values,
                Err(error) => {
                    self.printer.flush()?;
                    return Err(error.into());
                }
            };
            if values.is_empty() {
                return Ok(());
            }
            for value in values {
                render(value, &mut self.printer)?;
            }
            self.printer.flush()?;
        }
    }

    /// Whether progress is wanted: as chosen, or if somebody watches.
    pub fn wants_progress(&self, chosen: Option<bool>) -> bool {
        !self.global.wants_json() && chosen.unwrap_or_else(output::is_watched)
    }

    async fn close(&mut self) -> Result<(), Failure> {
        self.printer.flush()?;
        if let Endpoint::Here(api) = &self.endpoint {
            api.context().close().await?;
        }
        Ok(())
    }
}

/// The daemon if one is named or runs, else the repository itself.
async fn endpoint(
    global: &Global,
    repository: &Repository,
    environment: &Environment,
) -> Result<Endpoint, Failure> {
    if let Some(address) = &global.api {
        let parsed: ListenAddress = address
            .parse()
            .map_err(|_| Failure::Usage(format!(
                "--api: {address:?} is no address of a daemon's RPC; write it like /ip4/127.0.0.1/tcp/5001"
            )))?;
        let credentials = credentials(global, repository, parsed);
        let remote = Remote::new(parsed.0, credentials.as_deref())?;
        return Ok(Endpoint::There(Box::new(remote)));
    }
    if let Some(address) = repository.listener(Listener::Api) {
        let credentials = credentials(global, repository, address);
        let remote = Remote::new(address.0, credentials.as_deref())?;
        // It may be about to stop.
        if !remote.is_gone().await {
            let remote = remote.run_by(repository.holder());
            return Ok(Endpoint::There(Box::new(remote)));
        }
    }
    let context = Context::offline(repository.clone())
        .with_fixed(environment.fixed.clone())
        .with_system_denylists(environment.denylists.clone());
    Ok(Endpoint::Here(Api::new(Arc::new(context))))
}

/// What was given; else the repository's own token, but only for its own daemon.
fn credentials(global: &Global, repository: &Repository, address: ListenAddress) -> Option<String> {
    if global.api_auth.is_some() {
        return global.api_auth.clone();
    }
    if repository.listener(Listener::Api) != Some(address) {
        return None;
    }
    let token = repository.config().ok()?.rpc.token;
    (!token.is_empty()).then(|| format!("bearer:{token}"))
}

/// Paths that were named; standard input without any, or as `-`.
pub fn sources(paths: Vec<PathBuf>, stdin_name: Option<&str>) -> Vec<Source> {
    let stdin = || Source::Stdin(stdin_name.map(str::to_owned));
    if paths.is_empty() {
        return vec![stdin()];
    }
    paths
        .into_iter()
        .map(|path| {
            if path.as_os_str() == "-" {
                stdin()
            } else {
                Source::Path(path)
            }
        })
        .collect()
}
