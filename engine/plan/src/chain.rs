//! Which record may follow which (rule P3).

use littoral_types::{Epoch, Lsn, RecordHash, RecordHeader, RecordKind, Seq, VolumeId};

/// The end of a chain: all that the next record must agree with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Which volume; `None` before the first record.
    pub volume: Option<VolumeId>,
    /// The newest record.
    pub seq: Seq,
    /// Its hash.
    pub hash: RecordHash,
    /// Its term.
    pub epoch: Epoch,
    /// The last commit.
    pub lsn: Lsn,
}

impl Link {
    /// Before the first record.
    pub const START: Link =
        Link { volume: None, seq: Seq::ZERO, hash: RecordHash::NONE, epoch: Epoch::ZERO, lsn: Lsn::ZERO };

    /// The end of the chain after this record.
    pub const fn after(header: &RecordHeader, hash: RecordHash) -> Self {
        Self { volume: Some(header.volume), seq: header.seq, hash, epoch: header.epoch, lsn: header.lsns.last }
    }
}

/// How a record fails to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainBreak {
    /// It belongs to another volume's log.
    #[error("record {seq} belongs to volume {found}, not to {expected}")]
    Volume {
        /// The record.
        seq: Seq,
        /// The volume it names.
        found: VolumeId,
        /// The volume whose log it is in.
        expected: VolumeId,
    },
    /// It does not say the place it was found at.
    #[error("record {expected} says that it is record {found}")]
    Seq {
        /// The place it names.
        found: Seq,
        /// The place it has.
        expected: Seq,
    },
    /// It follows another record than the one before it.
    #[error("record {seq} does not follow from record {}: its link is another", seq.0.saturating_sub(1))]
    Hash {
        /// The record.
        seq: Seq,
    },
    /// Its first commit is not the one after the last.
    #[error("record {seq} begins at LSN {found}, expected {expected}")]
    Lsn {
        /// The record.
        seq: Seq,
        /// Where it begins.
        found: Lsn,
        /// Where it should.
        expected: Lsn,
    },
    /// Terms begin with claims, one after another, and with nothing else; but for the first of a fork.
    #[error("record {seq} is a {kind} of epoch {found} after epoch {before}")]
    Epoch {
        /// The record.
        seq: Seq,
        /// What it is.
        kind: RecordKind,
        /// Its term.
        found: Epoch,
        /// The term before.
        before: Epoch,
    },
}

/// Refuses a record that does not follow.
pub fn follows(link: &Link, header: &RecordHeader, kind: RecordKind) -> Result<(), ChainBreak> {
    let seq = link.seq.next();
    if header.seq != seq {
        return Err(ChainBreak::Seq { found: header.seq, expected: seq });
    }
    if let Some(expected) = link.volume.filter(|volume| *volume != header.volume) {
        return Err(ChainBreak::Volume { seq, found: header.volume, expected });
    }
    if header.previous != link.hash {
        return Err(ChainBreak::Hash { seq });
    }
    let first = link.lsn.next();
    if header.lsns.first != first || header.lsns.last.next() < first {
        return Err(ChainBreak::Lsn { seq, found: header.lsns.first, expected: first });
    }
    let begins = kind == RecordKind::Claim || (kind == RecordKind::Fork && link.seq == Seq::ZERO);
    let expected = if begins { link.epoch.next() } else { link.epoch };
    if kind == RecordKind::Fork && !begins || header.epoch != expected || header.epoch == Epoch::ZERO {
        return Err(ChainBreak::Epoch { seq, kind, found: header.epoch, before: link.epoch });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_types::{FooterFigures, Incarnation, LsnRange, VolumeFigures};

    fn next(link: &Link) -> RecordHeader {
        RecordHeader {
            volume: VolumeId([1; 16]),
            seq: link.seq.next(),
            epoch: link.epoch,
            incarnation: Incarnation([2; 16]),
            previous: link.hash,
            lsns: LsnRange { first: link.lsn.next(), last: link.lsn.next() },
            time_ms: 0,
            snapshot: Seq::ZERO,
            figures: VolumeFigures::default(),
            added: FooterFigures::default(),
        }
    }

    /// Every way a record can fail to follow, refused; the one that follows, accepted.
    #[test]
    fn p03_breaks_of_the_chain_are_refused() {
        let link = Link {
            volume: Some(VolumeId([1; 16])),
            seq: Seq(7),
            hash: RecordHash([7; 32]),
            epoch: Epoch(3),
            lsn: Lsn(40),
        };
        let good = next(&link);
        assert_eq!(follows(&link, &good, RecordKind::Checkpoint), Ok(()));
        type Break = fn(&mut RecordHeader);
        let breaks: [(&str, Break); 8] = [
            ("another volume", |header| header.volume = VolumeId([9; 16])),
            ("a place further on", |header| header.seq = Seq(9)),
            ("the same place again", |header| header.seq = Seq(7)),
            ("another predecessor", |header| header.previous = RecordHash([8; 32])),
            ("a hole in the commits", |header| header.lsns.first = Lsn(42)),
            ("commits twice", |header| header.lsns.first = Lsn(40)),
            ("an older term", |header| header.epoch = Epoch(2)),
            ("a newer term without a claim", |header| header.epoch = Epoch(4)),
        ];
        for (what, harm) in breaks {
            let mut header = good.clone();
            harm(&mut header);
            assert!(follows(&link, &header, RecordKind::Checkpoint).is_err(), "{what}");
        }
        let claim = |epoch| RecordHeader { epoch: Epoch(epoch), ..good.clone() };
        assert_eq!(follows(&link, &claim(4), RecordKind::Claim), Ok(()));
        assert!(follows(&link, &claim(3), RecordKind::Claim).is_err(), "a claim of a term that is taken");
        assert!(follows(&link, &claim(5), RecordKind::Claim).is_err(), "a claim that skips a term");
        // A fork is a first record, and no other.
        for epoch in [3, 4] {
            assert!(follows(&link, &claim(epoch), RecordKind::Fork).is_err(), "a fork inside of a log, epoch {epoch}");
        }
        let first =
            RecordHeader { epoch: Epoch(1), lsns: LsnRange { first: Lsn(1), last: Lsn(40) }, ..next(&Link::START) };
        assert_eq!(follows(&Link::START, &first, RecordKind::Fork), Ok(()));
        assert!(follows(&Link::START, &RecordHeader { epoch: Epoch(2), ..first }, RecordKind::Fork).is_err());
    }
}
