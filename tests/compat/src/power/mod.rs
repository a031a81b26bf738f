//! A machine whose power fails, again and again, while several processes write, backfill, come and go and make checkpoints; its object
//! store is another machine's, and stays.
//!
//! After each failure:
//! 1. What stock SQLite finds in the files is a committed prefix, and so is what is read through us: the same.
//! 2. Where commits are durable (`synchronous` FULL, or EXTRA with a journal that is deleted), nothing that was acknowledged is missing.
//! 3. The object store is never ahead of the disk (rule S2): what was published is there, durable or not as it may be for its writer.
//! 4. The next checkpoint works without anybody's help (I8), and what it restores elsewhere is what is here.
//!
//! The machine may have the whole database, or have opened it from the object store, lazily. Instead of a power failure, its processes
//! may be killed, and then nothing that was acknowledged is missing, durable or not. In between, something of the store's may be lost that
//! loses nothing, or the whole machine, after which another one opens the database lazily and goes on (its writer's term is taken over by name).

pub mod disk;
pub mod machine;

use crate::chance::Chance;
use crate::ledger;
use crate::model::Tally;
use crate::place::{NAME, difference, position};
use crate::shell::{How, Shell};
use machine::Machine;
use std::fs;
use std::time::{Duration, Instant};

/// How a world's connections keep what they commit, and whether that is durable when they say so.
#[derive(Clone, Copy, Debug)]
struct Habit {
    journal: &'static str,
    synchronous: &'static str,
    is_durable: bool,
}

const HABITS: [Habit; 7] = [
    Habit { journal: "wal", synchronous: "FULL", is_durable: true },
    Habit { journal: "wal", synchronous: "NORMAL", is_durable: false },
    Habit { journal: "wal", synchronous: "NORMAL", is_durable: false },
    Habit { journal: "delete", synchronous: "EXTRA", is_durable: true },
    // A journal that was deleted may be back, and roll back what was committed: so SQLite's page on this pragma has it.
    Habit { journal: "delete", synchronous: "FULL", is_durable: false },
    Habit { journal: "truncate", synchronous: "FULL", is_durable: true },
    Habit { journal: "persist", synchronous: "FULL", is_durable: true },
];

/// Nothing that a world waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// One world.
#[derive(Debug)]
pub struct World {
    seed: u64,
    chance: Chance,
    machine: Machine,
    habit: Habit,
    is_lazy: bool,
    trace: Vec<String>,
    tally: Tally,
    /// The newest commit that must be found after a failure.
    kept: u64,
    /// The newest one that was acknowledged: it must be found after a kill.
    told: u64,
    /// The term that whoever opens the database may take over from.
    takeover: Option<u64>,
}

/// How processes end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The power fails at a sync that is counted, at a moment, or when all are done.
    AtASync,
    AtAMoment,
    AtRest,
    /// They are killed at a moment.
    Killed,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let habit = *chance.pick(&HABITS);
        let is_lazy = chance.once_in(2);
        let is_strict = chance.once_in(2);
        let page = *chance.pick(&[512, 1024, 4096, 4096, 8192]);
        let vacuum = *chance.pick(&["none", "full", "incremental"]);
        let machine = Machine::new(Chance::new(chance.number()), is_strict);
        let trace =
            vec![format!("{habit:?}, lazy: {is_lazy}, strict: {is_strict}, page size {page}, auto_vacuum {vacuum}")];
        let mut world = Self {
            seed,
            chance,
            machine,
            habit,
            is_lazy,
            trace,
            tally: Tally::default(),
            kept: 0,
            told: 0,
            takeover: is_lazy.then_some(1),
        };
        let mut first = match is_lazy {
            true => {
                let mut shell = Shell::start(&world.machine.file("first"), How::Littoral);
                shell.open(NAME, &format!("remote={}", world.machine.remote()));
                shell
            }
            false => world.arrived(),
        };
        first.run(&format!(
            "PRAGMA page_size={page}; PRAGMA auto_vacuum={vacuum}; PRAGMA journal_mode={};",
            world.habit.journal
        ));
        first.run(&ledger::begin());
        if is_lazy {
            first.quietly(
                "CREATE TABLE ballast(b);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
                 INSERT INTO ballast SELECT randomblob(1500) FROM n;",
            );
        }
        let before = world.chance.under(30);
        for _ in 0..before {
            first.quietly(&ledger::transaction(1000, ""));
        }
        (world.kept, world.told) = (before, before);
        position(&first.run("PRAGMA littoral_checkpoint;")).unwrap_or_else(|why| world.fail(&why));
        first.quit();
        if is_lazy {
            world.arrived().quit();
        }
        // What was opened from the object store may be lost again as a whole.
        if !is_lazy || world.chance.once_in(2) {
            world.machine.disk.all_is_durable();
        }
        world
    }

    fn note(&mut self, what: String) {
        self.trace.push(what);
    }

    fn fail(&self, why: &str) -> ! {
        let from = self.trace.len().saturating_sub(60);
        let trace = format!("{}\n  ...\n  {}", self.trace[0], self.trace[from..].join("\n  "));
        let seed = self.seed;
        self.machine.keep();
        panic!(
            "{why}\nseed {seed}; again: cargo run -p littoral-compat --bin vfs-power -- --seed {seed} --worlds 1\n  {trace}"
        );
    }

    /// A shell on the machine that has the database open.
    fn arrived(&mut self) -> Shell {
        let mut shell = self.machine.shell();
        let opening = self.opening(&shell);
        let said = shell.run(&opening);
        if said.iter().any(|line| line.contains("rror")) {
            self.fail(&format!("opening said {said:?}"));
        }
        shell
    }

    fn opening(&mut self, shell: &Shell) -> String {
        let takeover = self.takeover.map_or_else(String::new, |epoch| format!("&takeover={epoch}"));
        let uri = shell.uri(NAME, &format!("remote={}{takeover}", self.machine.remote()));
        let Habit { journal, synchronous, .. } = self.habit;
        // A WAL stays one; the other modes are each connection's own.
        let journal = if journal == "wal" { String::new() } else { format!("PRAGMA journal_mode={journal};") };
        let backfill = self.chance.pick(&[3, 10, 50, 1000]);
        let mapped = self.chance.pick(&[0, 0, 0, 1 << 28]);
        format!(
            ".open {uri}\n.timeout 60000\nPRAGMA synchronous={synchronous}; {journal} PRAGMA wal_autocheckpoint={backfill}; PRAGMA mmap_size={mapped};"
        )
    }

    /// Lives through so many failures.
    pub fn live(mut self, failures: u64) -> Tally {
        for _ in 0..failures {
            let end = self.work();
            self.tally.add(if end == End::Killed { "kills" } else { "power failures" }, 1);
            self.look(end);
        }
        self.tally.add("syncs", self.machine.disk.syncs());
        self.tally
    }

    fn work(&mut self) -> End {
        let count = 1 + self.chance.under(3) as usize;
        let mut shells: Vec<Shell> = (0..count).map(|_| self.arrived()).collect();
        for (at, shell) in shells.iter_mut().enumerate() {
            for _ in 0..1 + self.chance.under(10) {
                let (name, sql) = self.errand(shell, count == 1);
                self.note(format!("{at}: {name}"));
                shell.ask(&sql);
            }
        }
        let (syncs, moment) = (self.chance.under(60), Duration::from_micros(self.chance.under(400_000)));
        let ends = [End::AtASync, End::AtASync, End::AtAMoment, End::AtRest, End::Killed];
        let end = *self.chance.pick(&ends);
        if end == End::AtASync {
            self.machine.disk.cut_after(syncs);
        }
        let since = Instant::now();
        loop {
            let is_over = match end {
                End::AtASync => self.machine.disk.is_cut(),
                End::AtAMoment | End::Killed => since.elapsed() > moment,
                End::AtRest => false,
            };
            let all_done = shells.iter_mut().all(|shell| shell.has_answered_all());
            if is_over || all_done {
                break;
            }
            if since.elapsed() > PATIENCE {
                self.fail("the work never ends");
            }
            std::thread::sleep(Duration::from_millis(1));
            if self.chance.once_in(20) {
                self.machine.disk.write_back();
            }
        }
        let said = match end {
            End::Killed => shells.into_iter().map(Shell::killed).collect(),
            _ => self.machine.fails(shells, false),
        };
        for (at, said) in said.iter().enumerate() {
            self.hear(at, said);
        }
        self.note(format!(
            "the end: {end:?}, after {syncs} syncs or {moment:?}; kept {}, told {}",
            self.kept, self.told
        ));
        end
    }

    fn errand(&mut self, shell: &Shell, is_alone: bool) -> (String, String) {
        let (pad, rows) = (self.chance.under(1200), 1 + self.chance.under(200));
        let named = |sql: &str| (sql.split_whitespace().take(6).collect::<Vec<_>>().join(" "), sql.to_owned());
        match self.chance.under(100) {
            48 | 49 if is_alone => {
                // Nobody else has the database open, and whatever index of a WAL there is, is this connection's own.
                let sql = ledger::transaction(pad, "SELECT 'at ' || c FROM clock;");
                let back = "PRAGMA locking_mode = NORMAL; SELECT 'read ' || c FROM clock;";
                (
                    "transaction in exclusive mode".to_owned(),
                    format!(".bail on\nPRAGMA locking_mode = EXCLUSIVE;\n{sql}\n.bail off\n.print done\n{back}"),
                )
            }
            0..=49 => {
                let sql = ledger::transaction(pad, "SELECT 'at ' || c FROM clock;");
                ("transaction".to_owned(), format!(".bail on\n{sql}\n.bail off\n.print done"))
            }
            50..=57 => named("PRAGMA littoral_checkpoint;"),
            58..=64 => named("PRAGMA littoral_sync;"),
            65..=74 => {
                let mode = self.chance.pick(&["PASSIVE", "FULL", "RESTART", "TRUNCATE"]);
                named(&format!("PRAGMA wal_checkpoint({mode});"))
            }
            75..=80 => named(&format!(
                "CREATE TABLE IF NOT EXISTS junk(b);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                 INSERT INTO junk SELECT randomblob(1000) FROM n;"
            )),
            81..=83 => named("DROP TABLE IF EXISTS junk;"),
            84 if !self.is_lazy || self.chance.once_in(8) => named("VACUUM;"),
            85 => named("PRAGMA incremental_vacuum;"),
            86 if self.is_lazy && self.chance.once_in(3) => named("PRAGMA littoral_hydrate;"),
            87 if self.is_lazy => {
                named(&format!("UPDATE ballast SET b = randomblob(1400) WHERE rowid % 97 = {};", rows % 97))
            }
            88 if self.is_lazy => named(&format!(
                "SELECT 'read ' || sum(length(b)) FROM ballast WHERE rowid BETWEEN {rows} AND {rows} + 40;"
            )),
            86..=90 => named("SELECT 'read ' || count(*) FROM cells WHERE v > 'm';"),
            _ => {
                let opening = self.opening(shell);
                ("closes and opens".to_owned(), format!(".open :memory:\n{opening}"))
            }
        }
    }

    /// What a process had said when the power failed.
    fn hear(&mut self, at: usize, said: &[String]) {
        let mut number = None;
        for line in said {
            self.note(format!("{at} said {line}"));
            if let Some(found) = line.strip_prefix("at ") {
                number = found.parse().ok();
            } else if line == "done" {
                self.tally.add("transactions acknowledged", 1);
                self.told = self.told.max(number.take().unwrap_or(0));
                if self.habit.is_durable {
                    self.kept = self.kept.max(self.told);
                }
            } else if position(std::slice::from_ref(line)).is_ok() {
                self.tally.add("checkpoints acknowledged", 1);
            } else if line.contains("rror") && !is_of_others(line) {
                self.fail(&format!("{at} said {line}"));
            }
        }
    }

    /// What there is after a failure.
    fn look(&mut self, end: End) {
        let disguised = self.is_disguised();
        let by_stock = (!disguised).then(|| match self.machine.as_stock_reads_it() {
            Ok(found) => found,
            Err(why) => self.fail(&format!("stock SQLite finds: {why}")),
        });
        let mut shell = self.arrived();
        // What is read is here afterwards: most of the time, what is not here stays away.
        let found = match disguised && !self.chance.once_in(6) {
            true => ledger::glance(&mut shell),
            false => ledger::read(&mut shell),
        };
        let found = found.unwrap_or_else(|why| self.fail(&format!("after the power failed: {why}")));
        self.note(format!("found {found}, sparse: {disguised}"));
        if by_stock.as_ref().is_some_and(|(by_stock, _)| *by_stock != found) {
            self.fail(&format!("stock SQLite finds {by_stock:?}, we find {found}"));
        }
        if found < self.kept {
            self.fail(&format!("{} was durable, and {found} is found", self.kept));
        }
        if end == End::Killed && found < self.told {
            self.fail(&format!("{} was acknowledged, and {found} is found after a kill", self.told));
        }
        let published =
            self.machine.restored("published.db").unwrap_or_else(|why| self.fail(&format!("published: {why}")));
        if published > found {
            self.fail(&format!("the object store is ahead: {published} there, {found} here"));
        }
        // It was found, and it stays; where nothing but a kill came before, it may not be durable yet.
        if end != End::Killed || self.habit.is_durable {
            self.kept = found;
        }
        self.told = found;
        if self.chance.once_in(3) {
            return shell.quit();
        }
        let answer = shell.run("PRAGMA littoral_checkpoint;");
        let position = position(&answer).unwrap_or_else(|why| self.fail(&format!("no checkpoint afterwards: {why}")));
        let epoch = position.split('.').next().and_then(|epoch| epoch.parse().ok());
        // What was published is durable here (rule S2).
        self.kept = found;
        let published =
            self.machine.restored("restored.db").unwrap_or_else(|why| self.fail(&format!("restored: {why}")));
        if published != found {
            self.fail(&format!("{found} is here, and {published} is restored after a checkpoint of it"));
        }
        if disguised && !self.chance.once_in(6) {
            self.tally.add("sparse ones restored", 1);
            shell.quit();
            return self.lose(epoch);
        }
        let restored = fs::read(self.machine.file("elsewhere").join("restored.db")).unwrap();
        let here = by_stock.map_or_else(|| self.machine.copy_of(&mut shell), |(_, bytes)| bytes);
        let there = if disguised { self.machine.copy_of_restored("restored.db") } else { restored };
        if let Some(difference) = difference(&there, &here) {
            self.fail(&format!("what is restored differs from what is here: {difference}"));
        }
        self.tally.add(if disguised { "sparse ones compared" } else { "whole ones compared" }, 1);
        shell.quit();
        self.lose(epoch);
    }

    /// Everything is published, and nobody has the database open: what can be lost without losing anything?
    fn lose(&mut self, epoch: Option<u64>) {
        let disguised = self.is_disguised();
        let store = self.machine.its(".littoral");
        let what = match self.chance.under(16) {
            0 if !disguised => {
                let trackers = fs::read_dir(store.join("tracker")).unwrap().map(|entry| entry.unwrap().path());
                trackers.for_each(|tracker| fs::remove_file(tracker).unwrap());
                "trackers"
            }
            1 | 2 => {
                let _ = fs::remove_dir_all(store.join("manifest"));
                "manifest"
            }
            3 if !disguised => {
                // Who it was is gone with it: the user says by name that it goes on.
                fs::remove_dir_all(&store).unwrap();
                self.takeover = epoch;
                "store"
            }
            4 | 5 => {
                let machine = self.machine.its("");
                fs::remove_dir_all(&store).unwrap();
                for entry in fs::read_dir(machine).unwrap() {
                    fs::remove_file(entry.unwrap().path()).unwrap();
                }
                self.takeover = epoch;
                "machine"
            }
            _ => return,
        };
        self.note(format!("lost: {what}"));
        self.tally.add(&format!("lost: {what}"), 1);
        self.machine.disk.all_is_durable();
    }

    fn is_disguised(&self) -> bool {
        fs::read(self.machine.its(NAME)).is_ok_and(|bytes| bytes.starts_with(b"Littoral sparse"))
    }
}

/// What one of several processes may be told: that another is at work, or has just taken something away.
fn is_of_others(line: &str) -> bool {
    ["database is locked", "worker.lock: held by ", "try again", "table is locked", "no such table: junk"]
        .iter()
        .any(|words| line.contains(words))
}

/// Lives through worlds until time is up or there are enough of them.
pub fn worlds(seeds: impl Iterator<Item = u64>, failures: u64, patience: Duration) -> (u64, Tally) {
    let (since, mut all, mut lived) = (Instant::now(), Tally::default(), 0);
    for seed in seeds {
        println!("seed {seed}");
        all.merge(&World::new(seed).live(failures));
        lived += failures;
        if since.elapsed() > patience {
            break;
        }
    }
    println!("{lived} ends in {} s: {all}", since.elapsed().as_secs());
    (lived, all)
}
