//! What a restore has done so far, so that it can go on after a kill or a power loss.
//!
//! Text, one line an event, each ending with its own CRC64-NVME:
//!
//! ```text
//! littoral-restore 1 volume=.. record=.. len=.. inode=..   which state of which volume goes into which file
//! boot 5f6e..                                             a restore began to work on it, in this boot of the machine
//! done 0 67108864                                         these bytes were handed to the system
//! synced 12                                               the first 12 done lines are on the disk
//! ```
//!
//! A kill leaves what the system was handed; a power loss leaves what was synced. So a done line counts when it is
//! synced, or when the machine has not been started anew since. Reading stops at the first line that is torn.

use littoral_format::hash::crc64;
use littoral_types::{ByteSpan, RecordHash, VolumeId};
use std::collections::BTreeMap;

/// Which state of which volume a partial file is going to be, and which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Purpose {
    pub(crate) volume: VolumeId,
    pub(crate) record: RecordHash,
    pub(crate) len: u64,
    pub(crate) inode: u64,
}

/// Runs of bytes, merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs(BTreeMap<u64, u64>);

impl Runs {
    /// Adds `offset..end`.
    pub(crate) fn add(&mut self, span: ByteSpan) {
        let (mut start, Some(mut end)) = (span.offset, span.end()) else { return };
        if span.len == 0 {
            return;
        }
        // Whoever touches the new run becomes part of it.
        let touching = |runs: &BTreeMap<u64, u64>, start, end| {
            runs.range(..=end).next_back().filter(|(_, run_end)| **run_end >= start).map(|(at, until)| (*at, *until))
        };
        while let Some((at, until)) = touching(&self.0, start, end) {
            self.0.remove(&at);
            start = start.min(at);
            end = end.max(until);
        }
        self.0.insert(start, end);
    }

    /// Whether all of these bytes are in it.
    pub(crate) fn holds(&self, span: ByteSpan) -> bool {
        let Some(end) = span.end() else { return false };
        span.len == 0 || self.0.range(..=span.offset).next_back().is_some_and(|(_, until)| *until >= end)
    }

    /// The first byte below `len` that is not in it.
    pub(crate) fn first_gap(&self, len: u64) -> Option<u64> {
        let covered = self.0.get(&0).copied().unwrap_or(0);
        (covered < len).then_some(covered)
    }

    /// How many bytes are in it.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// The runs, ascending.
    pub(crate) fn spans(&self) -> impl Iterator<Item = ByteSpan> + '_ {
        self.0.iter().map(|(start, end)| ByteSpan { offset: *start, len: end - start })
    }
}

fn title(purpose: &Purpose) -> String {
    let Purpose { volume, record, len, inode } = purpose;
    format!("littoral-restore 1 volume={volume} record={record} len={len} inode={inode}")
}

pub(crate) fn header(purpose: &Purpose) -> String {
    line(&title(purpose))
}

pub(crate) fn boot(boot: &str) -> String {
    line(&format!("boot {boot}"))
}

pub(crate) fn done(span: ByteSpan) -> String {
    line(&format!("done {} {}", span.offset, span.len))
}

pub(crate) fn synced(count: usize) -> String {
    line(&format!("synced {count}"))
}

fn line(text: &str) -> String {
    format!("{text} {:016x}\n", crc64(text.as_bytes()))
}

/// What a journal says to a restore that begins in the boot `now`: what is done, if it is about this very state. `None`:
/// about something else, or about nothing any more.
pub(crate) fn read(bytes: &[u8], purpose: &Purpose, now: &str) -> Option<Runs> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').map_while(checked);
    if lines.next()? != title(purpose) {
        return None;
    }
    let mut safe: Vec<ByteSpan> = Vec::new(); // On the disk, whatever happened.
    let mut all: Vec<ByteSpan> = Vec::new(); // Every done line, for `synced` to count.
    let mut pending: Vec<ByteSpan> = Vec::new(); // With the system, in the boot named last.
    let mut last_boot = None;
    for text in lines {
        let mut words = text.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("boot"), Some(boot), None) => {
                if last_boot.as_deref() != Some(boot) {
                    pending.clear();
                }
                last_boot = Some(boot.to_owned());
            }
            (Some("done"), Some(offset), Some(len)) => {
                let (Ok(offset), Ok(len)) = (offset.parse(), len.parse()) else { break };
                let span = ByteSpan { offset, len };
                if span.end().is_none_or(|end| end > purpose.len) {
                    break;
                }
                all.push(span);
                pending.push(span);
            }
            (Some("synced"), Some(count), None) => match count.parse::<usize>().ok().and_then(|count| all.get(..count))
            {
                Some(on_disk) => safe.extend(on_disk),
                None => break,
            },
            _ => break,
        }
    }
    if last_boot.as_deref() != Some(now) {
        pending.clear();
    }
    let mut runs = Runs::default();
    safe.into_iter().chain(pending).for_each(|span| runs.add(span));
    Some(runs)
}

/// A whole line without its checksum, if that is right.
fn checked(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (text, crc) = text.rsplit_once(' ')?;
    (crc == format!("{:016x}", crc64(text.as_bytes()))).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURPOSE: Purpose = Purpose { volume: VolumeId([1; 16]), record: RecordHash([2; 32]), len: 1000, inode: 5 };

    fn span(offset: u64, len: u64) -> ByteSpan {
        ByteSpan { offset, len }
    }

    fn runs(spans: &[(u64, u64)]) -> Runs {
        let mut runs = Runs::default();
        spans.iter().for_each(|(offset, len)| runs.add(span(*offset, *len)));
        runs
    }

    #[test]
    fn runs_are_what_a_set_of_bytes_is() {
        let mut state = 7_u64;
        let mut roll = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..300 {
            let (mut runs, mut set) = (Runs::default(), [false; 64]);
            for _ in 0..roll(12) {
                let (offset, len) = (roll(60), roll(9));
                runs.add(span(offset, len));
                (offset..(offset + len).min(64)).for_each(|at| set[at as usize] = true);
                assert_eq!(runs.first_gap(64), set.iter().position(|held| !held).map(|at| at as u64));
                let (offset, len) = (roll(50), roll(9));
                let expected = (offset..offset + len).all(|at| set[at as usize]);
                assert_eq!(runs.holds(span(offset, len)), expected);
            }
            let spans: Vec<_> = runs.spans().collect();
            assert!(spans.windows(2).all(|two| two[0].end().unwrap() < two[1].offset), "merged and ascending");
        }
    }

    #[test]
    fn after_a_kill_what_was_handed_over_counts_and_after_a_power_loss_what_was_synced() {
        let text = [
            header(&PURPOSE),
            boot("A"),
            done(span(0, 100)),
            done(span(300, 100)),
            synced(1),
            boot("A"), // Killed and begun again.
            done(span(100, 100)),
        ]
        .concat();
        assert_eq!(read(text.as_bytes(), &PURPOSE, "A"), Some(runs(&[(0, 200), (300, 100)])));
        assert_eq!(read(text.as_bytes(), &PURPOSE, "B"), Some(runs(&[(0, 100)])));
        let on = [text, boot("B"), done(span(500, 10))].concat();
        assert_eq!(read(on.as_bytes(), &PURPOSE, "B"), Some(runs(&[(0, 100), (500, 10)])));
        assert_eq!(read(on.as_bytes(), &PURPOSE, "A"), Some(runs(&[(0, 100)])), "A is over, whatever its name");
    }

    #[test]
    fn the_file_looks_as_documented() {
        let lines = [header(&PURPOSE), boot("5f6e"), done(span(0, 100)), synced(1)].concat();
        let shown: String = lines
            .lines()
            .map(|line| {
                let (text, crc) = line.rsplit_once(' ').unwrap();
                assert_eq!(crc, format!("{:016x}", crc64(text.as_bytes())));
                format!("{text} CRC\n")
            })
            .collect();
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format.md");
        assert!(std::fs::read_to_string(page).unwrap().contains(&format!("```text\n{shown}```\n")), "{shown}");
    }

    #[test]
    fn a_journal_of_anything_else_is_none() {
        let text = [header(&PURPOSE), boot("A"), done(span(0, 100))].concat();
        for other in [
            Purpose { volume: VolumeId([9; 16]), ..PURPOSE },
            Purpose { record: RecordHash([9; 32]), ..PURPOSE },
            Purpose { len: 999, ..PURPOSE },
            Purpose { inode: 6, ..PURPOSE },
        ] {
            assert_eq!(read(text.as_bytes(), &other, "A"), None);
        }
        assert_eq!(read(b"", &PURPOSE, "A"), None);
    }

    #[test]
    fn a_torn_or_flipped_journal_never_says_more_than_was_done() {
        let lines = [header(&PURPOSE), boot("A"), done(span(0, 10)), done(span(20, 10)), synced(2), done(span(40, 10))];
        let text = lines.concat().into_bytes();
        let whole = read(&text, &PURPOSE, "A").unwrap();
        let within = |part: &Runs| part.spans().all(|span| whole.holds(span));
        for end in 0..text.len() {
            assert!(read(&text[..end], &PURPOSE, "A").is_none_or(|part| within(&part)));
            let mut torn = text[..end].to_vec();
            torn.resize(text.len(), 0); // A file system may have kept the length and lost the bytes.
            assert!(read(&torn, &PURPOSE, "A").is_none_or(|part| within(&part)));
        }
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1 << bit;
                assert!(read(&flipped, &PURPOSE, "A").is_none_or(|part| within(&part)), "byte {at} bit {bit}");
            }
        }
        let beyond = [header(&PURPOSE), boot("A"), done(span(990, 11)), done(span(0, 1))].concat();
        assert_eq!(read(beyond.as_bytes(), &PURPOSE, "A"), Some(Runs::default()));
    }
}
