//! `repo import-kubo`: a Kubo repository on this machine is taken over.
//!
//! Blocks, pins and the file tree first, which take long and may be broken off; then what is quick: keys, the numbers of
//! names that they signed, and what its configuration says. Everything that is not taken is named, and then the command
//! fails at its end, however much it took.

mod settings;

use super::super::api::Call;
use super::super::context::broke;
use super::super::error::RpcError;
use super::super::key::{ids, with_keys};
use super::super::reply::{Reply, Sink};
use super::super::teller::Teller;
use cairn_node::explain::counted;
use cairn_node::keystore::{Key, OWN};
use cairn_node::kubo::{self, KeyFate};
use cairn_node::{PeerId, ipns};
use cairn_store::kubo::{
    Event, FILES_PIN, FilesFate, Imported, PinFate, Progress, Records, Source,
};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

/// A line of `repo import-kubo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct KuboLine {
    /// Something that is good to know.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub msg: String,
    /// Something that was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
    /// A key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KuboKey>,
    /// Something that its configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setting: Option<Setting>,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Figures>,
    /// What it came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Outcome>,
}

/// Something that was not taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Left {
    /// `file`, `pin`, `files` (the file tree), `key`, `name` or `record`.
    pub kind: String,
    /// What: a path, a CID, a name.
    pub what: String,
    /// Why.
    pub why: String,
}

/// A key, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct KuboKey {
    /// What it is called.
    pub name: String,
    /// The name that it signs for.
    pub id: String,
    /// `taken` or `there`.
    pub state: String,
}

/// Something that Kubo's configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Setting {
    /// Kubo's key.
    pub kubo: String,
    /// Ours; empty if there is none.
    pub key: String,
    /// The value, as TOML.
    pub value: String,
    /// `same`, `suggested`, `written`, `refused`, or `none` where it has no counterpart.
    pub state: String,
    /// What is to be known of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Figures {
    /// Blocks that were written.
    pub new: u64,
    /// Blocks that were here already.
    pub there: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// How many there seem to be in all.
    pub total: u64,
    /// Pins that were looked at.
    pub pins: u64,
    /// All of them.
    pub pins_total: u64,
}

/// What an import came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Outcome {
    /// Blocks that were written.
    pub new: u64,
    /// Their bytes.
    pub new_bytes: u64,
    /// Blocks that were here already.
    pub there: u64,
    /// Files that were not taken.
    pub skipped: u64,
    /// Pins that were made.
    pub pins_made: u64,
    /// Pins that were here already.
    pub pins_there: u64,
    /// Pins whose DAG is not whole.
    pub pins_broken: u64,
    /// Whether there may be more pins, or a file tree, in what could not be read of Kubo's database.
    pub records_lost: bool,
    /// What became of the file tree: `taken`, `there`, `none`, `beside` or `broken`; `unknown` if none was found and
    /// something of Kubo's database could not be read.
    pub files: String,
    /// Keys that were taken.
    pub keys_made: u64,
    /// Keys that were here already.
    pub keys_there: u64,
    /// Names whose numbers go on from Kubo's.
    pub names: u64,
    /// The identity that was taken over.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// Whether anything is other here than it was before.
    pub changed: bool,
}

impl Figures {
    fn of(progress: &Progress) -> Self {
        let bytes = progress.new_bytes + progress.there_bytes;
        let total = match (progress.bytes_expected, progress.folders) {
            (Some(expected), _) => expected.max(bytes),
            (None, 0) => 0,
            // Blocks are spread evenly over the folders.
            (None, folders) => {
                let per_folder = u128::from(bytes) / u128::from(folders);
                u64::try_from(per_folder * u128::from(progress.folders_total)).unwrap_or(bytes)
            }
        };
        Self {
            new: progress.new,
            there: progress.there,
            bytes,
            total,
            pins: progress.pins,
            pins_total: progress.pins_total,
        }
    }
}

/// What is done, and what is told of it.
struct Import {
    call: Call,
    source: Arc<Source>,
    records: Records,
    /// The identity, if it is to be taken over.
    identity: Option<Key>,
    result: Outcome,
    /// What was not taken.
    left: u64,
}

/// `repo import-kubo`.
pub async fn import_kubo(call: Call) -> Result<Reply, RpcError> {
    let folder = PathBuf::from(call.arguments.first("dir")?);
    if !folder.is_absolute() {
        return Err(RpcError::wrong(
            "the Kubo repository must be given by an absolute path: the daemon has another working folder",
        ));
    }
    let wants_identity = call.arguments.flag(&["identity"])?;
    if wants_identity && call.context.stop().is_some() {
        return Err(RpcError::failed(
            "a running daemon has its identity; stop it with `cairn shutdown`, then import with --identity",
        ));
    }
    call.context.writable_store().await?;
    // Whether keys can be kept is known before the hours that the blocks may take.
    let keystore = call.context.keystore()?;
    let opened = tokio::task::spawn_blocking(move || {
        let source = Source::open(&folder).map_err(|error| RpcError::failed(error.to_string()))?;
        let identity = wants_identity.then(|| kubo::identity(&source)).transpose();
        let identity = identity.map_err(|error| RpcError::failed(error.to_string()))?;
        let records = source.records();
        Ok::<_, RpcError>((Arc::new(source), identity, records))
    });
    let (source, identity, records) = opened
        .await
        .map_err(|_| broke("reading the repository"))??;
    let mut identity = identity;
    if let Some(key) = identity.take() {
        // And whether this one can take the place of the node's.
        let checked = with_keys(keystore, move |keys| {
            keys.check_replace_own(&key).map(|()| key)
        });
        identity = Some(checked.await?);
    }
    let import = Import {
        call,
        source,
        records,
        identity,
        result: Outcome::default(),
        left: 0,
    };
    Ok(Reply::values(move |out| import.run(out)))
}

impl Import {
    async fn run(mut self, out: Sink) -> Result<(), RpcError> {
        let damage = std::mem::take(&mut self.records.damage);
        let records_lost = !damage.is_empty();
        for why in damage {
            self.leave(&out, "record", String::new(), why).await?;
        }
        self.left += self.records.more_damage;
        self.blocks(records_lost, &out).await?;
        self.keys(&out).await?;
        self.names(&out).await?;
        self.result.changed |= settings::tell(&self.call, self.source.config(), &out).await?;
        let done = &self.result;
        let made = done.new + done.pins_made + done.keys_made + done.names;
        self.result.changed |= made > 0 || matches!(&done.files[..], "taken" | "beside");
        out.value(&KuboLine {
            result: Some(self.result.clone()),
            ..KuboLine::default()
        })
        .await?;
        match self.left {
            0 => Ok(()),
            left => Err(RpcError::failed(format!(
                "{} in the Kubo repository could not be taken over; each is named above, and everything else is here",
                counted(left, "thing", "things")
            ))),
        }
    }

    async fn leave(
        &mut self,
        out: &Sink,
        kind: &str,
        what: String,
        why: String,
    ) -> Result<(), RpcError> {
        self.left += 1;
        out.value(&left(kind, what, why)).await
    }

    async fn blocks(&mut self, records_lost: bool, out: &Sink) -> Result<(), RpcError> {
        let store = self.call.context.writable_store().await?.clone();
        let files = self.call.context.files().await?.clone();
        let cids = self.call.arguments.cids()?;
        let shows_progress = self.call.arguments.flag(&["progress"])?;
        let teller = Teller::new(out.clone(), &self.call.context);
        let tells = teller.clone();
        // What becomes of it does not hang on who listens.
        let importing = store.import_kubo(
            Arc::clone(&self.source),
            self.records.take_pins(),
            Some(files),
            move |event| {
                match event {
                    Event::Progress(progress) if shows_progress => tells.figure(&KuboLine {
                        progress: Some(Figures::of(&progress)),
                        ..KuboLine::default()
                    }),
                    Event::Skipped { path, why } => {
                        tells.fact(&left("file", path.display().to_string(), why));
                    }
                    Event::Pin(pin, PinFate::Broken(missing)) => {
                        tells.fact(&left("pin", cids.text(&pin.cid), missing));
                    }
                    Event::Pin(pin, PinFate::Made) if pin.has_metadata => {
                        tells.fact(&told(format!(
                            "the pin of {} has metadata in Kubo, which is not taken over",
                            cids.text(&pin.cid)
                        )));
                    }
                    Event::Files(root, FilesFate::Broken(missing)) => {
                        tells.fact(&left("files", cids.text(&root), missing));
                    }
                    Event::Files(root, FilesFate::Beside) => tells.fact(&told(format!(
                        "there is a file tree here, which stays; Kubo's is pinned as {FILES_PIN:?}, and \
                         `cairn files cp /ipfs/{} /kubo` has it as a folder",
                        cids.text(&root)
                    ))),
                    _ => {}
                }
                ControlFlow::Continue(())
            },
        );
        let imported = importing.await?;
        teller.result()?;
        self.count(&imported, records_lost);
        Ok(())
    }

    fn count(&mut self, imported: &Imported, records_lost: bool) {
        let progress = &imported.progress;
        let files = match &imported.files {
            Some(FilesFate::Taken) => "taken",
            Some(FilesFate::There) => "there",
            Some(FilesFate::Beside) => "beside",
            Some(FilesFate::Broken(_)) => "broken",
            Some(FilesFate::None) | None if records_lost => "unknown",
            Some(FilesFate::None) | None => "none",
        };
        self.left += progress.skipped + imported.pins_broken + u64::from(files == "broken");
        self.result = Outcome {
            new: progress.new,
            new_bytes: progress.new_bytes,
            there: progress.there,
            skipped: progress.skipped,
            pins_made: imported.pins_made,
            pins_there: imported.pins_there,
            pins_broken: imported.pins_broken,
            records_lost,
            files: files.to_owned(),
            ..Outcome::default()
        };
    }

    async fn keys(&mut self, out: &Sink) -> Result<(), RpcError> {
        let ids = ids(&self.call)?;
        let keystore = self.call.context.keystore()?;
        if let Some(key) = self.identity.take() {
            let id = key.id();
            let aside = with_keys(Arc::clone(&keystore), move |keys| keys.replace_own(&key));
            let msg = match aside.await? {
                Some(aside) => {
                    self.result.changed = true;
                    format!(
                        "this node is {id} from now on, as Kubo was; its own key before is {}",
                        aside.display()
                    )
                }
                None => format!("this node is {id} already, as Kubo was"),
            };
            self.result.identity = id.to_string();
            out.value(&told(msg)).await?;
            out.value(&told(STOP_FOR_GOOD.to_owned())).await?;
        }
        if !kubo::has_keystore(&self.source) {
            let msg = "there is no folder `keystore` in the Kubo repository: if it had keys, they are not here".to_owned();
            out.value(&told(msg)).await?;
        }
        let source = Arc::clone(&self.source);
        let found = with_keys(keystore, move |keys| kubo::take_keys(&source, keys)).await?;
        for key in found {
            let id = key.id.map(|id| ids.text(&id)).unwrap_or_default();
            let state = match key.fate {
                KeyFate::Taken => {
                    self.result.keys_made += 1;
                    "taken"
                }
                KeyFate::There => {
                    self.result.keys_there += 1;
                    "there"
                }
                KeyFate::ThereAs(name) => {
                    self.result.keys_there += 1;
                    out.value(&told(format!(
                        "key {:?} is here already as {name:?}",
                        key.name
                    )))
                    .await?;
                    continue;
                }
                KeyFate::NameTaken => {
                    let why = format!(
                        "another key here has that name, and stays; rename one of them (`cairn key rename`), then \
                         import again (its own is {id})"
                    );
                    self.leave(out, "key", key.name, why).await?;
                    continue;
                }
                KeyFate::Not(why) => {
                    self.leave(out, "key", key.name, why).await?;
                    continue;
                }
            };
            out.value(&KuboLine {
                key: Some(KuboKey {
                    name: key.name,
                    id,
                    state: state.to_owned(),
                }),
                ..KuboLine::default()
            })
            .await?;
        }
        Ok(())
    }

    /// Lets the next record of each name whose key is here be numbered above Kubo's.
    async fn names(&mut self, out: &Sink) -> Result<(), RpcError> {
        let keys = self.call.context.keystore()?;
        let here = with_keys(keys, |keys| keys.list()).await?;
        let names = self.call.context.names().await?.clone();
        for (name, record) in std::mem::take(&mut self.records.names) {
            let Ok(name) = PeerId::from_bytes(&name) else {
                continue;
            };
            let Some(key) = here.iter().find(|key| key.id == name) else {
                let is_own = self.source.config().pointer("/Identity/PeerID");
                if is_own.and_then(|id| id.as_str()) == Some(&name.to_string()[..]) {
                    out.value(&told(format!(
                        "what Kubo published under its own name ({}) is not taken over without --identity",
                        ipns::text(&name)
                    )))
                    .await?;
                }
                continue;
            };
            match names.adopt(&name, &record).await {
                Ok(is_newer) => self.result.names += u64::from(is_newer),
                Err(error) => {
                    let shown = if key.name == OWN { OWN } else { &key.name };
                    let (what, why) = (shown.to_owned(), error.to_string());
                    self.leave(out, "name", what, why).await?;
                }
            }
        }
        Ok(())
    }
}

fn left(kind: &str, what: String, why: String) -> KuboLine {
    KuboLine {
        left: Some(Left {
            kind: kind.to_owned(),
            what,
            why,
        }),
        ..KuboLine::default()
    }
}

fn told(msg: String) -> KuboLine {
    KuboLine {
        msg,
        ..KuboLine::default()
    }
}

const STOP_FOR_GOOD: &str = "the Kubo node must not run again with that identity: two nodes of one name take each other's \
                             connections, and their IPNS records the same numbers";
