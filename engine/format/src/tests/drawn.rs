//! `docs/format.md` draws every byte; here its tables are drawn from what the writers write, and compared.
//!
//! `LITTORAL_BLESS=1` draws them anew.

use super::golden::blessing;
use super::samples::{all, names};
use crate::trace::{Drawing, draw};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

/// What is drawn: the table's name in the document, the sample it is drawn from, and which of the runs of bytes that the
/// sample's writers wrote.
const DRAWN: &[(&str, &str, usize)] = &[
    ("record-header", "record-claim", 1),
    ("body-claim", "record-claim", 0),
    ("body-release", "record-release", 0),
    ("body-segment", "record-segment", 2),
    ("body-sessions", "record-sessions", 2),
    ("body-checkpoint", "record-checkpoint", 0),
    ("body-objects", "record-objects", 0),
    ("body-log", "record-log", 2),
    ("body-truncation", "record-truncation", 0),
    ("body-gap", "record-gap", 0),
    ("body-coalesce", "record-coalesce", 0),
    ("body-index", "record-index", 0),
    ("body-prune", "record-prune", 0),
    ("body-fork", "record-fork", 0),
    ("blob-header", "chunk", 0),
    ("frame", "frame-none", 1),
    ("patch-frame", "frame-patch", 0),
    ("chunk-footer", "chunk", 3),
    ("pack-footer", "pack", 4),
    ("shard-header", "shard", 2),
    ("shard-row", "shard", 0),
    ("envelope", "pin", 1),
    ("snapshot", "snapshot", 0),
    ("head", "head", 2),
    ("pin", "pin", 0),
    ("copy", "copy", 0),
    ("log-head", "log-head", 0),
    ("log-entry", "log-entry", 0),
    ("log-index", "log-index", 0),
    ("log-trailer", "log-index", 1),
    ("row-volume", "row-volume", 0),
    ("row-base", "row-base", 0),
    ("row-delta", "row-delta", 0),
    ("row-change", "row-change", 0),
    ("row-lease", "row-lease", 0),
    ("row-lease-taken", "row-lease-taken", 0),
    ("row-intent", "row-intent", 0),
    ("row-staged", "row-staged", 0),
    ("row-session", "row-session", 0),
    ("row-object", "row-object", 0),
    ("row-owners", "row-owners", 0),
    ("row-segment", "row-segment", 0),
    ("row-segment-of-a-table", "row-segment-of-a-table", 0),
    ("row-segment-taken-back", "row-segment-taken-back", 0),
    ("row-identities", "row-identities", 0),
    ("row-number", "row-number", 0),
    ("row-job", "row-job", 0),
    ("row-job-note", "row-job-note", 0),
];

const SHOWN: usize = 8;

fn hex(bytes: &[u8]) -> String {
    let shown: Vec<_> = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    format!("`{}`{}", shown.join(" "), if bytes.len() > SHOWN { " …" } else { "" })
}

fn table(drawing: &Drawing) -> String {
    let mut text = "| offset | bytes | field | in the golden file |\n|---:|---:|---|---|\n".to_owned();
    for field in &drawing.fields {
        writeln!(text, "| {} | {} | {} | {} |", field.offset, field.bytes.len(), field.name, hex(&field.bytes))
            .unwrap();
    }
    text
}

fn tables() -> Vec<(String, String)> {
    let samples = all();
    let mut tables: Vec<_> = DRAWN
        .iter()
        .map(|(name, sample, nth)| {
            // The newest version of it.
            let sample = samples.iter().rfind(|known| known.name == *sample).unwrap();
            let (_, drawings) = draw(|| (sample.encode)());
            let drawing = drawings.get(*nth).unwrap_or_else(|| panic!("{name}: {} runs only", drawings.len()));
            (
                (*name).to_owned(),
                format!("`{}.v{}.bin`, {}:\n\n{}", sample.name, sample.version, drawing.what, table(drawing)),
            )
        })
        .collect();
    let volume = "app.db".parse().unwrap();
    let mut list = "| object | name under the remote's prefix |\n|---|---|\n".to_owned();
    for (title, key) in names() {
        writeln!(list, "| {title} | `{}` |", key.path(&volume)).unwrap();
    }
    tables.push(("names".to_owned(), list));
    tables
}

fn document() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/format.md")
}

#[test]
fn the_tables_of_format_md_are_what_the_writers_write() {
    let mut text = std::fs::read_to_string(document()).unwrap();
    for (name, table) in tables() {
        let (begin, end) = (format!("<!-- drawn: {name} -->\n"), "<!-- end -->");
        let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{name} is not drawn"));
        let (drawn, after) = rest.split_once(end).unwrap();
        let fresh = format!("\n{table}\n");
        assert!(blessing() || drawn == fresh, "{name} is drawn as it no longer is; LITTORAL_BLESS=1 draws it anew");
        text = format!("{before}{begin}{fresh}{end}{after}");
    }
    assert_eq!(text.matches("<!-- drawn: ").count(), DRAWN.len() + 1, "a table that nothing draws");
    if blessing() {
        std::fs::write(document(), text).unwrap();
    }
}

#[test]
fn every_byte_that_a_writer_writes_has_a_field() {
    for sample in all() {
        let (_, drawings) = draw(|| (sample.encode)());
        for drawing in drawings {
            let mut end = 0;
            for field in &drawing.fields {
                assert_eq!(field.offset, end, "{}: a byte before {:?} has no name", drawing.what, field.name);
                end += field.bytes.len();
            }
        }
    }
}

#[test]
fn every_kind_of_bytes_is_drawn() {
    // Bodies differ by kind of record, and each kind has its sample; envelopes are alike.
    let kind = |sample: &'static str, drawing: &Drawing| match drawing.what {
        _ if drawing.fields.iter().any(|field| field.name == "payload") => ("envelope", ""),
        "record body" if sample != "record-large" => ("record body", sample),
        "record body" => ("record body", "record-prune"),
        what => (what, ""),
    };
    let (mut written, mut drawn) = (BTreeSet::new(), BTreeSet::new());
    for sample in all() {
        let (_, drawings) = draw(|| (sample.encode)());
        for (nth, drawing) in drawings.iter().enumerate() {
            written.insert(kind(sample.name, drawing));
            if DRAWN.iter().any(|(_, name, of)| *name == sample.name && *of == nth) {
                drawn.insert(kind(sample.name, drawing));
            }
        }
    }
    assert_eq!(drawn, written);
}
