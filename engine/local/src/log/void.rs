//! Records that stay where they are, and that no reader is given: of a table, what a transaction had appended that never committed; of any other log,
//! what was rolled back when it was sealed, or had been shipped.

use super::error::LogError;
use super::folder::Folder;
use super::open::Log;
use littoral_types::Lsn;
use std::path::Path;

/// Records that are void: from the first one to the last.
pub type Void = (Lsn, Lsn);

/// Adds one to those that are known, in order and each once.
pub fn add(voids: &mut Vec<Void>, (from, to): Void) {
    if from > to {
        return;
    }
    voids.push((from, to));
    voids.sort_unstable();
    voids.dedup_by(|next, before| {
        let touches = next.0 <= before.1.next();
        if touches {
            before.1 = before.1.max(next.1);
        }
        touches
    });
}

/// Whether a record is void.
pub fn is_void(voids: &[Void], lsn: Lsn) -> bool {
    around(voids, lsn).is_some()
}

/// The run of void records that one of them is in.
pub fn around(voids: &[Void], lsn: Lsn) -> Option<Void> {
    let after = voids.partition_point(|(from, _)| *from <= lsn);
    after.checked_sub(1).and_then(|at| voids.get(at)).copied().filter(|(_, to)| lsn <= *to)
}

/// The last one of those that are void right behind a record; where none is, that record.
pub fn end_behind(voids: &[Void], lsn: Lsn) -> Lsn {
    around(voids, lsn.next()).map_or(lsn, |(_, to)| to)
}

/// How many records are void, of those from one to another.
pub fn count(voids: &[Void], first: Lsn, last: Lsn) -> u64 {
    let within = voids.iter().map(|(from, to)| (to.0.min(last.0) + 1).saturating_sub(from.0.max(first.0)));
    within.sum()
}

/// Where the newest so many records begin that are not void, of a log that ends with this one; or where all of it does.
pub fn newest(voids: &[Void], (start, last): (Lsn, Lsn), records: u64) -> Lsn {
    let mut left = records;
    let mut from = last.next();
    while left > 0 && from > start {
        match around(voids, Lsn(from.0 - 1)) {
            Some((first, _)) => from = first,
            None => {
                let before = voids.partition_point(|(_, to)| *to < from).checked_sub(1).and_then(|at| voids.get(at));
                let least = before.map_or(Lsn(1), |(_, to)| to.next());
                let begin = Lsn((from.0).saturating_sub(left)).max(least);
                left -= from.0 - begin.0;
                from = begin;
            }
        }
    }
    from.max(start)
}

/// Those of a log that were said.
pub fn voids(log: &Path) -> Result<Vec<Void>, LogError> {
    Ok(Folder::at(log).meta()?.voids)
}

/// Says of records that were rolled back elsewhere, or before this folder was put back, that they are void here, too: as its volume says. Readers that stand
/// there are told. Whether it was new.
pub fn keep_voids(log: &Path, voids: &[Void]) -> Result<bool, LogError> {
    let folder = Folder::at(log);
    let _lock = folder.lock_change()?;
    let mut meta = folder.meta()?;
    let before = meta.voids.clone();
    for void in voids.iter().filter(|(_, to)| *to >= meta.start) {
        add(&mut meta.voids, *void);
    }
    if meta.voids == before {
        return Ok(false);
    }
    let news = voids.iter().map(|(from, to)| (end_behind(&before, Lsn(from.0 - 1)).next(), *to));
    if let Some((from, _)) = news.filter(|(from, to)| from <= to).min()
        && !meta.is_cutting
    {
        meta.note_end(Lsn(from.0 - 1));
    }
    folder.replace_meta(&meta)?;
    Ok(true)
}

impl Log {
    /// Says of records that they are void, before anything is appended behind them. To those that are known already nothing is added. Where the log
    /// begins: what is before need not be said any more.
    pub fn void(&self, voids: &[Void]) -> Result<Lsn, LogError> {
        let folder: &Folder = &self.inner.folder;
        let _lock = folder.lock_change()?;
        let mut meta = folder.meta()?;
        let before = meta.voids.clone();
        for void in voids.iter().filter(|(_, to)| *to >= meta.start) {
            add(&mut meta.voids, *void);
        }
        if meta.voids != before {
            folder.replace_meta(&meta)?;
            self.inner.faults().reach("log.void.said")?;
        }
        Ok(meta.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voids_are_in_order_and_those_that_touch_are_one() {
        let mut voids = Vec::new();
        for (from, to) in [(20, 29), (5, 4), (1, 3), (30, 31), (8, 8), (7, 8), (25, 40)] {
            add(&mut voids, (Lsn(from), Lsn(to)));
        }
        assert_eq!(voids, [(Lsn(1), Lsn(3)), (Lsn(7), Lsn(8)), (Lsn(20), Lsn(40))]);
        let void: Vec<u64> = (0..45).filter(|lsn| is_void(&voids, Lsn(*lsn))).collect();
        assert_eq!(void, [1, 2, 3, 7, 8].into_iter().chain(20..=40).collect::<Vec<u64>>());
    }

    #[test]
    fn what_is_behind_among_and_newest_is_what_going_through_all_of_them_gives() {
        let voids: Vec<Void> = [(3, 3), (7, 8), (10, 19), (30, 31)].map(|(from, to)| (Lsn(from), Lsn(to))).into();
        for last in 0..40 {
            let mut end = last;
            while is_void(&voids, Lsn(end + 1)) {
                end += 1;
            }
            assert_eq!(end_behind(&voids, Lsn(last)), Lsn(end), "behind {last}");
            for start in 1..=last + 1 {
                let alive: Vec<u64> = (start..=last).filter(|lsn| !is_void(&voids, Lsn(*lsn))).collect();
                let all = last + 1 - start;
                assert_eq!(count(&voids, Lsn(start), Lsn(last)), all - alive.len() as u64, "{start} to {last}");
                for records in 0..40 {
                    let newest = newest(&voids, (Lsn(start), Lsn(last)), records);
                    let found: Vec<u64> = alive.iter().copied().filter(|lsn| *lsn >= newest.0).collect();
                    let wanted = alive.len().saturating_sub(records as usize);
                    assert!(found == alive[wanted..], "{records} of {start} to {last}: from {newest}");
                }
            }
        }
    }
}
