//! Names and heads of a TAR's entries: POSIX `ustar`, with `pax` records for what does not fit.

use crate::archive::{self, Taker};
use crate::body::Break;
use bytes::Bytes;
use cairn_store::unixfs::Mtime;
use tar::{EntryType, Header};

/// What TARs are made of.
pub(super) const RECORD_BYTES: usize = 512;
/// A record of nothing.
pub(super) static ZEROS: [u8; RECORD_BYTES] = [0; RECORD_BYTES];

/// How many zeros follow `size` bytes.
pub(super) fn padding(size: u64) -> usize {
    let record = RECORD_BYTES as u64;
    usize::try_from((record - size % record) % record).unwrap_or(0)
}

/// The path of an entry called `name` in `folder`: cleaned, and never above the root.
pub(super) fn below(folder: &[String], name: &str) -> Result<Vec<String>, Break> {
    let refused = |why: &str| Break::Refused(format!("the entry {name:?} {why}"));
    if name.contains('\0') {
        return Err(refused("has a name with NUL"));
    }
    let mut path = folder.to_vec();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                path.pop()
                    .ok_or_else(|| refused("would be unpacked outside of the archive's root"))?;
            }
            part => path.push(part.to_owned()),
        }
    }
    if path.is_empty() || name.is_empty() {
        return Err(refused("has no name"));
    }
    if path.iter().map(|part| part.len() + 1).sum::<usize>() > PATH_BYTES_MAX {
        return Err(refused("has a path that is too long"));
    }
    if path.len() > PARTS_MAX {
        return Err(refused("lies too deep"));
    }
    Ok(path)
}

/// The names that are taken.
pub(super) struct Names {
    root: String,
    taken: archive::Names,
}

impl Names {
    pub(super) fn new(root: String) -> Self {
        Self {
            root,
            taken: archive::Names::default(),
        }
    }

    /// Takes the name of an entry, once.
    pub(super) fn take(&mut self, path: &[String], taker: Taker) -> Result<String, Break> {
        let mut name = self.root.clone();
        for part in path {
            name.push('/');
            name.push_str(part);
        }
        self.taken
            .take(path, taker)
            .map_err(|clash| Break::Refused(format!("the entry {name:?} is refused: {clash}")))?;
        Ok(name)
    }
}

/// What a head says.
pub(super) struct Attributes<'a> {
    kind: EntryType,
    size: u64,
    mode: u32,
    seconds: u64,
    target: &'a str,
}

impl<'a> Attributes<'a> {
    pub(super) fn file(size: u64, mode: Option<u32>, mtime: Option<Mtime>) -> Self {
        Self::new(EntryType::Regular, mode.unwrap_or(0o644), mtime, size, "")
    }

    pub(super) fn folder(mode: Option<u32>, mtime: Option<Mtime>) -> Self {
        Self::new(EntryType::Directory, mode.unwrap_or(0o755), mtime, 0, "")
    }

    pub(super) fn link(target: &'a str, mtime: Option<Mtime>) -> Self {
        Self::new(EntryType::Symlink, 0o777, mtime, 0, target)
    }

    fn new(kind: EntryType, mode: u32, mtime: Option<Mtime>, size: u64, target: &'a str) -> Self {
        // Without a kept time the start of 1970: the same content gives the same archive.
        let seconds = mtime
            .and_then(|mtime| u64::try_from(mtime.seconds).ok())
            .unwrap_or(0);
        // No set-user bits from strangers.
        Self {
            kind,
            size,
            mode: mode & 0o777,
            seconds: seconds.min(SECONDS_MAX),
            target,
        }
    }
}

/// The head of an entry, with a `pax` head before it where name or target need one.
pub(super) fn head(name: &str, attributes: &Attributes<'_>) -> Result<Bytes, Break> {
    let named = match attributes.kind {
        EntryType::Directory => format!("{name}/"),
        _ => name.to_owned(),
    };
    if attributes.target.contains('\0') {
        return Err(Break::Refused(format!(
            "the symbolic link {name:?} has a target with NUL"
        )));
    }
    if attributes.target.len() > PATH_BYTES_MAX {
        return Err(Break::Refused(format!(
            "the symbolic link {name:?} has a target that is too long"
        )));
    }
    let mut records = String::new();
    if !fits(&named) {
        records.push_str(&record("path", &named));
    }
    if !fits(attributes.target) {
        records.push_str(&record("linkpath", attributes.target));
    }
    if attributes.size > USTAR_BYTES_MAX {
        records.push_str(&record("size", &attributes.size.to_string()));
    }
    let mut out = Vec::with_capacity(RECORD_BYTES);
    if !records.is_empty() {
        let size = records.len() as u64;
        let pax = Attributes {
            kind: EntryType::XHeader,
            size,
            mode: 0o644,
            seconds: 0,
            target: "",
        };
        out.extend_from_slice(ustar("pax", &pax).as_bytes());
        out.extend_from_slice(records.as_bytes());
        out.extend_from_slice(ZEROS.get(..padding(size)).unwrap_or_default());
    }
    out.extend_from_slice(ustar(&named, attributes).as_bytes());
    Ok(out.into())
}

/// One record of `NAME_BYTES` ASCII bytes at most; what does not fit stands in the `pax` head.
fn ustar(name: &str, attributes: &Attributes<'_>) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(attributes.kind);
    header.set_size(attributes.size);
    header.set_mode(attributes.mode);
    header.set_mtime(attributes.seconds);
    header.set_uid(0);
    header.set_gid(0);
    if let Some(fields) = header.as_ustar_mut() {
        fill(&mut fields.name, name);
        fill(&mut fields.linkname, attributes.target);
    }
    header.set_cksum();
    header
}

fn fill(field: &mut [u8; NAME_BYTES], text: &str) {
    for (slot, byte) in field.iter_mut().zip(text.bytes()) {
        *slot = if byte.is_ascii() { byte } else { b'_' };
    }
}

fn fits(text: &str) -> bool {
    text.len() <= NAME_BYTES && text.is_ascii()
}

/// `LENGTH KEY=VALUE`, where the length counts its own digits too.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    loop {
        let whole = length.to_string().len() + rest.len();
        if whole == length {
            return format!("{length}{rest}");
        }
        length = whole;
    }
}

/// Longest name or target in a plain head.
const NAME_BYTES: usize = 100;
/// Longest path in an archive, and longest target of a link: what Linux takes.
const PATH_BYTES_MAX: usize = 4096;
/// Most parts of a path; names may hold slashes.
const PARTS_MAX: usize = 256;
/// Largest size in a plain head: eleven octal digits.
const USTAR_BYTES_MAX: u64 = (1 << 33) - 1;
/// Latest time in a plain head.
const SECONDS_MAX: u64 = (1 << 33) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn path(parts: &[&str]) -> Vec<String> {
        parts.iter().map(|part| (*part).to_owned()).collect()
    }

    #[test]
    fn names_are_cleaned_below_the_root() {
        let folder = path(&["foobar"]);
        assert_eq!(
            below(&folder, "directory/../file").unwrap(),
            path(&["foobar", "file"])
        );
        assert_eq!(below(&folder, "../file").unwrap(), path(&["file"]));
        assert_eq!(
            below(&folder, "/etc/passwd").unwrap(),
            path(&["foobar", "etc", "passwd"])
        );
        for name in ["../..", "../../x", "a\0b", "", "..", "x/../.."] {
            assert!(below(&folder, name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_name_cannot_lead_deeper_than_folders_may() {
        assert!(below(&[], &"a/".repeat(PARTS_MAX)).is_ok());
        assert!(below(&[], &"a/".repeat(PARTS_MAX + 1)).is_err());
        assert!(below(&[], &"a".repeat(PATH_BYTES_MAX)).is_err());
    }

    #[test]
    fn names_stand_below_the_root_and_clashes_are_refused() {
        let mut names = Names::new("root".to_owned());
        let name = names.take(&path(&["b", "a"]), Taker::Link).unwrap();
        assert_eq!(name, "root/b/a");
        assert!(names.take(&path(&["b", "a"]), Taker::Other).is_err());
        assert!(names.take(&path(&["b", "a", "x"]), Taker::Other).is_err());
    }

    #[test]
    fn a_record_counts_its_own_length() {
        assert_eq!(record("path", "x"), "9 path=x\n");
        for length in 80..130 {
            let record = record("path", &"x".repeat(length));
            let (told, _) = record.split_once(' ').unwrap();
            assert_eq!(told, record.len().to_string());
        }
    }

    #[test]
    fn padding_fills_records() {
        for (size, zeros) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)] {
            assert_eq!(padding(size), zeros);
        }
    }
}
