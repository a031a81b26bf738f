//! What must hold whenever everybody rests, looked at on a copy of the object store, so that looking changes nothing.

use crate::chance::Chance;
use crate::life::same_as_model;
use crate::oracle::Oracle;
use anyhow::{Context, bail, ensure};
use littoral_engine::components::{MachineClock, MachineEntropy};
use littoral_engine::exec::rebuild::rows;
use littoral_engine::exec::restore::{At, open_at, restore};
use littoral_engine::exec::verify::verify;
use littoral_engine::{Components, Log};
use littoral_local::LocalQuota;
use littoral_ports::{MemoryRemote, NoFaults, Remote, Silent};
use littoral_types::limits::INDEX_EVERY;
use littoral_types::{Lsn, PinPurpose, Seq};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The log's end, and a few restore points.
    Glance,
    /// Every restore point, every byte.
    Whole,
}

/// Checks everything; the first thing that is wrong.
pub fn check(server: &MemoryRemote, oracle: &Oracle, base: &Path, chance: &Chance, depth: Depth) -> anyhow::Result<()> {
    let violations = oracle.violations();
    ensure!(violations.is_empty(), "{}", violations.join("\n"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let copy = Arc::new(MemoryRemote::new("sim"));
        for (path, bytes) in server.objects() {
            copy.put(&path, bytes).await?;
        }
        let components = Components {
            clock: Arc::new(MachineClock),
            entropy: Arc::new(MachineEntropy),
            faults: Arc::new(NoFaults),
            quota: Arc::new(LocalQuota::unlimited()),
            progress: Arc::new(Silent),
            account: Arc::new(littoral_ports::Uncounted),
        };
        let log = Log::new(copy, oracle.volume().clone());
        Check { log, oracle, components, base, chance }.all(depth).await
    })
}

struct Check<'a> {
    log: Log,
    oracle: &'a Oracle,
    components: Components,
    base: &'a Path,
    chance: &'a Chance,
}

impl Check<'_> {
    async fn all(&self, depth: Depth) -> anyhow::Result<()> {
        let Some(tail) = self.oracle.tail() else {
            ensure!(self.log.open().await?.is_none(), "there is a log that nobody began");
            return Ok(());
        };
        let opened = self.log.open().await.context("opening the log")?.context("the log is gone")?;
        let end = (opened.tail.seq, opened.tail.hash, opened.tail.epoch, opened.tail.lsn, opened.tail.owner.clone());
        let must = (tail.seq, tail.hash, tail.epoch, tail.lsn, tail.owner.clone());
        ensure!(end == must, "the log ends at {end:?}, and the end is {must:?}");
        let floor = self.oracle.floor();
        ensure!(opened.tail.floor == floor, "the floor is {floor}, an opener is told {}", opened.tail.floor);

        let glance = self.log.glance().await.context("a glance at the log")?.context("the log is gone")?;
        ensure!(
            (glance.tail.hash, glance.tail.floor, glance.tail.owner.clone()) == (tail.hash, floor, tail.owner.clone()),
            "a glance sees {:?}",
            glance.tail
        );
        self.history(&opened, floor).await.context("the history")?;
        let points = self.oracle.points();
        for (at, point) in points.iter().enumerate() {
            let edge = at == 0 || at + 1 == points.len();
            if depth == Depth::Whole || edge || self.chance.between(0, points.len() as u64) < 4 {
                self.point(point.lsn).await.with_context(|| format!("LSN {} (record {})", point.lsn, point.seq))?;
            }
        }
        for (name, (lsn, image)) in self.oracle.snapshots() {
            let say = || format!("snapshot {name} (LSN {lsn})");
            let opened = open_at(&self.log, &At::Snapshot(name.clone())).await.with_context(say)?;
            ensure!(opened.tail.lsn == lsn, "{}: opened at LSN {}", say(), opened.tail.lsn);
            let rows = rows(&self.log, &opened).await.with_context(say)?;
            same_as_model(&self.log, &rows, &opened, Some(&image)).await.with_context(say)?;
        }
        if let Some(point) = self.chance.pick(&points) {
            self.file(point.lsn).await.with_context(|| format!("the file of LSN {}", point.lsn))?;
        }
        if depth == Depth::Whole {
            self.forget_what_came_too_late(floor).await?;
            let verified = verify(&self.log, &self.components).await?;
            ensure!(verified.problems.is_empty(), "verify says:\n{}", verified.problems.join("\n"));
        }
        Ok(())
    }

    /// A named snapshot may reach the store when its state is pruned already, and its maker may have died before taking it back.
    /// Nobody was told of it, and verify would rightly say that it is broken.
    async fn forget_what_came_too_late(&self, floor: Seq) -> anyhow::Result<()> {
        let told = self.oracle.snapshots();
        for pinned in self.log.pins().await? {
            if let PinPurpose::Snapshot(name) = &pinned.pin.purpose
                && pinned.pin.seq < floor
                && !told.contains_key(name)
            {
                self.log.unpin(&pinned.key).await?;
            }
        }
        Ok(())
    }

    /// Everything from the floor on is listed, whichever page of the history is asked for.
    async fn history(&self, opened: &littoral_engine::log::Opened, floor: Seq) -> anyhow::Result<()> {
        let all: Vec<Seq> =
            self.oracle.records().iter().rev().map(|landed| landed.seq).filter(|seq| *seq >= floor).collect();
        let before = opened.tail.seq.next();
        let glance = opened.glance();
        let listed = self.log.history(&glance, before, usize::MAX).await?;
        let listed: Vec<Seq> = listed.iter().map(|entry| entry.seq).collect();
        ensure!(listed == all, "{} records are listed, {} stand: {listed:?}, {all:?}", listed.len(), all.len());
        let before = Seq(self.chance.between(1, before.0 + 1));
        let page = self.log.history(&glance, before, INDEX_EVERY as usize / 2).await?;
        let page: Vec<Seq> = page.iter().map(|entry| entry.seq).collect();
        let must: Vec<Seq> = all.into_iter().filter(|seq| *seq < before).take(INDEX_EVERY as usize / 2).collect();
        ensure!(page == must, "the page before {before} is {page:?} instead of {must:?}");
        Ok(())
    }

    async fn point(&self, lsn: Lsn) -> anyhow::Result<()> {
        let opened = open_at(&self.log, &At::Lsn(lsn)).await?;
        ensure!(opened.tail.lsn == lsn, "opened at LSN {}", opened.tail.lsn);
        let rows = rows(&self.log, &opened).await?;
        Ok(same_as_model(&self.log, &rows, &opened, self.oracle.image_at(lsn).as_ref()).await?)
    }

    /// The way that users go: to a file.
    async fn file(&self, lsn: Lsn) -> anyhow::Result<()> {
        let dest = self.base.join("restored.db");
        restore(&self.log, &self.components, &At::Lsn(lsn), &dest, true).await?;
        let image = self.oracle.image_at(lsn).context("nobody published it")?;
        let mut file = fs::File::open(&dest)?;
        let mut page = vec![0; image.page_size().len()];
        for (at, must) in image.pages().enumerate() {
            file.read_exact(&mut page)?;
            ensure!(page == must, "page {} differs", at + 1);
        }
        if file.read(&mut page)? != 0 {
            bail!("it is longer than the database");
        }
        Ok(fs::remove_file(&dest)?)
    }
}
