//! Tar archives as they go out: ustar headers, with pax records for what does not fit.

use super::error::RpcError;
use bytes::Bytes;
use cairn_store::unixfs::Mtime;
use tar::{EntryType, Header};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A folder.
    Folder,
    /// A file of so many bytes, which follow.
    File(u64),
    /// A symbolic link and where it points.
    Link(&'a str),
}

/// What precedes an entry's bytes.
pub fn header(
    path: &str,
    kind: Kind<'_>,
    mode: Option<u32>,
    mtime: Option<Mtime>,
) -> Result<Bytes, RpcError> {
    let (entry_type, size, link, usual_mode) = match kind {
        Kind::Folder => (EntryType::Directory, 0, "", 0o755),
        Kind::File(size) => (EntryType::Regular, size, "", 0o644),
        Kind::Link(target) => (EntryType::Symlink, 0, target, 0o777),
    };
    let path = match kind {
        Kind::Folder => format!("{path}/"),
        Kind::File(_) | Kind::Link(_) => path.to_owned(),
    };
    if link.contains('\0') {
        return Err(RpcError::failed(format!(
            "the link {path} points to a name with NUL"
        )));
    }
    let mut header = Header::new_ustar();
    header.set_entry_type(entry_type);
    header.set_mode(mode.unwrap_or(usual_mode) & MODE_BITS);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    let seconds = mtime.map_or(0, |mtime| mtime.seconds.max(0));
    header.set_mtime(u64::try_from(seconds).unwrap_or(0));
    let mut records = Vec::new();
    if let Some(ustar) = header.as_ustar_mut() {
        if !fit(&mut ustar.name, &path) {
            record(&mut records, "path", &path);
        }
        if !fit(&mut ustar.linkname, link) {
            record(&mut records, "linkpath", link);
        }
    }
    if size > OCTAL_MAX {
        record(&mut records, "size", &size.to_string());
    }
    // The field has whole seconds after 1970, and 0 for none.
    if let Some(time) = mtime.filter(|time| time.seconds <= 0 || time.nanoseconds > 0) {
        record(&mut records, MTIME, &decimal(time));
    }
    header.set_cksum();
    let mut out = Vec::new();
    if !records.is_empty() {
        let mut extended = Header::new_ustar();
        extended.set_entry_type(EntryType::XHeader);
        extended.set_mode(0o644);
        extended.set_uid(0);
        extended.set_gid(0);
        extended.set_mtime(0);
        extended.set_size(records.len() as u64);
        if let Some(ustar) = extended.as_ustar_mut() {
            fit(&mut ustar.name, "PaxHeaders/entry");
        }
        extended.set_cksum();
        out.extend_from_slice(extended.as_bytes());
        out.extend_from_slice(&records);
        out.extend_from_slice(&padding(records.len() as u64));
    }
    out.extend_from_slice(header.as_bytes());
    Ok(Bytes::from(out))
}

/// A time as pax writes it: seconds since 1970, with a fraction.
fn decimal(time: Mtime) -> String {
    let all = i128::from(time.seconds) * SECOND + i128::from(time.nanoseconds);
    let sign = if all < 0 { "-" } else { "" };
    let (seconds, rest) = (all.abs() / SECOND, all.abs() % SECOND);
    format!("{sign}{seconds}.{rest:09}")
}

/// The time that a pax record says.
pub fn parse_decimal(text: &str) -> Option<Mtime> {
    let (is_before, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (seconds, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !are_digits(seconds) || !are_digits(fraction) {
        return None;
    }
    let fraction = fraction.get(..9).unwrap_or(fraction);
    let nanoseconds: i128 = format!("{fraction:0<9}").parse().ok()?;
    let seconds: i64 = seconds.parse().ok()?;
    let all = i128::from(seconds) * SECOND + nanoseconds;
    let all = if is_before { -all } else { all };
    Some(Mtime {
        seconds: i64::try_from(all.div_euclid(SECOND)).ok()?,
        nanoseconds: u32::try_from(all.rem_euclid(SECOND)).ok()?,
    })
}

/// What fills an entry's last block.
pub fn padding(size: u64) -> Bytes {
    let over = usize::try_from(size % BLOCK).unwrap_or(0);
    let zeros: &'static [u8] = &ZEROS;
    let missing = if over == 0 { 0 } else { BLOCK_BYTES - over };
    Bytes::from_static(zeros.get(..missing).unwrap_or_default())
}

/// What ends an archive.
pub fn end() -> Bytes {
    Bytes::from_static(&ZEROS)
}

/// Whether a name may stand in a folder; nothing else goes into an archive.
pub fn check_name(name: &str) -> Result<(), RpcError> {
    let bad = matches!(name, "" | "." | "..") || name.contains(['/', '\0']);
    if bad {
        return Err(RpcError::failed(format!(
            "an entry is named {name:?}, which leads out of its folder or cannot be a name"
        )));
    }
    Ok(())
}

/// Puts `text` into a field if it fits and is plain.
fn fit(field: &mut [u8], text: &str) -> bool {
    let fits = text.is_ascii() && text.len() <= field.len();
    let length = text.floor_char_boundary(field.len());
    let shown = text.as_bytes().get(..length).unwrap_or_default();
    if let Some(place) = field.get_mut(..length) {
        place.copy_from_slice(shown);
    }
    fits
}

/// A pax record: its own length, a name and a value.
fn record(records: &mut Vec<u8>, name: &str, value: &str) {
    let rest = name.len() + value.len() + 3; // blank, equals sign, line's end
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {name}={value}\n").as_bytes());
}

/// The pax record of a time.
pub const MTIME: &str = "mtime";
/// In nanoseconds.
const SECOND: i128 = 1_000_000_000;
/// Bits of a mode that go out: no setuid, setgid or sticky from strangers.
const MODE_BITS: u32 = 0o777;
const BLOCK: u64 = 512;
const BLOCK_BYTES: usize = 512;
/// Largest size that fits into eleven octal digits.
const OCTAL_MAX: u64 = 0o77_777_777_777;
static ZEROS: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn names_of_any_length_read_back() {
        let names = [
            "a",
            "ü",
            &"long/".repeat(50),
            &"x".repeat(100),
            &"y".repeat(101),
        ];
        let mut archive = Vec::new();
        for name in names {
            archive.extend_from_slice(&header(name, Kind::File(3), None, None).unwrap());
            archive.extend_from_slice(b"abc");
            archive.extend_from_slice(&padding(3));
        }
        archive.extend_from_slice(&header("l", Kind::Link(&"t".repeat(150)), None, None).unwrap());
        archive.extend_from_slice(&header("d", Kind::Folder, Some(0o6700), None).unwrap());
        archive.extend_from_slice(&end());
        let mut read = tar::Archive::new(&archive[..]);
        let mut entries = read.entries().unwrap();
        for name in names {
            let mut entry = entries.next().unwrap().unwrap();
            assert_eq!(entry.path_bytes(), name.as_bytes());
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert_eq!(text, "abc");
        }
        let link = entries.next().unwrap().unwrap();
        assert_eq!(link.link_name_bytes().unwrap().len(), 150);
        let folder = entries.next().unwrap().unwrap();
        assert_eq!(&*folder.path_bytes(), b"d/");
        assert_eq!(folder.header().mode().unwrap(), 0o700);
        assert!(entries.next().is_none());
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for length in [1, 86, 87, 88, 89, 90, 986, 987, 990, 991, 992] {
            let mut records = Vec::new();
            record(&mut records, "path", &"x".repeat(length));
            let text = String::from_utf8(records).unwrap();
            let told: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(told, text.len());
        }
    }

    #[test]
    fn names_that_lead_out_never_enter_an_archive() {
        for name in ["", ".", "..", "a/b", "/", "a\0b"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name("..a").is_ok());
    }
    #[test]
    fn times_read_back_to_the_nanosecond() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "0.000000000"),
            (1, 5, "1.000000005"),
            (-1, 0, "-1.000000000"),
            (-1, 1, "-0.999999999"),
            (i64::MIN + 1, 999_999_999, "-9223372036854775806.000000001"),
        ] {
            let time = Mtime {
                seconds,
                nanoseconds,
            };
            assert_eq!(decimal(time), text);
            assert_eq!(parse_decimal(text), Some(time));
        }
        // As others write them.
        let mtime = |seconds, nanoseconds| Mtime {
            seconds,
            nanoseconds,
        };
        assert_eq!(parse_decimal("7"), Some(mtime(7, 0)));
        assert_eq!(parse_decimal("7.5"), Some(mtime(7, 500_000_000)));
        assert_eq!(parse_decimal("7.1234567891"), Some(mtime(7, 123_456_789)));
        for text in [
            "",
            ".",
            "-",
            "x",
            "1.x",
            "1.2.3",
            "--1",
            "99999999999999999999",
            "\u{663}",
        ] {
            assert_eq!(parse_decimal(text), None, "{text:?}");
        }
    }
}
