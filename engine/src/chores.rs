//! What is done for a volume while nobody asks: prunes, verification under a budget, restore drills; and what is kept of each.
//!
//! What this room promises:
//! 1. Of all processes one does what is due, whoever else would; what is asked for by a command is kept in the same place.
//! 2. What failed is kept with why, told once by whoever does it, and tried again: it never ends a worker.
//! 3. A store whose credentials may not delete is asked once. From then on prunes say what may go, and delete nothing, until somebody
//!    prunes by a command.
//! 4. What was proved stays known until something newer is: up to which commit, when, how long it took.
//!
//! What may never enter: when something is due (`plan::upkeep`), what it is to prune, to verify, to restore (`exec`).

use crate::components::Components;
use crate::error::EngineError;
use crate::exec::beside::Quietly;
use crate::exec::drill::{Drill, Examine, Order, drill};
use crate::exec::prune::{How, Options, Pruned, prune_as};
use crate::exec::repack::{Repacked, repack_apart};
use crate::exec::verify::{Verified, verify_part};
use crate::leases::Leases;
use crate::open::{self, Place};
use crate::settings::{Origin, Settings};
use crate::volume::{open_for_shipping, open_log};
use littoral_local::LocalError;
use littoral_local::upkeep::{Drilled, PROBLEMS_KEPT, Proved, Pruning, Upkeep, UpkeepFile, Verifying, kept};
use littoral_plan::{Chore, Done, KeepPolicy, RepackPolicy, Wishes, due};
use littoral_types::limits::LEASE_WAIT_MS;
use littoral_types::{Seq, VolumeKind, Work};
use std::path::PathBuf;

/// What was done.
#[derive(Debug)]
pub enum Did {
    /// A prune, and what was moved out of packs that were mostly dead; and whether the object store refused to delete for the first time.
    Pruned(Option<Pruned>, Repacked, bool),
    /// A part was verified; whether that was the last one of a pass.
    Verified(Verified, bool),
    /// A drill.
    Drilled(Drill),
    /// It could not be done, and why. It is tried again.
    Failed(Chore, EngineError),
}

/// What the settings ask for. A retention that nobody set asks for nothing.
pub fn wishes(settings: &Settings) -> Wishes {
    let is_set = settings.retention.origin != Origin::Default;
    Wishes {
        prune_ms: settings.prune_interval_ms.value.filter(|_| is_set),
        verify_a_day: settings.verify_daily.value,
        drill_ms: settings.drill_interval_ms.value,
    }
}

/// Where it is kept what was done for a database's volume; `None` where no store here knows it.
pub fn file(place: &Place) -> Option<UpkeepFile> {
    let (store, found) = place.store.as_ref().zip(place.found.as_ref())?;
    Some(store.upkeep(&found.binding.id))
}

/// Does what is due, where something is and nobody else does it.
pub async fn next(
    place: &Place,
    settings: &Settings,
    components: &Components,
    examine: &Examine,
) -> Result<Option<Did>, EngineError> {
    let wishes = wishes(settings);
    let Some(file) = file(place).filter(|_| wishes != Wishes::default()) else { return Ok(None) };
    if choice(&wishes, place, &file, components)?.is_none() {
        return Ok(None);
    }
    let _turn = match file.turn() {
        Ok(turn) => turn,
        Err(LocalError::Busy { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Whoever had the turn before may have done it.
    let Some(chore) = choice(&wishes, place, &file, components)? else { return Ok(None) };
    let done = match chore {
        Chore::Prune => Box::pin(prunes(place, settings, components, &file)).await,
        Chore::Verify(bytes) => Box::pin(verifies(place, settings, components, &file, bytes)).await,
        Chore::Drill => Box::pin(drills(place, settings, components, examine, &file)).await,
    };
    match done {
        Ok(did) => Ok(Some(did)),
        Err(error) if error.is_crash() => Err(error),
        Err(error) => {
            let (now, why) = (components.clock.wall_ms(), kept(&error));
            file.change(|upkeep| match chore {
                Chore::Prune => {
                    let last = upkeep.prune.get_or_insert_default();
                    (last.at_ms, last.failed) = (now, Some(why));
                }
                Chore::Verify(_) => {
                    let last = upkeep.verify.get_or_insert_default();
                    (last.at_ms, last.failed) = (now, Some(why));
                }
                Chore::Drill => {
                    let last = upkeep.drill.get_or_insert_default();
                    (last.at_ms, last.skipped) = (now, Some(why));
                }
            })?;
            Ok(Some(Did::Failed(chore, error)))
        }
    }
}

fn choice(
    wishes: &Wishes,
    place: &Place,
    file: &UpkeepFile,
    components: &Components,
) -> Result<Option<Chore>, EngineError> {
    let row = place.manifest()?.map(|manifest| manifest.volume(&place.volume.value)).transpose()?.flatten();
    // What the manifest does not know the next publication tells it.
    let Some(row) = row else { return Ok(None) };
    let done = so_far(&file.read()?);
    let [a, b, c, d, e, f, g, h, ..] = row.meta.id.0;
    let spread = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    Ok(due(wishes, &done, row.tail.seq, spread, components.clock.wall_ms()))
}

fn so_far(upkeep: &Upkeep) -> Done {
    let Upkeep { prune, verify, drill, .. } = upkeep;
    let is_over = |verify: &&Verifying| verify.cursor.is_none() && verify.began_ms > 0 && verify.failed.is_none();
    Done {
        pruned_ms: prune.as_ref().map(|prune| prune.at_ms),
        pruned_at: prune.as_ref().and_then(|prune| prune.record).map(Seq),
        pruned_nothing: prune.as_ref().is_some_and(|prune| prune.nothing),
        verified_ms: verify.as_ref().map(|verify| verify.at_ms),
        passed_ms: verify.as_ref().filter(is_over).map(|verify| verify.began_ms),
        drilled_ms: drill.as_ref().map(|drill| drill.at_ms),
        failed: [
            prune.as_ref().is_some_and(|prune| prune.failed.is_some()),
            verify.as_ref().is_some_and(|verify| verify.failed.is_some()),
            drill.as_ref().is_some_and(|drill| drill.skipped.is_some()),
        ],
    }
}

async fn prunes(
    place: &Place,
    settings: &Settings,
    components: &Components,
    file: &UpkeepFile,
) -> Result<Did, EngineError> {
    let before = file.read()?.prune.unwrap_or_default();
    let (stores, _) = open::stores(place, settings, components)?;
    // Who does it unasked takes over from nobody.
    let target = crate::volume::Target { takeover: None, ..place.target(settings)? };
    if let Some(found) = &place.found {
        let leases = Leases::new(&stores.store, stores.manifest.clone(), components);
        let volume = (found.binding.id, place.url());
        Box::pin(leases.wait((volume.0, &volume.1), (Work::Prune, None), LEASE_WAIT_MS, None)).await?;
    }
    // Nothing is staged by a prune, and who moves packs does it beside whoever stages: other databases of this store are not kept waiting.
    let meta = stores.manifest.volume(&place.volume.value)?.map(|row| row.meta);
    let log = meta.filter(|meta| meta.kind == VolumeKind::Log).map(|meta| (meta.log(), meta.created_ms));
    let mut session = match log {
        Some(log) => Box::pin(open_log(&stores, components, &target, log)).await?,
        None => Box::pin(open_for_shipping(&stores, components, &target, true)).await?,
    };
    let retention = &settings.retention.value;
    let options = Options {
        keep: KeepPolicy { last: 1, within_ms: retention.all_ms() },
        grace_ms: settings.grace_ms.value,
        dry_run: false,
    };
    let deletes = settings.prune_deletes.value && before.denied.is_none();
    let how = How { deletes, marked: before.marked.map(Seq) };
    let pruned = Box::pin(prune_as(&mut session.writer, &options, retention, how)).await?;
    let is_denied = pruned.as_ref().is_some_and(|pruned| pruned.denied.is_some());
    let mut repacked = Repacked::default();
    if deletes && !is_denied {
        let compression = settings.compression.value;
        let mut quietly = Quietly::of(place);
        let moving = repack_apart(session, &target.database, compression, RepackPolicy::default(), &mut quietly);
        (session, repacked) = Box::pin(moving).await?;
    }
    let newest = session.writer.row().tail.seq;
    drop(session);
    note_prune(file, components, pruned.as_ref(), &repacked, newest, before.denied.filter(|_| !is_denied))?;
    Ok(Did::Pruned(pruned, repacked, is_denied))
}

/// Keeps what came of a prune. `denied` is what the object store said earlier, where it was not asked to delete again.
pub fn note_prune(
    file: &UpkeepFile,
    components: &Components,
    pruned: Option<&Pruned>,
    repacked: &Repacked,
    newest: Seq,
    denied: Option<String>,
) -> Result<(), EngineError> {
    let gone = |pruned: &Pruned| pruned.records + pruned.snapshots + pruned.blobs + pruned.pins;
    let came = Pruning {
        at_ms: components.clock.wall_ms(),
        record: Some(newest.0),
        nothing: pruned.is_none_or(|pruned| gone(pruned) == 0) && repacked.records == 0,
        objects: pruned.map_or(0, gone),
        bytes: pruned.map_or(0, |pruned| pruned.bytes),
        marked: pruned.and_then(|pruned| pruned.marked).map(|seq| seq.0),
        marked_objects: pruned.map_or(0, |pruned| pruned.left.len() as u64),
        marked_bytes: pruned.map_or(0, Pruned::left_bytes),
        denied: pruned.and_then(|pruned| pruned.denied.clone()).or(denied).map(kept),
        failed: None,
    };
    file.change(|upkeep| upkeep.prune = Some(came))?;
    Ok(())
}

async fn verifies(
    place: &Place,
    settings: &Settings,
    components: &Components,
    file: &UpkeepFile,
    bytes: u64,
) -> Result<Did, EngineError> {
    let (log, _) = place.log(settings, components)?;
    let cursor = file.read()?.verify.unwrap_or_default().cursor;
    let (found, next) = Box::pin(verify_part(&log, components, cursor.as_deref(), bytes)).await?;
    let is_whole = next.is_none();
    note_part(file, components, &found, cursor.is_none(), next)?;
    Ok(Did::Verified(found, is_whole))
}

fn note_part(
    file: &UpkeepFile,
    components: &Components,
    found: &Verified,
    is_first: bool,
    next: Option<String>,
) -> Result<(), EngineError> {
    let now = components.clock.wall_ms();
    file.change(|upkeep| {
        let last = upkeep.verify.get_or_insert_default();
        if is_first {
            (last.began_ms, last.blobs, last.bytes) = (now, 0, 0);
        }
        (last.at_ms, last.failed) = (now, None);
        last.blobs += found.blobs;
        last.bytes += found.bytes;
        if !found.problems.is_empty() {
            let before = std::mem::take(&mut last.problems);
            let fresh = found.problems.iter().map(kept).filter(|problem| !before.contains(problem));
            last.problems =
                fresh.collect::<Vec<_>>().into_iter().chain(before.iter().cloned()).take(PROBLEMS_KEPT).collect();
            last.wrong_ms = Some(now);
        }
        if next.is_none() && last.wrong_ms.is_none_or(|wrong| wrong < last.began_ms) {
            // A whole pass in which nothing was wrong: what was, is mended.
            last.whole_ms = Some(now);
            (last.wrong_ms, last.problems) = (None, Vec::new());
        }
        last.cursor = next;
    })?;
    Ok(())
}

/// Keeps what came of a verification of everything.
pub fn note_whole(file: &UpkeepFile, components: &Components, found: &Verified) -> Result<(), EngineError> {
    note_part(file, components, found, true, None)
}

/// Where a drill's copy is made.
pub fn drill_folder(place: &Place) -> Option<PathBuf> {
    let (store, found) = place.store.as_ref().zip(place.found.as_ref())?;
    Some(store.root().join("drill").join(found.binding.id.to_string()))
}

async fn drills(
    place: &Place,
    settings: &Settings,
    components: &Components,
    examine: &Examine,
    file: &UpkeepFile,
) -> Result<Did, EngineError> {
    let (log, _) = place.log(settings, components)?;
    let probe = settings.drill_probe.as_ref().map(|probe| probe.value.clone());
    let folder = drill_folder(place).unwrap_or_default();
    let order = Order { folder, probe: probe.clone(), examine: examine.clone() };
    let done = Box::pin(drill(&log, components, order)).await?;
    note_drill(file, components, &done, probe)?;
    Ok(Did::Drilled(done))
}

/// Keeps what came of a drill.
pub fn note_drill(
    file: &UpkeepFile,
    components: &Components,
    done: &Drill,
    probe: Option<String>,
) -> Result<(), EngineError> {
    let now = components.clock.wall_ms();
    file.change(|upkeep| match done {
        Drill::Skipped(why) => {
            // What was wrong before is wrong until a drill says otherwise.
            let last = upkeep.drill.get_or_insert_default();
            (last.at_ms, last.skipped) = (now, Some(kept(why)));
        }
        Drill::Held(held) => {
            let problems = held.problems.iter().take(PROBLEMS_KEPT).map(kept).collect();
            upkeep.drill = Some(Drilled { at_ms: now, problems, skipped: None });
            if let Some(position) = held.position.filter(|_| held.problems.is_empty()) {
                upkeep.proved = Some(Proved {
                    at_ms: now,
                    position: position.to_string(),
                    took_ms: held.took_ms,
                    bytes: held.bytes,
                    probe: probe.filter(|_| !held.is_log).map(kept),
                    answer: held.answer.as_ref().map(kept),
                });
            }
        }
    })?;
    Ok(())
}
