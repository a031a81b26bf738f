//! Every decoder by name, as fuzzing enters it: bytes in, nothing out, and a panic where a promise of this room is broken.
//!
//! An entry takes the bytes as they are, and once more with their checksums mended: a fuzzer does not guess those, and what
//! lies behind them must hold on its own. What is accepted must read back the same, and where nothing is compressed it must
//! be the one spelling of its value.

use crate::wire::In;
use crate::{FormatError, blob, body, copy, frame, head, log, object, patch, pin, record, rows, shard, snapshot};
use littoral_types::{IdentityKey, LogHead, Lsn, PageNo, PageSize, RecordKind, VolumeId};
use std::fmt::Debug;

/// One way in.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What it reads; a fuzz target has the same name.
    pub name: &'static str,
    /// Reads it.
    pub run: fn(&[u8]),
}

/// The key of every identity that an entry verifies.
pub const KEY: IdentityKey = IdentityKey([7; 32]);

/// All of them.
pub const ENTRIES: &[Entry] = &[
    Entry { name: "record", run: run_record },
    Entry { name: "body", run: run_body },
    Entry { name: "blob", run: run_blob },
    Entry { name: "frame", run: run_frame },
    Entry { name: "patch", run: run_patch },
    Entry { name: "shard", run: run_shard },
    Entry { name: "snapshot", run: run_snapshot },
    Entry { name: "head", run: run_head },
    Entry { name: "pin", run: run_pin },
    Entry { name: "log", run: run_log },
    Entry { name: "rows", run: run_rows },
    Entry { name: "keys", run: run_keys },
];

/// The entry of this name.
pub fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

/// With the eight bytes before `end` made the checksum of what lies between `start` and them.
fn mended(bytes: &[u8], start: usize, end: usize) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let at = end.checked_sub(8)?;
    let crc = crate::hash::crc64(bytes.get(start..at)?);
    bytes.get_mut(at..end)?.copy_from_slice(&crc.to_le_bytes());
    Some(bytes)
}

/// As they are, and with the checksum at their end mended.
fn each(bytes: &[u8], run: impl Fn(&[u8])) {
    run(bytes);
    if let Some(bytes) = mended(bytes, 0, bytes.len()) {
        run(&bytes);
    }
}

/// What was accepted reads back the same.
fn again<T: PartialEq + Debug>(
    value: &T,
    encode: impl Fn(&T) -> Result<Vec<u8>, FormatError>,
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
) {
    let bytes = encode(value);
    assert!(bytes.is_ok(), "what was read cannot be written: {bytes:?}");
    let read = bytes.and_then(|bytes| decode(&bytes));
    assert_eq!(read.as_ref(), Ok(value));
}

/// What was accepted is the one spelling of its value.
fn only<T: PartialEq + Debug>(
    bytes: &[u8],
    encode: impl Fn(&T) -> Result<Vec<u8>, FormatError>,
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
) {
    if let Ok(value) = decode(bytes) {
        let written = encode(&value);
        assert_eq!(written.as_deref(), Ok(bytes), "two spellings of one value: {value:?}");
    }
}

fn run_record(bytes: &[u8]) {
    let run = |bytes: &[u8]| {
        let opened = record::open(bytes);
        if let Ok((envelope, body)) = record::decode(bytes, None) {
            assert_eq!(opened.as_ref(), Ok(&envelope));
            let record = littoral_types::Record { header: envelope.header, body };
            let again = record::encode(&record, littoral_types::Seq(1));
            let read = again.as_ref().map(|again| record::decode(&again.object, None));
            assert!(
                matches!(&read, Ok(Ok((found, body))) if found.header == record.header && *body == record.body),
                "{record:?} became {read:?}"
            );
        }
        // The bytes may be a blob's whose header is another's: only errors can come of it.
        let _ = record::decode(bytes, Some(bytes));
    };
    run(bytes);
    if let Some(bytes) = mended(bytes, 0, record::HEADER_BYTES_MAX) {
        run(&bytes);
    }
}

/// The first byte picks the kind, the others are a body before compression.
fn run_body(bytes: &[u8]) {
    let Some((first, raw)) = bytes.split_first() else { return };
    let kind = RecordKind::ALL[usize::from(*first) % RecordKind::ALL.len()];
    only(raw, body::encode, |raw| body::decode(kind, raw));
}

fn run_blob(bytes: &[u8]) {
    let run = |bytes: &[u8]| {
        let index = blob::read_index(bytes, bytes.len() as u64);
        // A longer blob with this end: bounds come from what the caller says.
        let _ = blob::read_index(bytes, bytes.len() as u64 + 4096);
        if let Ok(verified) = blob::verify(bytes, &KEY) {
            assert_eq!(index, Ok(blob::Footer::Index(verified)));
        }
    };
    run(bytes);
    let footer = bytes.len().checked_sub(blob::TRAILER_LEN).and_then(|at| {
        let len: [u8; 8] = bytes.get(at..at + 8)?.try_into().ok()?;
        at.checked_sub(usize::try_from(u64::from_le_bytes(len)).ok()?)
    });
    let header = mended(bytes, 0, blob::HEADER_LEN as usize);
    if let (Some(start), Some(bytes)) = (footer, header)
        && let Some(bytes) = mended(&bytes, start, bytes.len() - 4)
    {
        run(&bytes);
    }
}

fn run_frame(bytes: &[u8]) {
    each(bytes, |bytes| {
        let Ok((page_size, mark, pages)) = held(bytes) else {
            let _ = blob::read_frame(bytes, PageSize::MIN, 0, &[PageNo::FIRST]);
            return;
        };
        if let Ok(raw) = blob::read_frame(bytes, page_size, mark, &pages) {
            assert_eq!(raw.len(), pages.len() * page_size.len());
            let mut room = Vec::new();
            let slots: Vec<_> = pages.iter().copied().zip(raw.chunks_exact(page_size.len())).collect();
            if slots.iter().all(|(_, page)| !frame::is_zero(page)) {
                let again = frame::encode(page_size, littoral_types::Compression::Lz4, mark, &slots, &mut room);
                assert_eq!(again.and_then(|again| blob::read_frame(&again, page_size, mark, &pages)), Ok(raw));
            }
        }
    });
}

/// What a frame says of its pages and of its blob.
fn held(bytes: &[u8]) -> Result<(PageSize, u64, Vec<PageNo>), FormatError> {
    let mut input = In::new(frame::WHAT, bytes);
    input.take(2 + 1 + 45)?;
    let mark = input.u64()?;
    let page_size = input.page_size()?;
    input.u32()?;
    let count = usize::from(input.u8()?).min(16);
    let mut place = crate::nouns::Ascending::default();
    let pages = (0..count).map(|_| place.get(&mut input)).collect::<Result<_, _>>()?;
    Ok((page_size, mark, pages))
}

fn run_patch(bytes: &[u8]) {
    each(bytes, |bytes| {
        let Ok((page_size, mark, pages)) = patched(bytes) else {
            let _ = patch::read(bytes, PageSize::MIN, 0, std::iter::once(PageNo::FIRST));
            return;
        };
        if let Ok(patches) = patch::read(bytes, page_size, mark, pages.iter().copied()) {
            let slots: Vec<_> = pages.into_iter().zip(patches).collect();
            assert_eq!(patch::encode(page_size, mark, &slots).as_deref(), Ok(bytes));
            let before = vec![b'x'; page_size.len()];
            for (_, patch) in slots {
                // Whatever its bytes are: a page or an error.
                let named = patch::Patch { base: crate::identity::of(&KEY, &before), ..patch };
                if let Ok(after) = named.apply(&before, &KEY) {
                    assert_eq!(after.len(), before.len());
                }
            }
        }
    });
}

fn patched(bytes: &[u8]) -> Result<(PageSize, u64, Vec<PageNo>), FormatError> {
    let mut input = In::new("patch frame", bytes);
    input.take(2 + 45)?;
    let mark = input.u64()?;
    let page_size = input.page_size()?;
    let count = usize::from(input.u8()?).min(16);
    let mut place = crate::nouns::Ascending::default();
    let mut pages = Vec::new();
    for _ in 0..count {
        pages.push(place.get(&mut input)?);
        input.take(16)?;
        input.blob(page_size.len())?;
    }
    Ok((page_size, mark, pages))
}

fn run_shard(bytes: &[u8]) {
    let run = |bytes: &[u8]| {
        if let Ok((shard, rows)) = shard::decode(bytes) {
            let again = shard::encode(shard, &rows);
            assert_eq!(again.map(|(bytes, _)| bytes).as_deref(), Ok(bytes));
        }
    };
    run(bytes);
    if let Some(bytes) = mended(bytes, 0, shard::HEADER_BYTES as usize) {
        run(&bytes);
        if let Some(bytes) = mended(&bytes, shard::HEADER_BYTES as usize, bytes.len()) {
            run(&bytes);
        }
    }
    each(bytes, |bytes| {
        // Past the version, the row says which chunk it is of.
        let chunk = bytes.get(2..).map(|bytes| In::new("row", bytes).varint());
        if let Some(Ok(chunk)) = chunk {
            let chunk = littoral_types::ChunkId(chunk);
            only(bytes, shard::encode_row, |bytes| shard::decode_row(bytes, chunk));
        }
    });
}

fn run_snapshot(bytes: &[u8]) {
    each(bytes, |bytes| {
        if let Ok(snapshot) = snapshot::decode(bytes) {
            again(&snapshot, snapshot::encode, snapshot::decode);
        }
    });
    if let Ok(snapshot) = snapshot::decode_raw(snapshot::KIND.version, bytes) {
        again(&snapshot, snapshot::encode, snapshot::decode);
    }
}

fn run_head(bytes: &[u8]) {
    each(bytes, |bytes| {
        if let Ok(head) = head::decode(bytes) {
            again(&head, head::encode, head::decode);
        }
    });
}

fn run_pin(bytes: &[u8]) {
    each(bytes, |bytes| {
        only(bytes, pin::encode, pin::decode);
        only(bytes, copy::encode, copy::decode);
    });
    let _ = object::unwrap(&snapshot::KIND, bytes);
}

/// The segment that entries of a log are read as entries of.
pub const LOG: LogHead = LogHead { log: VolumeId([9; 16]), first: Lsn(300), created_ms: 1_700_000_000_000 };

fn run_log(bytes: &[u8]) {
    each(bytes, |bytes| {
        if bytes.len() == log::HEAD_LEN {
            only(bytes, log::encode_head, log::decode_head);
        }
    });
    only(bytes, log::encode_index, log::decode_index);
    let trailer = bytes.len().checked_sub(log::TRAILER_BYTES);
    if let Some(bytes) = trailer.and_then(|trailer| mended(bytes, 0, trailer)) {
        only(&bytes, log::encode_index, log::decode_index);
    }
    let run = |bytes: &[u8]| {
        if let Ok(Some((head, body))) = log::decode_entry(&LOG, LOG.first, bytes) {
            let again = log::encode_entry(&LOG, LOG.first, &head, body);
            assert_eq!(again.as_deref(), Ok(&bytes[..log::entry_bytes(body.len())]));
        }
    };
    run(bytes);
    // With the sum that its bytes have.
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    if let Some(words) = words.first_chunk::<4>()
        && let Ok(Some(head)) = log::read_head(*words)
        && let Some(body) = bytes[log::ENTRY_HEAD_BYTES..].get(..head.len as usize)
    {
        let [_, sum, ..] = log::words_of(&LOG, LOG.first, &head, &mut log::EntrySum::of(body));
        let mut bytes = bytes.to_vec();
        bytes[8..16].copy_from_slice(&sum.to_le_bytes());
        run(&bytes);
    }
}

fn run_rows(bytes: &[u8]) {
    each(bytes, |bytes| {
        only(bytes, rows::volume::encode, rows::volume::decode);
        only(bytes, rows::base::encode, rows::base::decode);
        only(bytes, rows::delta::encode, rows::delta::decode);
        only(bytes, rows::change::encode, rows::change::decode);
        only(bytes, rows::lease::encode, rows::lease::decode);
        only(bytes, rows::lease_taken::encode, rows::lease_taken::decode);
        only(bytes, rows::intent::encode, rows::intent::decode);
        only(bytes, rows::staged::encode, rows::staged::decode);
        only(bytes, rows::job::encode, rows::job::decode);
        only(bytes, rows::job_note::encode, rows::job_note::decode);
        only(bytes, rows::session::encode, rows::session::decode);
        only(bytes, |ids: &Vec<_>| rows::identities::encode(ids), rows::identities::decode);
        only(bytes, |number| Ok(rows::number::encode(*number)), rows::number::decode);
    });
}

fn run_keys(bytes: &[u8]) {
    use crate::keys::ObjectKey;
    use littoral_types::ObjectPath;
    use rows::keys;
    if let Some(path) = std::str::from_utf8(bytes).ok().and_then(ObjectPath::parse)
        && let Some((volume, key)) = ObjectKey::parse(&path)
    {
        assert_eq!(key.path(&volume), path);
    }
    only(bytes, |volume| Ok(keys::volume(volume).to_vec()), keys::parse_volume);
    only(bytes, |(volume, chunk)| Ok(keys::chunk(volume, *chunk).to_vec()), keys::parse_chunk);
    only(bytes, |(volume, chunk, delta)| Ok(keys::delta(volume, *chunk, *delta).to_vec()), keys::parse_delta);
    only(bytes, |(volume, page)| Ok(keys::page(volume, *page).to_vec()), keys::parse_page);
    only(bytes, |(volume, page, delta)| Ok(keys::page_delta(volume, *page, *delta).to_vec()), keys::parse_page_delta);
    only(
        bytes,
        |(volume, last, chunk, version)| Ok(keys::life_end(volume, *last, *chunk, *version).to_vec()),
        keys::parse_life_end,
    );
    only(bytes, |(volume, group)| Ok(keys::group(volume, *group).to_vec()), keys::parse_group);
    only(bytes, |(volume, input)| Ok(keys::staged(volume, input).to_vec()), keys::parse_staged);
    only(bytes, |job| Ok(keys::job(*job).to_vec()), keys::parse_job);
    only(bytes, |(ms, job)| Ok(keys::ready(*ms, *job).to_vec()), keys::parse_ready);
    only(bytes, |change| Ok(keys::change(*change).to_vec()), keys::parse_change);
    only(bytes, |(volume, seq, change)| Ok(keys::change_of(volume, *seq, *change).to_vec()), keys::parse_change_of);
}
