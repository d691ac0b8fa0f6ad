//! The `[keystore]` section: where the secret lies that keys are sealed with.

use cairn_node::keystore::{Secret, SecretError};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Where the secret lies. The secret itself never stands in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeystoreSection {
    /// A file with at least 32 random bytes; empty for none.
    pub key_file: String,
    /// A file with a passphrase; empty for none.
    pub passphrase_file: String,
}

/// What keys are sealed with, and what else opens them.
#[derive(Debug, Default)]
pub struct Secrets {
    /// What seals.
    pub secret: Option<Secret>,
    /// What opens what it has sealed before.
    pub old: Option<Secret>,
}

impl KeystoreSection {
    /// Reads the secrets; `given` is a passphrase from the environment, which goes before the one in a file. Where
    /// there is a key file too, that seals, and the passphrase opens what it sealed before.
    pub fn secrets(
        &self,
        repository: &Path,
        given: Option<Secret>,
    ) -> Result<Secrets, SecretError> {
        let passphrase = match (given, self.passphrase_file.as_str()) {
            (Some(given), _) => Some(given),
            (None, "") => None,
            (None, path) => Some(Secret::from_passphrase_file(&repository.join(path))?),
        };
        Ok(match self.key_file.as_str() {
            "" => Secrets {
                secret: passphrase,
                old: None,
            },
            path => Secrets {
                secret: Some(Secret::from_key_file(&repository.join(path))?),
                old: passphrase,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_store::durable::{self, Access};

    fn passphrase(words: &str) -> Option<Secret> {
        Secret::passphrase(words.as_bytes().to_vec(), "the test").ok()
    }

    #[test]
    fn a_key_file_seals_before_a_passphrase_and_the_environment_goes_before_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            durable::write(&folder.path().join(name), bytes, Access::Owner).unwrap();
        };
        write("key", &[7; 32]);
        write("words", b"from a file\n");
        let key = Secret::from_key_file(&folder.path().join("key")).ok();
        let section = |key_file: &str, passphrase_file: &str| KeystoreSection {
            key_file: key_file.to_owned(),
            passphrase_file: passphrase_file.to_owned(),
        };
        let (given, file) = (passphrase("given"), passphrase("from a file"));
        for (section, given, secret, old) in [
            (section("", ""), None, None, None),
            (section("", ""), given.clone(), given.clone(), None),
            (section("", "words"), None, file.clone(), None),
            (section("", "words"), given.clone(), given.clone(), None),
            (section("key", ""), None, key.clone(), None),
            (section("key", "words"), None, key.clone(), file),
            (section("key", "words"), given.clone(), key, given),
        ] {
            let secrets = section.secrets(folder.path(), given).unwrap();
            assert!(
                secrets.secret == secret && secrets.old == old,
                "{section:?}"
            );
        }
        let missing = section("none", "")
            .secrets(folder.path(), None)
            .unwrap_err();
        assert!(missing.to_string().contains("cannot be read"), "{missing}");
    }
}
