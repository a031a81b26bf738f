//! What every [`Manifest`] must do. [`all`] runs everything; [`World`] is the model that property tests drive further.
//!
//! The model is naive on purpose: rows are what [`ChunkRow::apply`] makes of the operations, kept in a map, and every
//! answer is found by looking at all of them.

use crate::{Batch, Ended, LeaseChange, Leased, Manifest, ManifestError};
use littoral_types::limits::CHUNK_BYTES;
use littoral_types::{
    Base, BlobHash, BlobKind, BlobName, BlobRef, ByteSpan, Change, ChangeSeq, ChunkId, ChunkRow, ChunkSpan, Delta,
    DeltaId, Epoch, FooterFigures, Form, FrameEntry, FrameTable, Generation, Geometry, Home, IdentityKey, Incarnation,
    Intent, Job, JobId, JobState, Lease, LeaseToken, LeaseWish, Lsn, LsnRange, ManifestOp, Object, ObjectId,
    ObjectKind, ObjectMark, Owner, PageCount, PageIdentity, PageNo, PageOwner, PageSize, Part, Position, RecordHash,
    RecordKind, RecordSummary, Seq, StagedBlob, StoreId, TailRow, Taken, Task, VolumeFigures, VolumeId, VolumeKind,
    VolumeMeta, VolumeName, VolumeRow, Wish, Work,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One store's manifest, opened as often as asked.
pub trait Subject {
    /// Opens it: everything that was committed before is there. What an earlier call answered has been dropped.
    fn open(&mut self) -> Arc<dyn Manifest>;
}

/// Runs every check, each on a subject of its own.
pub fn all(fresh: &mut dyn FnMut() -> Box<dyn Subject>) {
    for (name, check) in CHECKS {
        println!("manifest conformance: {name}");
        check(fresh().as_mut());
    }
    for seed in 0..8 {
        walk(seed, 400, fresh().as_mut());
    }
}

/// A named check.
pub type Check = (&'static str, fn(&mut dyn Subject));

/// Every check that needs no seed.
pub const CHECKS: &[Check] = &[
    ("what was never committed is answered with nothing", what_was_never_committed_is_answered_with_nothing),
    ("a refused batch changes nothing", a_refused_batch_changes_nothing),
    ("the tail follows and never goes back", the_tail_follows_and_never_goes_back),
    ("page numbers and chunk ids keep all bits", page_numbers_and_chunk_ids_keep_all_bits),
    ("a cut kills versions across chunks and growth does not revive", a_cut_kills_versions_across_chunks),
    ("replaying a run over a prefix of it gives the same end", replaying_a_run_over_a_prefix_gives_the_same_end),
    ("the change log waits for every cursor", the_change_log_waits_for_every_cursor),
    ("changes of one volume are found by record", changes_of_one_volume_are_found_by_record),
    ("a reset forgets the volume and leaves the log", a_reset_forgets_the_volume_and_leaves_the_log),
    ("a job keeps its blobs until it changes", a_job_keeps_its_blobs_until_it_changes),
    ("volumes of one store do not see each other", volumes_of_one_store_do_not_see_each_other),
    ("owners are of the newest checkpoint, or nobody's", owners_are_of_the_newest_checkpoint_or_nobodys),
    ("readers see whole batches", readers_see_whole_batches),
    ("leases are given once and end", leases_are_given_once_and_end),
    ("the dead go with whoever takes a lease or widens one", the_dead_go_with_whoever_takes_a_lease_or_widens_one),
    ("deltas are found without their bases", deltas_are_found_without_their_bases),
    (
        "what was done under a lease that is gone does not count",
        what_was_done_under_a_lease_that_is_gone_does_not_count,
    ),
    ("what is told of jobs is what was told last", what_is_told_of_jobs_is_what_was_told_last),
    ("of sixty-four who want a lease one gets it", of_sixty_four_who_want_a_lease_one_gets_it),
];

fn wish(volume: u8, work: Work, chunks: &[u64]) -> LeaseWish {
    let chunks = (!chunks.is_empty()).then(|| chunks.iter().copied().map(ChunkId).collect());
    LeaseWish {
        volume: id(volume),
        work,
        chunks,
        generation: Generation(3),
        process: 7,
        mark: "7-1".to_owned(),
        taken_ms: 1000,
        until_boot_ms: 2000,
    }
}

const DEAD: &str = "dead";
const RUN_OUT: &str = "run out";

fn ended(over: &[(LeaseToken, &str)]) -> Vec<Ended> {
    let one =
        |(token, why): &(LeaseToken, &str)| Ended { token: *token, why: (*why).to_owned(), is_dead: *why == DEAD };
    over.iter().map(one).collect()
}

fn take(wish: &LeaseWish, over: &[(LeaseToken, &str)]) -> LeaseChange {
    LeaseChange::Take { wish: wish.clone(), over: ended(over), by: "process 7".to_owned() }
}

fn widen(token: LeaseToken, more: &[u64], over: &[(LeaseToken, &str)]) -> LeaseChange {
    let (more, by) = (more.iter().copied().map(ChunkId).collect(), "process 7".to_owned());
    LeaseChange::Renew { token, until_boot_ms: 9000, more, over: ended(over), by, at_ms: 4000 }
}

fn held(answer: Result<Leased, ManifestError>) -> Lease {
    match answer.unwrap() {
        Leased::Held(lease) => lease,
        other => panic!("{other:?}"),
    }
}

fn refused_by(answer: Result<Leased, ManifestError>) -> Vec<LeaseToken> {
    match answer.unwrap() {
        Leased::Refused(leases) => leases.into_iter().map(|lease| lease.token).collect(),
        other => panic!("{other:?}"),
    }
}

fn with_volumes(manifest: &dyn Manifest) {
    for volume in [1, 2] {
        let batch = Batch { volume: Some(row(volume, 1)), ..Batch::default() };
        manifest.commit(&id(volume), &batch).unwrap();
    }
}

fn leases_are_given_once_and_end(subject: &mut dyn Subject) {
    let manifest = subject.open();
    with_volumes(&*manifest);
    let one = held(manifest.lease(&take(&wish(1, Work::Repack, &[1, 2, 3]), &[])));
    for (work, chunks) in [(Work::Repack, &[3, 9][..]), (Work::Coalesce, &[1]), (Work::Prune, &[])] {
        assert_eq!(refused_by(manifest.lease(&take(&wish(1, work, chunks), &[]))), [one.token], "{work}");
    }
    let others = [(1, Work::Checkpoint, 2), (1, Work::Coalesce, 4), (2, Work::Repack, 2)];
    let others = others.map(|(volume, work, chunk)| held(manifest.lease(&take(&wish(volume, work, &[chunk]), &[]))));
    let all = manifest.leases().unwrap();
    assert_eq!(all, [&[one.clone()][..], &others].concat(), "the oldest first");
    assert!(all.is_sorted_by(|a, b| a.token < b.token));
    // Longer, and for more; but for nothing that is another's.
    let renew = |token, more: &[u64]| manifest.lease(&widen(token, more, &[]));
    let wider = held(renew(one.token, &[5]));
    assert_eq!((wider.wish.until_boot_ms, wider.chunks()), (9000, "1 to 3, 5".to_owned()));
    assert_eq!(refused_by(renew(one.token, &[4])), [others[1].token]);
    assert_eq!(renew(LeaseToken(99), &[]).unwrap(), Leased::Gone);
    drop(manifest);
    let manifest = subject.open();
    assert_eq!(manifest.leases().unwrap().first(), Some(&wider), "it is kept");
    // Taken over from who hangs: not what stands in nobody's way, and all or nothing.
    let taker = wish(1, Work::Prune, &[]);
    let over = [(one.token, RUN_OUT), (others[0].token, RUN_OUT)];
    assert_eq!(refused_by(manifest.lease(&take(&taker, &over))), [others[1].token]);
    assert_eq!((manifest.leases().unwrap().len(), manifest.taken_away(9).unwrap().len()), (4, 0));
    let end = |token| manifest.lease(&LeaseChange::End { token }).unwrap();
    assert_eq!(end(others[1].token), Leased::Over(others[1].clone()));
    assert_eq!(end(others[1].token), Leased::Gone);
    let prune = held(manifest.lease(&take(&taker, &over)));
    let taken = manifest.taken_away(9).unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!((&taken[0].lease, taken[0].why.as_str(), taken[0].is_forced), (&wider, RUN_OUT, false));
    let tokens: Vec<LeaseToken> = manifest.leases().unwrap().iter().map(|lease| lease.token).collect();
    assert_eq!(tokens, [others[0].token, others[2].token, prune.token]);
    // By force; and the change log says so, without saying that a record came.
    let force = LeaseChange::TakeAway {
        token: prune.token,
        at_ms: 5000,
        by: "user 0".to_owned(),
        why: "it hangs".to_owned(),
        is_forced: true,
    };
    assert_eq!(manifest.lease(&force).unwrap(), Leased::Over(prune.clone()));
    assert_eq!(manifest.lease(&force).unwrap(), Leased::Gone);
    let undone: Vec<Change> = manifest.changes(ChangeSeq(0), 99).unwrap();
    assert_eq!(undone.len(), 2);
    assert!(undone.iter().all(|change| change.seq() == Seq(1) && change.records.is_empty() && change.ops.is_empty()));
    assert_eq!(undone[1].undone, manifest.taken_away(1).unwrap().pop());
    assert_eq!(undone[1].undone.as_ref().map(|taken| taken.is_forced), Some(true));
    assert_eq!(manifest.changes_since(&id(1), Seq(0)).unwrap(), []);
    assert_eq!(manifest.taken_away(9).unwrap().len(), 2);
    assert_eq!(manifest.trim().unwrap(), 2);
    assert_eq!((manifest.changes(ChangeSeq(0), 9).unwrap(), manifest.taken_away(9).unwrap().len()), (vec![], 2));
    // A number is never given again.
    manifest.leases().unwrap().iter().for_each(|lease| drop(end(lease.token)));
    let next = held(manifest.lease(&take(&wish(1, Work::Prune, &[]), &[])));
    assert!(next.token > prune.token);
}

fn the_dead_go_with_whoever_takes_a_lease_or_widens_one(subject: &mut dyn Subject) {
    let manifest = subject.open();
    with_volumes(&*manifest);
    let give = |volume, work, chunks: &[u64]| held(manifest.lease(&take(&wish(volume, work, chunks), &[])));
    let tokens = || manifest.leases().unwrap().iter().map(|lease| lease.token).collect::<Vec<_>>();
    let dead = [give(1, Work::Repack, &[1]), give(2, Work::Prune, &[]), give(1, Work::Checkpoint, &[5])];
    let hung = give(1, Work::Repack, &[9]);
    // Whomever they exclude: nobody else would ever end them. Who only hangs keeps his where nobody wants it.
    let mut over: Vec<(LeaseToken, &str)> = dead.iter().map(|lease| (lease.token, DEAD)).collect();
    over.push((hung.token, RUN_OUT));
    let mine = held(manifest.lease(&take(&wish(1, Work::Coalesce, &[3]), &over)));
    assert_eq!(tokens(), [hung.token, mine.token]);
    let taken = manifest.taken_away(9).unwrap();
    assert_eq!(taken.iter().map(|taken| taken.lease.clone()).collect::<Vec<_>>(), dead);
    assert!(taken.iter().all(|taken| taken.why == DEAD && !taken.is_forced && taken.by == "process 7"));
    let undone = manifest.changes(ChangeSeq(0), 9).unwrap();
    assert_eq!(undone.iter().map(|change| change.volume).collect::<Vec<_>>(), [id(1), id(2), id(1)]);
    // Nobody else's work grows over somebody who lives; over the dead and the hung it does, and that is written down.
    let (dead, lives) = (give(1, Work::Repack, &[4]), give(1, Work::Repack, &[7]));
    let before = manifest.leases().unwrap();
    assert_eq!(refused_by(manifest.lease(&widen(mine.token, &[4], &[]))), [dead.token]);
    let over = [(dead.token, DEAD), (hung.token, RUN_OUT)];
    assert_eq!(refused_by(manifest.lease(&widen(mine.token, &[4, 7, 9], &over))), [lives.token]);
    assert_eq!((manifest.leases().unwrap(), manifest.taken_away(9).unwrap().len()), (before, 3), "nothing moved");
    let wider = held(manifest.lease(&widen(mine.token, &[4, 9], &over)));
    assert_eq!((wider.token, wider.chunks()), (mine.token, "3 to 4, 9".to_owned()));
    assert_eq!(tokens(), [mine.token, lives.token]);
    let taken = manifest.taken_away(2).unwrap();
    assert_eq!(
        taken.iter().map(|taken| (&taken.lease, taken.at_ms)).collect::<Vec<_>>(),
        [(&hung, 4000), (&dead, 4000)]
    );
    assert_eq!(taken.iter().map(|taken| taken.why.as_str()).collect::<Vec<_>>(), [RUN_OUT, DEAD]);
}

fn deltas_are_found_without_their_bases(subject: &mut dyn Subject) {
    let manifest = subject.open();
    let geometry = pages_of(65536);
    let span = |chunk| geometry.span(ChunkId(chunk), PageCount(1 << 20)).unwrap();
    let based = (0..6).map(|chunk| ManifestOp::PutBase { chunk: ChunkId(chunk), base: base(1, span(chunk)) });
    let put = [(1, 2), (4, 2), (1, 3), (9, 2)].map(|(chunk, number)| ManifestOp::PutDelta {
        chunk: ChunkId(chunk),
        delta: delta(number, [span(chunk).first], span(chunk).last().unwrap()),
    });
    manifest.commit(&id(1), &record(1, 1, based.chain(put).collect())).unwrap();
    let found = |from, max| -> Vec<(u64, usize)> {
        let rows = manifest.deltas(&id(1), ChunkId(from), max).unwrap();
        assert!(rows.iter().all(|row| row.base.is_none()));
        rows.iter().map(|row| (row.chunk.0, row.deltas.len())).collect()
    };
    assert_eq!(found(0, 9), [(1, 2), (4, 1), (9, 1)], "those that have none are passed over");
    assert_eq!((found(0, 2), found(2, 1), found(10, 9)), (vec![(1, 2), (4, 1)], vec![(4, 1)], vec![]));
    assert_eq!(manifest.deltas(&id(2), ChunkId(0), 9).unwrap(), []);
}

fn what_was_done_under_a_lease_that_is_gone_does_not_count(subject: &mut dyn Subject) {
    let manifest = subject.open();
    with_volumes(&*manifest);
    let intent = Intent { seq: Seq(2), record: vec![1], body: None, identities: Vec::new(), owners: None };
    let under = |token| Batch { intent: Some(Some(intent.clone())), lease: Some(token), ..Batch::default() };
    let lease = held(manifest.lease(&take(&wish(1, Work::Coalesce, &[1]), &[])));
    let away = |token| LeaseChange::TakeAway {
        token,
        at_ms: 1,
        by: "user 0".to_owned(),
        why: "x".to_owned(),
        is_forced: true,
    };
    manifest.lease(&away(lease.token)).unwrap();
    let gone = manifest.commit(&id(1), &under(lease.token)).unwrap_err();
    assert!(matches!(gone, ManifestError::NoLease(token) if token == lease.token), "{gone:?}");
    assert_eq!(manifest.intent(&id(1)).unwrap(), None);
    // One that stands counts once, and ends: what is decided nobody takes away.
    let lease = held(manifest.lease(&take(&wish(1, Work::Coalesce, &[1]), &[])));
    manifest.commit(&id(1), &under(lease.token)).unwrap();
    assert_eq!(manifest.intent(&id(1)).unwrap(), Some(intent.clone()));
    assert_eq!(manifest.lease(&away(lease.token)).unwrap(), Leased::Gone);
    assert!(matches!(manifest.commit(&id(1), &under(lease.token)), Err(ManifestError::NoLease(_))));
    assert_eq!(manifest.leases().unwrap(), []);
}

fn what_is_told_of_jobs_is_what_was_told_last(subject: &mut dyn Subject) {
    let job = |id, attempts| Job {
        id: JobId(id),
        wish: Wish { task: Task::CreateCheckpoint, database: "/a.db".into(), volume: format!("v{id}") },
        state: JobState::Ready { not_before_ms: id },
        attempts,
        failures: 0,
        error: None,
        created_ms: 1,
        started_ms: None,
        changed_ms: 2,
    };
    let manifest = subject.open();
    assert_eq!(manifest.jobs_told().unwrap(), []);
    manifest.tell_jobs(&[job(300, 1), job(2, 1)]).unwrap();
    assert_eq!(manifest.jobs_told().unwrap(), [job(2, 1), job(300, 1)], "by number");
    manifest.tell_job(JobId(2), Some(&job(2, 5))).unwrap();
    manifest.tell_job(JobId(7), Some(&job(7, 1))).unwrap();
    manifest.tell_job(JobId(300), None).unwrap();
    manifest.tell_job(JobId(301), None).unwrap();
    drop(manifest);
    let manifest = subject.open();
    assert_eq!(manifest.jobs_told().unwrap(), [job(2, 5), job(7, 1)]);
    manifest.tell_jobs(&[job(8, 1)]).unwrap();
    assert_eq!(manifest.jobs_told().unwrap(), [job(8, 1)], "there are no others");
}

fn of_sixty_four_who_want_a_lease_one_gets_it(subject: &mut dyn Subject) {
    let manifest = subject.open();
    with_volumes(&*manifest);
    for round in 0..5 {
        let won: Vec<Lease> = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..64_u64)
                .map(|taker| {
                    let manifest = &manifest;
                    // All of them meet in chunk 500.
                    scope.spawn(move || manifest.lease(&take(&wish(1, Work::Repack, &[500, taker]), &[])).unwrap())
                })
                .collect();
            let answers = takers.into_iter().map(|taker| taker.join().unwrap());
            answers.filter_map(|answer| if let Leased::Held(lease) = answer { Some(lease) } else { None }).collect()
        });
        assert_eq!(won.len(), 1, "round {round}");
        assert_eq!(manifest.leases().unwrap(), won);
        manifest.lease(&LeaseChange::End { token: won[0].token }).unwrap();
    }
}

/// The smallest pages there are: chunks have the most pages, and numbers grow beyond 32 bits soonest.
fn pages_of(size: u64) -> Geometry {
    Geometry::new(PageSize::new(size).unwrap())
}

/// A volume's id from a small number.
pub fn id(number: u8) -> VolumeId {
    VolumeId([number; 16])
}

/// A volume's row with its tail at `seq`.
pub fn row(number: u8, seq: u64) -> VolumeRow {
    VolumeRow {
        meta: VolumeMeta {
            id: id(number),
            name: format!("volume-{number}").parse().unwrap(),
            kind: VolumeKind::Database,
            identity_key: IdentityKey([number; 32]),
            created_ms: 1,
            began_as: None,
        },
        tail: TailRow {
            seq: Seq(seq),
            hash: RecordHash([seq as u8; 32]),
            epoch: Epoch(1),
            incarnation: Incarnation([3; 16]),
            owner: Some(Owner { store: StoreId([4; 16]), label: "here".into() }),
            lsn: Lsn(seq),
            time_ms: 1000 + seq,
            figures: VolumeFigures {
                generation: Generation(seq),
                page_size: Some(PageSize::MIN),
                page_count: PageCount(seq),
            },
            schema: None,
            snapshot: Seq::ZERO,
            index: Some((Seq(64), RecordHash([6; 32]))),
            floor: Seq::ZERO,
            seen_ms: 5,
            wal: None,
        },
        fenced: None,
    }
}

/// A blob that a number names.
pub fn blob(kind: BlobKind, number: u64) -> BlobRef {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_le_bytes());
    let home = if number % 5 == 4 { Home::Other("parent".parse().unwrap()) } else { Home::Own };
    BlobRef { home, name: BlobName { kind, hash: BlobHash(hash), birth: Seq(number) }, len: 1000 + number }
}

/// A table over these pages: every seventh is zeros, the others lie in frames of up to sixteen.
pub fn table(pages: impl IntoIterator<Item = PageNo>) -> FrameTable {
    let (zeros, stored): (Vec<_>, Vec<_>) = pages.into_iter().partition(|page| page.get() % 7 == 3);
    let frames = stored.chunks(16).enumerate().map(|(at, pages)| FrameEntry {
        span: ByteSpan { offset: 64 + at as u64 * 9000, len: 8999 },
        pages: pages.to_vec(),
    });
    let mark = if stored.is_empty() { 0 } else { 0xfeed };
    FrameTable::new(frames, zeros, mark)
}

/// A delta with these pages, alive up to `last_live`.
pub fn delta(number: u64, pages: impl IntoIterator<Item = PageNo>, last_live: PageNo) -> Delta {
    Delta { id: DeltaId(number), blob: blob(BlobKind::Pack, number), last_live, table: table(pages) }
}

/// A base over a whole span.
pub fn base(number: u64, span: ChunkSpan) -> Base {
    Base {
        generation: Generation(number),
        blob: blob(BlobKind::Chunk, number),
        span,
        last_live: span.last().unwrap(),
        table: table(span.pages()),
    }
}

fn page(number: u64) -> PageNo {
    PageNo::new(number).unwrap()
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ManifestError>) {
    assert!(matches!(answer, Err(ManifestError::Misuse(_))), "{answer:?}");
}

/// What a log entry says of a record.
pub fn summary(seq: u64, kind: RecordKind) -> RecordSummary {
    RecordSummary {
        seq: Seq(seq),
        kind,
        hash: RecordHash([seq as u8; 32]),
        epoch: Epoch(1),
        lsns: LsnRange::empty_after(Lsn(seq)),
        time_ms: 1000 + seq,
        page_count: PageCount(seq),
        added: FooterFigures { pages: seq, bytes: 3 },
    }
}

/// A log entry: records after `from` up to `to`.
pub fn log(from: u64, to: u64) -> Option<(Seq, Vec<RecordSummary>)> {
    Some((Seq(from), (from + 1..=to).map(|seq| summary(seq, RecordKind::Checkpoint)).collect()))
}

/// A batch that publishes one checkpoint record at `seq`.
pub fn record(number: u8, seq: u64, ops: Vec<ManifestOp>) -> Batch {
    Batch { volume: Some(row(number, seq)), ops, log: log(seq - 1, seq), ..Batch::default() }
}

fn what_was_never_committed_is_answered_with_nothing(subject: &mut dyn Subject) {
    let manifest = subject.open();
    assert_eq!(manifest.volumes().unwrap(), []);
    assert_eq!(manifest.volume(&row(1, 1).meta.name).unwrap(), None);
    assert_eq!(manifest.row(&id(1), ChunkId(0)).unwrap(), None);
    assert_eq!(manifest.rows(&id(1), ChunkId(0), 10).unwrap(), []);
    assert_eq!(manifest.newest_delta(&id(1), page(1)).unwrap(), None);
    assert_eq!(manifest.identities(&id(1), page(1), 3).unwrap(), [None; 3]);
    assert_eq!(manifest.identities(&id(1), page(u64::MAX), 3).unwrap(), [None; 1]);
    assert_eq!(manifest.identities(&id(1), page(1), 0).unwrap(), []);
    assert_eq!(manifest.intent(&id(1)).unwrap(), None);
    assert_eq!(manifest.job(&id(1)).unwrap(), None);
    assert_eq!(manifest.changes(ChangeSeq(0), 10).unwrap(), []);
    assert_eq!(manifest.changes_since(&id(1), Seq(0)).unwrap(), []);
    assert_eq!(manifest.trim().unwrap(), 0);
}

fn a_refused_batch_changes_nothing(subject: &mut dyn Subject) {
    let manifest = subject.open();
    let resize = vec![ManifestOp::Resize { page_count: PageCount(9) }];
    let unknown = Batch { ops: resize.clone(), ..Batch::default() };
    refused(manifest.commit(&id(1), &unknown));
    refused(manifest.commit(&id(1), &Batch { reset: true, ..unknown }));
    refused(manifest.commit(&id(2), &record(1, 1, vec![])));
    assert_eq!(manifest.volumes().unwrap(), []);

    manifest.commit(&id(1), &record(1, 1, vec![])).unwrap();
    let mut namesake = record(2, 1, resize.clone());
    namesake.volume.as_mut().unwrap().meta.name = row(1, 1).meta.name;
    refused(manifest.commit(&id(2), &namesake));
    let mut renamed = record(1, 2, resize);
    renamed.volume.as_mut().unwrap().meta.name = "another".parse().unwrap();
    refused(manifest.commit(&id(1), &renamed));
    let staged = StagedBlob { input: [1; 32], blob: blob(BlobKind::Pack, 1), uploaded: false };
    refused(manifest.commit(&id(1), &Batch { staged: vec![staged], ..Batch::default() }));
    for cursor in ["", &"x".repeat(129)] {
        refused(manifest.subscribe(cursor));
        refused(manifest.acknowledge(cursor, ChangeSeq(0)));
        refused(manifest.unsubscribe(cursor));
    }
    drop(manifest);

    let manifest = subject.open();
    assert_eq!(manifest.volumes().unwrap(), [row(1, 1)]);
    assert_eq!(manifest.changes(ChangeSeq(0), 10).unwrap().len(), 1);
}

fn the_tail_follows_and_never_goes_back(subject: &mut dyn Subject) {
    let manifest = subject.open();
    manifest.commit(&id(1), &Batch { log: log(0, 5), ..record(1, 5, vec![]) }).unwrap();
    refused(manifest.commit(&id(1), &Batch { log: log(6, 7), ..record(1, 7, vec![]) }));
    refused(manifest.commit(&id(1), &Batch { log: log(5, 7), ..record(1, 6, vec![]) }));
    refused(manifest.commit(&id(1), &Batch { log: log(5, 5), ..record(1, 5, vec![]) }));
    let twice = vec![summary(6, RecordKind::Claim), summary(6, RecordKind::Claim)];
    refused(manifest.commit(&id(1), &Batch { log: Some((Seq(5), twice)), ..record(1, 6, vec![]) }));
    refused(manifest.commit(&id(1), &record(1, 4, vec![])));
    assert_eq!(manifest.volume(&row(1, 5).meta.name).unwrap(), Some(row(1, 5)));
    assert_eq!(manifest.changes(ChangeSeq(0), 10).unwrap().len(), 1);
    // An index record's run may begin before the tail.
    manifest.commit(&id(1), &Batch { log: log(2, 9), ..record(1, 9, vec![]) }).unwrap();
    // Fences and sightings bring no record.
    let mut fenced = row(1, 9);
    fenced.fenced = Some((Epoch(2), Owner { store: StoreId([9; 16]), label: "there".into() }));
    manifest.commit(&id(1), &Batch { volume: Some(fenced.clone()), ..Batch::default() }).unwrap();
    assert_eq!(manifest.volumes().unwrap(), [fenced]);
}

fn page_numbers_and_chunk_ids_keep_all_bits(subject: &mut dyn Subject) {
    let manifest = subject.open();
    let geometry = pages_of(512);
    let far = [u64::from(u32::MAX) - 3, u64::from(u32::MAX), u64::from(u32::MAX) + 4, 1 << 40, u64::MAX - 3];
    let mut ops = Vec::new();
    let mut identities = Vec::new();
    for (at, number) in far.into_iter().enumerate() {
        let pages = [page(number), page(number + 1)];
        for page in pages {
            identities.push((page, PageIdentity([at as u8; 16])));
            ops.push(ManifestOp::PutDelta {
                chunk: geometry.chunk_of(page),
                delta: delta(at as u64 * 2 + 1 + page.get() % 2, [page], PageNo::new(u64::MAX).unwrap()),
            });
        }
    }
    let mut last = delta(99, [page(7)], page(7));
    last.id = DeltaId(u64::MAX);
    ops.push(ManifestOp::PutDelta { chunk: ChunkId(u64::MAX), delta: last.clone() });
    manifest.commit(&id(1), &Batch { identities, ..record(1, 1, ops) }).unwrap();
    for (at, number) in far.into_iter().enumerate() {
        for page in [page(number), page(number + 1)] {
            let expected = DeltaId(at as u64 * 2 + 1 + page.get() % 2);
            assert_eq!(manifest.newest_delta(&id(1), page).unwrap(), Some(expected), "page {page}");
            let row = manifest.row(&id(1), geometry.chunk_of(page)).unwrap().unwrap();
            assert_eq!(row.find(page).unwrap().delta, Some(expected));
            assert_eq!(manifest.identities(&id(1), page, 1).unwrap(), [Some(PageIdentity([at as u8; 16]))]);
        }
        assert_eq!(manifest.newest_delta(&id(1), page(number & 0xffff_ffff | 1 << 39)).unwrap(), None);
    }
    let rows = manifest.rows(&id(1), ChunkId(1 << 60), 10).unwrap();
    assert_eq!(rows, [ChunkRow { deltas: vec![last], ..ChunkRow::new(ChunkId(u64::MAX)) }]);
    assert_eq!(manifest.rows(&id(1), ChunkId(u64::MAX), 1).unwrap().len(), 1);
}

fn a_cut_kills_versions_across_chunks(subject: &mut dyn Subject) {
    let manifest = subject.open();
    let geometry = pages_of(65536);
    let size = PageCount(geometry.pages_per_chunk() * 3);
    let span = |chunk| geometry.span(ChunkId(chunk), size).unwrap();
    let mut ops: Vec<_> =
        (0..3).map(|chunk| ManifestOp::PutBase { chunk: ChunkId(chunk), base: base(1, span(chunk)) }).collect();
    for chunk in 0..3 {
        let pages = span(chunk).pages().step_by(100);
        ops.push(ManifestOp::PutDelta { chunk: ChunkId(chunk), delta: delta(2, pages, size.last().unwrap()) });
    }
    let first = span(0).pages().map(|page| (page, PageIdentity([1; 16])));
    let identities = first.chain(span(1).pages().map(|page| (page, PageIdentity([2; 16])))).collect();
    manifest.commit(&id(1), &Batch { identities, ..record(1, 1, ops) }).unwrap();

    // In the middle of the second chunk: the third goes, the second is cut, the first keeps its pages.
    let end = page(span(1).first.get() + 150);
    let cut = vec![ManifestOp::Resize { page_count: PageCount(end.get()) }, ManifestOp::Resize { page_count: size }];
    manifest.commit(&id(1), &record(1, 2, cut)).unwrap();
    assert_eq!(manifest.rows(&id(1), ChunkId(0), 9).unwrap().len(), 2);
    let row = manifest.row(&id(1), ChunkId(1)).unwrap().unwrap();
    assert!(row.find(end).is_some() && row.find(end.next()).is_none(), "growing again revives nothing");
    for number in span(1).pages().chain(span(2).pages()).filter(|page| *page > end) {
        assert_eq!(manifest.newest_delta(&id(1), number).unwrap(), None);
    }
    assert_eq!(manifest.newest_delta(&id(1), span(1).first).unwrap(), Some(DeltaId(2)));
    let known = manifest.identities(&id(1), span(1).first, 200).unwrap();
    assert!(known[..151].iter().all(Option::is_some) && known[151..].iter().all(Option::is_none));
    assert!(manifest.identities(&id(1), page(1), 1024).unwrap().iter().all(Option::is_some));

    manifest.commit(&id(1), &record(1, 3, vec![ManifestOp::Resize { page_count: PageCount::ZERO }])).unwrap();
    assert_eq!(manifest.rows(&id(1), ChunkId(0), 9).unwrap(), []);
    assert_eq!(manifest.newest_delta(&id(1), page(1)).unwrap(), None);
    assert_eq!(manifest.identities(&id(1), page(1), 1024).unwrap(), [None; 1024]);
}

fn owners_are_of_the_newest_checkpoint_or_nobodys(subject: &mut dyn Subject) {
    let manifest = subject.open();
    manifest.commit(&id(1), &record(1, 1, Vec::new())).unwrap();
    let owner = |number, is_open| PageOwner::new(ObjectId(number), Part::Node, is_open);
    let told = |seq: u64, kind: RecordKind, owners: Option<Vec<(PageNo, PageOwner)>>| {
        let mut batch = Batch { log: log(seq - 1, seq), owners, ..record(1, seq, Vec::new()) };
        batch.log.iter_mut().flat_map(|(_, records)| records).for_each(|record| record.kind = kind);
        batch
    };
    let far = page(u64::from(u32::MAX));
    let owners = vec![(page(1), owner(1, false)), (page(256), owner(7, true)), (far, owner(8, false))];
    manifest.commit(&id(1), &told(2, RecordKind::Checkpoint, Some(owners))).unwrap();
    let mark = |number, pages| {
        let (position, taken) = (Position { epoch: Epoch(1), lsn: Lsn(2) }, Taken { pages: 1, bytes: 2 });
        let object = Object {
            kind: ObjectKind::Table,
            name: "t".into(),
            table: "t".into(),
            root: Some(page(2)),
            pages,
            open: 0,
            position,
            taken,
            total: taken,
        };
        ManifestOp::Object(ObjectMark { id: ObjectId(number), object: Some(object) })
    };
    let gone = ManifestOp::Object(ObjectMark { id: ObjectId(9), object: None });
    let ops = vec![mark(9, 1), mark(300, 2), mark(8, 3), mark(300, 4), gone];
    manifest.commit(&id(1), &Batch { ops, ..told(3, RecordKind::Segment, None) }).unwrap();
    drop(manifest);
    let manifest = subject.open();
    let read = |from, max| manifest.owners(&id(1), from, max).unwrap();
    assert_eq!(read(page(1), 2), [owner(1, false), PageOwner::UNKNOWN]);
    assert_eq!(read(page(255), 3), [PageOwner::UNKNOWN, owner(7, true), PageOwner::UNKNOWN]);
    assert_eq!(read(far, 1), [owner(8, false)]);
    assert_eq!(read(page(u64::MAX), 3), [PageOwner::UNKNOWN]);
    assert_eq!(manifest.owners(&id(2), page(1), 1).unwrap(), [PageOwner::UNKNOWN]);
    let objects = manifest.objects(&id(1)).unwrap();
    let pages = |mark: &ObjectMark| (mark.id.0, mark.object.as_ref().unwrap().pages);
    assert_eq!(objects.iter().map(pages).collect::<Vec<_>>(), [(8, 3), (300, 4)]);
    // A page that is nobody's any more; the others stay.
    manifest.commit(&id(1), &told(4, RecordKind::Gap, Some(vec![(page(256), PageOwner::UNKNOWN)]))).unwrap();
    assert_eq!(read(page(256), 1), [PageOwner::UNKNOWN]);
    assert_eq!(read(page(1), 1), [owner(1, false)]);
    // A checkpoint after which every page is whose it was changes nothing.
    for (seq, kind) in [(5, RecordKind::Checkpoint), (6, RecordKind::Gap)] {
        manifest.commit(&id(1), &told(seq, kind, Some(Vec::new()))).unwrap();
        assert_eq!((read(page(1), 1), read(far, 1)), (vec![owner(1, false)], vec![owner(8, false)]), "{kind:?}");
    }
    // A checkpoint of who does not know leaves none.
    manifest.commit(&id(1), &told(7, RecordKind::Checkpoint, None)).unwrap();
    assert_eq!((read(page(1), 1), read(far, 1)), (vec![PageOwner::UNKNOWN], vec![PageOwner::UNKNOWN]));
    let reshape = vec![ManifestOp::Reshape { page_size: PageSize::MIN }];
    manifest.commit(&id(1), &told(8, RecordKind::Checkpoint, Some(vec![(page(1), owner(1, false))]))).unwrap();
    assert_eq!(read(page(1), 1), [owner(1, false)]);
    manifest.commit(&id(1), &Batch { ops: reshape, ..told(9, RecordKind::Segment, None) }).unwrap();
    assert_eq!(read(page(1), 1), [PageOwner::UNKNOWN]);
    manifest.commit(&id(1), &Batch { reset: true, ..record(1, 1, Vec::new()) }).unwrap();
    assert_eq!(manifest.objects(&id(1)).unwrap(), []);
}

fn replaying_a_run_over_a_prefix_gives_the_same_end(subject: &mut dyn Subject) {
    let manifest = subject.open();
    let mut world = World::new(1);
    let mut dice = Dice(11);
    let steps: Vec<Step> =
        std::iter::repeat_with(|| dice.step()).filter(|step| matches!(step, Step::Op(_))).take(60).collect();
    for step in &steps {
        world.perform(manifest.as_ref(), step);
    }
    let entries = manifest.changes_since(&id(1), Seq(0)).unwrap();
    let run: Vec<_> = entries.into_iter().flat_map(|change| change.ops).collect();
    let rows = manifest.rows(&id(1), ChunkId(0), usize::MAX).unwrap();
    let seq = world.seq + 1;
    manifest.commit(&id(1), &Batch { log: log(0, seq), ..record(1, seq, run) }).unwrap();
    assert_eq!(manifest.rows(&id(1), ChunkId(0), usize::MAX).unwrap(), rows);
    world.seq = seq;
    world.compare_pages(manifest.as_ref());
}

fn the_change_log_waits_for_every_cursor(subject: &mut dyn Subject) {
    let manifest = subject.open();
    assert_eq!(manifest.subscribe("gc").unwrap(), ChangeSeq(0));
    let resize = |pages| vec![ManifestOp::Resize { page_count: PageCount(pages) }];
    let numbers: Vec<_> =
        (1..=5).map(|seq| manifest.commit(&id(1), &record(1, seq, resize(seq))).unwrap().unwrap()).collect();
    assert!(numbers.is_sorted() && numbers[0] > ChangeSeq(0));
    assert_eq!(manifest.trim().unwrap(), 0, "nobody has acknowledged anything");
    let all = manifest.changes(ChangeSeq(0), 100).unwrap();
    assert_eq!(all.len(), 5);
    assert_eq!(
        all[2],
        Change {
            change: numbers[2],
            volume: id(1),
            after: Seq(2),
            records: vec![summary(3, RecordKind::Checkpoint)],
            ops: resize(3),
            undone: None,
        }
    );
    assert_eq!(manifest.changes(numbers[1], 2).unwrap(), all[2..4]);

    manifest.acknowledge("gc", numbers[3]).unwrap();
    assert_eq!(manifest.subscribe("mirror").unwrap(), ChangeSeq(0));
    manifest.acknowledge("mirror", numbers[1]).unwrap();
    refused(manifest.acknowledge("mirror", numbers[0]));
    refused(manifest.acknowledge("mirror", ChangeSeq(numbers[4].0 + 1)));
    refused(manifest.acknowledge("nobody", numbers[0]));
    assert_eq!(manifest.trim().unwrap(), 2);
    drop(manifest);

    let manifest = subject.open();
    assert_eq!(manifest.subscribe("mirror").unwrap(), numbers[1], "a cursor outlives its subscriber");
    assert_eq!(manifest.changes(ChangeSeq(0), 100).unwrap(), all[2..]);
    assert_eq!(manifest.changes_since(&id(1), Seq(0)).unwrap(), all[2..]);
    manifest.unsubscribe("mirror").unwrap();
    manifest.unsubscribe("mirror").unwrap();
    assert_eq!(manifest.trim().unwrap(), 2);
    manifest.unsubscribe("gc").unwrap();
    assert_eq!(manifest.trim().unwrap(), 1);
    drop(manifest);

    let manifest = subject.open();
    let next = manifest.commit(&id(1), &record(1, 6, vec![])).unwrap().unwrap();
    assert!(next > numbers[4], "numbers are not given twice, even when the log is empty");
}

fn changes_of_one_volume_are_found_by_record(subject: &mut dyn Subject) {
    let manifest = subject.open();
    for (volume, from, to) in [(1, 0, 1), (2, 0, 9), (1, 1, 6), (2, 9, 10), (1, 6, 7)] {
        manifest.commit(&id(volume), &Batch { log: log(from, to), ..record(volume, to, vec![]) }).unwrap();
    }
    let found = |after| -> Vec<_> {
        let changes = manifest.changes_since(&id(1), Seq(after)).unwrap();
        assert!(changes.iter().all(|change| change.volume == id(1)));
        changes.iter().map(|change| (change.after.0, change.seq().0)).collect()
    };
    assert_eq!(found(0), [(0, 1), (1, 6), (6, 7)]);
    assert_eq!(found(1), [(1, 6), (6, 7)]);
    assert_eq!(found(3), [(1, 6), (6, 7)], "an entry that straddles the place is in");
    assert_eq!(found(6), [(6, 7)]);
    assert_eq!(found(7), []);
    assert_eq!(found(u64::MAX), []);
}

fn a_reset_forgets_the_volume_and_leaves_the_log(subject: &mut dyn Subject) {
    let manifest = subject.open();
    manifest.subscribe("gc").unwrap();
    let span = pages_of(65536).span(ChunkId(3), PageCount(1 << 20)).unwrap();
    let put = vec![
        ManifestOp::PutBase { chunk: ChunkId(3), base: base(1, span) },
        ManifestOp::PutDelta { chunk: ChunkId(3), delta: delta(2, [span.first], span.last().unwrap()) },
    ];
    let staged = StagedBlob { input: [1; 32], blob: blob(BlobKind::Pack, 1), uploaded: true };
    let intent = Intent { seq: Seq(5), record: vec![1, 2, 3], body: None, identities: vec![], owners: None };
    let batch = Batch {
        identities: vec![(span.first, PageIdentity([7; 16]))],
        intent: Some(Some(intent.clone())),
        job: Some(Some(Seq(4))),
        staged: vec![staged],
        log: log(0, 4),
        ..record(1, 4, put.clone())
    };
    manifest.commit(&id(1), &batch).unwrap();
    manifest.commit(&id(2), &Batch { log: None, ..record(2, 8, put.clone()) }).unwrap();
    assert_eq!(manifest.intent(&id(1)).unwrap(), Some(intent));

    let one = held(manifest.lease(&take(&wish(1, Work::Repack, &[1]), &[])));
    held(manifest.lease(&take(&wish(2, Work::Repack, &[1]), &[])));

    // Rebuilt: the tail may stand anywhere, and nothing of before shines through.
    let rebuilt = Batch { reset: true, log: log(0, 2), ..record(1, 2, vec![]) };
    manifest.commit(&id(1), &rebuilt).unwrap();
    drop(manifest);
    let manifest = subject.open();
    assert_eq!(manifest.volume(&row(1, 2).meta.name).unwrap(), Some(row(1, 2)));
    assert_eq!(manifest.rows(&id(1), ChunkId(0), 9).unwrap(), []);
    assert_eq!(manifest.newest_delta(&id(1), span.first).unwrap(), None);
    assert_eq!(manifest.identities(&id(1), span.first, 1).unwrap(), [None]);
    assert_eq!((manifest.intent(&id(1)).unwrap(), manifest.job(&id(1)).unwrap()), (None, None));
    assert_eq!(manifest.changes_since(&id(1), Seq(0)).unwrap().len(), 1, "begins after the reset");
    assert_eq!(manifest.changes(ChangeSeq(0), 9).unwrap().len(), 2, "subscribers have not seen the first yet");
    assert_eq!(manifest.rows(&id(2), ChunkId(0), 9).unwrap().len(), 1, "others stay");
    assert_eq!(manifest.leases().unwrap().len(), 2, "who works on the volume goes on");

    // A volume that took the name of another, after a reset.
    let mut heir = Batch { reset: true, ..record(3, 1, put) };
    heir.volume.as_mut().unwrap().meta.name = row(2, 1).meta.name;
    manifest.commit(&id(3), &heir).unwrap();
    assert_eq!(manifest.volume(&row(2, 1).meta.name).unwrap().unwrap().meta.id, id(3));
    assert_eq!(manifest.rows(&id(2), ChunkId(0), 9).unwrap(), []);
    assert_eq!(manifest.rows(&id(3), ChunkId(0), 9).unwrap().len(), 1);
    assert_eq!(manifest.leases().unwrap(), [one], "there is nothing to work on");

    // Forgotten altogether.
    manifest.commit(&id(1), &Batch { reset: true, ..Batch::default() }).unwrap();
    assert_eq!(manifest.volumes().unwrap().iter().map(|row| row.meta.id).collect::<Vec<_>>(), [id(3)]);
    assert_eq!((manifest.leases().unwrap(), manifest.taken_away(9).unwrap()), (vec![], vec![]));
    manifest.acknowledge("gc", manifest.changes(ChangeSeq(0), 9).unwrap().last().unwrap().change).unwrap();
    assert_eq!(manifest.trim().unwrap(), 3);
}

fn a_job_keeps_its_blobs_until_it_changes(subject: &mut dyn Subject) {
    let manifest = subject.open();
    manifest.commit(&id(1), &record(1, 1, vec![])).unwrap();
    let staged = |input: u8, uploaded| StagedBlob {
        input: [input; 32],
        blob: blob(BlobKind::Chunk, u64::from(input)),
        uploaded,
    };
    let add = |job, blobs: &[StagedBlob]| Batch { job, staged: blobs.to_vec(), ..Batch::default() };
    manifest.commit(&id(1), &add(Some(Some(Seq(1))), &[staged(9, false), staged(2, false)])).unwrap();
    manifest.commit(&id(1), &add(None, &[staged(9, true)])).unwrap();
    manifest.commit(&id(1), &add(Some(Some(Seq(1))), &[staged(5, false)])).unwrap();
    drop(manifest);
    let manifest = subject.open();
    let expected = vec![staged(2, false), staged(5, false), staged(9, true)];
    assert_eq!(manifest.job(&id(1)).unwrap(), Some((Seq(1), expected)));
    manifest.commit(&id(1), &add(Some(Some(Seq(2))), &[staged(1, false)])).unwrap();
    assert_eq!(manifest.job(&id(1)).unwrap(), Some((Seq(2), vec![staged(1, false)])));
    manifest.commit(&id(1), &add(Some(None), &[])).unwrap();
    assert_eq!(manifest.job(&id(1)).unwrap(), None);
    manifest.commit(&id(1), &add(Some(Some(Seq(2))), &[])).unwrap();
    assert_eq!(manifest.job(&id(1)).unwrap(), Some((Seq(2), vec![])), "the blobs of a job that was dropped stay away");
}

fn volumes_of_one_store_do_not_see_each_other(subject: &mut dyn Subject) {
    let manifest = subject.open();
    let mut worlds = [World::new(1), World::new(2), World::new(255)];
    let mut dice = Dice(5);
    for _ in 0..120 {
        let at = dice.below(3) as usize;
        let step = dice.step();
        if !matches!(step, Step::Trim | Step::Acknowledge { .. } | Step::Subscribe { .. } | Step::Unsubscribe { .. }) {
            worlds[at].perform(manifest.as_ref(), &step);
        }
    }
    for world in &worlds {
        world.compare_volume(manifest.as_ref());
    }
}

fn readers_see_whole_batches(subject: &mut dyn Subject) {
    let manifest = subject.open();
    let manifest = manifest.as_ref();
    let span = pages_of(65536).span(ChunkId(0), PageCount(1 << 20)).unwrap();
    let publish = move |seq: u64| {
        // Every batch replaces all three rows by deltas of the same id.
        let ops = (0..3).flat_map(|chunk| {
            [ManifestOp::ReplaceDeltas {
                chunk: ChunkId(chunk),
                replaced: vec![DeltaId(seq - 1)],
                delta: Some(delta(seq, [span.first], span.first)),
            }]
        });
        manifest.commit(&id(1), &record(1, seq, ops.collect())).unwrap();
    };
    publish(1);
    let written = AtomicBool::new(false);
    let written = &written;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            (2..60).for_each(publish);
            written.store(true, Ordering::Release);
        });
        for _ in 0..2 {
            scope.spawn(move || {
                let mut last = 0;
                let patience = Instant::now() + Duration::from_secs(60);
                while last < 59 {
                    let done = written.load(Ordering::Acquire);
                    let rows = manifest.rows(&id(1), ChunkId(0), 3).unwrap();
                    let ids: BTreeSet<_> = rows.iter().map(|row| row.deltas[0].id.0).collect();
                    assert!(rows.len() == 3 && ids.len() == 1, "half of a batch was seen: {ids:?}");
                    let seen = *ids.first().unwrap();
                    assert!(seen >= last, "a batch was seen and then not");
                    assert!(seen == 59 || !done, "a batch was acknowledged and is not there");
                    assert!(Instant::now() < patience, "the writer does not get on");
                    last = seen;
                }
            });
        }
    });
}

/// What a property test does to a manifest. Numbers are small; [`World`] makes valid batches of them.
#[derive(Clone, Debug)]
pub enum Step {
    /// A record with one to a few operations.
    Op(Vec<Op>),
    /// Identities for a run of pages, without a record.
    Identities {
        /// First page, as an index into the interesting ones.
        at: u64,
        /// How many.
        count: u64,
        /// What they hold.
        content: u8,
    },
    /// Sets or clears the intent.
    Intent(Option<u8>),
    /// Begins a job, or ends it.
    Job(Option<u8>),
    /// Adds a blob to the running job; none runs: nothing.
    Stage(u8, bool),
    /// Forgets the volume and begins again with these operations.
    Rebuild(Vec<Op>),
    /// Makes one of a few cursors.
    Subscribe(u8),
    /// Moves one of a few cursors, if it exists, forward by so much.
    Acknowledge(u8, u8),
    /// Forgets one of a few cursors.
    Unsubscribe(u8),
    /// Drops what is done with.
    Trim,
}

/// One manifest operation in small numbers.
#[derive(Clone, Debug)]
pub enum Op {
    /// A new page size.
    Reshape(u8),
    /// A new size, in 256ths of the world's pages.
    Resize(u8),
    /// A base for a chunk.
    Base(u8),
    /// A delta: chunk, first page in it, step, count, and how its end of life is given.
    Delta(u8, u16, u8, u8, u8),
    /// Repeats an older delta with other pages: chunk, which, and as above.
    Again(u8, u8, u16, u8, u8),
    /// Folds the deltas that a mask picks into one, or into none.
    Fold(u8, u8, bool),
}

/// A naive model of one volume, and of the change log, that performs steps on a manifest and compares.
#[derive(Clone, Debug)]
pub struct World {
    number: u8,
    geometry: Geometry,
    size: PageCount,
    /// Chunks of the world: the first few, one that straddles 32 bits, and a far one.
    chunks: Vec<ChunkId>,
    rows: BTreeMap<ChunkId, ChunkRow>,
    identities: BTreeMap<PageNo, PageIdentity>,
    seq: u64,
    known: bool,
    intent: Option<Intent>,
    job: Option<(Seq, BTreeMap<[u8; 32], StagedBlob>)>,
    log: Vec<Change>,
    since_reset: ChangeSeq,
    last: ChangeSeq,
    cursors: BTreeMap<String, ChangeSeq>,
}

impl World {
    /// An empty world around a volume.
    pub fn new(number: u8) -> Self {
        let mut world = Self {
            number,
            geometry: pages_of(16384),
            size: PageCount::ZERO,
            chunks: Vec::new(),
            rows: BTreeMap::new(),
            identities: BTreeMap::new(),
            seq: 0,
            known: false,
            intent: None,
            job: None,
            log: Vec::new(),
            since_reset: ChangeSeq(0),
            last: ChangeSeq(0),
            cursors: BTreeMap::new(),
        };
        world.reshape(0);
        world
    }

    fn reshape(&mut self, size: u8) {
        self.geometry = pages_of([16384, 32768, 65536][usize::from(size % 3)]);
        let per = self.geometry.pages_per_chunk();
        assert_eq!(per * self.geometry.page_size.bytes(), CHUNK_BYTES);
        let middle = u64::from(u32::MAX) / per;
        self.chunks = [0, 1, 2, 3, middle, middle + 1, (1 << 52) / per].map(ChunkId).to_vec();
    }

    /// The volume this world is about.
    pub fn id(&self) -> VolumeId {
        id(self.number)
    }

    fn chunk(&self, pick: u8) -> ChunkId {
        self.chunks[usize::from(pick) % self.chunks.len()]
    }

    fn span(&self, chunk: ChunkId) -> ChunkSpan {
        ChunkSpan { first: self.geometry.first_page(chunk).unwrap(), count: PageCount(self.geometry.pages_per_chunk()) }
    }

    fn pages(&self, chunk: ChunkId, first: u16, step: u8, count: u8) -> Vec<PageNo> {
        let span = self.span(chunk);
        let start = u64::from(first) % span.count.0;
        let numbers = (0..=u64::from(count % 40)).map(|i| start + i * (u64::from(step % 30) + 1));
        numbers.filter(|at| *at < span.count.0).map(|at| PageNo::from_index(span.first.index() + at)).collect()
    }

    fn last_live(&self, chunk: ChunkId, how: u8) -> PageNo {
        let span = self.span(chunk);
        match how % 4 {
            0 => span.last().unwrap(),
            1 => self.size.last().unwrap_or(PageNo::FIRST).max(span.first),
            2 => PageNo::from_index(span.first.index() + u64::from(how) * span.count.0 / 256),
            _ => PageNo::new(u64::MAX).unwrap(),
        }
    }

    /// The operation that small numbers stand for.
    pub fn op(&mut self, op: &Op, id: u64) -> Option<ManifestOp> {
        Some(match *op {
            Op::Reshape(size) => {
                self.reshape(size);
                ManifestOp::Reshape { page_size: self.geometry.page_size }
            }
            Op::Resize(part) => {
                let per = self.geometry.pages_per_chunk();
                // Ends within and at the edges of chunks, below and beyond 32 bits, nowhere and everywhere.
                let page_count = PageCount(match part {
                    0 => 0,
                    255 => u64::MAX,
                    1..=120 => u64::from(part) * per / 32,
                    121..=200 => (self.chunks[4].0 + 1) * per - 100 + u64::from(part - 121) * per / 40,
                    _ => (1 << 52) + u64::from(part - 201) * per / 60,
                });
                self.size = page_count;
                ManifestOp::Resize { page_count }
            }
            Op::Base(pick) => {
                let chunk = self.chunk(pick);
                let mut span = self.span(chunk);
                span.count.0 -= u64::from(pick) * 3;
                ManifestOp::PutBase { chunk, base: base(id, span) }
            }
            Op::Delta(pick, first, step, count, how) => {
                let chunk = self.chunk(pick);
                let pages = self.pages(chunk, first, step, count);
                // A checkpoint's, or a segment's on top of one or the other base.
                let id = match how % 3 {
                    0 => id,
                    _ => DeltaId::of_segment(Generation(id.saturating_sub(3).max(1)), Seq(id), Form::Whole).unwrap().0,
                };
                ManifestOp::PutDelta { chunk, delta: delta(id, pages, self.last_live(chunk, how)) }
            }
            Op::Again(pick, which, first, step, how) => {
                let chunk = self.chunk(pick);
                let deltas = &self.rows.get(&chunk)?.deltas;
                let old = deltas.get(usize::from(which) % deltas.len().max(1))?.id;
                let pages = self.pages(chunk, first, step, which);
                ManifestOp::PutDelta { chunk, delta: delta(old.0, pages, self.last_live(chunk, how)) }
            }
            Op::Fold(pick, mask, into_one) => {
                let chunk = self.chunk(pick);
                let deltas = &self.rows.get(&chunk)?.deltas;
                let picked = deltas.iter().enumerate().filter(|(at, _)| mask >> (at % 8) & 1 == 1);
                let picked: Vec<_> = picked.map(|(_, delta)| delta).collect();
                let newest = picked.last()?;
                let pages: BTreeSet<_> = picked.iter().flat_map(|delta| delta.table.pages()).collect();
                let one = delta(newest.id.0, pages, newest.last_live);
                let mut replaced: Vec<_> = picked.iter().map(|delta| delta.id).collect();
                replaced.push(DeltaId(1 << 50)); // Never was: dropping what is not there is no error.
                ManifestOp::ReplaceDeltas { chunk, replaced, delta: into_one.then_some(one) }
            }
        })
    }

    fn apply(&mut self, op: &ManifestOp) {
        match op {
            ManifestOp::Reshape { .. } => {
                self.rows.clear();
                self.identities.clear();
            }
            ManifestOp::Resize { page_count } => {
                self.rows.values_mut().for_each(|row| row.apply(op));
                self.identities.retain(|page, _| page_count.holds(*page));
            }
            _ => {
                let chunk = op.chunk().unwrap();
                self.rows.entry(chunk).or_insert_with(|| ChunkRow::new(chunk)).apply(op);
            }
        }
        self.rows.retain(|_, row| !row.is_empty());
    }

    fn ops(&mut self, ops: &[Op]) -> Vec<ManifestOp> {
        let mut made = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            if let Some(op) = self.op(op, self.seq * 16 + at as u64) {
                self.apply(&op);
                made.push(op);
            }
        }
        made
    }

    fn ensure_known(&mut self, manifest: &dyn Manifest) {
        if !self.known {
            self.perform(manifest, &Step::Op(vec![]));
        }
    }

    /// Does a step to the manifest and to the model.
    pub fn perform(&mut self, manifest: &dyn Manifest, step: &Step) {
        match step {
            Step::Op(ops) => {
                self.seq += 1;
                let ops = self.ops(ops);
                let batch = record(self.number, self.seq, ops);
                self.commit_logged(manifest, batch);
            }
            Step::Rebuild(ops) => {
                let (number, last, log, cursors) =
                    (self.number, self.last, std::mem::take(&mut self.log), std::mem::take(&mut self.cursors));
                let seq = self.seq / 2 + 1; // Rebuilt to a place before the old tail: allowed, for once.
                *self = Self { last, log, cursors, since_reset: last, seq, ..Self::new(number) };
                let ops = self.ops(ops);
                let batch = Batch {
                    reset: true,
                    // A rebuild takes a sum for many records and keeps the last of them.
                    log: Some((Seq(0), vec![summary(seq, RecordKind::Index)])),
                    ..record(self.number, seq, ops)
                };
                self.commit_logged(manifest, batch);
            }
            Step::Identities { at, count, content } => {
                self.ensure_known(manifest);
                let chunk = self.chunk(*content);
                let first = self.span(chunk).first.index() + at % 300;
                let pages = (0..*count).map(|i| PageNo::from_index(first + i));
                let identities: Vec<_> = pages.map(|page| (page, PageIdentity([*content; 16]))).collect();
                self.identities.extend(identities.iter().copied());
                manifest.commit(&self.id(), &Batch { identities, ..Batch::default() }).unwrap();
            }
            Step::Intent(content) => {
                self.ensure_known(manifest);
                self.intent = content.map(|content| Intent {
                    seq: Seq(self.seq + 1),
                    record: vec![content; 100],
                    body: (content % 2 == 0).then(|| (blob(BlobKind::Segment, 5).name, 77)),
                    identities: vec![(PageNo::FIRST, PageIdentity([content; 16]))],
                    owners: None,
                });
                let batch = Batch { intent: Some(self.intent.clone()), ..Batch::default() };
                manifest.commit(&self.id(), &batch).unwrap();
            }
            Step::Job(birth) => {
                self.ensure_known(manifest);
                let birth = birth.map(|birth| Seq(u64::from(birth % 3)));
                if self.job.as_ref().map(|(birth, _)| *birth) != birth {
                    self.job = birth.map(|birth| (birth, BTreeMap::new()));
                }
                manifest.commit(&self.id(), &Batch { job: Some(birth), ..Batch::default() }).unwrap();
            }
            Step::Stage(input, uploaded) => {
                let Some((_, blobs)) = &mut self.job else { return };
                let staged = StagedBlob {
                    input: [input % 8; 32],
                    blob: blob(BlobKind::Pack, u64::from(*input)),
                    uploaded: *uploaded,
                };
                blobs.insert(staged.input, staged.clone());
                manifest.commit(&self.id(), &Batch { staged: vec![staged], ..Batch::default() }).unwrap();
            }
            Step::Subscribe(cursor) => {
                let cursor = format!("cursor-{}", cursor % 3);
                let held = *self.cursors.entry(cursor.clone()).or_default();
                assert_eq!(manifest.subscribe(&cursor).unwrap(), held);
            }
            Step::Acknowledge(cursor, by) => {
                let cursor = format!("cursor-{}", cursor % 3);
                let Some(held) = self.cursors.get_mut(&cursor) else {
                    return refused(manifest.acknowledge(&cursor, ChangeSeq(0)));
                };
                *held = ChangeSeq((held.0 + u64::from(*by)).min(self.last.0));
                manifest.acknowledge(&cursor, *held).unwrap();
            }
            Step::Unsubscribe(cursor) => {
                let cursor = format!("cursor-{}", cursor % 3);
                self.cursors.remove(&cursor);
                manifest.unsubscribe(&cursor).unwrap();
            }
            Step::Trim => {
                let done = self.cursors.values().min().copied().unwrap_or(self.last);
                let before = self.log.len();
                self.log.retain(|change| change.change > done);
                assert_eq!(manifest.trim().unwrap(), (before - self.log.len()) as u64);
            }
        }
    }

    fn commit_logged(&mut self, manifest: &dyn Manifest, batch: Batch) {
        let change = manifest.commit(&self.id(), &batch).unwrap().unwrap();
        assert!(change > self.last);
        self.last = change;
        self.known = true;
        let (after, records) = batch.log.unwrap();
        self.log.push(Change { change, volume: self.id(), after, records, ops: batch.ops, undone: None });
    }

    /// Compares everything: the volume, its pages, and a change log that is all its own.
    pub fn compare(&self, manifest: &dyn Manifest) {
        self.compare_volume(manifest);
        assert_eq!(manifest.changes(ChangeSeq(0), usize::MAX).unwrap(), self.log);
        let middle = ChangeSeq(self.last.0 / 2);
        let behind: Vec<_> = self.log.iter().filter(|change| change.change > middle).take(5).cloned().collect();
        assert_eq!(manifest.changes(middle, 5).unwrap(), behind);
        for after in [0, self.seq / 2, self.seq.saturating_sub(1), self.seq] {
            let own = self.log.iter().filter(|change| change.change > self.since_reset && change.seq() > Seq(after));
            assert_eq!(manifest.changes_since(&self.id(), Seq(after)).unwrap(), own.cloned().collect::<Vec<_>>());
        }
    }

    /// Compares what is known of the volume.
    pub fn compare_volume(&self, manifest: &dyn Manifest) {
        let name: VolumeName = row(self.number, 1).meta.name;
        let expected = self.known.then(|| row(self.number, self.seq));
        assert_eq!(manifest.volume(&name).unwrap(), expected);
        let rows: Vec<_> = self.rows.values().cloned().collect();
        assert_eq!(manifest.rows(&self.id(), ChunkId(0), usize::MAX).unwrap(), rows);
        for chunk in &self.chunks {
            let row = self.rows.get(chunk);
            assert_eq!(manifest.row(&self.id(), *chunk).unwrap().as_ref(), row);
            assert_eq!(manifest.has_base(&self.id(), *chunk).unwrap(), row.is_some_and(|row| row.base.is_some()));
            let behind: Vec<_> = self.rows.range(*chunk..).take(2).map(|(_, row)| row.clone()).collect();
            assert_eq!(manifest.rows(&self.id(), *chunk, 2).unwrap(), behind);
            let deltas = self.rows.range(*chunk..).filter(|(_, row)| !row.deltas.is_empty()).take(2);
            let deltas: Vec<_> = deltas.map(|(_, row)| ChunkRow { base: None, ..row.clone() }).collect();
            assert_eq!(manifest.deltas(&self.id(), *chunk, 2).unwrap(), deltas);
        }
        assert_eq!(manifest.intent(&self.id()).unwrap(), self.intent);
        let job = self.job.clone().map(|(birth, blobs)| (birth, blobs.into_values().collect()));
        assert_eq!(manifest.job(&self.id()).unwrap(), job);
        self.compare_pages(manifest);
    }

    /// Compares what is known of pages: all that any version holds, and their neighbours.
    pub fn compare_pages(&self, manifest: &dyn Manifest) {
        let mut pages: BTreeSet<PageNo> = self.identities.keys().copied().collect();
        for chunk in &self.chunks {
            let span = self.span(*chunk);
            pages.extend([span.first, span.last().unwrap(), span.last().unwrap().next()]);
            let deltas = self.rows.get(chunk).into_iter().flat_map(|row| &row.deltas);
            pages.extend(deltas.flat_map(|delta| delta.table.pages()));
            let known: Vec<_> = span.pages().take(700).map(|page| self.identities.get(&page).copied()).collect();
            assert_eq!(manifest.identities(&self.id(), span.first, 700.min(known.len())).unwrap(), known);
        }
        for page in pages {
            let row = self.rows.get(&self.geometry.chunk_of(page));
            let newest = row.and_then(|row| row.find(page)).and_then(|found| found.delta);
            assert_eq!(manifest.newest_delta(&self.id(), page).unwrap(), newest, "page {page}");
            let identity = self.identities.get(&page).copied();
            assert_eq!(manifest.identities(&self.id(), page, 1).unwrap(), [identity], "page {page}");
        }
    }
}

/// A small generator of numbers, the same on every machine (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// One below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn byte(&mut self) -> u8 {
        self.roll() as u8
    }

    fn ops(&mut self, max: u64) -> Vec<Op> {
        (0..self.below(max + 1)).map(|_| self.op()).collect()
    }

    fn op(&mut self) -> Op {
        match self.below(40) {
            0 => Op::Reshape(self.byte()),
            1..=7 => Op::Resize(self.byte()),
            8..=12 => Op::Base(self.byte()),
            13..=17 => Op::Again(self.byte(), self.byte(), self.roll() as u16, self.byte(), self.byte()),
            18..=23 => Op::Fold(self.byte(), self.byte(), self.below(3) > 0),
            _ => Op::Delta(self.byte(), self.roll() as u16, self.byte(), self.byte(), self.byte()),
        }
    }

    /// A step.
    pub fn step(&mut self) -> Step {
        match self.below(30) {
            0..=15 => Step::Op(self.ops(5)),
            16..=18 => Step::Identities { at: self.roll(), count: self.below(90), content: self.byte() },
            19 => Step::Intent(Some(self.byte())),
            20 => Step::Intent(None),
            21 => Step::Job((self.below(4) > 0).then(|| self.byte())),
            22 | 23 => Step::Stage(self.byte(), self.below(2) == 0),
            24 if self.below(4) == 0 => Step::Rebuild(self.ops(8)),
            25 => Step::Subscribe(self.byte()),
            26 | 27 => Step::Acknowledge(self.byte(), self.byte() % 16),
            28 if self.below(3) == 0 => Step::Unsubscribe(self.byte()),
            _ => Step::Trim,
        }
    }
}

/// A random walk: so many steps, compared as it goes, opened again now and then. The seed is printed when it fails.
pub fn walk(seed: u64, steps: usize, subject: &mut dyn Subject) {
    struct Told(u64, usize);
    impl Drop for Told {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("manifest walk failed: seed={} step={}", self.0, self.1);
            }
        }
    }
    let mut told = Told(seed, 0);
    let mut dice = Dice(seed);
    let mut world = World::new(1);
    let mut manifest = subject.open();
    for at in 0..steps {
        told.1 = at;
        world.perform(manifest.as_ref(), &dice.step());
        if dice.below(8) == 0 {
            world.compare(manifest.as_ref());
        }
        if dice.below(40) == 0 {
            drop(manifest);
            manifest = subject.open();
            world.compare(manifest.as_ref());
        }
    }
    world.compare(manifest.as_ref());
}
