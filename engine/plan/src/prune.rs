//! Which restore points stay: all from one on, and of those before it fewer and fewer.

use littoral_types::{Lsn, Retention, Seq};
use std::collections::BTreeMap;

/// A record that a restore can end at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestorePoint {
    /// The record.
    pub seq: Seq,
    /// Its last commit.
    pub lsn: Lsn,
    /// Its wall clock.
    pub time_ms: u64,
    /// Whether it stands without the records before it: a checkpoint folds them.
    pub is_folded: bool,
}

/// What the user wants kept. A point stays when either says so; the newest always stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepPolicy {
    /// The newest so many.
    pub last: u64,
    /// Those of the last so many milliseconds, and the one that was current at their beginning.
    pub within_ms: u64,
}

/// The oldest restore point that stays; everything before it may go unless pinned. `None` when there is none at all.
/// `points` are ascending.
pub fn prune_floor(points: &[RestorePoint], keep: KeepPolicy, now_ms: u64) -> Option<RestorePoint> {
    let newest = points.len().checked_sub(1)?;
    let by_count = newest.saturating_sub(usize::try_from(keep.last.max(1) - 1).unwrap_or(usize::MAX));
    let since = now_ms.saturating_sub(keep.within_ms);
    // The state at any moment of the window must be restorable: the point that was current when it began stays too.
    let by_time = points.iter().rposition(|point| point.time_ms <= since).unwrap_or(0);
    points.get(by_count.min(by_time)).copied()
}

/// Of the restore points before the floor, those that a coarser history keeps. `points` are ascending, and so is the answer.
///
/// Time is cut into pieces that do not move, one tier's after the other's age; of each piece that has restore points one stays: the last that
/// stands alone, else the last. So it comes to the same whether a prune ran every hour or once a year, as far as anything was left to
/// choose from; and what one tier has left, the next one thins.
pub fn thinned(points: &[RestorePoint], retention: &Retention, now_ms: u64) -> Vec<RestorePoint> {
    let mut kept: BTreeMap<(usize, u64), RestorePoint> = BTreeMap::new();
    let mut all = Vec::new();
    for point in points {
        let age = now_ms.saturating_sub(point.time_ms);
        if age <= retention.all_ms() {
            all.push(*point);
            continue;
        }
        let tier = retention.tiers().iter().enumerate().find(|(_, tier)| age <= tier.for_ms);
        let Some((nth, tier)) = tier else { continue };
        let place = (nth, point.time_ms.checked_div(tier.every_ms).unwrap_or_default());
        let there = kept.entry(place).or_insert(*point);
        if point.is_folded || !there.is_folded {
            *there = *point;
        }
    }
    all.extend(kept.into_values());
    all.sort_by_key(|point| point.seq);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays() {
        let points: Vec<RestorePoint> =
            (1..=10).map(|n| RestorePoint { seq: Seq(n), lsn: Lsn(n), time_ms: n * 1000, is_folded: true }).collect();
        for (last, within_ms, expected) in [
            (1, 0, 10),
            (3, 0, 8),
            (0, 0, 10),
            (1, 2500, 7),
            (5, 2500, 6),
            (100, 0, 1),
            (1, 1 << 40, 1),
            (u64::MAX, 0, 1),
        ] {
            let floor = prune_floor(&points, KeepPolicy { last, within_ms }, 10_000).unwrap();
            assert_eq!(floor.seq, Seq(expected), "last {last}, within {within_ms}");
        }
        assert_eq!(prune_floor(&[], KeepPolicy { last: 1, within_ms: 0 }, 0), None);
    }

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;

    fn history(seed: u64, days: u64, a_day: u64) -> Vec<RestorePoint> {
        let mut state = seed | 1;
        let mut below = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let mut time_ms = 400 * DAY;
        (1..=days * a_day)
            .map(|n| {
                time_ms += below(2 * DAY / a_day);
                RestorePoint { seq: Seq(2 * n), lsn: Lsn(3 * n), time_ms, is_folded: below(4) == 0 }
            })
            .collect()
    }

    /// The same, said for one point at a time: nobody else of its piece is to be preferred.
    fn stays(points: &[RestorePoint], point: &RestorePoint, retention: &Retention, now: u64) -> bool {
        let tier_of = |point: &RestorePoint| {
            let age = now - point.time_ms;
            let tiers: Vec<_> = retention.tiers().iter().filter(|tier| age <= tier.for_ms).collect();
            (age > retention.all_ms()).then(|| tiers.first().map(|tier| (tier.every_ms, point.time_ms / tier.every_ms)))
        };
        match tier_of(point) {
            None => true,
            Some(None) => false,
            Some(piece) => !points.iter().any(|other| {
                let better = (other.is_folded, other.seq) > (point.is_folded, point.seq);
                better && tier_of(other) == Some(piece)
            }),
        }
    }

    #[test]
    fn a_thinned_history_is_what_a_naive_look_at_each_point_says_it_is() {
        let retentions: Vec<Retention> =
            ["24h,1h:30d,1d:1y", "1h,5m:1d,1h:1w,1d:forever", "0", "3d", "forever", "0,7h:40d,5d:2y"]
                .map(|text| text.parse().unwrap())
                .to_vec();
        for seed in 0..40 {
            let points = history(seed, 60, 1 + seed);
            let now = points.last().unwrap().time_ms + seed * HOUR;
            for retention in &retentions {
                let kept = thinned(&points, retention, now);
                let must: Vec<RestorePoint> =
                    points.iter().filter(|point| stays(&points, point, retention, now)).copied().collect();
                assert_eq!(kept, must, "seed {seed}, {retention}");
                assert_eq!(thinned(&kept, retention, now), kept, "twice is once: seed {seed}, {retention}");
            }
        }
    }

    #[test]
    fn a_history_that_was_thinned_all_along_holds_one_point_in_each_piece_that_had_any() {
        let retention = Retention::default();
        for seed in 0..8 {
            let points = history(seed, 500, 30);
            let mut left: Vec<RestorePoint> = Vec::new();
            let mut now = 0;
            let mut coming = points.iter().peekable();
            while coming.peek().is_some() {
                now = coming.peek().unwrap().time_ms + 11 * HOUR;
                while let Some(point) = coming.next_if(|point| point.time_ms <= now) {
                    left.push(*point);
                }
                left = thinned(&left, &retention, now);
            }
            let pieces = |points: &[RestorePoint], every: u64, from: u64, to: u64| -> Vec<u64> {
                let mut pieces: Vec<u64> = points
                    .iter()
                    .filter(|point| (from..=to).contains(&(now - point.time_ms)))
                    .map(|point| point.time_ms / every)
                    .collect();
                pieces.dedup();
                pieces
            };
            // Not those that a border goes through.
            for (every, from, to) in [(HOUR, DAY + 12 * HOUR, 30 * DAY - HOUR), (DAY, 32 * DAY, 364 * DAY)] {
                let (had, has) = (pieces(&points, every, from, to), pieces(&left, every, from, to));
                let inner = |piece: &&u64| had[2] <= **piece && **piece <= had[had.len() - 3];
                assert!(had.iter().filter(inner).eq(has.iter().filter(inner)), "seed {seed}: {had:?} {has:?}");
            }
            let old = left.iter().filter(|point| now - point.time_ms > 31 * DAY).count();
            assert!(old <= 336, "{old}");
        }
    }
}
