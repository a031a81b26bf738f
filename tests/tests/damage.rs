//! Bits that flip, ends that are missing, objects that are gone, swapped or of another volume: always a named error or the right
//! bytes, never wrong ones, never a panic. Exhaustive on small objects, sampled on large ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use bytes::Bytes;
use littoral_engine::exec::checkpoint::Options;
use littoral_engine::exec::coalesce::coalesce;
use littoral_engine::exec::prune::{self, prune};
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::snapshot::write_snapshot;
use littoral_engine::exec::verify::verify;
use littoral_engine::log::Draft;
use littoral_engine::log::pins::Wish;
use littoral_engine::volume::release;
use littoral_engine::{EngineError, Log, Session};
use littoral_format as format;
use littoral_format::keys::ObjectKey;
use littoral_plan::{CheckpointPolicy, KeepPolicy};
use littoral_ports::{MemoryRemote, Remote, RemoteError};
use littoral_tests::chance::Chance;
use littoral_tests::clock::TestClock;
use littoral_tests::database::{Bounds, Stock, source, stock};
use littoral_tests::machine::Machine;
use littoral_tests::world::folder;
use littoral_types::{
    Checkpoint, Commit, Compression, FooterFigures, Gap, GapReason, Lsn, ObjectPath, PinPurpose, RecordBody,
    RecordKind, Segment, Seq,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;

/// Objects up to so many bytes have every byte damaged.
const SMALL: usize = 700;
/// Damages of a larger one.
const SAMPLES: u64 = 250;

/// A volume that holds an object of every kind, and what each of its commits holds.
struct Volume {
    folder: TempDir,
    remote: Arc<MemoryRemote>,
    machine: Machine,
    commits: BTreeMap<Lsn, Arc<Stock>>,
    named: (littoral_types::SnapshotName, Arc<Stock>),
    objects: Vec<(ObjectPath, Bytes)>,
    chance: Chance,
}

impl Volume {
    async fn new(seed: u64) -> Self {
        let folder = folder();
        let remote = Arc::new(MemoryRemote::new("damage"));
        let chance = Chance::new(seed);
        let bounds = Bounds { bytes_max: u64::MAX, reshapes: false };
        let clock = Arc::new(TestClock::new());
        let machine = Machine::new(folder.path().join("a"), remote.clone(), clock, chance.fork(), bounds, false);
        let named = ("keep".parse().unwrap(), Arc::new(Stock { page_size: 512, bytes: Vec::new() }));
        let mut volume = Self { folder, remote, machine, commits: BTreeMap::new(), named, objects: Vec::new(), chance };
        Box::pin(volume.build()).await;
        volume.objects = volume.remote.objects();
        volume
    }

    async fn open(&mut self) -> Session {
        self.machine.open(None).await.unwrap()
    }

    async fn build(&mut self) {
        let database = &mut self.machine.database;
        database.run("PRAGMA page_size = 512; CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)").await;
        // Half of it does not compress, so that frames of different contents have equal lengths.
        for id in 0..24 {
            let noise = self.chance.number();
            database
                .run(&format!(
                    "INSERT INTO t VALUES ({id}, {noise} >> 1, randomblob(400)), ({id} + 100, 'text', zeroblob(900))"
                ))
                .await;
        }
        self.checkpoint().await;
        for round in 0..3 {
            self.change_and_checkpoint().await;
            if round == 1 {
                self.coalesce().await;
            }
        }
        self.coalesce().await;
        self.commit(40).await;
        let mut session = self.open().await;
        write_snapshot(&mut session.writer, None).await.unwrap();
        drop(session);
        self.pin(PinPurpose::Snapshot(self.named.0.clone())).await;
        self.named.1 = self.commits.last_key_value().unwrap().1.clone();
        for _ in 0..24 {
            self.change_and_checkpoint().await;
        }
        // What is pinned stays, the records before go.
        let mut session = self.open().await;
        let options = prune::Options { keep: KeepPolicy { last: 20, within_ms: 0 }, grace_ms: 0, dry_run: false };
        assert!(prune(&mut session.writer, &options).await.unwrap().unwrap().records > 0);
        drop(session);
        self.commit(2_500_000).await;
        self.gap().await;
        self.commit(40).await;
        let mut session = self.open().await;
        release(&mut session.writer).await.unwrap();
        drop(session);
        while self.open().await.writer.row().tail.seq < Seq(70) {
            self.change_and_checkpoint().await;
            self.coalesce().await;
        }
        let mut session = self.open().await;
        write_snapshot(&mut session.writer, None).await.unwrap();
        drop(session);
        self.pin(PinPurpose::Reader).await;
        self.machine.database.run("DELETE FROM t WHERE id > 110").await;
        self.checkpoint().await;
        self.change_and_checkpoint().await;
        self.change_and_checkpoint().await;
        let points = self.restorable().await;
        self.commits.retain(|lsn, _| points.contains(lsn));
        assert!(self.commits.len() > 20);
    }

    async fn restorable(&mut self) -> Vec<Lsn> {
        let log = self.log();
        let opened = log.open().await.unwrap().unwrap();
        let history = log.history(&opened.glance(), opened.tail.seq.next(), usize::MAX).await.unwrap();
        history.iter().map(|record| record.lsns.last).collect()
    }

    async fn change_and_checkpoint(&mut self) {
        let (id, noise) = (self.chance.under(24), self.chance.number());
        self.machine.database.run(&format!("UPDATE t SET a = {noise} >> 1, b = randomblob(400) WHERE id = {id}")).await;
        self.checkpoint().await;
    }

    async fn checkpoint(&mut self) {
        let mut session = self.open().await;
        let mut source = source(self.machine.database.path());
        let held = Arc::new(stock(&mut source));
        let policy = CheckpointPolicy::default();
        let options = Options { policy, compression: *self.chance.pick(&[Compression::Zstd, Compression::None]) };
        let done = self.machine.publish(&mut session, &mut source, &held, &options).await.unwrap().unwrap();
        self.commits.insert(done.position.lsn, held);
    }

    async fn coalesce(&mut self) {
        let mut session = self.open().await;
        coalesce(&mut session.writer, &session.scratch, None, Compression::None).await.unwrap();
    }

    /// A commit that changes no page, in a record with so many bytes of body at least.
    async fn commit(&mut self, bytes: usize) {
        let tail = self.open().await.writer.row().tail.clone();
        let commit = Commit { lsn: tail.lsn.next(), time_ms: 5, page_count: tail.figures.page_count, session: None };
        let name = || (0..60).map(|_| format!("{:016x}", self.chance.number())).collect::<String>();
        let body = match bytes / 65_536 * 160 {
            0 => {
                let (ops, frames) = (Vec::new(), Vec::new());
                RecordBody::Segment(Segment { commits: vec![commit], wal: None, ops, frames })
            }
            // Nothing makes these names smaller than half.
            many => {
                let sessions = (0..many as u64).map(|serial| (name(), serial)).collect();
                RecordBody::Checkpoint(Checkpoint { sessions, ..Checkpoint::default() })
            }
        };
        self.publish(body).await;
    }

    /// One of which nobody knows what came between it and the one before.
    async fn gap(&mut self) {
        let gap = Some(Gap { reason: GapReason::Lost, since_ms: 5 });
        self.publish(RecordBody::Checkpoint(Checkpoint { gap, ..Checkpoint::default() })).await;
    }

    async fn publish(&mut self, body: RecordBody) {
        let mut session = self.open().await;
        let tail = session.writer.row().tail.clone();
        let (figures, added) = (tail.figures, FooterFigures::default());
        session.writer.publish(Draft { commits: 1, added, ..Draft::of(body, figures) }).await.unwrap();
        let held = self.commits.last_key_value().unwrap().1.clone();
        self.commits.insert(tail.lsn.next(), held);
    }

    async fn pin(&self, purpose: PinPurpose) {
        let log = self.log();
        let opened = log.open().await.unwrap().unwrap();
        let wish = Wish { purpose, holder: "test".to_owned(), life_ms: None };
        log.pin(&self.machine.components, &opened, wish).await.unwrap().unwrap();
    }

    fn log(&self) -> Log {
        Log::new(self.remote.clone(), "app.db".parse().unwrap())
    }

    /// Restores; nothing, or an error that says what is wrong, or the right bytes.
    async fn check(&self, at: &At, how: &str) -> bool {
        let out = self.folder.path().join("restored.db");
        let done = match restore(&self.log(), &self.machine.components, at, &out, true).await {
            Ok(done) => done,
            Err(error) => {
                assert!(is_named(&error), "{how}: {at:?}: {error:?}");
                return false;
            }
        };
        let expected = match at {
            At::Snapshot(name) if *name == self.named.0 => &self.named.1,
            _ => self.commits.get(&done.position.lsn).unwrap_or_else(|| panic!("{how}: {at:?}: {done:?}")),
        };
        assert!(std::fs::read(&out).unwrap() == expected.bytes, "{how}: {at:?}: WRONG BYTES");
        true
    }

    /// Everything that anybody may ask of a volume with one damaged object.
    async fn ask(&self, path: &ObjectPath, how: &str, is_noticed: bool) {
        for at in self.places(path) {
            self.check(&at, how).await;
        }
        match verify(&self.log(), &self.machine.components).await {
            Ok(found) => assert!(!is_noticed || !found.problems.is_empty(), "{how}: verify found nothing"),
            Err(error) => assert!(is_named(&error), "{how}: {error:?}"),
        }
    }

    /// What is most likely to meet the object.
    fn places(&self, path: &ObjectPath) -> Vec<At> {
        let mut places = vec![At::Newest];
        let (_, key) = ObjectKey::parse(path).unwrap();
        match key {
            ObjectKey::Record(_) => {
                if let Ok(envelope) = format::record::open(&self.original(path))
                    && self.commits.contains_key(&envelope.header.lsns.last)
                {
                    places.push(At::Lsn(envelope.header.lsns.last));
                }
                places.push(At::Lsn(Lsn(self.commits.last_key_value().unwrap().0.0 - 1)));
            }
            ObjectKey::Head => {}
            _ => {
                places.push(At::Snapshot(self.named.0.clone()));
                let lsns: Vec<Lsn> = self.commits.keys().copied().collect();
                places.push(At::Lsn(*self.chance.pick(&lsns)));
            }
        }
        places
    }

    fn original(&self, path: &ObjectPath) -> Bytes {
        self.objects.iter().find(|(known, _)| known == path).unwrap().1.clone()
    }

    /// A store that has lost its manifest learns again, publishes, and what it publishes is right; or it says what is wrong.
    async fn rebuild(&mut self, how: &str) {
        let before = self.remote.objects();
        self.machine.lose_manifest();
        match self.machine.open(None).await {
            Err(error) => assert!(is_named(&error), "{how}: {error:?}"),
            Ok(mut session) => {
                let mut source = source(self.machine.database.path());
                let held = Arc::new(stock(&mut source));
                match self.machine.publish(&mut session, &mut source, &held, &Options::default()).await {
                    Err(error) => assert!(is_named(&error), "{how}: {error:?}"),
                    Ok(_) => {
                        let out = self.folder.path().join("rebuilt.db");
                        match restore(&self.log(), &self.machine.components, &At::Newest, &out, true).await {
                            Err(error) => assert!(is_named(&error), "{how}: {error:?}"),
                            Ok(_) => assert!(
                                std::fs::read(&out).unwrap() == held.bytes,
                                "{how}: WRONG BYTES after a rebuild"
                            ),
                        }
                    }
                }
            }
        }
        self.put_back(&before).await;
    }

    /// Whoever prunes while one object is damaged, or gone, deletes nothing that is needed once that is mended.
    async fn prune(&mut self, path: &ObjectPath, damaged: Option<Bytes>, how: &str) {
        // The pruner's own manifest is whole.
        self.machine.lose_manifest();
        drop(self.open().await);
        let before = self.remote.objects();
        match damaged {
            Some(damaged) => self.remote.tamper(path, damaged),
            None => self.remote.delete(std::slice::from_ref(path)).await.unwrap(),
        }
        let opened = self.machine.open(None).await;
        let options = prune::Options { keep: KeepPolicy { last: 5, within_ms: 0 }, grace_ms: 0, dry_run: false };
        let pruned = match opened {
            Ok(mut session) => prune(&mut session.writer, &options).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = pruned {
            assert!(is_named(&error), "{how}: {error:?}");
        }
        self.remote.tamper(path, self.original(path));
        for lsn in self.commits.keys().rev().take(5) {
            assert!(self.check(&At::Lsn(*lsn), how).await, "{how}: LSN {lsn} was lost by a prune");
        }
        // A pin that is gone holds nothing.
        if !path.as_str().contains("/pins/") {
            let named = At::Snapshot(self.named.0.clone());
            assert!(self.check(&named, how).await, "{how}: a named snapshot was lost by a prune");
        }
        self.put_back(&before).await;
        self.machine.lose_manifest();
    }

    async fn put_back(&self, objects: &[(ObjectPath, Bytes)]) {
        let known: BTreeMap<&ObjectPath, &Bytes> = objects.iter().map(|(path, bytes)| (path, bytes)).collect();
        for (path, bytes) in self.remote.objects() {
            match known.get(&path) {
                Some(original) if **original == bytes => {}
                Some(original) => self.remote.tamper(&path, (*original).clone()),
                None => self.remote.delete(&[path]).await.unwrap(),
            }
        }
        for (path, bytes) in objects {
            if self.remote.get(path).await.is_err() {
                self.remote.tamper(path, bytes.clone());
            }
        }
    }

    /// One object of every kind, and a few more of the interesting ones.
    fn exemplars(&self) -> Vec<ObjectPath> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut chosen = Vec::new();
        // The newest records come first.
        for (path, bytes) in &self.objects {
            let (kind, most) = match ObjectKey::parse(path).unwrap().1 {
                ObjectKey::Record(_) => (format::record::open(bytes).unwrap().kind.word(), 1),
                ObjectKey::Snapshot(_) => ("snapshot", 2),
                ObjectKey::Blob(name) => (name.kind.folder(), 2),
                ObjectKey::Pin(_) => ("pin", 2),
                ObjectKey::Head => ("head", 1),
                ObjectKey::Probe(_) | ObjectKey::Copy | ObjectKey::Promoted => continue,
            };
            let count = counts.entry(kind.to_owned()).or_default();
            *count += 1;
            if *count <= most {
                chosen.push(path.clone());
            }
        }
        // What a fork begins with is damaged beside its own tests (engine/tests/forks.rs).
        let kinds = RecordKind::ALL.iter().filter(|kind| **kind != RecordKind::Fork);
        let mut kinds: Vec<&str> = kinds.map(|kind| kind.word()).collect();
        kinds.extend(["snapshot", "chunk", "pack", "seg", "shard", "pin", "head"]);
        for kind in kinds {
            assert!(counts.contains_key(kind), "the volume holds no {kind}: {counts:?}");
        }
        chosen
    }
}

/// An error that says what is wrong with the object store's data. A task that was cut off would be a panic.
fn is_named(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::Damaged { .. }
            | EngineError::Chain { .. }
            | EngineError::Inconsistent { .. }
            | EngineError::Serials { .. }
            | EngineError::NotAVolume { .. }
            | EngineError::NoVolume(_)
            | EngineError::NoSuchPosition { .. }
            | EngineError::RemoteBehind { .. }
            | EngineError::NotBound { .. }
            | EngineError::Remote(RemoteError::Missing { .. } | RemoteError::Corrupt { .. })
    )
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// Flips and cuts of an object, each with its name.
fn damages(bytes: &Bytes, chance: &Chance) -> Vec<(Vec<u8>, String)> {
    let len = bytes.len();
    let places: Vec<usize> = match len <= SMALL {
        true => (0..len).collect(),
        // Both ends hold headers, footers and trailers; the middle is sampled.
        false => (0..40).chain(len - 60..len).chain((0..SAMPLES).map(|_| chance.under(len as u64) as usize)).collect(),
    };
    let mut damages = Vec::new();
    for place in &places {
        let bit = chance.under(8);
        let mut flipped = bytes.to_vec();
        flipped[*place] ^= 1 << bit;
        damages.push((flipped, format!("bit {bit} of byte {place} of {len} flipped")));
    }
    for place in places.iter().filter(|place| len <= SMALL || *place % 3 == 0) {
        damages.push((bytes[..*place].to_vec(), format!("cut to {place} of {len} bytes")));
    }
    damages.push(([&bytes[..], &[0]].concat(), "one byte more".to_owned()));
    damages.push(([&bytes[..], &bytes[..]].concat(), "twice".to_owned()));
    for _ in 0..8.min(len / 16) {
        let from = chance.under((len - 15) as u64) as usize;
        let mut wiped = bytes.to_vec();
        wiped[from..from + 16].fill(0);
        if wiped[..] != bytes[..] {
            damages.push((wiped, format!("sixteen bytes from {from} wiped")));
        }
    }
    damages
}

#[test]
fn a_whole_volume_is_read_back_and_nothing_is_wrong_with_it() {
    run(async {
        let mut volume = Box::pin(Volume::new(1)).await;
        for lsn in volume.commits.keys() {
            assert!(volume.check(&At::Lsn(*lsn), "whole").await);
        }
        assert!(volume.check(&At::Snapshot(volume.named.0.clone()), "whole").await);
        let found = verify(&volume.log(), &volume.machine.components).await.unwrap();
        assert_eq!(found.problems, Vec::<String>::new());
        volume.rebuild("whole").await;
        volume.exemplars();
    });
}

#[test]
fn a_flipped_bit_or_a_missing_end_of_any_object_is_noticed_and_never_gives_wrong_bytes() {
    run(async {
        let mut volume = Box::pin(Volume::new(2)).await;
        let mut count = 0;
        for path in volume.exemplars() {
            let original = volume.original(&path);
            for (nth, (damaged, how)) in damages(&original, &volume.chance.fork()).into_iter().enumerate() {
                let how = format!("{path}: {how}");
                volume.remote.tamper(&path, Bytes::from(damaged));
                volume.ask(&path, &how, true).await;
                if nth % 16 == 0 {
                    volume.rebuild(&how).await;
                }
                if nth % 24 == 0 {
                    let damaged = volume.remote.get(&path).await.unwrap();
                    volume.remote.tamper(&path, original.clone());
                    volume.prune(&path, Some(damaged), &how).await;
                }
                count += 1;
            }
            volume.remote.tamper(&path, original);
        }
        println!("{count} damages");
        assert!(count > 5_000);
    });
}

#[test]
fn an_object_under_the_name_of_another_of_its_kind_is_noticed_and_never_gives_wrong_bytes() {
    run(async {
        let mut volume = Box::pin(Volume::new(3)).await;
        let mut kinds: BTreeMap<String, Vec<ObjectPath>> = BTreeMap::new();
        for (path, _) in &volume.objects {
            kinds.entry(path.parts().nth(1).unwrap().to_owned()).or_default().push(path.clone());
        }
        for (kind, paths) in kinds.into_iter().filter(|(_, paths)| paths.len() > 1) {
            for nth in 0..60 {
                let (here, there) = (volume.chance.pick(&paths).clone(), volume.chance.pick(&paths).clone());
                let (original, other) = (volume.original(&here), volume.original(&there));
                if original == other {
                    continue;
                }
                let how = format!("{kind}: {here} holds what is {there}");
                volume.remote.tamper(&here, other);
                volume.ask(&here, &how, true).await;
                if nth % 8 == 0 {
                    volume.rebuild(&how).await;
                }
                volume.remote.tamper(&here, original);
            }
        }
    });
}

#[test]
fn an_object_that_is_gone_is_missed_and_never_made_up() {
    run(async {
        let mut volume = Box::pin(Volume::new(4)).await;
        let newest = volume.objects.iter().find(|(path, _)| path.as_str().contains("/log/")).unwrap().0.clone();
        for (path, original) in volume.objects.clone() {
            let how = format!("{path} is gone");
            volume.remote.delete(std::slice::from_ref(&path)).await.unwrap();
            // A hint, what somebody wished, and the last thing that happened can be gone without a trace.
            let traceless = path == newest || path.as_str().ends_with("/head") || path.as_str().contains("/pins/");
            volume.ask(&path, &how, !traceless).await;
            volume.rebuild(&how).await;
            volume.remote.tamper(&path, original);
            volume.prune(&path, None, &how).await;
        }
    });
}

#[test]
fn objects_of_another_volume_are_noticed_and_never_give_wrong_bytes() {
    run(async {
        let mut volume = Box::pin(Volume::new(5)).await;
        let other = Box::pin(Volume::new(6)).await;
        for (path, foreign) in &other.objects {
            let how = format!("{path} is another volume's");
            let here = volume.objects.iter().find(|(known, _)| known == path).cloned();
            volume.remote.tamper(path, foreign.clone());
            // Blobs have other names there: beside ours they are orphans.
            let is_noticed = here.is_some();
            volume.ask_foreign(path, &how, is_noticed).await;
            if volume.chance.once_in(8) {
                volume.rebuild(&how).await;
            }
            match here {
                Some((_, original)) => volume.remote.tamper(path, original),
                None => volume.remote.delete(std::slice::from_ref(path)).await.unwrap(),
            }
        }
        // Their blobs under our names.
        for kind in ["chunk", "pack", "seg", "shard"] {
            let of = |volume: &Volume| -> Vec<(ObjectPath, Bytes)> {
                volume.objects.iter().filter(|(path, _)| path.parts().nth(1) == Some(kind)).cloned().collect()
            };
            let (ours, theirs) = (of(&volume), of(&other));
            for (nth, (path, original)) in ours.iter().enumerate() {
                let (from, foreign) = &theirs[nth % theirs.len()];
                volume.remote.tamper(path, foreign.clone());
                volume.ask(path, &format!("{path} holds another volume's {from}"), true).await;
                volume.remote.tamper(path, original.clone());
            }
        }
    });
}

impl Volume {
    async fn ask_foreign(&self, path: &ObjectPath, how: &str, is_noticed: bool) {
        if self.objects.iter().any(|(known, _)| known == path) {
            return self.ask(path, how, is_noticed).await;
        }
        self.check(&At::Newest, how).await;
        if let Err(error) = verify(&self.log(), &self.machine.components).await {
            assert!(is_named(&error), "{how}: {error:?}");
        }
    }
}

#[test]
fn nothing_but_its_mark_tells_a_frame_from_that_of_another_blob() {
    run(async {
        let volume = Box::pin(Volume::new(7)).await;
        let frames: Vec<_> = volume
            .objects
            .iter()
            .filter(|(path, _)| path.parts().nth(1) == Some("pack"))
            .flat_map(|(_, bytes)| {
                let Ok(format::blob::Footer::Index(index)) = format::blob::read_index(bytes, bytes.len() as u64) else {
                    panic!("a footer that does not fit")
                };
                let frames = index.chunks.into_iter().flat_map(|chunk| {
                    let mark = chunk.table.mark;
                    let entries: Vec<_> = chunk.table.frames().map(littoral_types::Frame::to_entry).collect();
                    entries.into_iter().map(move |frame| (mark, frame))
                });
                frames.map(|(mark, frame)| (bytes.clone(), mark, frame)).collect::<Vec<_>>()
            })
            .collect();
        let page_size = littoral_types::PageSize::MIN;
        let mut twins = 0;
        for (ours, mark, frame) in &frames {
            for (theirs, other, _) in frames.iter().filter(|(_, other, there)| other != mark && there == frame) {
                let span = frame.span.offset as usize..frame.span.end().unwrap() as usize;
                let read =
                    |bytes: &Bytes, mark| format::blob::read_frame(&bytes[span.clone()], page_size, mark, &frame.pages);
                twins += u64::from(read(ours, *mark).unwrap() != read(theirs, *other).unwrap());
                assert!(read(theirs, *mark).is_err());
            }
        }
        assert!(twins > 0, "no two frames are alike");
    });
}
