//! Records that a transaction had appended which never committed: they stay where they are, and no reader is given them.

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
    let after = voids.partition_point(|(from, _)| *from <= lsn);
    after.checked_sub(1).and_then(|at| voids.get(at)).is_some_and(|(_, to)| lsn <= *to)
}

/// Those of a log that were said.
pub fn voids(log: &Path) -> Result<Vec<Void>, LogError> {
    Ok(Folder::at(log).meta()?.voids)
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
}
