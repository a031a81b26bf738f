//! Which pieces of a log's segment stay where they are in the object store, and which travel once more together with what is new.
//!
//! Pieces that travel in records come in tiers of sizes, each [`LOG_PIECES_RATIO`] times the one before. So many of one tier, or of smaller
//! ones behind it, become one: a segment has few pieces however often it was shipped, and a byte travels a few times at most.
//! What is an object of its own is never uploaded twice (rule P15).

use littoral_types::limits::{LOG_PIECES_RATIO, SEGMENT_INLINE_MAX};

/// A piece, as far as this looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its bytes.
    pub len: u64,
    /// Whether it is an object of its own.
    pub is_apart: bool,
}

/// How many of the pieces, oldest first, stay as they are. The others become one with the `new` bytes that follow them.
pub fn pieces(before: &[Piece], new: u64) -> usize {
    let first = before.iter().rposition(|piece| piece.is_apart).map_or(0, |last| last + 1);
    let (mut kept, mut len) = (before.len(), new);
    loop {
        // What becomes an object takes along all that lies loose before it.
        let is_apart = len > SEGMENT_INLINE_MAX as u64;
        let goes = |piece: &&Piece| is_apart || tier(piece.len) <= tier(len);
        let loose = before.get(first..kept).unwrap_or_default();
        let merged: Vec<&Piece> = loose.iter().rev().take_while(goes).collect();
        if merged.is_empty() || !is_apart && (merged.len() as u64) < LOG_PIECES_RATIO - 1 {
            return kept;
        }
        kept -= merged.len();
        len = merged.iter().fold(len, |sum, piece| sum.saturating_add(piece.len));
    }
}

fn tier(len: u64) -> u32 {
    len.checked_ilog(LOG_PIECES_RATIO).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_types::limits::{LOG_PIECES_MAX, LOG_SEGMENT_BYTES};

    /// Ships so many bytes each time; the pieces at the end, their largest number, and all bytes that travelled.
    fn shipped(steps: impl IntoIterator<Item = u64>) -> (Vec<Piece>, usize, u64) {
        let (mut all, mut most, mut travelled): (Vec<Piece>, usize, u64) = (Vec::new(), 0, 0);
        for new in steps {
            let kept = pieces(&all, new);
            let len =
                new + all.drain(kept..).inspect(|piece| assert!(!piece.is_apart)).map(|piece| piece.len).sum::<u64>();
            all.push(Piece { len, is_apart: len > SEGMENT_INLINE_MAX as u64 });
            (most, travelled) = (most.max(all.len()), travelled + len);
        }
        (all, most, travelled)
    }

    #[test]
    fn p15_a_segment_has_few_pieces_and_its_bytes_travel_a_few_times() {
        for step in [8, 48, 100, 1_000, 4_096, 70_000, 1 << 20, 3 << 20] {
            let times = (LOG_SEGMENT_BYTES / step).min(100_000);
            let (all, most, travelled) = shipped((0..times).map(|_| step));
            assert!(most <= LOG_PIECES_MAX / 2, "{step}: {most}");
            assert_eq!(all.iter().map(|piece| piece.len).sum::<u64>(), step * times);
            assert!(travelled <= 12 * step * times, "{step}: {travelled}");
        }
        let uneven = (0..3_000).map(|nth: u64| if nth.is_multiple_of(5) { 100_000 } else { 8 * (1 + nth % 40) });
        let (_, most, _) = shipped(uneven);
        assert!(most <= LOG_PIECES_MAX / 2, "{most}");
    }

    #[test]
    fn what_is_an_object_stays_and_takes_along_what_lies_loose_before_it() {
        let loose = |len| Piece { len, is_apart: false };
        let apart = Piece { len: 2 << 20, is_apart: true };
        assert_eq!(pieces(&[], 5), 0);
        assert_eq!(pieces(&[loose(80), loose(80)], 80), 2);
        assert_eq!(pieces(&[loose(80), loose(80), loose(80)], 80), 0);
        assert_eq!(pieces(&[loose(8_000), loose(80), loose(80), loose(80)], 80), 1);
        assert_eq!(pieces(&[apart, loose(80)], 3 << 20), 1);
        assert_eq!(pieces(&[apart, apart], 8), 2);
    }
}
