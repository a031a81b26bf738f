//! A log's entries, taken one after another as appenders write them, and what comes of it.

use super::chance::Chance;
use crate::log::*;
use littoral_types::limits::{LOG_BLOCK_BYTES, LOG_HEAD_BYTES, LOG_RECORD_MAX};
use littoral_types::{
    LogCell, LogEntryHead, LogEntryKind, LogHead, LogIndex, LogZone, Lsn, Serial, SessionName, Sessions, VolumeId,
};
use proptest::prelude::*;

fn head(chance: &mut Chance) -> LogHead {
    LogHead { log: VolumeId(chance.array()), first: Lsn(1 + chance.below(1 << 40)), created_ms: chance.bits() }
}

/// A segment as appenders write it: its entries one after another, and the fold of them.
fn segment(chance: &mut Chance) -> (Vec<(LogEntryHead, Vec<u8>)>, Fold) {
    let before: Sessions =
        (0..chance.below(3)).map(|nth| (format!("old {nth}").parse().unwrap(), Serial::new(5).unwrap())).collect();
    let mut fold = Fold::new(head(chance), &before);
    let (mut entries, mut numbers) = (Vec::new(), 0);
    for _ in 0..chance.below(200) {
        let name: SessionName = format!("old {}", chance.below(5)).parse().unwrap();
        let (mut serial, time_ms) = (fold.serial_of(&name).unwrap_or(Serial::ZERO), chance.bits());
        let is_named = chance.yes();
        if is_named && fold.number_of(&name).is_none() {
            numbers += 1;
            let body = name.as_str().as_bytes().to_vec();
            let (kind, len) = (LogEntryKind::Session, body.len() as u32);
            let entry = LogEntryHead { kind, session: numbers, len, serial, time_ms };
            fold.take(&entry, Some(&name)).unwrap();
            entries.push((entry, body));
        }
        let session = if is_named { fold.number_of(&name).unwrap() } else { 0 };
        serial = if is_named { Serial::new(serial.get() + 1 + chance.below(9)).unwrap() } else { Serial::ZERO };
        let len = if chance.below(20) == 0 { chance.below(100_000) } else { chance.below(300) };
        let entry = LogEntryHead { kind: LogEntryKind::Record, session, len: len as u32, serial, time_ms };
        fold.take(&entry, None).unwrap();
        entries.push((entry, chance.bytes(len as usize)));
    }
    (entries, fold)
}

fn spelled(entries: &[(LogEntryHead, Vec<u8>)], head: &LogHead) -> Vec<u8> {
    let (mut bytes, mut lsn) = (vec![0; LOG_HEAD_BYTES as usize], head.first);
    for (entry, body) in entries {
        bytes.extend(encode_entry(head, lsn, entry, body).unwrap());
        if entry.kind == LogEntryKind::Record {
            lsn = lsn.next();
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_segment_reads_back_entry_by_entry_and_its_index_leads_to_each_block(seed: u64) {
        let (entries, fold) = segment(&mut Chance::new(seed));
        let (head, index) = (*fold.head(), fold.index());
        prop_assert_eq!(decode_head(&encode_head(&head).unwrap()), Ok(head));
        let bytes = spelled(&entries, &head);
        prop_assert_eq!(bytes.len() as u64, index.end);
        let spelled = encode_index(&index).unwrap();
        prop_assert_eq!(decode_index(&spelled), Ok(index.clone()));
        prop_assert_eq!(decode_trailer(*spelled.last_chunk().unwrap()), Ok(spelled.len() as u64));
        // Each block by itself gives its own entries, and all of them together are all.
        let mut left = entries.iter();
        for (nth, block) in index.blocks.iter().enumerate() {
            let (mut at, mut lsn, end) = (block.offset, block.first, index.end_of(nth));
            prop_assert!(nth == 0 || at / LOG_BLOCK_BYTES > index.blocks[nth - 1].offset / LOG_BLOCK_BYTES);
            let (mut since_ms, mut until_ms) = (u64::MAX, 0);
            while at < end {
                let (entry, body) = decode_entry(&head, lsn, &bytes[at as usize..end as usize]).unwrap().unwrap();
                let (expected, expected_body) = left.next().unwrap();
                prop_assert_eq!((&entry, body), (expected, expected_body.as_slice()));
                at += entry_bytes(body.len()) as u64;
                if entry.kind == LogEntryKind::Record {
                    lsn = lsn.next();
                    since_ms = since_ms.min(entry.time_ms);
                    until_ms = until_ms.max(entry.time_ms);
                }
            }
            prop_assert_eq!((since_ms, until_ms), (block.since_ms, block.until_ms));
        }
        prop_assert!(left.next().is_none());
    }

    #[test]
    fn an_entry_at_another_place_or_of_another_log_is_none(seed: u64) {
        let mut chance = Chance::new(seed);
        let (entries, fold) = segment(&mut chance);
        let log = *fold.head();
        let Some((entry, body)) = entries.first() else { return Ok(()) };
        let bytes = encode_entry(&log, log.first, entry, body).unwrap();
        prop_assert!(decode_entry(&log, log.first.next(), &bytes).is_err());
        let other = LogHead { log: VolumeId(chance.array()), ..log };
        prop_assert!(decode_entry(&other, log.first, &bytes).is_err());
        for len in 0..bytes.len() {
            prop_assert!(decode_entry(&log, log.first, &bytes[..len]).is_err());
        }
    }
}

#[test]
fn an_index_is_refused_that_no_fold_makes() {
    let mut chance = Chance::new(3);
    let fold = std::iter::repeat_with(|| segment(&mut chance).1).find(|fold| fold.index().blocks.len() > 2).unwrap();
    let index = fold.index();
    type Break = fn(&mut LogIndex);
    let breaks: [(&str, Break); 6] = [
        ("entries end", |index| index.end += 4),
        ("LSNs", |index| index.records = u64::MAX),
        ("first block", |index| index.blocks[0].offset += 8),
        ("blocks out of", |index| index.blocks.swap(1, 2)),
        ("sessions out of", |index| index.sessions.reverse()),
        ("numbers of", |index| index.sessions[0].number += 7),
    ];
    for (words, make) in breaks {
        let mut broken = index.clone();
        make(&mut broken);
        let refused = encode_index(&broken).unwrap_err().to_string();
        assert!(refused.contains(words), "{words}: {refused}");
    }
}

#[test]
fn an_entry_of_more_than_a_record_holds_is_refused_both_ways() {
    let log = head(&mut Chance::new(1));
    let len = LOG_RECORD_MAX as u32 + 1;
    let entry = LogEntryHead { kind: LogEntryKind::Record, session: 0, len, serial: Serial::ZERO, time_ms: 0 };
    assert!(encode_entry(&log, Lsn(1), &entry, &vec![0; len as usize]).is_err());
    assert!(read_head(words_of(&log, Lsn(1), &entry, &mut EntrySum::of(b""))).is_err());
}

fn cell(chance: &mut Chance) -> LogCell<Vec<u8>> {
    let bytes = |chance: &mut Chance| (0..chance.below(70)).map(|_| chance.below(256) as u8).collect();
    match chance.below(6) {
        0 => LogCell::Null,
        1 => LogCell::Integer((chance.bits() as i64) >> chance.below(64)),
        2 => LogCell::Real(chance.below(1 << 40) as f64 / 8.0),
        3 => LogCell::Text(bytes(chance)),
        _ => LogCell::Blob(bytes(chance)),
    }
}

fn lent(cell: &LogCell<Vec<u8>>) -> LogCell<&[u8]> {
    match cell {
        LogCell::Null => LogCell::Null,
        LogCell::Integer(number) => LogCell::Integer(*number),
        LogCell::Real(number) => LogCell::Real(*number),
        LogCell::Text(bytes) => LogCell::Text(bytes),
        LogCell::Blob(bytes) => LogCell::Blob(bytes),
    }
}

fn row_of(cells: &[LogCell<Vec<u8>>]) -> Vec<u8> {
    let mut row = Vec::new();
    begin_row(&mut row);
    cells.iter().for_each(|cell| put_cell(&mut row, &lent(cell)));
    row
}

#[test]
fn a_row_is_spelled_as_the_page_says() {
    let cells = [
        LogCell::Null,
        LogCell::Integer(0),
        LogCell::Integer(1),
        LogCell::Integer(-1),
        LogCell::Integer(128),
        LogCell::Integer(1 << 33),
        LogCell::Integer(i64::MIN),
        LogCell::Real(0.5),
        LogCell::Text(b"hi".to_vec()),
        LogCell::Blob(vec![7; 60]),
    ];
    let mut expected = vec![1, 0, 8, 9, 1, 0xff, 2, 0x80, 0, 5, 0, 0, 0, 0, 2, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0x80];
    expected.extend([7, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f, 17, b'h', b'i', 0x84, 1]);
    expected.extend([7; 60]);
    assert_eq!(row_of(&cells), expected);
}

#[test]
fn rows_and_zones_read_as_they_were_written_and_nothing_else_does() {
    let chance = &mut Chance::new(11);
    let mut read = Vec::new();
    for _ in 0..500 {
        let cells: Vec<_> = (0..chance.below(12)).map(|_| cell(chance)).collect();
        let row = row_of(&cells);
        decode_row(&row, &mut read).unwrap();
        let same = |(read, cell): (&LogCell<std::ops::Range<usize>>, &LogCell<Vec<u8>>)| match (read, cell) {
            (LogCell::Text(place), LogCell::Text(bytes)) | (LogCell::Blob(place), LogCell::Blob(bytes)) => {
                row[place.clone()] == bytes[..]
            }
            (LogCell::Integer(read), LogCell::Integer(number)) => read == number,
            (LogCell::Real(read), LogCell::Real(number)) => read == number,
            (read, cell) => *read == LogCell::Null && *cell == LogCell::Null,
        };
        assert!(read.len() == cells.len() && read.iter().zip(&cells).all(same), "{cells:?}");
        for len in 0..row.len() {
            // A row that is cut is none, or one with fewer values.
            if decode_row(&row[..len], &mut read).is_ok() {
                assert!(read.len() < cells.len());
            }
        }
        let (columns, blocks) = (1 + chance.below(4) as usize, chance.below(5) as usize);
        let zone = |chance: &mut Chance| LogZone {
            bounds: chance.yes().then(|| (LogCell::Integer(chance.bits() as i64), LogCell::Text(vec![b'x'; 32]))),
            is_cut: chance.yes(),
            like_numbers: chance.yes(),
        };
        let zones = (0..columns * blocks).map(|_| zone(chance)).collect();
        let zones = Zones { log: VolumeId(chance.array()), first: Lsn(chance.bits()), columns, zones };
        let mut bytes = encode_zones(&zones).unwrap();
        assert_eq!(decode_zones(&bytes).unwrap(), zones);
        let at = chance.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << chance.below(8);
        assert!(decode_zones(&bytes).is_err(), "byte {at}");
    }
}
