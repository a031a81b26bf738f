//! A world of processes on one database: some with the extension, some without, killed at any moment, with a checkpoint now and
//! then, and what every checkpoint says it published compared with what was committed.
//!
//! What a state of the database must be is said in [`ledger`].

use crate::chance::Chance;
use crate::ledger;
use crate::place::{NAME, Place, position};
use crate::shell::{How, Said, Shell};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

const WORKERS: usize = 4;

/// What came to pass, by name.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    /// Once more, or so many times.
    pub(crate) fn add(&mut self, what: &str, count: u64) {
        *self.0.entry(what.to_owned()).or_default() += count;
    }

    /// How often.
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Takes over another's.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, count)| self.add(what, *count));
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<String> = self.0.iter().map(|(what, count)| format!("{count} {what}")).collect();
        f.write_str(&words.join(", "))
    }
}

/// One world.
#[derive(Debug)]
pub struct World {
    seed: u64,
    chance: Chance,
    place: Place,
    shells: [Option<Shell>; WORKERS],
    /// Steps so far, to be shown when something is wrong.
    trace: Vec<String>,
    tally: Tally,
    transactions: u64,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let place = Place::new();
        let page = *chance.pick(&[512, 1024, 4096, 4096, 8192, 65536]);
        let journal = *chance.pick(&["wal", "wal", "wal", "delete", "truncate", "persist"]);
        let vacuum = *chance.pick(&["none", "full", "incremental"]);
        let mut world = Self {
            seed,
            chance,
            place,
            shells: std::array::from_fn(|_| None),
            trace: vec![format!("page size {page}, journal {journal}, auto_vacuum {vacuum}")],
            tally: Tally::default(),
            transactions: 0,
        };
        let mut first = arrived(&world.place, How::Littoral);
        first.run(&format!("PRAGMA page_size={page}; PRAGMA auto_vacuum={vacuum}; PRAGMA journal_mode={journal};"));
        first.quietly(&ledger::begin());
        world.shells[0] = Some(first);
        world
    }

    /// Lives through so many steps.
    pub fn live(mut self, steps: u64) -> Tally {
        for _ in 0..steps {
            self.step();
        }
        self.checkpoint_at_rest();
        self.tally
    }

    fn note(&mut self, what: String) {
        self.trace.push(what);
    }

    fn fail(&self, why: &str) -> ! {
        let from = self.trace.len().saturating_sub(40);
        let trace = self.trace[from..].join("\n  ");
        let seed = self.seed;
        panic!(
            "{why}\nseed {seed}; again: cargo run -p littoral-compat --bin vfs-model -- --seed {seed} --worlds 1\nlast steps:\n  {trace}"
        );
    }

    fn step(&mut self) {
        match self.chance.under(100) {
            0..=34 => self.commit_one(),
            35..=49 => self.checkpoint_at_rest(),
            50..=64 => self.burst(),
            65..=72 => self.reshape(),
            73..=80 => self.come_or_go(),
            81..=87 => self.kill(),
            88..=92 => self.backfill(),
            93..=95 => self.roll_back(),
            96..=97 => self.all_leave(),
            _ => self.lose(),
        }
    }

    fn transaction(&mut self) -> String {
        let pad = self.chance.under(1200);
        self.transactions += 1;
        ledger::transaction(pad, "")
    }

    fn index_of(&mut self, how: Option<How>) -> usize {
        let fits = |shell: &Option<Shell>| shell.as_ref().is_some_and(|shell| how.is_none_or(|how| shell.how() == how));
        let found: Vec<usize> = (0..WORKERS).filter(|at| fits(&self.shells[*at])).collect();
        if !found.is_empty() {
            return *self.chance.pick(&found);
        }
        let at = self.chance.under(WORKERS as u64) as usize;
        let how = how.unwrap_or(How::Littoral);
        self.note(format!("{at} comes: {how:?}"));
        self.shells[at] = Some(arrived(&self.place, how));
        at
    }

    fn shell(&mut self, at: usize) -> &mut Shell {
        self.shells[at].as_mut().unwrap()
    }

    fn commit_one(&mut self) {
        let at = self.index_of(None);
        let sql = self.transaction();
        self.note(format!("{at} commits"));
        let said = self.shell(at).run(&sql);
        if !said.is_empty() {
            self.fail(&format!("a transaction with nobody else said {said:?}"));
        }
        self.tally.add("transactions", 1);
    }

    fn clock(&mut self) -> u64 {
        let at = self.index_of(None);
        let said = self.shell(at).run("SELECT c FROM clock;");
        match said.as_slice() {
            [number] => number.parse().unwrap(),
            _ => self.fail(&format!("the clock says {said:?}")),
        }
    }

    /// Everything to the object store: in one piece, or commit by commit where that can be.
    fn publish(&mut self) -> &'static str {
        match self.chance.once_in(2) {
            true => {
                self.tally.add("asked to travel commit by commit", 1);
                "PRAGMA littoral_sync;"
            }
            false => "PRAGMA littoral_checkpoint;",
        }
    }

    /// Nobody writes: what is restored is what stock SQLite reads, byte for byte.
    fn checkpoint_at_rest(&mut self) {
        let at = self.index_of(Some(How::Littoral));
        // What a killed writer left behind its last commit is overwritten, so that a copy of the files is what readers see.
        let by = self.index_of(None);
        let sql = self.transaction();
        self.note(format!("{by} commits, {at} makes a checkpoint, all is still"));
        let said = self.shell(by).run(&sql);
        if !said.is_empty() {
            self.fail(&format!("a transaction with nobody else said {said:?}"));
        }
        let publish = self.publish();
        let said = self.shell(at).run(publish);
        let position = position(&said).unwrap_or_else(|why| self.fail(&format!("no checkpoint: {why}")));
        let restored = self.place.restore(&position, "restored.db").unwrap_or_else(|why| self.fail(&why));
        let (found, wanted) = (fs::read(restored).unwrap(), self.place.as_read_by_stock());
        if let Some(difference) = crate::place::difference(&found, &wanted) {
            self.fail(&format!("{position} restored differs from what stock SQLite reads: {difference}"));
        }
        self.tally.add("checkpoints compared byte for byte", 1);
    }

    /// All write at once, one makes checkpoints meanwhile, some are killed.
    fn burst(&mut self) {
        let maker = self.index_of(Some(How::Littoral));
        let before = self.clock();
        let kills = self.chance.once_in(3);
        let each = 1 + self.chance.under(8);
        self.note(format!("burst: {each} commits each, {maker} makes a checkpoint, kills: {kills}"));
        for at in 0..WORKERS {
            if self.shells[at].is_none() || at == maker {
                continue;
            }
            let sql: String = (0..each).map(|_| self.transaction()).collect();
            if self.shell(at).how() == How::Littoral && self.chance.once_in(4) {
                // One works at a time, and the others are told who.
                let publish = self.publish();
                self.shell(at).ask(publish);
            }
            // A journal that a killed one left is rolled back by who is alone, and until then nobody waits: a transaction that cannot
            // begin must not go on without.
            self.shell(at).ask(&format!(".bail on\n{sql}\n.bail off"));
        }
        let nap = Duration::from_micros(self.chance.under(20_000));
        std::thread::sleep(nap);
        let publish = self.publish();
        self.shell(maker).ask(publish);
        if kills {
            let nap = Duration::from_micros(self.chance.under(60_000));
            std::thread::sleep(nap);
            let at = self.chance.under(WORKERS as u64) as usize;
            if let Some(shell) = self.shells[at].take() {
                self.note(format!("{at} is killed"));
                self.tally.add("kills", 1);
                shell.kill();
            }
        }
        let mut answer = None;
        for at in 0..WORKERS {
            let Some(shell) = self.shells[at].as_mut() else { continue };
            let said = match shell.answer() {
                Said::Lines(said) => said,
                // It goes at the first error after it was told to; whoever is killed by a signal is another matter.
                Said::Died(said) if at != maker && shell.has_gone_in_order() => {
                    self.note(format!("{at} gives up"));
                    self.shells[at] = None;
                    said
                }
                Said::Died(said) => self.fail(&format!("{at} died: {said:?}")),
            };
            if at == maker {
                answer = Some(said);
                continue;
            }
            for line in said {
                if let Ok(position) = position(std::slice::from_ref(&line)) {
                    self.assert_prefix(&position);
                    self.tally.add("checkpoints under writers", 1);
                    continue;
                }
                if !line.contains("database is locked")
                    && !line.contains("worker.lock: held by ")
                    && !line.contains("try again")
                {
                    self.fail(&format!("{at} said {line}"));
                }
                self.tally.add("refused as busy", 1);
            }
        }
        let Some(answer) = answer else { return };
        let after = self.clock();
        match position(&answer) {
            Ok(position) => {
                let found = self.assert_prefix(&position);
                if !(before..=after).contains(&found) {
                    self.fail(&format!(
                        "{position} is of commit {found}: it was asked for between {before} and {after}"
                    ));
                }
                self.tally.add("checkpoints under writers", 1);
            }
            Err(why)
                if why.contains("try again") || why.contains("is locked") || why.contains("worker.lock: held by ") =>
            {
                self.note(format!("no checkpoint: {why}"));
                self.tally.add("checkpoints put off", 1);
            }
            Err(why) => self.fail(&format!("no checkpoint: {why}")),
        }
    }

    /// What is restored is a committed prefix: the clock it ends at.
    fn assert_prefix(&self, position: &str) -> u64 {
        let restored = self.place.restore(position, "prefix.db").unwrap_or_else(|why| self.fail(&why));
        let mut shell = Shell::start(self.place.path(), How::Stock);
        shell.open("prefix.db", "");
        let clock = ledger::read(&mut shell).unwrap_or_else(|why| self.fail(&format!("{position} restored: {why}")));
        shell.quit();
        fs::remove_file(restored).unwrap();
        clock
    }

    /// Pages come and go; what the tables say stays.
    fn reshape(&mut self) {
        let at = self.index_of(None);
        let rows = 1 + self.chance.under(400);
        let sql = match self.chance.under(8) {
            0..=2 => format!(
                "CREATE TABLE IF NOT EXISTS junk(b);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                 INSERT INTO junk SELECT randomblob(1000) FROM n;"
            ),
            3 | 4 => "DROP TABLE IF EXISTS junk;".to_owned(),
            5 => "PRAGMA incremental_vacuum;".to_owned(),
            6 => "VACUUM;".to_owned(),
            // Grown, and given back before it was committed: pages that nobody ever wrote.
            _ => format!(
                "PRAGMA cache_size = 4; BEGIN; CREATE TABLE IF NOT EXISTS junk(b);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                 INSERT INTO junk SELECT randomblob(1000) FROM n;
                 DELETE FROM junk; COMMIT; PRAGMA cache_size = -2000;"
            ),
        };
        self.note(format!("{at}: {}", sql.split_whitespace().take(12).collect::<Vec<_>>().join(" ")));
        let said = self.shell(at).run(&sql);
        if !said.is_empty() {
            self.fail(&format!("{sql} said {said:?}"));
        }
        self.tally.add("shapes", 1);
    }

    fn come_or_go(&mut self) {
        let at = self.chance.under(WORKERS as u64) as usize;
        match self.shells[at].take() {
            Some(shell) => {
                self.note(format!("{at} goes"));
                shell.quit();
            }
            None => {
                let how = if self.chance.once_in(3) { How::Stock } else { How::Littoral };
                self.note(format!("{at} comes: {how:?}"));
                self.shells[at] = Some(arrived(&self.place, how));
            }
        }
        self.tally.add("arrivals and goodbyes", 1);
    }

    /// SIGKILL of somebody who is in the middle of something, with others there or not.
    fn kill(&mut self) {
        let how = if self.chance.once_in(4) { How::Stock } else { How::Littoral };
        let at = self.index_of(Some(how));
        let doing = match (how, self.chance.under(4)) {
            (How::Littoral, 0 | 1) => self.publish().to_owned(),
            (_, 2) => "PRAGMA wal_checkpoint(RESTART);".to_owned(),
            _ => self.transaction(),
        };
        let nap = Duration::from_micros(self.chance.under(40_000));
        self.note(format!("{at} is killed within {nap:?} of {}", &doing[..doing.len().min(30)]));
        let mut shell = self.shells[at].take().unwrap();
        shell.ask(&doing);
        std::thread::sleep(nap);
        shell.kill();
        self.tally.add("kills", 1);
    }

    fn backfill(&mut self) {
        let at = self.index_of(None);
        let mode = *self.chance.pick(&["PASSIVE", "FULL", "RESTART", "TRUNCATE"]);
        self.note(format!("{at} backfills: {mode}"));
        self.shell(at).run(&format!("PRAGMA wal_checkpoint({mode});"));
        self.tally.add("backfills", 1);
    }

    fn roll_back(&mut self) {
        let at = self.index_of(None);
        self.note(format!("{at} rolls back, spilled"));
        let said = self.shell(at).run(
            "PRAGMA cache_size = 4; BEGIN; UPDATE cells SET v = v || 'x'; SAVEPOINT a; UPDATE ledger SET pad = 'q'; ROLLBACK TO a;
             UPDATE cells SET v = 'y'; ROLLBACK; PRAGMA cache_size = -2000;",
        );
        if !said.is_empty() {
            self.fail(&format!("a rollback said {said:?}"));
        }
        self.tally.add("rollbacks", 1);
    }

    /// All leave; then perhaps somebody who is alone changes what only he can.
    fn all_leave(&mut self) {
        self.note("all leave".to_owned());
        self.shells.iter_mut().for_each(|shell| drop(shell.take()));
        let how = if self.chance.once_in(2) { How::Stock } else { How::Littoral };
        let page = *self.chance.pick(&[512, 1024, 2048, 4096, 16384, 65536]);
        let journal = *self.chance.pick(&["wal", "delete", "truncate", "persist"]);
        let sql = match self.chance.under(4) {
            0 => format!(
                "PRAGMA journal_mode = delete; PRAGMA page_size = {page}; VACUUM; PRAGMA journal_mode = {journal};"
            ),
            1 | 2 => format!("PRAGMA journal_mode = {journal};"),
            _ => {
                // A copy takes its place.
                let (from, to) = (self.place.file(NAME), self.place.file("copy.db"));
                let no_journal =
                    !self.place.file(&format!("{NAME}-journal")).metadata().is_ok_and(|meta| meta.len() > 0);
                if no_journal && !self.place.file(&format!("{NAME}-wal")).exists() {
                    self.note("a copy takes its place".to_owned());
                    fs::copy(&from, &to).unwrap();
                    fs::rename(&to, &from).unwrap();
                }
                return;
            }
        };
        self.note(format!("alone, {how:?}: {sql}"));
        let mut alone = arrived(&self.place, how);
        let said = alone.run(&sql);
        if said.iter().any(|line| line.contains("rror")) {
            self.fail(&format!("{sql} said {said:?}"));
        }
        let keep = self.chance.once_in(2);
        if keep {
            self.shells[0] = Some(alone);
        }
        self.tally.add("solitudes", 1);
    }

    /// What can be lost without losing anything.
    fn lose(&mut self) {
        let what = *self.chance.pick(&["tracker", "manifest", "checkpoint_scratch"]);
        // A tracker may go under everybody's feet; the manifest is one process's at a time, and nobody works now.
        if what != "tracker" {
            self.shells.iter_mut().for_each(|shell| drop(shell.take()));
        }
        self.note(format!("{what} is lost"));
        let _ = fs::remove_dir_all(self.place.file(".littoral").join(what));
        self.tally.add("losses", 1);
    }
}

/// A shell that has the database open. Nobody cuts the power here, and what a kill leaves is in the page cache.
fn arrived(place: &Place, how: How) -> Shell {
    let mut shell = place.shell(how);
    shell.quietly("PRAGMA synchronous = OFF;");
    shell
}

/// Lives through worlds until time is up or there are enough of them.
pub fn worlds(seeds: impl Iterator<Item = u64>, steps: u64, patience: Duration) -> (u64, Tally) {
    let (since, mut all, mut lived) = (Instant::now(), Tally::default(), 0);
    for seed in seeds {
        println!("seed {seed}");
        all.merge(&World::new(seed).live(steps));
        lived += steps;
        if since.elapsed() > patience {
            break;
        }
    }
    println!("{lived} steps in {} s: {all}", since.elapsed().as_secs());
    (lived, all)
}
