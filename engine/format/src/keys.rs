//! Names of objects: printed and parsed as a pair.
//!
//! Under a remote's prefix, a volume is a folder, and in it:
//!
//! | object | name |
//! |---|---|
//! | record | `log/` and 16 hex digits of `u64::MAX - seq`: the newest sorts first |
//! | manifest snapshot | `snap/` and the same |
//! | blob | `chunk/`, `pack/`, `seg/` or `shard/`, then `{64 hex of BLAKE3}.{birth}` (rule P1) |
//! | pin | `pins/` and 32 hex digits, or `pins/snap-NAME` |
//! | head | `head` |
//! | probe | `probe/` and hex digits |
//! | mark of a copy | `copy` |
//! | promotion of a copy | `promoted` |

use littoral_types::{BlobHash, BlobKind, BlobName, ObjectPath, PinId, Seq, SnapshotName, VolumeName};
use std::fmt;

const LOG: &str = "log";
const SNAPSHOTS: &str = "snap";
const PINS: &str = "pins";
const HEAD: &str = "head";
const PROBE: &str = "probe";
const COPY: &str = "copy";
const PROMOTED: &str = "promoted";
const NAMED: &str = "snap-";
/// Digits of a probe's name.
const PROBE_LEN_MAX: usize = 64;

/// One object of a volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// A record of the log.
    Record(Seq),
    /// A manifest snapshot.
    Snapshot(Seq),
    /// A blob that is an object of its own.
    Blob(BlobName),
    /// A pin.
    Pin(PinKey),
    /// The hint.
    Head,
    /// What a test of the store leaves: 1 to 64 lower-case hex digits. Others are not refused here, but not parsed back.
    Probe(String),
    /// What says that all of this is a copy.
    Copy,
    /// What says that it was made a volume of its own: put once, and never again.
    Promoted,
}

/// A pin's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PinKey {
    /// Of a fork, a restore, a reader.
    Id(PinId),
    /// A named snapshot.
    Snapshot(SnapshotName),
}

/// A folder of a volume, to be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Folder {
    /// The records.
    Log,
    /// The manifest snapshots.
    Snapshots,
    /// One kind of blob.
    Blobs(BlobKind),
    /// The pins.
    Pins,
    /// What tests of the store left.
    Probe,
    /// Everything.
    All,
}

impl fmt::Display for PinKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PinKey::Id(id) => id.fmt(f),
            PinKey::Snapshot(name) => write!(f, "{NAMED}{name}"),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectKey::Record(seq) => write!(f, "{LOG}/{:016x}", inverted(*seq)),
            ObjectKey::Snapshot(seq) => write!(f, "{SNAPSHOTS}/{:016x}", inverted(*seq)),
            ObjectKey::Blob(name) => name.fmt(f),
            ObjectKey::Pin(pin) => write!(f, "{PINS}/{pin}"),
            ObjectKey::Head => f.write_str(HEAD),
            ObjectKey::Probe(digits) => write!(f, "{PROBE}/{digits}"),
            ObjectKey::Copy => f.write_str(COPY),
            ObjectKey::Promoted => f.write_str(PROMOTED),
        }
    }
}

impl ObjectKey {
    /// Its path under a remote.
    pub fn path(&self, volume: &VolumeName) -> ObjectPath {
        ObjectPath::below(volume, &self.to_string())
    }

    /// What a listed path names; `None` for anything that [`ObjectKey::path`] does not print.
    pub fn parse(path: &ObjectPath) -> Option<(VolumeName, ObjectKey)> {
        let (volume, rest) = path.as_str().split_once('/')?;
        let volume: VolumeName = volume.parse().ok()?;
        let Some((folder, name)) = rest.split_once('/') else {
            let key = match rest {
                HEAD => ObjectKey::Head,
                COPY => ObjectKey::Copy,
                PROMOTED => ObjectKey::Promoted,
                _ => return None,
            };
            return Some((volume, key));
        };
        let key = match folder {
            LOG => ObjectKey::Record(seq(name)?),
            SNAPSHOTS => ObjectKey::Snapshot(seq(name)?),
            PINS => ObjectKey::Pin(match name.strip_prefix(NAMED) {
                Some(name) => PinKey::Snapshot(name.parse().ok()?),
                None => PinKey::Id(PinId::from_hex(name)?),
            }),
            PROBE => {
                let digits = (1..=PROBE_LEN_MAX).contains(&name.len()) && name.bytes().all(is_digit);
                ObjectKey::Probe(digits.then(|| name.to_owned())?)
            }
            _ => {
                let kind = BlobKind::ALL.into_iter().find(|kind| kind.folder() == folder)?;
                let (hash, birth) = name.split_once('.')?;
                ObjectKey::Blob(BlobName { kind, hash: BlobHash::from_hex(hash)?, birth: Seq(decimal(birth)?) })
            }
        };
        Some((volume, key))
    }
}

const fn inverted(seq: Seq) -> u64 {
    u64::MAX - seq.0
}

const fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn seq(digits: &str) -> Option<Seq> {
    let plain = digits.len() == 16 && digits.bytes().all(is_digit);
    let number = plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()?;
    Some(Seq(u64::MAX - number))
}

fn decimal(digits: &str) -> Option<u64> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok()).flatten()
}

/// A volume's folder, without a slash at its end.
pub fn folder(volume: &VolumeName, folder: Folder) -> String {
    match folder {
        Folder::Log => format!("{volume}/{LOG}"),
        Folder::Snapshots => format!("{volume}/{SNAPSHOTS}"),
        Folder::Blobs(kind) => format!("{volume}/{}", kind.folder()),
        Folder::Pins => format!("{volume}/{PINS}"),
        Folder::Probe => format!("{volume}/{PROBE}"),
        Folder::All => volume.to_string(),
    }
}

/// A record's path.
pub fn record(volume: &VolumeName, seq: Seq) -> ObjectPath {
    ObjectKey::Record(seq).path(volume)
}

/// A manifest snapshot's path.
pub fn snapshot(volume: &VolumeName, seq: Seq) -> ObjectPath {
    ObjectKey::Snapshot(seq).path(volume)
}

/// A blob's path; that of its record for frames that travel in one.
pub fn blob(volume: &VolumeName, name: &BlobName) -> ObjectPath {
    match name.kind {
        BlobKind::Record => record(volume, name.birth),
        BlobKind::Chunk | BlobKind::Pack | BlobKind::Segment | BlobKind::Shard => ObjectKey::Blob(*name).path(volume),
    }
}

/// A pin's path.
pub fn pin(volume: &VolumeName, pin: &PinKey) -> ObjectPath {
    ObjectKey::Pin(pin.clone()).path(volume)
}

/// The head's path.
pub fn head(volume: &VolumeName) -> ObjectPath {
    ObjectKey::Head.path(volume)
}

/// The path of what says that a volume is a copy.
pub fn copy(volume: &VolumeName) -> ObjectPath {
    ObjectKey::Copy.path(volume)
}

/// The path of what says that a copy was promoted.
pub fn promoted(volume: &VolumeName) -> ObjectPath {
    ObjectKey::Promoted.path(volume)
}
