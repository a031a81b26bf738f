//! `littoral_status`: where the database stands, without asking the object store.

use super::{Cell, Function, Refusal, Rows, Run, Table, Target, ours};
use crate::last;
use crate::sparse::room::Taken;
use littoral_engine::chores;
use littoral_engine::follow::Replica;
use littoral_engine::hand_over::NOBODY;
use littoral_engine::open::{self, Place, QuotaUse};
use littoral_engine::tracker::Dropped;
use littoral_types::moment::Utc;
use littoral_types::{Position, VolumeRow};
use std::time::Duration;

/// Commits that wait for so long are not only on their way.
const LONG: Duration = Duration::from_secs(20);

/// All of it as one text, a line for each word.
pub(super) const STATUS: Function = Function { name: "littoral_status", arguments_max: 0, run: Run::OfDatabase(told) };

/// The same as rows.
pub(super) const TABLE: Table = Table {
    name: "littoral_status",
    columns: &["name TEXT", "value"],
    rows: Rows::OfDatabase(|target| rows(ours(target)?)),
};

fn told(target: Option<&Target>, _: &[Option<String>]) -> Result<Cell, Refusal> {
    let rows = rows(ours(target)?)?;
    let lines = rows.iter().filter_map(|row| match row.as_slice() {
        [name, value] => Some(format!("{:<18}{}", name.shown(), value.shown())),
        _ => None,
    });
    Ok(Cell::Text(lines.collect::<Vec<_>>().join("\n")))
}

/// What the local manifest knows of the database's volume.
fn known(place: &Place) -> Result<Option<VolumeRow>, Refusal> {
    let row = place.manifest()?.and_then(|manifest| manifest.volume(&place.volume.value).transpose()).transpose();
    let row = row.map_err(littoral_engine::EngineError::from)?;
    Ok(row.filter(|row| place.found.as_ref().is_some_and(|found| found.binding.id == row.meta.id)))
}

/// The position that was published last, as the local manifest knows it.
pub(super) fn published(target: &Target) -> Result<Option<Position>, Refusal> {
    let place = target.said.place(target.database.path())?;
    Ok(known(&place)?.map(|row| Position { epoch: row.tail.epoch, lsn: row.tail.lsn }))
}

fn rows(target: &Target) -> Result<Vec<Vec<Cell>>, Refusal> {
    let Target { database, said, wish, .. } = target;
    if let Some(replica) = database.replica() {
        return Ok(of_replica(target, &replica));
    }
    let place = said.place(database.path())?;
    let row = known(&place)?;
    let tracker = database.tracker();
    let fence = tracker.and_then(|tracker| tracker.fenced());
    let basis = tracker.and_then(|tracker| tracker.basis());
    let commits = tracker.map(|tracker| tracker.commits_since());
    let marked = tracker.filter(|_| basis.is_some()).map(|tracker| tracker.marked_bytes());
    let trouble = database.trouble();
    let waiting = tracker.map(|tracker| tracker.waiting().unwrap_or_default());
    // Over the budget of requests it is more rarely than was said.
    let now = database.interval_ms().filter(|_| database.has_shipper());
    let shipping = match said.settings.sync_interval_ms.value {
        Some(interval) if now.is_some_and(|now| now > interval) => {
            let now = Duration::from_millis(now.unwrap_or(interval));
            format!("by itself, every {now:?} at most: more requests were made than request_budget= has for now")
        }
        Some(interval) if database.has_shipper() => {
            format!("by itself, every {:?} at most", Duration::from_millis(interval))
        }
        Some(_) => "when it is asked for: no thread could be had, or nothing is known of what changes".to_owned(),
        None => "when it is asked for (sync_interval=off)".to_owned(),
    };
    let tail = row.as_ref().map(|row| &row.tail);
    // Where it is shipped when somebody asks, nothing is late.
    let interval = now;
    let late_after = interval.map(|interval| Duration::from_millis(interval) + LONG);
    let safe = match (&fence, tail, commits, marked) {
        (Some((epoch, owner)), _, Some(0), _) if owner == NOBODY => {
            format!("yes: everything was published, and the volume released (epoch {epoch}); read-only here")
        }
        (Some((epoch, owner)), ..) if owner == NOBODY => {
            format!(
                "no: the volume was released (epoch {epoch}) before the last commits here: PRAGMA littoral_sync, or littoral salvage"
            )
        }
        (Some((epoch, owner)), ..) => format!("no: {owner} took over (epoch {epoch}); nothing is published from here"),
        (None, None, ..) => match &trouble {
            Some(why) => format!("no: nothing could be published yet: {why}"),
            None => "no: nothing was published yet (PRAGMA littoral_checkpoint)".to_owned(),
        },
        (None, Some(_), Some(0), Some(0)) => "yes: the object store has everything".to_owned(),
        // A backfill writes pages that were published out of the WAL: they are looked at again, and found unchanged.
        (None, Some(_), Some(0), Some(_)) => {
            "yes, as far as commits were counted: none came since the last publication".to_owned()
        }
        (None, Some(_), Some(left), Some(_)) => match &trouble {
            Some(why) => format!("no: {} could not be published yet: {why}", told_of_commits(left)),
            None => match waiting.filter(|waiting| late_after.is_some_and(|late_after| *waiting >= late_after)) {
                Some(waiting) => format!(
                    "no: {} could not be published yet, the oldest for {} s: the object store is slow or does not answer",
                    told_of_commits(left),
                    waiting.as_secs()
                ),
                None => format!("not yet: {} since the last publication", told_of_commits(left)),
            },
        },
        (None, Some(_), _, _) => "not known: the next checkpoint compares all pages".to_owned(),
    };
    let sparse = database.sparse().map(|sparse| {
        let (here, all) = sparse.progress();
        format!("{here} of {all} pages, of {}", sparse.origin().position)
    });
    let fetched = database.sparse().and_then(|sparse| sparse.cost()).map(|(totals, _)| {
        let all = totals.all();
        format!("{} bytes in {} requests", all.bytes_down, all.requests)
    });
    let taken = database.sparse().map(|sparse| sparse.taken());
    let room = taken.as_ref().map(told_of_room);
    let quota = open::quota_use(&place, &said.settings)?.and_then(|taken| told_of_quota(&taken));
    let gap = tracker.and_then(|tracker| tracker.dropped()).map(in_gap);
    let upkeep = chores::file(&place).map(|file| file.read()).transpose();
    let upkeep = upkeep.map_err(littoral_engine::EngineError::from)?.unwrap_or_default();
    let proved = upkeep
        .proved
        .as_ref()
        .map(|proved| format!("{}, up to {}, in {} ms", Utc(proved.at_ms), proved.position, proved.took_ms));
    let unsound = upkeep.alarms().next().map(str::to_owned);
    let text = |text: Option<String>| text.map_or(Cell::Null, Cell::Text);
    let number = |number: Option<u64>| number.map_or(Cell::Null, Cell::count);
    let rows = [
        ("safe", Cell::Text(safe)),
        ("volume", Cell::Text(place.url())),
        ("position", text(tail.map(|tail| Position { epoch: tail.epoch, lsn: tail.lsn }.to_string()))),
        ("record", number(tail.map(|tail| tail.seq.0))),
        ("commits_since", number(commits)),
        ("gap", text(gap)),
        ("waiting_ms", number(waiting.map(|waiting| waiting.as_millis() as u64))),
        ("durability", Cell::text(wish.now())),
        ("shipping", Cell::Text(shipping)),
        ("trouble", text(trouble)),
        ("bytes_changed", number(marked)),
        ("writer", text(tail.and_then(|tail| tail.owner.as_ref()).map(|owner| owner.label.clone()))),
        (
            "fenced_by",
            text(fence.filter(|(_, owner)| owner != NOBODY).map(|(epoch, owner)| format!("{owner} (epoch {epoch})"))),
        ),
        ("here", Cell::Text(sparse.unwrap_or_else(|| "everything".to_owned()))),
        ("fetched", text(fetched)),
        ("room", text(room)),
        ("quota", text(quota)),
        ("proved", text(proved)),
        ("not_sound", text(unsound)),
        ("store", text(place.store_root.as_ref().map(|root| root.display().to_string()))),
        ("last_error", text(last::last())),
    ];
    Ok(rows.map(|(name, value)| vec![Cell::text(name), value]).to_vec())
}

/// What all of a store have taken of their quota, where there is one.
fn told_of_quota(taken: &QuotaUse) -> Option<String> {
    let QuotaUse { limits, used, used_by_tenant, held } = taken;
    limits.store.or(limits.tenant_limit)?;
    let of = |limit: Option<u64>| limit.map_or_else(|| "no bound".to_owned(), |limit| format!("{limit} bytes"));
    let tenant = limits
        .tenant
        .as_ref()
        .map(|tenant| format!("; tenant {tenant}: {used_by_tenant} of {}", of(limits.tenant_limit)));
    let who = held.iter().map(|held| {
        format!("; {}: {} for {}", held.process.as_deref().unwrap_or("nobody that lives"), held.bytes, held.what)
    });
    let who: String = who.collect();
    Some(format!("{used} of {} staged and copied{}{who}", of(limits.store), tenant.unwrap_or_default()))
}

/// What a database that is not all here takes of the disk.
fn told_of_room(taken: &Taken) -> String {
    let Taken { bytes, share, quota, page_size, census } = taken;
    let (here, written) = (census.here * page_size, census.written * page_size);
    let of = share
        .zip(*quota)
        .map_or_else(|| "with no quota".to_owned(), |(share, quota)| format!("of {share} for pages (quota={quota})"));
    format!(
        "{bytes} bytes on disk {of}: {here} here, {written} of them written and not to be evicted; {} pages evicted so far",
        census.evicted
    )
}

/// Commits that wait cannot travel one by one any more.
fn in_gap((why, since_ms): (Dropped, u64)) -> String {
    let (since, why) = (Utc(since_ms), why.reason());
    format!("since {since}: {why}; the next publication is a checkpoint, and what it brings is not told apart")
}

fn of_replica(target: &Target, replica: &Replica) -> Vec<Vec<Cell>> {
    let Target { database, said, shown, .. } = target;
    let (status, lag) = (replica.status(), replica.lag(*shown));
    let place = said.place(database.path()).ok();
    let safe = "yes: a replica is only read; what is written elsewhere is safe where its writer says so";
    let seconds = format!("{}.{:03}", lag.ms / 1000, lag.ms % 1000);
    let text = |text: Option<String>| text.map_or(Cell::Null, Cell::Text);
    let rows = [
        ("safe", Cell::text(safe)),
        ("volume", text(place.as_ref().map(littoral_engine::open::Place::url))),
        ("position", Cell::text(lag.shown)),
        ("newest", Cell::text(status.newest)),
        ("record", Cell::count(status.seq.0)),
        ("lag_lsns", Cell::count(status.newest.lsn.0.saturating_sub(lag.shown.lsn.0))),
        ("lag_seconds", Cell::Text(seconds)),
        ("oldest_record", Cell::count(status.floor.0)),
        ("follower", Cell::text(if status.is_follower { "this process" } else { "another process" })),
        ("trouble", text(status.trouble)),
        ("here", Cell::Text(format!("{} pages, in {} bytes, of {}", status.held, status.bytes, status.page_count))),
        ("store", text(place.and_then(|place| place.store_root).map(|root| root.display().to_string()))),
        ("last_error", text(last::last())),
    ];
    rows.map(|(name, value)| vec![Cell::text(name), value]).to_vec()
}

fn told_of_commits(count: u64) -> String {
    if count == 1 { "1 commit".to_owned() } else { format!("{count} commits") }
}
