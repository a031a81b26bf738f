//! Bytes that were written once are read for ever, and are still what is written.
//!
//! `LITTORAL_BLESS=1` writes files that are missing. One that exists is never rewritten: a format that changes gets a new
//! version and new files. (A new zstd may pack the same body into other bytes: then the file stays, under another name, among
//! those that are only read.)

use super::samples::{Sample, all, old};
use std::path::PathBuf;

pub(super) fn blessing() -> bool {
    std::env::var_os("LITTORAL_BLESS").is_some()
}

fn file(name: &str, version: u16) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.v{version}.bin"))
}

#[test]
fn golden_files_are_what_is_written_and_are_read_as_they_were_meant() {
    for Sample { name, version, encode, reads, .. } in all() {
        let path = file(name, version);
        let bytes = encode();
        if blessing() && !path.exists() {
            std::fs::write(&path, &bytes).unwrap();
        }
        let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(reads(&golden), Ok(true), "{name}: read as something else");
        assert!(golden == bytes, "{name}: what is written changed; a new layout needs a new version");
    }
}

#[test]
fn every_golden_file_has_its_sample() {
    let mut known: Vec<_> = all().iter().map(|sample| file(sample.name, sample.version)).collect();
    known.extend(old().iter().map(|(name, version, _)| file(name, *version)));
    for entry in std::fs::read_dir(file("", 1).parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        assert!(known.contains(&path), "{} is read by no test", path.display());
    }
}

#[test]
fn what_older_versions_wrote_is_still_read() {
    for (name, version, reads) in old() {
        let golden = std::fs::read(file(name, version)).unwrap();
        assert_eq!(reads(&golden), Ok(true), "{name}, version {version}");
    }
}
