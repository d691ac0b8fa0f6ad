//! `key`: the keys that names are published under.
//!
//! A private key comes in (`key/import`) and never goes out: `key export` reads the repository itself, as Kubo's, so that whoever
//! may command a daemon over the network cannot take its keys away. Nor are they sealed anew here: that is for who holds the
//! secrets, on the machine.

use super::api::Call;
use super::arguments::base_from_name;
use super::context::broke;
use super::entries::{Content, Entries};
use super::error::RpcError;
use super::reply::Reply;
use super::upload::Upload;
use cairn_node::keystore::{
    self, Form, Key, Keystore, KeystoreError, Kind, Make, Named, OWN, Overwrite, RsaBits,
};
use cairn_node::{PeerId, ipns};
use multibase::Base;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A key, as `gen` and `import` answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct KeyAnswer {
    /// What its owner calls it.
    pub name: String,
    /// The name that it signs for.
    pub id: String,
}

/// Keys, as `ls` and `rm` answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct KeysAnswer {
    /// They.
    pub keys: Vec<KeyAnswer>,
}

/// The answer of `key rename`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RenameAnswer {
    /// Its old name.
    pub was: String,
    /// Its new one.
    pub now: String,
    /// The name that it signs for.
    pub id: String,
    /// Whether another key had the new name, which is gone.
    pub overwrite: bool,
}

/// The answer of `key sign`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SignAnswer {
    /// The key.
    pub key: KeyAnswer,
    /// In multibase.
    pub signature: String,
}

/// The answer of `key verify`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VerifyAnswer {
    /// The key.
    pub key: KeyAnswer,
    /// Whether it signed.
    pub signature_valid: bool,
}

/// How the names of keys are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdText {
    /// As peer IDs are: the multihash in base58.
    Multihash,
    /// As CIDs of keys in a multibase.
    Cid(Base),
}

impl IdText {
    /// From what `--ipns-base` says.
    pub fn named(name: Option<&str>) -> Result<Self, RpcError> {
        match name {
            None | Some("") => Ok(Self::Cid(Base::Base36Lower)),
            Some("b58mh" | "v0") => Ok(Self::Multihash),
            Some(name) => Ok(Self::Cid(base_from_name(name)?)),
        }
    }

    /// A name.
    pub fn text(self, id: &PeerId) -> String {
        let written = match self {
            Self::Multihash => None,
            Self::Cid(base) => ipns::cid(id).and_then(|cid| cid.to_string_of_base(base).ok()),
        };
        written.unwrap_or_else(|| id.to_string())
    }

    fn answer(self, key: &Named) -> KeyAnswer {
        KeyAnswer {
            name: key.name.clone(),
            id: self.text(&key.id),
        }
    }
}

/// How names are to be written: `ipns-base`.
pub fn ids(call: &Call) -> Result<IdText, RpcError> {
    IdText::named(call.arguments.text(&["ipns-base"]))
}

/// Does `work`, which blocks, with the keys.
pub async fn with_keys<T, F>(keys: Arc<Keystore>, work: F) -> Result<T, RpcError>
where
    T: Send + 'static,
    F: FnOnce(&Keystore) -> Result<T, KeystoreError> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(move || work(&keys)).await;
    Ok(done.map_err(|_| broke("working with the keys"))??)
}

/// What key to make.
fn make(kind: Option<&str>, size: Option<i64>) -> Result<Make, RpcError> {
    let kind = kind.filter(|kind| !kind.is_empty()).map(str::to_lowercase);
    // Kubo's for "whatever fits".
    let size = size.filter(|size| *size != -1);
    let fixed = |kind: &str, make| match size {
        None | Some(CURVE_BITS) => Ok(make),
        Some(size) => Err(RpcError::failed(format!(
            "invalid key size {size}: {kind} keys are always {CURVE_BITS} bits"
        ))),
    };
    match kind.as_deref() {
        None | Some("ed25519") => fixed("ed25519", Make::Ed25519),
        Some("secp256k1") => fixed("secp256k1", Make::Secp256k1),
        Some("rsa") => {
            let Some(size) = size else {
                return Ok(Make::Rsa(RsaBits::default()));
            };
            let bits = u32::try_from(size).ok().and_then(RsaBits::new);
            bits.map(Make::Rsa).ok_or_else(|| {
                RpcError::failed(format!(
                    "invalid key size {size}: rsa keys are made with 2048, 3072, 4096 or 8192 bits"
                ))
            })
        }
        Some(other) => Err(RpcError::failed(format!(
            "unrecognized key type: {other:?}; there are ed25519, rsa and secp256k1"
        ))),
    }
}

/// `key gen`.
pub async fn generate(call: Call) -> Result<Reply, RpcError> {
    let ids = ids(&call)?;
    let size = call.arguments.parsed(&["size", "s"], "a number of bits")?;
    let make = make(call.arguments.text(&["type", "t"]), size)?;
    let name = call.arguments.first("name")?.to_owned();
    let keys = call.context.keystore()?;
    let vacant = name.clone();
    with_keys(Arc::clone(&keys), move |keys| {
        keys.vacant(&vacant, "create")
    })
    .await?;
    // Who waits no longer, because a long key takes long, shall not find one later.
    let made = tokio::task::spawn_blocking(move || Key::generate(make)).await;
    let key = made.map_err(|_| broke("making a key"))?;
    let key = key.map_err(KeystoreError::from)?;
    let made = with_keys(keys, move |keys| keys.import(&name, &key)).await?;
    Reply::value(&ids.answer(&made))
}

/// `key ls`. Needs no secret.
pub async fn list(call: Call) -> Result<Reply, RpcError> {
    let ids = ids(&call)?;
    let keys = Arc::new(call.context.repository.public_keys()?);
    let keys = with_keys(keys, Keystore::list).await?;
    Reply::value(&KeysAnswer {
        keys: keys.iter().map(|key| ids.answer(key)).collect(),
    })
}

/// `key rm`: all of them, or none if one is not there.
pub async fn remove(call: Call) -> Result<Reply, RpcError> {
    let ids = ids(&call)?;
    let names = call.arguments.some("name")?;
    let mut wanted: Vec<String> = Vec::new();
    for name in names {
        // One that is named twice goes once.
        if !wanted.iter().any(|known| known == name) {
            wanted.push(name.to_owned());
        }
    }
    let keys = Arc::new(call.context.repository.public_keys()?);
    let removed = with_keys(keys, move |keys| {
        if wanted.iter().any(|name| name == OWN) {
            return Err(KeystoreError::Own { what: "remove" });
        }
        for name in &wanted {
            keys.named(name)?;
        }
        wanted.iter().map(|name| keys.remove(name)).collect()
    });
    let removed: Vec<Named> = removed.await?;
    Reply::value(&KeysAnswer {
        keys: removed.iter().map(|key| ids.answer(key)).collect(),
    })
}

/// `key rename`.
pub async fn rename(call: Call) -> Result<Reply, RpcError> {
    let ids = ids(&call)?;
    let overwrite = match call.arguments.flag(&["force", "f"])? {
        true => Overwrite::Force,
        false => Overwrite::Never,
    };
    let [was, now] = call.arguments.some("name")?[..] else {
        return Err(RpcError::wrong("argument \"newName\" is required"));
    };
    let (was, now) = (was.to_owned(), now.to_owned());
    let keys = Arc::new(call.context.repository.public_keys()?);
    let (from, to) = (was.clone(), now.clone());
    let renamed = with_keys(keys, move |keys| keys.rename(&from, &to, overwrite)).await?;
    Reply::value(&RenameAnswer {
        was,
        now,
        id: ids.text(&renamed.key.id),
        overwrite: renamed.replaced,
    })
}

/// `key import`.
pub async fn import(call: Call) -> Result<Reply, RpcError> {
    let ids = ids(&call)?;
    let arguments = &call.arguments;
    let name = arguments.first("name")?.to_owned();
    let any = arguments.flag(&["allow-any-key-type"])?;
    let form = match arguments
        .text(&["format", "f"])
        .filter(|name| !name.is_empty())
    {
        None => None,
        Some(name) => Some(Form::named(name).ok_or_else(|| unknown_form(name))?),
    };
    let keys = call.context.keystore()?;
    let vacant = name.clone();
    with_keys(Arc::clone(&keys), move |keys| {
        keys.vacant(&vacant, "import")
    })
    .await?;
    let pem = arguments.text(&["pem"]);
    let key = match (pem, &call.upload) {
        // The JavaScript client sends a text and no file.
        (Some(text), Upload::None) => {
            if arguments
                .text(&["password"])
                .is_some_and(|word| !word.is_empty())
            {
                return Err(RpcError::failed(
                    "keys with a password are not read; `openssl pkey -in <file> -out <new file>` writes them in the clear",
                ));
            }
            Key::read(text.as_bytes(), Form::Pem)
        }
        _ => {
            let form = form.unwrap_or_default();
            let read = move |entries: &mut dyn Entries| {
                let bytes = file(entries, KEY_FILE_BYTES_MAX)?;
                Ok(Key::read(&bytes, form))
            };
            call.upload.on_thread(read).await?
        }
    };
    let key = key.map_err(KeystoreError::from)?;
    if key.kind() == Kind::Ecdsa && !any {
        return Err(KeystoreError::Unusual(key.kind()).into());
    }
    let named = with_keys(keys, move |keys| keys.import(&name, &key)).await?;
    Reply::value(&ids.answer(&named))
}

/// There is no such form.
pub fn unknown_form(name: &str) -> RpcError {
    RpcError::failed(format!(
        "unrecognized format {name:?}; there are {} and {}",
        Form::Protobuf.name(),
        Form::Pem.name()
    ))
}

/// `key sign`.
pub async fn sign(call: Call) -> Result<Reply, RpcError> {
    let ids = ids(&call)?;
    let name = key_name(&call);
    let keys = call.context.keystore()?;
    let data = call.upload.on_thread(signed).await?;
    let signing = move |keys: &Keystore| {
        let key = keys.load(&name)?;
        let signature = key.sign(&data)?;
        Ok((name, key.id(), signature))
    };
    let (name, id, signature) = with_keys(keys, signing).await?;
    Reply::value(&SignAnswer {
        key: KeyAnswer {
            name,
            id: ids.text(&id),
        },
        signature: multibase::encode(Base::Base64Url, signature),
    })
}

/// `key verify`: with a key of ours, or with a name whose key is in it.
pub async fn verify(call: Call) -> Result<Reply, RpcError> {
    let ids = ids(&call)?;
    let name = key_name(&call);
    let signature = call.arguments.text(&["signature", "s"]).unwrap_or_default();
    let (_, signature) = multibase::decode(signature)
        .map_err(|error| RpcError::wrong(format!("the signature is no multibase text: {error}")))?;
    let keys = Arc::new(call.context.repository.public_keys()?);
    let data = call.upload.on_thread(signed).await?;
    let verifying = move |keys: &Keystore| {
        let (name, public) = match keys.public(&name) {
            Ok(public) => (name, Some(public)),
            Err(error) => match ipns::name(&name) {
                Some(id) => (String::new(), keystore::public_key_in(&id)),
                None => return Err(error),
            },
        };
        Ok((name, public, data))
    };
    let (name, public, data) = with_keys(keys, verifying).await?;
    let public = public.ok_or_else(|| {
        RpcError::failed("the public key is not in that name, which is a hash; name a key of this node, or a name that begins with k51")
    })?;
    Reply::value(&VerifyAnswer {
        key: KeyAnswer {
            name,
            id: ids.text(&public.to_peer_id()),
        },
        signature_valid: public.verify(&data, &signature),
    })
}

/// Which key signs; the node's own without any.
fn key_name(call: &Call) -> String {
    let name = call.arguments.text(&["key", "k"]).unwrap_or_default();
    if name.is_empty() { OWN } else { name }.to_owned()
}

/// What is signed: never a message of some protocol, because of what stands before it.
fn signed(entries: &mut dyn Entries) -> Result<Vec<u8>, RpcError> {
    let data = file(entries, SIGNED_BYTES_MAX)?;
    Ok([SIGNED_AS, &data].concat())
}

/// The one file of a request.
fn file(entries: &mut dyn Entries, most: u64) -> Result<Zeroizing<Vec<u8>>, RpcError> {
    let entry = entries.next()?.map(|entry| entry.content);
    let Some(Content::File(mut content)) = entry else {
        return Err(RpcError::failed("expected a file"));
    };
    let mut bytes = Zeroizing::new(Vec::new());
    (&mut content).take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(RpcError::failed(format!(
            "the file has more than {most} bytes"
        )));
    }
    Ok(bytes)
}

/// How many bits the keys on curves have.
const CURVE_BITS: i64 = 256;
/// What is signed begins with, as Kubo has it.
const SIGNED_AS: &[u8] = b"libp2p-key signed message:";
/// Most bytes of a file with a key; the keystore has its own limit below.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
/// Most bytes that are signed at once: they are in memory.
const SIGNED_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_kubos_shape() {
        let key = KeyAnswer {
            name: "a".to_owned(),
            id: "k51".to_owned(),
        };
        assert_eq!(
            serde_json::to_string(&key).unwrap(),
            r#"{"Name":"a","Id":"k51"}"#
        );
        let keys = KeysAnswer {
            keys: vec![key.clone()],
        };
        assert_eq!(
            serde_json::to_string(&keys).unwrap(),
            r#"{"Keys":[{"Name":"a","Id":"k51"}]}"#
        );
        let renamed = RenameAnswer {
            was: "b".to_owned(),
            now: "a".to_owned(),
            id: "k51".to_owned(),
            overwrite: true,
        };
        assert_eq!(
            serde_json::to_string(&renamed).unwrap(),
            r#"{"Was":"b","Now":"a","Id":"k51","Overwrite":true}"#
        );
        let verified = VerifyAnswer {
            key,
            signature_valid: true,
        };
        assert_eq!(
            serde_json::to_string(&verified).unwrap(),
            r#"{"Key":{"Name":"a","Id":"k51"},"SignatureValid":true}"#
        );
    }

    #[test]
    fn names_are_written_in_the_base_that_was_asked_for() {
        let id: PeerId = "12D3KooWDDQshskDca84XTC2j2tX7v1eU3SyMfCDbr6u42SWoDsY"
            .parse()
            .unwrap();
        let text = |name| IdText::named(name).unwrap().text(&id);
        assert!(text(None).starts_with("k51"), "{}", text(None));
        assert_eq!(text(Some("base36")), text(None));
        assert_eq!(text(Some("k")), text(None));
        assert_eq!(text(Some("b58mh")), id.to_string());
        assert_eq!(text(Some("v0")), id.to_string());
        assert!(
            text(Some("base32")).starts_with("bafzaajaiaejca"),
            "{}",
            text(Some("b"))
        );
        for name in [
            None,
            Some("b58mh"),
            Some("base32"),
            Some("base58btc"),
            Some("base64url"),
        ] {
            assert_eq!(ipns::name(&text(name)), Some(id), "{name:?}");
        }
        assert!(IdText::named(Some("base99")).is_err());
    }

    #[test]
    fn kinds_and_sizes_are_kubos() {
        for (kind, size, wanted) in [
            (None, None, Make::Ed25519),
            (Some(""), None, Make::Ed25519),
            (Some("Ed25519"), Some(256), Make::Ed25519),
            (Some("ed25519"), Some(-1), Make::Ed25519),
            (Some("secp256k1"), None, Make::Secp256k1),
            (Some("rsa"), None, Make::Rsa(RsaBits::B2048)),
            (Some("RSA"), Some(4096), Make::Rsa(RsaBits::B4096)),
            (Some("rsa"), Some(8192), Make::Rsa(RsaBits::B8192)),
        ] {
            assert_eq!(make(kind, size).unwrap(), wanted, "{kind:?} {size:?}");
        }
        for (kind, size, words) in [
            (Some("ecdsa"), None, "unrecognized key type"),
            (Some("ed25519"), Some(2048), "always 256 bits"),
            (Some("rsa"), Some(1024), "2048, 3072, 4096 or 8192"),
            (Some("rsa"), Some(16384), "2048, 3072, 4096 or 8192"),
            (Some("rsa"), Some(0), "2048, 3072, 4096 or 8192"),
        ] {
            let refused = make(kind, size).unwrap_err();
            assert!(refused.message().contains(words), "{}", refused.message());
        }
    }
}
