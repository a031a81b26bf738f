//! What machines do all day: everything at random, with everything that can go wrong, and every answer judged.

use crate::chance::Chance;
use crate::machine::{Machine, unless_killed};
use crate::oracle::Landed;
use crate::process::{Death, POINTS};
use crate::time::DAY_MS;
use littoral_engine::exec::checkpoint;
use littoral_engine::exec::fetch;
use littoral_engine::exec::prune;
use littoral_engine::exec::rebuild::rows;
use littoral_engine::exec::restore::{self, At};
use littoral_engine::log::pins::Wish;
use littoral_engine::{EngineError, Log};
use littoral_plan::{CheckpointPolicy, KeepPolicy};
use littoral_ports::{Clock, RemoteError};
use littoral_types::limits::{PIN_LIFE_MS, PRUNE_GRACE_MS};
use littoral_types::{ChunkId, Compression, Epoch, Geometry, Lsn, PageNo, PinPurpose, RecordKind, Seq, SnapshotName};

/// Does so many things.
pub async fn live(machine: &mut Machine, steps: u64) {
    for _ in 0..steps {
        machine.clock.sleep_ms(machine.chance.between(0, 3_000)).await;
        step(machine).await;
    }
    // A process that runs when a round ends may have been told to die at something that never came.
    if let Some(process) = machine.process() {
        process.doom(None);
    }
    if machine.chance.per_mille(300) {
        machine.close();
    }
}

async fn step(machine: &mut Machine) {
    match machine.chance.weighed(&[50, 6, 6, 4, 3, 8, 12, 3, 4, 2, 4]) {
        0 => publish(machine).await,
        1 => {
            let compression = some_compression(&machine.chance);
            if ready(machine).await {
                let done = machine.coalesce(compression).await;
                judge(machine, "coalesce", done);
            }
        }
        2 => {
            if ready(machine).await {
                let done = machine.snapshot(true).await;
                judge(machine, "snapshot", done);
            }
        }
        3 => name_snapshot(machine).await,
        4 => drop_snapshot(machine).await,
        5 => prune(machine).await,
        6 => read(machine).await,
        7 => {
            if machine.is_open() {
                let done = machine.release().await;
                judge(machine, "release", done);
                machine.close();
            }
        }
        8 => take_over(machine).await,
        9 => {
            if ready(machine).await {
                let done = machine.publish_large_record().await;
                judge(machine, "large record", done);
            }
        }
        _ => machine.close(),
    }
}

fn some_compression(chance: &Chance) -> Compression {
    match chance.between(0, 3) {
        0 => Compression::None,
        1 => Compression::Lz4,
        _ => Compression::Zstd,
    }
}

fn some_death(chance: &Chance) -> Death {
    match chance.between(0, 8) {
        0 => Death::BeforeRequest(chance.between(0, 12)),
        1 => Death::AfterRequest(chance.between(0, 12)),
        2 => Death::BeforeCommit(chance.between(0, 6)),
        3 => Death::AfterCommit(chance.between(0, 6)),
        _ => Death::Point(chance.pick(&POINTS).copied().unwrap_or_default(), chance.between(0, 2)),
    }
}

/// Whatever may befall the process in what follows.
fn tempt_fate(machine: &Machine) {
    let Some(process) = machine.process() else { return };
    let chance = &machine.chance;
    process.doom(chance.per_mille(100).then(|| some_death(chance)));
    process.fill_disk_at(if chance.per_mille(20) { chance.between(1, 5) } else { 0 });
}

/// Has the volume open for writing, if that is allowed.
async fn ready(machine: &mut Machine) -> bool {
    if !machine.is_open() {
        let done = open(machine, None).await;
        if let Err(error) = done {
            let epoch = match &error {
                EngineError::NotBound { epoch, .. }
                | EngineError::Superseded { epoch, .. }
                | EngineError::Diverged { epoch, .. } => Some(*epoch),
                _ => None,
            };
            judge::<()>(machine, "open", Err(error));
            // Most are told no and leave it at that.
            if let Some(epoch) = epoch.filter(|_| machine.chance.per_mille(150)) {
                let done = open(machine, Some(epoch)).await;
                judge(machine, "open", done);
            }
        }
    }
    tempt_fate(machine);
    machine.is_open()
}

async fn open(machine: &mut Machine, takeover: Option<Epoch>) -> Result<bool, EngineError> {
    let process = machine.start();
    if machine.chance.per_mille(100) {
        process.doom(Some(some_death(&machine.chance)));
    }
    let clock_off = machine.chance.between(0, 600_000) as i64 - 300_000;
    machine.clock.set_skew_ms(if machine.chance.per_mille(100) { clock_off } else { 0 });
    machine.open_in(process, takeover).await
}

async fn take_over(machine: &mut Machine) {
    let process = machine.start();
    let opened = unless_killed(&process, machine.log(&process).open()).await;
    let Ok(Some(opened)) = opened else {
        judge(machine, "look", opened.map(|_| ()));
        return;
    };
    let seen = opened.tail.epoch;
    let said = if machine.chance.per_mille(300) { Epoch(seen.0 + 1) } else { seen };
    // Sensible people look at what is there first; the others publish what they have.
    if let Some(image) = machine.around().oracle.tail().and_then(|tail| tail.image)
        && machine.chance.per_mille(500)
    {
        machine.replace_database(image);
    }
    let tail = machine.around().oracle.tail();
    let before = tail.as_ref().map(|tail| tail.seq);
    let done = open(machine, Some(said)).await;
    judge(machine, "takeover", done);
    // A store that goes on with what is its own, or is nobody's, does not look at what it was told to take over from.
    let store = machine.store().map(|store| store.id()).ok();
    if tail.and_then(|tail| tail.owner).is_none_or(|owner| Some(owner.store) == store) {
        return;
    }
    let claimed = machine.around().oracle.records().into_iter().rev().find(|landed| landed.kind == RecordKind::Claim);
    if let Some(claim) = claimed.filter(|claim| claim.machine == machine.name && Some(claim.seq) > before)
        && claim.epoch != said.next()
    {
        let name = &machine.name;
        machine.around().oracle.violated(format!("{name} took over from epoch {said} and got epoch {}", claim.epoch));
    }
}

async fn publish(machine: &mut Machine) {
    machine.commit();
    if !ready(machine).await {
        return;
    }
    let chance = &machine.chance;
    let policy = match chance.between(0, 4) {
        0 => CheckpointPolicy { delta_bytes_max: 1, ..CheckpointPolicy::default() },
        1 => CheckpointPolicy { pack_bytes_max: 1, ..CheckpointPolicy::default() },
        _ => CheckpointPolicy::default(),
    };
    let options = checkpoint::Options { policy, compression: some_compression(chance) };
    let watched = chance.per_mille(700);
    let done = machine.checkpoint(&options, watched).await;
    let published = matches!(done, Ok(Some(_)));
    judge(machine, "checkpoint", done);
    if published && machine.chance.per_mille(600) {
        let done = machine.snapshot(false).await;
        judge(machine, "snapshot if due", done);
    }
    if machine.is_open() && published && machine.chance.per_mille(400) {
        let done = machine.coalesce(Compression::Zstd).await;
        judge(machine, "coalesce", done);
    }
}

async fn name_snapshot(machine: &mut Machine) {
    let Ok(name) = format!("{}{}", machine.name, machine.chance.between(0, 4)).parse::<SnapshotName>() else { return };
    if ready(machine).await {
        let done = machine.name_snapshot(&name).await;
        judge(machine, "name a snapshot", done);
    }
}

async fn drop_snapshot(machine: &mut Machine) {
    let names: Vec<SnapshotName> = machine.around().oracle.snapshots().into_keys().collect();
    let Some(name) = machine.chance.pick(&names).cloned() else { return };
    let process = machine.start();
    // From the first attempt on nobody may rely on it.
    machine.around().oracle.named(&name, None);
    let log = machine.log(&process);
    let done = unless_killed(&process, prune::drop_snapshot(&log, &name)).await;
    judge(machine, "drop a snapshot", done);
}

async fn prune(machine: &mut Machine) {
    if !ready(machine).await {
        return;
    }
    let chance = &machine.chance;
    let keep = KeepPolicy { last: chance.between(1, 12), within_ms: chance.between(0, 5) * DAY_MS };
    let options = prune::Options { keep, grace_ms: PRUNE_GRACE_MS, dry_run: chance.per_mille(100) };
    let before = machine.around().oracle.points();
    let deletes = !machine.repacks || machine.chance.per_mille(700);
    let done = if deletes { machine.prune(&options).await } else { machine.mark(&options).await };
    // It looked at its clock before now: what is old enough now need not have been then.
    let now = machine.clock.wall_ms();
    let floor = done.as_ref().ok().and_then(|done| done.as_ref()).map(|pruned| pruned.floor);
    judge(machine, "prune", done);
    if let Some(floor) = floor {
        kept_what_was_asked(machine, &before, keep, now, floor);
    }
    if machine.repacks && machine.is_open() {
        let done = machine.repack().await;
        judge(machine, "repack", done);
    }
}

/// The policy, said once more in other words.
fn kept_what_was_asked(machine: &Machine, before: &[Landed], keep: KeepPolicy, now: u64, floor: Seq) {
    let since = now.saturating_sub(keep.within_ms);
    let current_then = before.iter().rposition(|point| point.time_ms <= since);
    for (at, point) in before.iter().enumerate() {
        let last = before.len() - at <= keep.last as usize;
        let within = point.time_ms >= since || current_then == Some(at);
        let young = point.time_ms + PRUNE_GRACE_MS > now;
        if (last || within || young) && point.seq < floor {
            let (lsn, name) = (point.lsn, &machine.name);
            machine.around().oracle.violated(format!(
                "{name} pruned up to record {floor} with {keep:?}: LSN {lsn} (record {}) had to stay",
                point.seq
            ));
        }
    }
}

/// A lazy reader: pins, reads slowly, compares every page.
async fn read(machine: &mut Machine) {
    let points = machine.around().oracle.points();
    let Some(point) = machine.chance.pick(&points).cloned() else { return };
    let process = machine.start();
    let log = machine.log(&process);
    let newest = machine.chance.per_mille(300);
    let at = if newest { At::Newest } else { At::Lsn(point.lsn) };
    let oracle = machine.around().oracle.clone();
    let retained = |lsn: Lsn| oracle.points().iter().any(|point| point.lsn == lsn);
    let opened = match restore::open_at(&log, &at).await {
        Ok(opened) => opened,
        Err(error) => {
            let gone =
                matches!(error, EngineError::NoSuchPosition { .. } | EngineError::Remote(RemoteError::Missing { .. }));
            if gone && (newest || retained(point.lsn)) {
                oracle.violated(format!("{}: reading {at:?}: {error}", machine.name));
            } else if !gone {
                judge::<()>(machine, "open for reading", Err(error));
            }
            return;
        }
    };
    let lsn = opened.tail.lsn;
    let wish = Wish { purpose: PinPurpose::Reader, holder: machine.name.clone(), life_ms: Some(PIN_LIFE_MS) };
    let pinned = match log.pin(&machine.components(&process), &opened, wish).await {
        Ok(Some(pinned)) => pinned,
        Ok(None) => return machine.around().trace.line(&process.name, format_args!("a pruner was faster")),
        Err(error) => return judge::<()>(machine, "pin", Err(error)),
    };
    let patient = machine.chance.per_mille(300);
    let pause_ms = if patient { machine.chance.between(0, DAY_MS / 2) } else { machine.chance.between(0, 60_000) };
    match compare(machine, &log, &opened, pause_ms).await {
        Ok(()) => machine.around().trace.line(&process.name, format_args!("read LSN {lsn}")),
        Err(error @ EngineError::Remote(RemoteError::Unavailable { .. })) => {
            judge::<()>(machine, "read", Err(error));
        }
        Err(error) => oracle.violated(format!(
            "{}: LSN {lsn} was pinned (record {}) and cannot be read: {error}",
            machine.name, opened.tail.seq
        )),
    }
    // Some die before they take their pin back.
    if machine.chance.per_mille(850) {
        let done = log.unpin(&pinned.key).await;
        judge(machine, "unpin", done);
    }
}

async fn compare(
    machine: &Machine,
    log: &Log,
    opened: &littoral_engine::log::Opened,
    pause_ms: u64,
) -> Result<(), EngineError> {
    machine.clock.sleep_ms(pause_ms).await;
    let rows = rows(log, opened).await?;
    machine.clock.sleep_ms(pause_ms / 2).await;
    let lsn = opened.tail.lsn;
    same_as_model(log, &rows, opened, machine.around().oracle.image_at(lsn).as_ref()).await
}

/// Reads every page of a state and compares it.
pub async fn same_as_model(
    log: &Log,
    rows: &littoral_engine::exec::rebuild::Rows,
    opened: &littoral_engine::log::Opened,
    model: Option<&crate::database::Image>,
) -> Result<(), EngineError> {
    let wrong = |detail: String| EngineError::Inconsistent { volume: log.url(), detail };
    let figures = opened.tail.figures;
    let Some(page_size) = figures.page_size else { return Ok(()) };
    let model = model.ok_or_else(|| wrong(format!("nobody published LSN {}", opened.tail.lsn)))?;
    if (model.page_size(), model.page_count()) != (page_size, figures.page_count) {
        let (pages, lsn) = (figures.page_count, opened.tail.lsn);
        return Err(wrong(format!("LSN {lsn} is {model:?}, the log says {pages} pages of {page_size}")));
    }
    let geometry = Geometry::new(page_size);
    for chunk in 0..geometry.chunk_count(figures.page_count) {
        let Some(span) = geometry.span(ChunkId(chunk), figures.page_count) else { continue };
        let row = rows.get(&ChunkId(chunk)).ok_or_else(|| wrong(format!("chunk {chunk} has no row")))?;
        let wanted: Vec<PageNo> = span.pages().collect();
        let pages = fetch::pages(log, row, page_size, &opened.meta.identity_key, &wanted).await?;
        for page in wanted {
            if pages.get(&page).map(|bytes| &bytes[..]) != model.page(page) {
                return Err(wrong(format!("page {page} of LSN {} is another", opened.tail.lsn)));
            }
        }
    }
    Ok(())
}

/// Notes an answer, and says whether a machine may get it.
fn judge<T: std::fmt::Debug>(machine: &Machine, what: &str, done: Result<T, EngineError>) {
    let around = machine.around();
    let error = match done {
        Ok(done) => {
            let mut text = format!("{done:?}");
            text.truncate(text.char_indices().nth(200).map_or(text.len(), |(at, _)| at));
            return around.trace.line(&machine.name, format_args!("{what}: {text}"));
        }
        Err(error) => error,
    };
    around.trace.line(&machine.name, format_args!("{what}: {error}"));
    let allowed = match &error {
        EngineError::Superseded { epoch, owner, .. } => {
            around.oracle.told_who_won(&machine.name, *epoch, owner);
            true
        }
        // Only machines that were copied, or that lost what they knew, find records of their own that they did not write.
        EngineError::Diverged { .. } => machine.excused,
        EngineError::Crash(_) | EngineError::NotBound { .. } | EngineError::WrongTakeover { .. } => true,
        EngineError::NoVolume(_) | EngineError::NoSuchPosition { .. } => {
            around.oracle.tail().is_none_or(|tail| tail.lsn == Lsn::ZERO)
        }
        EngineError::Remote(RemoteError::Unavailable { .. } | RemoteError::Unknown { .. }) => true,
        EngineError::Manifest(littoral_ports::ManifestError::Full(_)) => true,
        EngineError::Refused(why) => why.contains("there is a snapshot"),
        EngineError::Interrupted(why) => why.contains("finished first"),
        _ => false,
    };
    if !allowed {
        around.oracle.violated(format!("{}: {what}: {error}", machine.name));
    }
}
