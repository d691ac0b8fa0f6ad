//! What Kubo's database says: pins, the file tree's root and the names that it published.

use super::leveldb::{self, DatabaseError};
use super::source::Source;
use crate::cid::{self, Cid};
use crate::dag::cbor;
use crate::dag::value::Event;
use crate::pin::PinMode;
use data_encoding::BASE32_NOPAD;

/// A pin as Kubo has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KuboPin {
    /// How far it reaches. Recursive ones come first.
    pub mode: PinMode,
    /// What is pinned.
    pub cid: Cid,
    /// Its name; none is the empty one.
    pub name: String,
    /// Whether it has more that its owner said of it, which Kubo itself never writes.
    pub has_metadata: bool,
}

/// What Kubo's database says.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// The pins, recursive ones first.
    pub pins: Vec<KuboPin>,
    /// The root of the file tree, if one was ever made.
    pub files_root: Option<Cid>,
    /// The newest record of each name that was published, by the name's multihash.
    pub names: Vec<(Vec<u8>, Vec<u8>)>,
    /// What could not be read, and why.
    pub damage: Vec<String>,
    /// How much more of that there is.
    pub more_damage: u64,
}

impl Source {
    /// What the database says. It is small beside the blocks; all of it that matters is in memory then.
    pub fn records(&self) -> Records {
        let mut records = Records::default();
        let mut is_read = false;
        for database in self.databases() {
            let below = &database.below;
            let wanted: Vec<String> = WANTED
                .iter()
                .filter_map(|key| key.strip_prefix(below.as_str()))
                .map(str::to_owned)
                .collect();
            if wanted.is_empty() {
                continue;
            }
            if database.kind != "levelds" {
                records.tell(format!(
                    "pins, the file tree and published names lie in a {} datastore, and only levelds is read: \
                     `ipfs pin ls --names` and `ipfs files stat --hash /` tell what they are, and `cairn pin add` \
                     pins what was imported",
                    database.kind
                ));
                is_read = true;
                continue;
            }
            is_read = true;
            let prefixes: Vec<&[u8]> = wanted.iter().map(String::as_bytes).collect();
            let read = leveldb::read(&database.folder, &prefixes, &mut |why| records.tell(why));
            match read {
                Ok(entries) => entries.into_iter().for_each(|(key, value)| {
                    let key = [below.as_bytes(), &key].concat();
                    records.take(&key, &value);
                }),
                Err(error) => records.cannot(&database.folder.display(), &error),
            }
        }
        if !is_read {
            records.tell("its configuration names no database for pins and names".to_owned());
        }
        records.pins.sort_unstable();
        records
    }
}

impl Records {
    /// What is about blocks; the rest stays behind.
    pub fn take_pins(&mut self) -> Self {
        Self {
            pins: std::mem::take(&mut self.pins),
            files_root: self.files_root.take(),
            ..Self::default()
        }
    }

    fn cannot(&mut self, folder: &dyn std::fmt::Display, error: &DatabaseError) {
        self.tell(format!("the database in {folder}: {error}"));
    }

    fn tell(&mut self, why: String) {
        match self.damage.len() < DAMAGE_TOLD_MAX {
            true => self.damage.push(why),
            false => self.more_damage += 1,
        }
    }

    fn take(&mut self, key: &[u8], value: &[u8]) {
        let shown = || String::from_utf8_lossy(key).into_owned();
        if key == FILES_ROOT.as_bytes() {
            match exact(value) {
                Ok(cid) => self.files_root = Some(cid),
                Err(why) => self.tell(format!("{}: {why}", shown())),
            }
        } else if key.starts_with(PINS.as_bytes()) {
            match pin(value) {
                Ok(pin) => self.pins.push(pin),
                Err(why) => self.tell(format!("{}: {why}", shown())),
            }
        } else if let Some(name) = key.strip_prefix(NAMES.as_bytes()) {
            match BASE32_NOPAD.decode(name) {
                Ok(name) => self.names.push((name, value.to_vec())),
                Err(error) => self.tell(format!("{}: {error}", shown())),
            }
        }
    }
}

/// A pin's record: a map with `cid` (bytes), `mode` (0 recursive, 1 direct), and if there is any `name` and `metadata`.
pub(crate) fn pin(record: &[u8]) -> Result<KuboPin, String> {
    let (mut cid, mut mode, mut name, mut has_metadata) = (None, None, String::new(), false);
    let mut depth = 0u32;
    let mut key = String::new();
    let is_map = record.first().is_some_and(|byte| byte >> 5 == 5);
    let mut take = |event: Event<'_>| {
        match event {
            Event::List | Event::Map => {
                depth += 1;
                has_metadata |= depth > 1 && key == "metadata";
            }
            Event::End => depth = depth.saturating_sub(1),
            Event::Key(next) if depth == 1 => key = next.into_owned(),
            Event::Bytes(bytes) if depth == 1 && key == "cid" => cid = Some(exact(&bytes)?),
            Event::Integer(number) if depth == 1 && key == "mode" => mode = Some(number),
            Event::Text(text) if depth == 1 && key == "name" => name = text.into_owned(),
            _ => {}
        }
        Ok(())
    };
    cbor::read(record, cbor::Form::Lenient, &mut take)?;
    if !is_map {
        return Err("it is no pin's record".to_owned());
    }
    let mode = match mode.ok_or("it does not say how far the pin reaches")? {
        0 => PinMode::Recursive,
        1 => PinMode::Direct,
        other => return Err(format!("the pin reaches in an unknown way, {other}")),
    };
    Ok(KuboPin {
        mode,
        cid: cid.ok_or("it does not say what is pinned")?,
        name,
        has_metadata,
    })
}

fn exact(bytes: &[u8]) -> Result<Cid, String> {
    let cid = crate::dag::pb::exact_cid(bytes)?;
    cid::check(&cid).map_err(|error| error.to_string())?;
    Ok(cid)
}

const PINS: &str = "/pins/pin/";
const FILES_ROOT: &str = "/local/filesroot";
const NAMES: &str = "/ipns/";
const WANTED: [&str; 3] = [PINS, FILES_ROOT, NAMES];
/// Most that is told of what a database has lost; the rest is counted.
const DAMAGE_TOLD_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    /// As boxo's dspinner writes it: {"cid": h'…', "mode": 1, "name": "n"}.
    #[test]
    fn a_pins_record_is_read() {
        let cid = "0155122058948718e29ad4e5a9dc0b0e8a1e5e1bbd0a3b9d6f6e6a1d4e0d4f7c5b2a1908";
        let record = format!("a363636964{}{cid}646d6f646501646e616d65616e", "5824");
        let found = pin(&hex(&record)).unwrap();
        assert_eq!(found.cid.to_bytes(), hex(cid));
        assert_eq!((found.mode, &found.name[..]), (PinMode::Direct, "n"));
        assert!(!found.has_metadata);
        let record = format!(
            "a363636964{}{cid}686d65746164617461a16163a0646d6f646500",
            "5824"
        );
        let found = pin(&hex(&record)).unwrap();
        assert_eq!((found.mode, &found.name[..]), (PinMode::Recursive, ""));
        assert!(found.has_metadata);
    }

    #[test]
    fn what_is_no_pins_record_says_why() {
        let cid = "01551220".to_owned() + &"07".repeat(32);
        for (record, says) in [
            ("", "cut"),
            ("00", "no pin's record"),
            ("a0", "how far"),
            ("a1646d6f646500", "what is pinned"),
            ("a1646d6f646505", "unknown way"),
            ("a2636369644101646d6f646500", "CID"),
            (&format!("a1636369645824{cid}"), "how far"),
            (&format!("a2636369645825{cid}00646d6f646500"), "after a CID"),
        ] {
            let why = pin(&hex(record)).unwrap_err();
            assert!(why.contains(says), "{record}: {why}");
        }
    }
}
