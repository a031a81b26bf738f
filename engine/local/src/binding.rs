//! The binding file: what a store is, and which database in it is which volume.
//!
//! TOML, so that a person can read it at 3 a.m. It is only ever replaced whole, so it needs no checksum; its format number
//! comes first, and a newer one is refused before anything else of it is looked at.

use crate::error::LocalError;
use crate::filesystem::FileId;
use littoral_types::{StoreId, VolumeId, VolumeName};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The newest format this version reads and writes.
pub(crate) const FORMAT: u64 = 1;

/// One database of a store: where it lies, and which volume it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The database file, absolute, as it was when it was bound.
    pub path: PathBuf,
    /// Which file that was; `None` where it was not there yet.
    pub file: Option<FileId>,
    /// The volume's name under its remote.
    pub volume: VolumeName,
    /// The volume.
    pub id: VolumeId,
    /// The remote's URL, without secrets and without a slash at its end.
    pub remote: String,
}

/// All that the binding file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bindings {
    pub(crate) store: StoreId,
    pub(crate) databases: Vec<Binding>,
}

#[derive(Deserialize)]
struct Version {
    format: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u64,
    store: String,
    #[serde(default, rename = "database")]
    databases: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    volume: String,
    id: String,
    remote: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// For paths that are not UTF-8, which TOML cannot hold: their bytes in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    // As text: TOML's integers have a sign.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode: Option<String>,
}

impl Bindings {
    /// As the file's text.
    pub(crate) fn print(&self, place: &Path) -> Result<String, LocalError> {
        let databases = self.databases.iter().map(Entry::new).collect();
        let document = Document { format: FORMAT, store: self.store.to_string(), databases };
        let text = toml::to_string(&document).map_err(|error| LocalError::Misuse {
            path: place.into(),
            detail: format!("cannot be spelled: {error}"),
        })?;
        Ok(format!("# Written by littoral: what this store is bound to. Do not copy it to another machine.\n{text}"))
    }

    /// Reads what [`Bindings::print`] wrote.
    pub(crate) fn parse(text: &str, place: &Path) -> Result<Self, LocalError> {
        let corrupt = |detail: String| LocalError::Corrupt {
            path: place.into(),
            detail: format!(
                "{detail}; restore the file, or remove the store's directory and open the database from its remote"
            ),
        };
        let version: Version = toml::from_str(text).map_err(|error| corrupt(error.message().to_owned()))?;
        if version.format > FORMAT {
            let (found, known) = (version.format, FORMAT);
            return Err(LocalError::Newer { path: place.into(), what: "a store's binding", found, known });
        }
        let document: Document = toml::from_str(text).map_err(|error| corrupt(error.message().to_owned()))?;
        let store = StoreId::from_hex(&document.store).ok_or_else(|| corrupt("the store's id is none".into()))?;
        let databases = document.databases.iter().map(|entry| {
            entry.read().ok_or_else(|| corrupt(format!("the entry of volume {:?} makes no sense", entry.volume)))
        });
        Ok(Self { store, databases: databases.collect::<Result<_, _>>()? })
    }
}

impl Entry {
    fn new(binding: &Binding) -> Self {
        let text = binding.path.to_str().map(str::to_owned);
        let bytes = text.is_none().then(|| hex(binding.path.as_os_str().as_bytes()));
        Self {
            volume: binding.volume.to_string(),
            id: binding.id.to_string(),
            remote: binding.remote.clone(),
            path: text,
            path_bytes: bytes,
            device: binding.file.map(|file| file.device.to_string()),
            inode: binding.file.map(|file| file.inode.to_string()),
        }
    }

    fn read(&self) -> Option<Binding> {
        let path = match (&self.path, &self.path_bytes) {
            (Some(text), None) => PathBuf::from(text),
            (None, Some(bytes)) => PathBuf::from(OsString::from_vec(from_hex(bytes)?)),
            _ => return None,
        };
        let file = match (&self.device, &self.inode) {
            (Some(device), Some(inode)) => Some(FileId { device: device.parse().ok()?, inode: inode.parse().ok()? }),
            (None, None) => None,
            _ => return None,
        };
        let (volume, id) = (self.volume.parse().ok()?, VolumeId::from_hex(&self.id)?);
        path.is_absolute().then(|| Binding { path, file, volume, id, remote: self.remote.clone() })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bindings() -> Bindings {
        let binding = |path: &[u8], file| Binding {
            path: PathBuf::from(OsString::from_vec(path.to_vec())),
            file,
            volume: "app.db".parse().unwrap(),
            id: VolumeId([7; 16]),
            remote: "s3://bucket/\"pre\\fix\"".into(),
        };
        let databases = vec![
            binding(b"/data/app.db", Some(FileId { device: u64::MAX, inode: 1 << 63 })),
            binding("/dät\na/\"app\".db".as_bytes(), None),
            binding(b"/data/\xff\xfe.db", None),
        ];
        Bindings { store: StoreId([9; 16]), databases }
    }

    #[test]
    fn a_binding_file_reads_back_what_it_prints() {
        let place = Path::new("/store/store.toml");
        for count in 0..=3 {
            let mut some = bindings();
            some.databases.truncate(count);
            let text = some.print(place).unwrap();
            assert_eq!(Bindings::parse(&text, place).unwrap(), some, "{text}");
        }
    }

    #[test]
    fn the_file_looks_as_documented() {
        let mut one = bindings();
        one.databases.truncate(1);
        one.databases[0].remote = "s3://bucket/prefix".into();
        let expected = "\
# Written by littoral: what this store is bound to. Do not copy it to another machine.
format = 1
store = \"09090909090909090909090909090909\"

[[database]]
volume = \"app.db\"
id = \"07070707070707070707070707070707\"
remote = \"s3://bucket/prefix\"
path = \"/data/app.db\"
device = \"18446744073709551615\"
inode = \"9223372036854775808\"
";
        assert_eq!(one.print(Path::new("x")).unwrap(), expected);
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format.md");
        assert!(std::fs::read_to_string(page).unwrap().contains(&format!("```toml\n{expected}```\n")));
    }

    #[test]
    fn a_newer_file_is_refused_as_newer_whatever_else_it_says() {
        let refused = Bindings::parse("format = 2\nwhatever = { a = 1 }\n", Path::new("x")).unwrap_err();
        assert!(matches!(refused, LocalError::Newer { found: 2, known: 1, .. }), "{refused:?}");
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_an_error_or_reads_as_valid() {
        let place = Path::new("/store/store.toml");
        let text = bindings().print(place).unwrap();
        for end in 0..text.len() {
            if let Some(part) = text.get(..end) {
                // A cut may end between two entries; what is left is valid then. Never a panic.
                let _ = Bindings::parse(part, place);
            }
        }
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                if let Ok(text) = String::from_utf8(bytes) {
                    let _ = Bindings::parse(&text, place);
                }
            }
        }
        for text in ["", "format = 1\n", "format = 1\nstore = \"\"\n", "format = -1", "no toml"] {
            assert!(matches!(Bindings::parse(text, place), Err(LocalError::Corrupt { .. })), "{text:?}");
        }
    }
}
