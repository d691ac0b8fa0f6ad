//! `pin ls`: what is pinned, itself or through what lies above it.

use super::super::api::{Call, resolve_to_block};
use super::super::error::RpcError;
use super::super::reply::{Reply, Sink};
use super::{below, reached_by};
use cairn_store::dag::walk::Missing;
use cairn_store::pin::{Pin, PinMode};
use cairn_store::{Cid, Store};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::pin::pin;

/// The answer of `pin ls`, when it comes as one value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PinKeys {
    /// How each CID is pinned.
    pub keys: BTreeMap<String, PinType>,
}

/// How a CID is pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PinType {
    /// `recursive`, `direct`, `indirect`, or `indirect through <root>`.
    pub r#type: String,
    /// The pin's name.
    pub name: String,
}

/// The answer of `pin ls`, line by line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PinLine {
    /// The CID.
    pub cid: String,
    /// The pin's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// How it is pinned.
    pub r#type: String,
}

/// Which pins are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Direct,
    Recursive,
    Indirect,
    All,
}

impl Wanted {
    fn read(name: Option<&str>) -> Result<Self, RpcError> {
        match name {
            None | Some("" | "all") => Ok(Self::All),
            Some("direct") => Ok(Self::Direct),
            Some("recursive") => Ok(Self::Recursive),
            Some("indirect") => Ok(Self::Indirect),
            Some(other) => Err(RpcError::failed(format!(
                "invalid type '{other}', must be one of {{direct, indirect, recursive, all}}"
            ))),
        }
    }

    fn takes(self, mode: PinMode) -> bool {
        match self {
            Self::All => true,
            Self::Direct => mode == PinMode::Direct,
            Self::Recursive => mode == PinMode::Recursive,
            Self::Indirect => false,
        }
    }

    fn takes_indirect(self) -> bool {
        matches!(self, Self::All | Self::Indirect)
    }
}

/// `pin ls`.
pub async fn list(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    let wanted = Wanted::read(arguments.text(&["type", "t"]))?;
    let stream = arguments.flag(&["stream", "s"])?;
    let only_name = arguments
        .text(&["name", "n"])
        .filter(|name| !name.is_empty());
    let only_name = only_name.map(str::to_owned);
    let names = arguments.flag(&["names"])? || only_name.is_some();
    let cids = arguments.cids()?;
    let store = call.context.store().await?.clone();
    Ok(Reply::values(move |out| async move {
        let mut teller = Teller {
            out,
            stream,
            keys: PinKeys::default(),
        };
        let shown = |pin: &Pin| PinLine {
            cid: cids.text(&pin.cid),
            name: pin.name.clone().filter(|_| names).unwrap_or_default(),
            r#type: pin.mode.name().to_owned(),
        };
        if call.arguments.all().is_empty() {
            let fits = |pin: &Pin| match &only_name {
                Some(part) => pin.name.as_ref().is_some_and(|name| name.contains(part)),
                None => true,
            };
            let pins = store.pins();
            for pin in pins
                .iter()
                .filter(|pin| wanted.takes(pin.mode) && fits(pin))
            {
                teller.tell(shown(pin)).await?;
            }
            if wanted.takes_indirect() && only_name.is_none() {
                indirect(&call, &pins, &mut teller, &|cid| cids.text(cid)).await?;
            }
        } else {
            asked_for(&call, &store, wanted, &mut teller, &shown).await?;
        }
        teller.finish().await
    }))
}

/// Everything below the recursive pins that is not pinned itself, once.
async fn indirect(
    call: &Call,
    pins: &[Pin],
    teller: &mut Teller,
    text: &(dyn Fn(&Cid) -> String + Sync),
) -> Result<(), RpcError> {
    let local = call.upkeep_session().await?;
    let mut seen: HashSet<_> = pins.iter().map(|pin| *pin.cid.hash()).collect();
    for pin in pins.iter().filter(|pin| pin.mode == PinMode::Recursive) {
        let mut below = pin!(below(&local, pin.cid, Missing::Tell));
        while let Some(cid) = below.try_next().await? {
            if seen.insert(*cid.hash()) {
                teller
                    .tell(PinLine {
                        cid: text(&cid),
                        name: String::new(),
                        r#type: "indirect".to_owned(),
                    })
                    .await?;
            }
        }
    }
    Ok(())
}

/// How each of the arguments is pinned; one that is not is an error.
async fn asked_for(
    call: &Call,
    store: &Store,
    wanted: Wanted,
    teller: &mut Teller,
    shown: &(dyn Fn(&Pin) -> PinLine + Sync),
) -> Result<(), RpcError> {
    let session = call.session().await?;
    let local = call.upkeep_session().await?;
    let cids = call.arguments.cids()?;
    for (text, path) in call
        .arguments
        .all()
        .into_iter()
        .zip(call.paths("arg").await?)
    {
        let cid = resolve_to_block(&session, &path).await?;
        let pinned = store.pin(&cid).filter(|pin| wanted.takes(pin.mode));
        let line = match pinned {
            Some(pin) => Some(PinLine {
                cid: cids.text(&cid),
                ..shown(&pin)
            }),
            None if wanted.takes_indirect() => {
                let reached = reached_by(store, &local, &[cid]).await?;
                let how = reached.get(cid.hash());
                how.filter(|how| how.starts_with("indirect"))
                    .map(|how| PinLine {
                        cid: cids.text(&cid),
                        name: String::new(),
                        r#type: how.clone(),
                    })
            }
            None => None,
        };
        // Tools look for the end of this text.
        let line = line.ok_or_else(|| RpcError::failed(format!("path '{text}' is not pinned")))?;
        teller.tell(line).await?;
    }
    Ok(())
}

/// Line by line, or one value at the end.
struct Teller {
    out: Sink,
    stream: bool,
    keys: PinKeys,
}

impl Teller {
    async fn tell(&mut self, line: PinLine) -> Result<(), RpcError> {
        if self.stream {
            return self.out.value(&line).await;
        }
        let pin = PinType {
            r#type: line.r#type,
            name: line.name,
        };
        self.keys.keys.insert(line.cid, pin);
        Ok(())
    }

    async fn finish(self) -> Result<(), RpcError> {
        if self.stream {
            return Ok(());
        }
        self.out.value(&self.keys).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_kubos_shape() {
        let mut keys = PinKeys::default();
        keys.keys.insert(
            "bafy".to_owned(),
            PinType {
                r#type: "recursive".to_owned(),
                name: String::new(),
            },
        );
        assert_eq!(
            serde_json::to_string(&keys).unwrap(),
            r#"{"Keys":{"bafy":{"Type":"recursive","Name":""}}}"#
        );
        let line = PinLine {
            cid: "bafy".to_owned(),
            name: String::new(),
            r#type: "direct".to_owned(),
        };
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"Cid":"bafy","Type":"direct"}"#
        );
    }

    #[test]
    fn an_unknown_type_is_refused_with_kubos_text() {
        let error = Wanted::read(Some("x")).unwrap_err();
        assert!(
            error
                .message()
                .ends_with("{direct, indirect, recursive, all}")
        );
        assert_eq!(Wanted::read(None).unwrap(), Wanted::All);
    }
}
