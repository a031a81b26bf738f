//! What a copy needs next.

use crate::Link;
use littoral_types::{RecordHash, Seq};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It holds everything that was published.
    Nothing,
    /// Records after its own end, in order, up to this one.
    Records(Seq),
    /// It begins, or begins anew, at this record: those between its end and that one were pruned.
    Fill(Seq),
    /// Its log ends behind the primary's: the primary lost records, or the copy was written to.
    Ahead,
}

/// What a copy that ends there needs of a log with this tail and this floor (zero where nothing was ever pruned).
pub fn replicate(end: Option<Seq>, tail: Seq, floor: Seq) -> Next {
    let next = end.unwrap_or(Seq::ZERO).next();
    match end {
        _ if tail == Seq::ZERO => Next::Nothing,
        Some(end) if end > tail => Next::Ahead,
        Some(end) if end == tail => Next::Nothing,
        // A copy that is empty begins where every reader of the primary does.
        _ if next < floor => Next::Fill(floor),
        _ => Next::Records(tail),
    }
}

/// Which of the records that lie at hand are part of the log: those that lead, hash by hash, to one that is. From the newest on backwards;
/// `header` tells of a record that lies there its own hash and the one that it names. Ascending.
pub fn vouched(
    end: Seq,
    tail: Link,
    mut header: impl FnMut(Seq) -> Option<(RecordHash, RecordHash)>,
) -> Vec<(Seq, RecordHash)> {
    let mut vouched = Vec::new();
    let (mut seq, mut hash) = (tail.seq, tail.hash);
    while seq > end {
        match header(seq) {
            Some((own, previous)) if own == hash => {
                vouched.push((seq, own));
                (seq, hash) = (Seq(seq.0 - 1), previous);
            }
            _ => break,
        }
    }
    vouched.reverse();
    vouched
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_types::{Epoch, Lsn};

    #[test]
    fn a_copy_follows_record_by_record_and_begins_anew_where_records_were_pruned() {
        for (end, tail, floor, next) in [
            (None, 0, 0, Next::Nothing),
            (None, 9, 0, Next::Records(Seq(9))),
            (None, 9, 1, Next::Records(Seq(9))),
            (None, 9, 5, Next::Fill(Seq(5))),
            (Some(9), 9, 5, Next::Nothing),
            (Some(7), 9, 5, Next::Records(Seq(9))),
            // The record after its end is the oldest that is there.
            (Some(4), 9, 5, Next::Records(Seq(9))),
            (Some(3), 9, 5, Next::Fill(Seq(5))),
            (Some(10), 9, 5, Next::Ahead),
        ] {
            assert_eq!(replicate(end.map(Seq), Seq(tail), Seq(floor)), next, "{end:?} {tail} {floor}");
        }
    }

    #[test]
    fn p05_a_record_that_nobody_acknowledged_is_not_copied_though_it_lies_at_hand() {
        let hash = |nth: u8| RecordHash([nth; 32]);
        let tail = Link { volume: None, seq: Seq(6), hash: hash(6), epoch: Epoch(1), lsn: Lsn(1) };
        let chain = |seq: Seq| Some((hash(seq.0 as u8), hash(seq.0 as u8 - 1)));
        let seqs = |found: Vec<(Seq, RecordHash)>| found.into_iter().map(|(seq, _)| seq.0).collect::<Vec<_>>();
        assert_eq!(seqs(vouched(Seq(2), tail, chain)), [3, 4, 5, 6]);
        let with = |gone: u64| move |seq: Seq| if seq.0 == gone { None } else { chain(seq) };
        assert_eq!(seqs(vouched(Seq(2), tail, with(4))), [5, 6]);
        let foreign = |seq: Seq| if seq.0 == 5 { Some((hash(99), hash(4))) } else { chain(seq) };
        assert_eq!(seqs(vouched(Seq(2), tail, foreign)), [6]);
        assert_eq!(seqs(vouched(Seq(6), tail, chain)), [0; 0]);
    }
}
