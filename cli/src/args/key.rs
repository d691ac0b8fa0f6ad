//! Keys that names are published under.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Below `key`.
#[derive(Debug, Clone, Subcommand)]
pub enum KeyCommand {
    /// Make a key.
    Gen {
        /// Name of the key.
        name: String,
        /// ed25519, rsa or secp256k1 [default: ed25519].
        #[arg(short = 't', long = "type", value_name = "TYPE")]
        kind: Option<String>,
        /// Bits of an RSA key: 2048, 3072, 4096 or 8192 [default: 2048].
        #[arg(short, long, value_name = "BITS", allow_hyphen_values = true)]
        size: Option<i64>,
        /// How IDs are written.
        #[command(flatten)]
        ids: BaseArgs,
    },
    /// List the keys.
    #[command(visible_alias = "list")]
    Ls {
        /// With their IDs.
        #[arg(short)]
        long: bool,
        /// How IDs are written.
        #[command(flatten)]
        ids: BaseArgs,
    },
    /// Remove keys for good.
    Rm {
        /// Names of keys.
        #[arg(required = true)]
        names: Vec<String>,
        /// Print their IDs.
        #[arg(short)]
        long: bool,
        /// How IDs are written.
        #[command(flatten)]
        ids: BaseArgs,
    },
    /// Give a key another name.
    Rename {
        /// Its name.
        name: String,
        /// Its new name.
        new_name: String,
        /// Even if a key has that name, which is gone then.
        #[arg(short, long)]
        force: bool,
        /// How IDs are written.
        #[command(flatten)]
        ids: BaseArgs,
    },
    /// Write a key to a file, in the clear.
    Export {
        /// Name of the key.
        name: String,
        /// Where to [default: NAME.key or NAME.pem].
        #[arg(short, long, value_name = "PATH")]
        output: Option<PathBuf>,
        /// libp2p-protobuf-cleartext or pem-pkcs8-cleartext [default: libp2p-protobuf-cleartext].
        #[arg(short, long, value_name = "FORMAT")]
        format: Option<String>,
    },
    /// Take in a key from a file.
    Import {
        /// Name of the key.
        name: String,
        /// The file, or `-`.
        file: PathBuf,
        /// libp2p-protobuf-cleartext or pem-pkcs8-cleartext [default: libp2p-protobuf-cleartext].
        #[arg(short, long, value_name = "FORMAT")]
        format: Option<String>,
        /// Kinds too whose names not every program resolves.
        #[arg(long)]
        allow_any_key_type: bool,
        /// How IDs are written.
        #[command(flatten)]
        ids: BaseArgs,
    },
    /// Sign a file, to prove that a key is yours.
    Sign {
        /// The file; standard input without any.
        file: Option<PathBuf>,
        /// Name of the key [default: self].
        #[arg(short, long, value_name = "NAME")]
        key: Option<String>,
        /// How IDs are written.
        #[command(flatten)]
        ids: BaseArgs,
    },
    /// Check what somebody signed.
    Verify {
        /// The file; standard input without any.
        file: Option<PathBuf>,
        /// Name or ID of the key [default: self].
        #[arg(short, long, value_name = "NAME")]
        key: Option<String>,
        /// The signature, as `key sign` prints it.
        #[arg(short, long, value_name = "SIGNATURE")]
        signature: String,
        /// How IDs are written.
        #[command(flatten)]
        ids: BaseArgs,
    },
    /// Seal every key, the node's own too, with the secret that is configured.
    Seal {
        /// Also open what was sealed with the passphrase in this file.
        #[arg(long, value_name = "PATH", conflicts_with = "old_key_file")]
        old_passphrase_file: Option<PathBuf>,
        /// Also open what was sealed with this key file.
        #[arg(long, value_name = "PATH")]
        old_key_file: Option<PathBuf>,
        /// Instead, write them in the clear again.
        #[arg(long)]
        plain: bool,
    },
}

/// How IDs are written.
#[derive(Debug, Clone, Args)]
pub struct BaseArgs {
    /// Base of the IDs, as base36 or base32; b58mh for peer IDs [default: base36].
    #[arg(long, value_name = "BASE")]
    pub ipns_base: Option<String>,
}
