//! Who takes part in a checkpoint: what is missed without each of them, and what happens when one of them fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod rig;

use littoral_engine::components::Components;
use littoral_engine::exec::beside::Beside;
use littoral_engine::exec::checkpoint::{Checkpointed, Options, checkpoint, checkpoint_in, planned};
use littoral_engine::exec::phases::Phases;
use littoral_engine::exec::restore::restore;
use littoral_engine::sessions::{Participant, Phase};
use littoral_engine::{EngineError, Session};
use littoral_plan::CheckpointPolicy;
use littoral_ports::{
    CaughtUp, Changed, Commits, Crash, Faults, LiveSource, MemoryRemote, Paced, PageSource, SourceError, Spending,
    Spendings, Spent,
};
use littoral_types::{
    At, Epoch, Gap, GapReason, ObjectId, ObjectKind, PageCount, PageNo, PageSize, Serial, Sessions, Tree, VolumeRow,
    WalMark,
};
use rig::{Machine, Pages};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Leaves out one of those who take part, or a phase.
#[derive(Debug)]
struct LeavesOut(&'static str);

impl Faults for LeavesOut {
    fn reach(&self, _: &'static str) -> Result<(), Crash> {
        Ok(())
    }
    fn leaves_out(&self, part: &'static str) -> bool {
        self.0 == part
    }
}

/// Uploads take their time; nothing else does.
#[derive(Debug)]
struct SlowUploads;

impl Spending for SlowUploads {
    fn spend(&self, _: Spent) {}
    fn take(&self, what: Paced, _: u64) -> u64 {
        if what == Paced::Upload { 300 } else { 0 }
    }
    fn this_month(&self) -> Spendings {
        littoral_ports::Uncounted.this_month()
    }
}

/// Where a checkpoint stages, there is something else by the time that its record is published.
#[derive(Debug)]
struct CannotCleanUp(PathBuf);

impl Faults for CannotCleanUp {
    fn reach(&self, point: &'static str) -> Result<(), Crash> {
        if point == "publish.committed" {
            for job in std::fs::read_dir(&self.0).into_iter().flatten() {
                let job = job.unwrap().path();
                std::fs::remove_dir_all(&job).unwrap();
                std::fs::write(&job, b"a file").unwrap();
            }
        }
        Ok(())
    }
    fn leaves_out(&self, _: &'static str) -> bool {
        false
    }
}

/// A database that somebody writes: once while it is read, or so often that nobody ever is done.
struct Written {
    pages: Pages,
    /// What catching up meets, the next one last.
    meets: Vec<Meets>,
    /// Begun, told that it was published, and rested since.
    begun: u32,
    published: u32,
    given_up: u32,
    is_reading: bool,
    /// It stands still until the end: resting lets go of nothing.
    holds: bool,
}

#[derive(Clone, Copy)]
enum Meets {
    AWriter,
    Somebody,
}

/// A value of a record: its type and its bytes.
fn text(text: &str) -> (u8, Vec<u8>) {
    (13 + 2 * text.len() as u8, text.as_bytes().to_vec())
}

/// A record of few and small values.
fn record(values: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let header = [1 + values.len() as u8].into_iter().chain(values.iter().map(|(kind, _)| *kind));
    header.chain(values.iter().flat_map(|(_, bytes)| bytes.iter().copied())).collect()
}

/// A table's leaf with one row, as SQLite lays it out.
fn leaf(at: usize, record: &[u8]) -> Vec<u8> {
    let mut page = vec![0; 4096];
    let cell = page.len() - record.len() - 2;
    page[cell..cell + 2].copy_from_slice(&[record.len() as u8, 1]);
    page[cell + 2..].copy_from_slice(record);
    let place = (cell as u16).to_be_bytes();
    page[at] = 0x0d;
    page[at + 4] = 1;
    page[at + 5..at + 7].copy_from_slice(&place);
    page[at + 8..at + 10].copy_from_slice(&place);
    page
}

impl Written {
    fn new() -> Self {
        let mut pages = Pages::new(4096, 40);
        // Page 1 says a cookie, and names a table; page 2 is that table's only page, and has a session in it.
        let serials = "littoral_serials";
        let schema = record(&[text("table"), text(serials), text(serials), (1, vec![2]), (0, vec![])]);
        pages.pages[0] = leaf(100, &schema);
        pages.pages[0][43] = 7;
        pages.pages[1] = leaf(0, &record(&[text("worker-7"), (1, vec![8])]));
        Self {
            pages,
            meets: vec![Meets::AWriter],
            begun: 0,
            published: 0,
            given_up: 0,
            is_reading: false,
            holds: false,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.pages.pages.concat()
    }
}

impl PageSource for Written {
    fn page_size(&self) -> PageSize {
        self.pages.page_size()
    }
    fn page_count(&self) -> PageCount {
        self.pages.page_count()
    }
    fn lock_page(&self) -> Option<PageNo> {
        None
    }
    fn changed(&self) -> Changed {
        Changed::Unknown
    }
    fn wal(&self) -> Option<WalMark> {
        Some(WalMark { salts: [1, 2], frame: 3, checksum: [4, 5] })
    }
    fn sessions(&mut self) -> Option<Sessions> {
        Some([("worker-7".parse().unwrap(), Serial::new(8).unwrap())].into())
    }
    fn trees(&mut self) -> Option<Vec<Tree>> {
        let root = PageNo::from_index(1);
        Some(vec![Tree { kind: ObjectKind::Table, name: "t".into(), table: "t".into(), root }])
    }
    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        self.is_reading = true;
        self.pages.read(page, into)
    }
    fn rest(&mut self) -> Result<(), SourceError> {
        self.is_reading &= self.holds;
        Ok(())
    }
    fn catch_up(&mut self) -> Result<CaughtUp, SourceError> {
        self.is_reading = true;
        match self.meets.pop() {
            None => Ok(CaughtUp::Still),
            Some(Meets::Somebody) => Err(SourceError::Busy("worker-7, which is process 7".to_owned())),
            Some(Meets::AWriter) => {
                // Two pages of one commit; one of them was read before.
                self.pages.write(30, 4711);
                self.pages.write(31, 4711);
                Ok(CaughtUp::Moved(vec![PageNo::from_index(30), PageNo::from_index(31)]))
            }
        }
    }
    fn live(&mut self) -> Option<&mut dyn LiveSource> {
        Some(self)
    }
}

impl LiveSource for Written {
    fn begin(&mut self, _: &VolumeRow) -> Result<(), SourceError> {
        self.begun += 1;
        Ok(())
    }
    fn published(&mut self, _: &VolumeRow) {
        self.published += 1;
    }
    fn given_up(&mut self) {
        self.given_up += 1;
        (self.holds, self.is_reading) = (false, false);
    }
    fn superseded(&mut self, _: Epoch, _: &str) {}
    fn commits_since(&mut self, _: &VolumeRow) -> Result<Option<Commits>, SourceError> {
        Ok(None)
    }
    fn before(&mut self, _: PageNo) -> Option<Vec<u8>> {
        None
    }
    fn shipped(&mut self, _: &VolumeRow) {}
    fn commits_left(&self) -> u64 {
        0
    }
}

async fn made(
    session: &mut Session,
    components: &Components,
    source: &mut Written,
) -> Result<Option<Checkpointed>, EngineError> {
    let mut phases = Phases::new(components, "app.db".to_owned(), Some(0));
    let (writer, scratch) = (&mut session.writer, &session.scratch);
    checkpoint_in(&mut phases, writer, scratch, source, &Options::default(), &mut Beside::nothing()).await
}

/// Makes a checkpoint without a part of it, and says what is amiss then.
async fn amiss_without(part: &'static str) -> Vec<&'static str> {
    let mut machine = Machine::new(Arc::new(MemoryRemote::new("parties")));
    machine.components.faults = Arc::new(LeavesOut(part));
    machine.components.account = Arc::new(SlowUploads);
    let mut source = Written::new();
    // What catching up changes was another before it was read, and is compared by what it was.
    source.meets.insert(0, Meets::AWriter);
    source.meets.truncate(1);
    let mut session = machine.open().await.unwrap();
    let done = made(&mut session, &machine.components, &mut source).await;
    drop(session);
    let mut amiss = Vec::new();
    if !matches!(done, Ok(Some(_))) {
        amiss.push("nothing is published");
    }
    if (source.begun, source.published) != (1, 1) {
        amiss.push("marks are not taken and settled once");
    }
    let Ok(Some(opened)) = machine.log().open().await else {
        amiss.push("the log does not open");
        return amiss;
    };
    // Whoever was not asked what was written meanwhile writes it all the same.
    if let Some(Meets::AWriter) = source.meets.pop() {
        source.pages.write(30, 4711);
        source.pages.write(31, 4711);
    }
    let dest = machine.dir.path().join("back.db");
    match restore(&machine.log(), &machine.components, &At::Newest, &dest, false).await {
        Ok(_) if std::fs::read(&dest).unwrap() == source.bytes() => {}
        Ok(_) => amiss.push("another database comes back"),
        Err(_) => amiss.push("nothing comes back"),
    }
    if opened.tail.wal != source.wal() {
        amiss.push("no segment can follow");
    }
    if opened.tail.schema.is_none_or(|schema| schema.cookie != 7) {
        amiss.push("the schema is not told");
    }
    if opened.sessions.marks().all(|mark| mark.session.as_str() != "worker-7") {
        amiss.push("a session is lost");
    }
    let table = opened.objects().into_iter().find(|mark| mark.id == ObjectId::FIRST).and_then(|mark| mark.object);
    if table.is_none_or(|table| (&*table.name, table.pages, table.taken.pages) != ("t", 1, 1)) {
        amiss.push("nobody knows what a table costs");
    }
    amiss
}

#[tokio::test]
async fn each_participant_and_each_phase_that_is_left_out_of_a_checkpoint_is_missed() {
    assert_eq!(amiss_without("").await, Vec::<&str>::new(), "with all of them nothing is amiss");
    for participant in Participant::ALL {
        let expected = match participant {
            Participant::TransactionFence => "marks are not taken and settled once",
            Participant::WalPin => "no segment can follow",
            Participant::SchemaCatalogue => "the schema is not told",
            Participant::Sessions => "a session is lost",
            Participant::IndexRegistry => "nobody knows what a table costs",
            Participant::PageSet => "nothing comes back",
        };
        let amiss = amiss_without(participant.word()).await;
        assert!(amiss.contains(&expected), "without {participant}: {amiss:?}");
    }
    for phase in Phase::ALL {
        let expected = match phase {
            // Whoever is at rest makes none.
            Phase::Rest => continue,
            Phase::Prepare | Phase::InProgress => "nothing comes back",
            Phase::WaitPending => "another database comes back",
            Phase::WaitFlush => "nothing comes back",
        };
        let amiss = amiss_without(phase.word()).await;
        assert!(amiss.contains(&expected), "without {phase}: {amiss:?}");
    }
}

#[tokio::test]
async fn all_of_them_take_part_in_a_checkpoint_and_in_one_that_is_only_tried_and_their_times_are_told() {
    let machine = Machine::new(Arc::new(MemoryRemote::new("all")));
    let mut source = Written::new();
    let mut session = machine.open().await.unwrap();
    let done = made(&mut session, &machine.components, &mut source).await.unwrap().unwrap();
    let who = |took: &[littoral_engine::exec::coordinator::Took]| took.iter().map(|took| took.who).collect::<Vec<_>>();
    assert_eq!(who(&done.took), Participant::ALL);
    source.pages.write(7, 1234);
    let (manifest, row) = (session.writer.manifest().clone(), session.writer.row().clone());
    let tried = planned(manifest, &row, &mut source, &CheckpointPolicy::default(), &machine.components).await.unwrap();
    assert_eq!(who(&tried.took), Participant::ALL);
    let words: Vec<&str> = tried.phases.iter().map(|passed| passed.phase.word()).collect();
    assert_eq!(words, ["prepare", "in-progress", "wait-pending", "wait-flush"]);
    assert_eq!(tried.plan.unwrap().changed_pages(), 1);
    assert_eq!(source.published, 1, "nobody is told that it was published");
    assert!(!source.is_reading, "nothing is held");
    assert_eq!(*session.writer.row(), row, "nothing was written");
    // What was only tried is still to be done.
    let done = made(&mut session, &machine.components, &mut source).await.unwrap().unwrap();
    assert_eq!(done.plan.changed_pages(), 1);
}

#[tokio::test]
async fn one_that_waits_for_too_long_is_named_and_all_who_had_begun_are_aborted() {
    let machine = Machine::new(Arc::new(MemoryRemote::new("aborted")));
    let mut source = Written::new();
    let mut session = machine.open().await.unwrap();
    made(&mut session, &machine.components, &mut source).await.unwrap().unwrap();
    source.pages.write(7, 1234);
    (source.meets, source.holds) = (vec![Meets::Somebody], true);
    let before = session.writer.row().clone();
    let given_up = made(&mut session, &machine.components, &mut source).await;
    let Err(EngineError::Waited { phase, who, .. }) = given_up else { panic!("{given_up:?}") };
    assert_eq!((phase, who.as_str()), (Phase::WaitPending, "worker-7, which is process 7"));
    assert!(!source.is_reading, "no transaction stays open");
    assert_eq!((source.begun, source.published, source.given_up), (2, 1, 1), "what was marked counts for the next one");
    assert_eq!(session.writer.row().tail, before.tail, "nothing was published");
    let done = made(&mut session, &machine.components, &mut source).await.unwrap().unwrap();
    assert_eq!(done.plan.changed_pages(), 1);
}

#[tokio::test]
async fn what_cannot_be_cleaned_up_after_the_record_fails_no_checkpoint_and_aborts_nobody() {
    let mut machine = Machine::new(Arc::new(MemoryRemote::new("cleaned")));
    let scratch = machine.dir.path().join(".littoral/checkpoint_scratch");
    machine.components.faults = Arc::new(CannotCleanUp(scratch.clone()));
    let mut source = Written::new();
    let mut session = machine.open().await.unwrap();
    let done = made(&mut session, &machine.components, &mut source).await.unwrap().unwrap();
    assert_eq!(done.seq, session.writer.row().tail.seq);
    let left = std::fs::read_dir(&scratch).unwrap().filter(|left| left.as_ref().unwrap().path().is_file());
    assert_eq!(left.count(), 1, "it was not cleaned up");
    assert_eq!((source.begun, source.published, source.given_up), (1, 1, 0));
}

/// A database of the stock shell's, of which it is known what changed, and noted what is read.
struct Stock {
    file: PathBuf,
    pages: Pages,
    read: BTreeSet<PageNo>,
    /// These are not here.
    absent: BTreeSet<PageNo>,
}

impl Stock {
    fn new(folder: &Path, sql: &str) -> Self {
        let file = folder.join("stock.db");
        let mut stock = Self { file, pages: Pages::new(512, 0), read: BTreeSet::new(), absent: BTreeSet::new() };
        stock.run(&format!("PRAGMA page_size = 512; {sql}"));
        stock
    }

    fn say(&self, sql: &str) -> String {
        let said = Command::new("sqlite3").args(["-batch", "-init", "/dev/null"]).arg(&self.file).arg(sql).output();
        let said = said.unwrap();
        assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
        String::from_utf8(said.stdout).unwrap()
    }

    /// Changes it; what that changed is what the next checkpoint looks at.
    fn run(&mut self, sql: &str) {
        self.say(sql);
        let bytes = std::fs::read(&self.file).unwrap();
        let before = std::mem::replace(&mut self.pages.pages, bytes.chunks(512).map(<[u8]>::to_vec).collect());
        let pages = (0..).zip(&self.pages.pages).filter(|(at, page)| before.get(*at as usize) != Some(page));
        self.pages.changed = Some(pages.map(|(at, _)| PageNo::from_index(at)).collect());
        self.read.clear();
    }

    /// What SQLite says: each page of a table or an index, and whose it is.
    fn dbstat(&self) -> BTreeMap<u64, String> {
        let said = self.say("SELECT pageno || '|' || name FROM dbstat");
        let rows = said.lines().map(|line| line.split_once('|').unwrap());
        rows.map(|(page, name)| (page.parse().unwrap(), name.to_owned())).collect()
    }

    /// What the manifest says, of those pages of which it knows all there is to be known.
    fn owners(&self, session: &Session) -> BTreeMap<u64, String> {
        let (manifest, id) = (session.writer.manifest(), session.writer.row().meta.id);
        let objects = manifest.objects(&id).unwrap().into_iter();
        let names: BTreeMap<ObjectId, String> =
            objects.filter_map(|mark| Some((mark.id, mark.object?.name.to_string()))).collect();
        let owners = manifest.owners(&id, PageNo::FIRST, self.pages.pages.len()).unwrap();
        let known = (1..).zip(owners).filter(|(_, owner)| owner.is_known() && !owner.is_open());
        known.map(|(page, owner)| (page, names[&owner.id()].clone())).collect()
    }
}

impl PageSource for Stock {
    fn page_size(&self) -> PageSize {
        self.pages.page_size()
    }
    fn page_count(&self) -> PageCount {
        self.pages.page_count()
    }
    fn lock_page(&self) -> Option<PageNo> {
        None
    }
    fn changed(&self) -> Changed {
        self.pages.changed()
    }
    fn commits(&self) -> u64 {
        1
    }
    fn gap(&self) -> Option<Gap> {
        self.pages.gap
    }
    fn has(&self, page: PageNo) -> bool {
        !self.absent.contains(&page)
    }
    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        self.read.insert(page);
        self.pages.read(page, into)
    }
}

/// Some eight thousand pages of two tables and an index.
const MANY: &str = "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c); CREATE INDEX i ON t(b); CREATE TABLE u(x);
    WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000) INSERT INTO t SELECT i, i, hex(zeroblob(150)) FROM n;
    INSERT INTO u VALUES(zeroblob(300000));";

#[tokio::test]
async fn a_checkpoint_after_which_every_page_is_whose_it_was_forgets_no_owner_and_reads_no_other_page() {
    let machine = Machine::new(Arc::new(MemoryRemote::new("owners")));
    let mut stock = Stock::new(machine.dir.path(), MANY);
    let mut session = machine.open().await.unwrap();
    for round in 0..4 {
        let (writer, scratch) = (&mut session.writer, &session.scratch);
        if round > 0 {
            stock.run(&format!("UPDATE t SET c = replace(c, '0', '{round}') WHERE a % 4000 = {round};"));
        }
        // A record that says that commits cannot be told apart is a checkpoint all the same.
        stock.pages.gap = (round == 2).then_some(Gap { reason: GapReason::Untracked, since_ms: 0 });
        checkpoint(writer, scratch, &mut stock, &Options::default()).await.unwrap().unwrap();
        assert_eq!(stock.owners(&session), stock.dbstat(), "after round {round}");
        let mut expected: BTreeSet<PageNo> = stock.pages.changed.iter().flatten().copied().collect();
        expected.insert(PageNo::FIRST);
        assert_eq!(stock.read, expected, "in round {round}");
        assert!(round == 0 || expected.len() < 20, "it changed little: {}", expected.len());
    }
    assert!(stock.pages.pages.len() > 4096, "more than one checkpoint looks at beyond what changed");
}

#[tokio::test]
async fn pages_that_are_not_here_keep_nobody_from_looking_at_those_that_are() {
    let mut machine = Machine::new(Arc::new(MemoryRemote::new("absent")));
    machine.components.faults = Arc::new(LeavesOut(Participant::IndexRegistry.word()));
    let mut stock = Stock::new(machine.dir.path(), MANY);
    let mut session = machine.open().await.unwrap();
    checkpoint(&mut session.writer, &session.scratch, &mut stock, &Options::default()).await.unwrap().unwrap();
    assert_eq!(stock.owners(&session), BTreeMap::new(), "nobody looked");
    drop(session);
    machine.components.faults = Arc::new(littoral_ports::NoFaults);
    let mut session = machine.open().await.unwrap();
    // Leaves of two trees, more of them than are looked at at once, and before most of what is here.
    let leaves = stock.pages.pages.iter().enumerate().skip(4).take(3500);
    let leaves = leaves.filter(|(_, page)| matches!(page[0], 0x0a | 0x0d));
    stock.absent = leaves.map(|(at, _)| PageNo::from_index(at as u64)).collect();
    assert!(stock.absent.len() > 2500);
    for round in 1..7 {
        stock.run(&format!("UPDATE t SET c = replace(hex(zeroblob(150)), '0', '{round}') WHERE a = 8999;"));
        checkpoint(&mut session.writer, &session.scratch, &mut stock, &Options::default()).await.unwrap().unwrap();
        assert!(stock.read.is_disjoint(&stock.absent), "nothing is fetched for it");
        assert!(stock.read.len() < 2100, "{}", stock.read.len());
    }
    let mut here = stock.dbstat();
    here.retain(|page, _| !stock.absent.contains(&PageNo::new(*page).unwrap()));
    assert_eq!(stock.owners(&session), here);
}
