//! `littoral status FILE|URL`: where a volume stands, and whose it is.

use super::shown::{Meter, moment};
use crate::door::Door;
use crate::screen::Told;
use crate::words;
use littoral_engine::upkeep::Upkeep;
use littoral_engine::copies::{Stand, stands};
use littoral_engine::{Debt, EngineError, chores, logs};
use littoral_engine::exec::checkpoint::dirty_bytes;
use littoral_engine::exec::coalesce::debt;
use littoral_engine::hand_over::NOBODY;
use littoral_engine::holes::bytes_on_disk;
use littoral_engine::exec::prune::named_snapshots;
use littoral_engine::log::terms::{End, Term};
use littoral_engine::budget::Budget;
use littoral_engine::open::{Place, QuotaUse, budget, quota_use};
use littoral_engine::settings::{Money, Settings};
use littoral_engine::tracker::peek::{Peek, PeekSparse, peek, peek_sparse};
use littoral_ports::Spendings;
use littoral_types::{JournalMode, Object, ObjectId, ObjectKind, ObjectMark, Position, Taken, TailRow, VolumeKind};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume: a database whose volume it is, or a URL
    #[arg(value_name = "FILE|URL")]
    target: OsString,
    /// Who wrote it, term by term: since when, until when, and how each ended
    #[arg(long)]
    terms: bool,
    /// Which table and which index costs what: pages now, and what checkpoints took of each
    #[arg(long)]
    by_object: bool,
}

impl Args {
    /// Of a database's volume.
    pub(crate) fn of(file: &Path, terms: bool) -> Self {
        Self { target: file.into(), terms, by_object: false }
    }
}

/// What this machine's store knows of the volume.
struct Here {
    word: &'static str,
    sentence: String,
    tail: Option<TailRow>,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let (place, settings) = door.place(&args.target, None)?;
    let components = door.components(&settings)?;
    let (log, remote) = place.log(&settings, &components)?;
    let meter = Meter::new(remote);
    let (opened, snapshots) = futures::try_join!(log.open(), named_snapshots(&log))?;
    let opened = opened.ok_or_else(|| EngineError::NoVolume(place.url()))?;
    let terms = if args.terms { Some(log.terms(&opened.glance()).await?) } else { None };
    let objects = args.by_object.then(|| opened.objects());
    let tail = &opened.tail;
    let is_log = opened.meta.kind == VolumeKind::Log;
    let here = here(&place, tail)?;
    let log_here = if is_log { log_here(&place, tail)? } else { None };
    let taken = quota_use(&place, &settings)?;
    let (live, sparse) = live(&place)?;
    let jobs = super::jobs::seen(&place)?;
    let owed = owed(&place)?;
    let on_disk = place.database.as_deref().map_or(0, bytes_on_disk);
    let upkeep = chores::file(&place).map(|file| file.read()).transpose().map_err(EngineError::from)?.unwrap_or_default();
    let position = Position { epoch: tail.epoch, lsn: tail.lsn };
    let page_size = tail.figures.page_size.map(|size| size.bytes());
    let size = page_size.unwrap_or(0) * tail.figures.page_count.0;
    let owner = tail.owner.as_ref().map(|owner| owner.label.clone());
    let names: Vec<String> = snapshots
        .iter()
        .filter_map(|pinned| match &pinned.pin.purpose {
            littoral_types::PinPurpose::Snapshot(name) => Some(name.to_string()),
            _ => None,
        })
        .collect();
    let now = components.clock.wall_ms();
    let copies = stands(&place, &settings, now)?;
    let spent = place.account(&settings, &components).map(|account| account.this_month());
    let mut json = json!({
        "verb": "status",
        "volume": place.url(),
        "name": opened.meta.name.as_str(),
        "kind": opened.meta.kind.to_string(),
        "id": opened.meta.id.to_string(),
        "created": moment(opened.meta.created_ms),
        "position": position.to_string(),
        "epoch": tail.epoch.0,
        "lsn": tail.lsn.0,
        "record": tail.seq.0,
        "owner": owner,
        "written": moment(tail.time_ms),
        "page_size": page_size,
        "pages": tail.figures.page_count.0,
        "bytes": size,
        "schema": tail.schema.map(|schema| json!({
            "cookie": schema.cookie,
            "user_version": schema.user_version,
            "application_id": schema.application_id,
            "journal": journal(schema.journal),
        })),
        "manifest_snapshot": tail.snapshot.0,
        "oldest_record": tail.floor.0.max(1),
        "snapshots": names,
        "database": place.database.as_ref().map(|path| path.display().to_string()),
        "store": place.store.as_ref().map(|store| store.root()),
        "here": here.as_ref().map(|here| here.word),
        "local_record": here.as_ref().and_then(|here| here.tail.as_ref()).map(|tail| tail.seq.0),
        "live": live.as_ref().map(|live| json!({
            "commits_since": live.commits_since,
            "bytes_changed": live.bytes_changed,
            "gap": live.dropped.map(|(why, since)| json!({ "reason": why.reason().word(), "since": moment(since) })),
            "fenced_by": live.fenced.as_ref().map(|(_, owner)| owner).filter(|owner| *owner != NOBODY),
        })),
        "sparse": sparse.map(|sparse| json!({
            "position": sparse.position.to_string(),
            "pages_here": sparse.here,
            "pages_written": sparse.written,
            "pages_evicted": sparse.evicted,
            "bytes_on_disk": on_disk,
            "pages": sparse.pages.0,
        })),
        "jobs": super::jobs::summary_json(&jobs),
        "dirty_bytes": owed.as_ref().map(|(_, dirty)| dirty),
        "debt": owed.as_ref().map(|(debt, _)| json!({
            "deltas_deepest": debt.depth,
            "chunks": debt.chunks,
            "bytes": debt.bytes,
            "checkpoints_put_off": debt.stretch(),
        })),
        "quota": taken.as_ref().map(quota_json),
        "spent": spent.as_ref().map(|spent| spent_json(spent, &settings, now)),
        "copies": copies.iter().map(copy_json).collect::<Vec<_>>(),
        "proof": proof_json(&upkeep),
        "pruned": upkeep.prune.as_ref().map(|prune| json!({
            "at": moment(prune.at_ms),
            "objects": prune.objects,
            "bytes": prune.bytes,
            "left_objects": prune.marked_objects,
            "left_bytes": prune.marked_bytes,
            "denied": prune.denied,
            "failed": prune.failed,
        })),
        "terms": terms.as_ref().map(|terms| terms.iter().map(term_json).collect::<Vec<_>>()),
        "objects": objects.as_ref().map(|objects| objects_json(objects, page_size.unwrap_or(0))),
        "cost": words::cost_json(&meter.all()),
    });
    json["log"] =
        json!(log_here.as_ref().map(|(last, waits, appender)| json!({ "last": last, "waits": waits, "appender": appender })));
    let mut lines: Vec<(&str, String)> = vec![
        ("volume", format!("{} ({})", place.url(), opened.meta.id)),
        ("position", format!("{position} (record {}), {} ago", tail.seq, words::span(now.saturating_sub(tail.time_ms)))),
        ("writer", owner.unwrap_or_else(|| "nobody: it was released".to_owned())),
        (
            if is_log { "log" } else { "database" },
            match page_size {
                None if is_log => format!("up to LSN {}", tail.lsn),
                None => "nothing was checkpointed yet".to_owned(),
                Some(page) => {
                    format!("{} ({} of {page} bytes)", words::bytes(size), words::some(tail.figures.page_count.0, "page"))
                }
            },
        ),
    ];
    if let Some(schema) = tail.schema {
        let journal = journal(schema.journal);
        lines.push(("schema", format!("user_version {}, {journal} mode", schema.user_version)));
    }
    lines.push(("snapshots", if names.is_empty() { "none".to_owned() } else { names.join(", ") }));
    if let Some(here) = &here {
        lines.push(("here", here.sentence.clone()));
    }
    if let Some((last, waits, appender)) = &log_here {
        let who = appender.as_ref().map_or_else(|| "nobody appends".to_owned(), |who| format!("{who} appends"));
        let waits = match waits {
            0 => "all of it is there".to_owned(),
            waits => format!("{} not there yet", words::some(*waits, "record")),
        };
        lines.push(("since", format!("up to LSN {last} here, {waits}; {who}")));
    }
    if let Some(live) = &live {
        lines.push(("since", since(live)));
        if let Some((why, since)) = live.dropped {
            lines.push(("gap", format!("since {}: {}, until the next checkpoint", words::time(since), why.reason())));
        }
    }
    if let Some(PeekSparse { position, here, written, evicted, pages, page_size }) = sparse {
        lines.push(("sparse", format!("{here} of {} are here, of {position}", words::some(pages.0, "page"))));
        let written = words::bytes(written * page_size);
        let evicted = words::some(evicted, "page");
        lines.push((
            "on disk",
            format!("{}; {written} written since and not to be evicted; {evicted} evicted so far", words::bytes(on_disk)),
        ));
    }
    if let Some(taken) = taken.as_ref().filter(|taken| taken.limits.store.or(taken.limits.tenant_limit).is_some()) {
        lines.push(("quota", quota_line(taken)));
    }
    if let Some(jobs) = super::jobs::summary(&jobs) {
        lines.push(("jobs", jobs));
    }
    if let Some(owed) = owed.as_ref().and_then(|(debt, _)| debt_line(debt)) {
        lines.push(("debt", owed));
    }
    if let Some(spent) = &spent {
        lines.push(("spent", spent_text(spent, &settings, now)));
    }
    lines.extend(copies.iter().map(|stand| ("copy", copy_line(stand, now))));
    lines.extend(upkeep_lines(&upkeep, now));
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<10}{value}\n")).collect();
    if let Some(terms) = &terms {
        let rows: Vec<Vec<String>> = terms.iter().map(term_row).collect();
        text.push_str(&words::table(&["epoch", "owner", "began", "ended", "how", "last LSN"], &rows));
    }
    if let Some(objects) = &objects {
        text.push_str(&objects_text(objects, page_size.unwrap_or(0)));
    }
    text.push_str(&format!("{:<10}{}\n", "cost", words::cost(&meter.all())));
    Ok(Told::done(json, text))
}

/// Of a log that is here: its last record, how many of its records its volume does not have, and who appends.
fn log_here(place: &Place, tail: &TailRow) -> anyhow::Result<Option<(u64, u64, Option<String>)>> {
    let Some(path) = place.database.as_deref().filter(|path| logs::identity(path).is_ok()) else { return Ok(None) };
    let last = logs::end(path, None)?.last();
    let appender = logs::appender(path).map(|(holder, since)| format!("{holder}{since}"));
    Ok(Some((last.0, last.0.saturating_sub(tail.lsn.0), appender)))
}

/// The newest checkpoint: what is not attributed is told by every one.
fn newest(objects: &[ObjectMark]) -> Option<Position> {
    let rest = objects.iter().find(|mark| mark.id == ObjectId::REST)?;
    rest.object.as_ref().map(|rest| rest.position)
}

/// What a checkpoint took, if it was the newest one.
fn last(object: &Object, newest: Option<Position>) -> Taken {
    if Some(object.position) == newest { object.taken } else { Taken::default() }
}

/// The largest first, and what is no table and no index after them.
fn sorted(objects: &[ObjectMark]) -> Vec<&Object> {
    let mut sorted: Vec<&Object> = objects.iter().filter_map(|mark| mark.object.as_ref()).collect();
    let is_tree = |object: &Object| matches!(object.kind, ObjectKind::Table | ObjectKind::Index);
    sorted.sort_by_key(|object| (!is_tree(object), std::cmp::Reverse(object.pages), object.name.clone()));
    sorted
}

fn objects_json(objects: &[ObjectMark], page_size: u64) -> Value {
    let newest = newest(objects);
    let taken = |taken: Taken| json!({ "pages": taken.pages, "bytes": taken.bytes });
    let object = |object: &Object| {
        json!({
            "kind": object.kind.word(),
            "name": Some(&*object.name).filter(|name| !name.is_empty()),
            "table": Some(&*object.table).filter(|table| !table.is_empty()),
            "root": object.root.map(|root| root.get()),
            "pages": object.pages,
            "bytes": object.pages * page_size,
            "open_pages": object.open,
            "last_checkpoint": taken(last(object, newest)),
            "all_checkpoints": taken(object.total),
            "changed_at": object.position.to_string(),
        })
    };
    json!({
        "checkpoint": newest.map(|position| position.to_string()),
        "objects": sorted(objects).into_iter().map(object).collect::<Vec<_>>(),
    })
}

fn objects_text(objects: &[ObjectMark], page_size: u64) -> String {
    let Some(newest) = newest(objects) else {
        return "objects   nothing is known of its tables and indexes: the next checkpoint that this version makes says it\n".to_owned();
    };
    let taken = |taken: Taken| format!("{} in {}", words::some(taken.pages, "page"), words::bytes(taken.bytes));
    let row = |object: &Object| {
        let is_index = object.kind == ObjectKind::Index;
        let name = if object.name.is_empty() { format!("({})", object.kind.word()) } else { object.name.to_string() };
        vec![
            name,
            if is_index { format!("index of {}", object.table) } else { object.kind.word().to_owned() },
            object.pages.to_string(),
            words::bytes(object.pages * page_size),
            taken(last(object, Some(newest))),
            taken(object.total),
        ]
    };
    let rows: Vec<Vec<String>> = sorted(objects).into_iter().map(row).collect();
    let at = format!("taken at {newest}");
    let mut text = words::table(&["object", "kind", "pages", "bytes", &at, "by all checkpoints"], &rows);
    let open: u64 = objects.iter().filter_map(|mark| mark.object.as_ref()).map(|object| object.open).sum();
    if open > 0 {
        text.push_str(&format!(
            "{} yet to be looked at: what hangs from them counts as unattributed, or as it was before\n",
            words::some(open, "page")
        ));
    }
    text
}

fn copy_json(stand: &Stand) -> Value {
    let copied = stand.copied.as_ref();
    json!({
        "url": stand.url,
        "position": copied.map(|copied| format!("{}.{}", copied.epoch, copied.lsn)),
        "record": copied.map(|copied| copied.record),
        "published": copied.filter(|copied| copied.time_ms > 0).map(|copied| moment(copied.time_ms)),
        "lag_lsns": stand.lag.map(|lag| lag.lsns),
        "lag_seconds": stand.lag.map(|lag| lag.ms / 1000),
        "lag_bytes": stand.lag.map(|lag| lag.bytes),
        "lag_records": stand.lag.map(|lag| lag.records),
        "whole": copied.and_then(|copied| copied.whole_ms).map(moment),
        "failed": copied.and_then(|copied| copied.failed.clone()),
        "failed_since": copied.and_then(|copied| copied.failed_since_ms).map(moment),
        "prunes_left": copied.map(|copied| copied.prunes.len()),
        "bytes_sent": copied.map(|copied| copied.sent),
        "bytes_from_primary": copied.map(|copied| copied.fetched),
    })
}

fn copy_line(stand: &Stand, now: u64) -> String {
    let Some(copied) = &stand.copied else { return format!("{}: nothing was copied there from here yet", stand.url) };
    let mut text = match stand.lag {
        Some(lag) if lag.records == 0 => format!("{}: holds everything, up to {}.{}", stand.url, copied.epoch, copied.lsn),
        Some(lag) => format!(
            "{}: up to {}.{}, behind by {} ({}, {})",
            stand.url,
            copied.epoch,
            copied.lsn,
            words::some(lag.lsns, "commit"),
            words::span(lag.ms),
            words::bytes(lag.bytes)
        ),
        None => format!("{}: up to {}.{}", stand.url, copied.epoch, copied.lsn),
    };
    if let Some(why) = &copied.failed {
        let since = copied.failed_since_ms.map_or_else(String::new, |since| format!(" for {}", words::span(now.saturating_sub(since))));
        text.push_str(&format!("; fails{since}: {why}"));
    }
    text
}

fn quota_json(taken: &QuotaUse) -> Value {
    let QuotaUse { limits, used, used_by_tenant, held } = taken;
    json!({
        "limit": limits.store,
        "used": used,
        "tenant": limits.tenant.as_ref().map(|tenant| json!({
            "name": tenant,
            "limit": limits.tenant_limit,
            "used": used_by_tenant,
        })),
        "held": held.iter().map(|held| json!({
            "process": held.process,
            "tenant": Some(&held.tenant).filter(|tenant| !tenant.is_empty()),
            "database": Some(&held.job).filter(|job| !job.is_empty()),
            "what": held.what,
            "bytes": held.bytes,
        })).collect::<Vec<_>>(),
    })
}

fn quota_line(taken: &QuotaUse) -> String {
    let of = |limit: Option<u64>| limit.map_or_else(|| "no bound".to_owned(), words::bytes);
    let all = format!("{} of {} staged and copied", words::bytes(taken.used), of(taken.limits.store));
    match &taken.limits.tenant {
        None => all,
        Some(tenant) => {
            format!("{all}; tenant {tenant}: {} of {}", words::bytes(taken.used_by_tenant), of(taken.limits.tenant_limit))
        }
    }
}

/// What a month's requests come to so far, and by its end.
struct Bill {
    now: u64,
    /// Where enough was counted to say.
    by_its_end: Option<u64>,
}

fn bill(told: &Spendings, settings: &Settings, now_ms: u64) -> Bill {
    let month = (told.month.from_ms, told.month.until_ms);
    let foreseen = |count: u64| Budget::since(0, count, told.since_ms, now_ms, month).foreseen();
    let prices = settings.prices.value;
    let by_its_end = foreseen(told.spent.writes).zip(foreseen(told.spent.reads));
    Bill {
        now: prices.of(told.spent.writes, told.spent.reads),
        by_its_end: by_its_end.map(|(writes, reads)| prices.of(writes, reads)),
    }
}

fn spent_json(told: &Spendings, settings: &Settings, now_ms: u64) -> Value {
    let bill = bill(told, settings, now_ms);
    let asked = settings.sync_interval_ms.value;
    json!({
        "month": told.month.to_string(),
        "since": moment(told.since_ms),
        "writes": told.spent.writes,
        "reads": told.spent.reads,
        "bytes_up": told.spent.bytes_up,
        "bytes_down": told.spent.bytes_down,
        "prices": settings.prices.value.to_string(),
        "bill": Money(bill.now).to_string(),
        "bill_by_end_of_month": bill.by_its_end.map(|bill| Money(bill).to_string()),
        "budget": budget(settings, told, now_ms).map(|budget| json!({
            "writes": budget.a_month,
            "ahead": budget.is_ahead(),
            "interval_ms": asked.map(|asked| budget.interval_ms(asked)),
        })),
    })
}

fn spent_text(told: &Spendings, settings: &Settings, now_ms: u64) -> String {
    let Bill { now, by_its_end } = bill(told, settings, now_ms);
    let spent = &told.spent;
    let mut text = format!(
        "{} and {} in {}, about {} at {} a million",
        words::some(spent.writes, "write"),
        words::some(spent.reads, "read"),
        told.month,
        Money(now),
        settings.prices.value
    );
    if let Some(bill) = by_its_end {
        text.push_str(&format!("; {} by the end of the month, if it goes on so", Money(bill)));
    }
    if let Some(budget) = budget(settings, told, now_ms) {
        let of = words::count(budget.a_month);
        text.push_str(&match (budget.is_ahead(), settings.sync_interval_ms.value) {
            (true, Some(asked)) => {
                format!("; ahead of the budget of {of}: commits travel every {}", words::span(budget.interval_ms(asked)))
            }
            (true, None) => format!("; ahead of the budget of {of}"),
            (false, _) => format!("; within the budget of {of}"),
        });
    }
    text
}

fn proof_json(upkeep: &Upkeep) -> Value {
    json!({
        "proved": upkeep.proved.as_ref().map(|proved| json!({
            "at": moment(proved.at_ms),
            "position": proved.position,
            "took_ms": proved.took_ms,
            "bytes": proved.bytes,
            "probe": proved.probe,
            "answer": proved.answer,
        })),
        "drilled": upkeep.drill.as_ref().map(|drill| json!({ "at": moment(drill.at_ms), "skipped": drill.skipped })),
        "verified": upkeep.verify.as_ref().map(|verify| json!({
            "at": moment(verify.at_ms),
            "began": moment(verify.began_ms),
            "whole": verify.whole_ms.map(moment),
            "is_whole": verify.cursor.is_none(),
            "blobs": verify.blobs,
            "bytes": verify.bytes,
            "failed": verify.failed,
        })),
        "problems": upkeep.alarms().collect::<Vec<_>>(),
    })
}

/// What was pruned, verified and proved, as far as it ever was.
fn upkeep_lines(upkeep: &Upkeep, now: u64) -> Vec<(&'static str, String)> {
    let ago = |ms: u64| format!("{} ago", words::span(now.saturating_sub(ms)));
    let mut lines = Vec::new();
    if let Some(proved) = &upkeep.proved {
        let answer = match (&proved.probe, &proved.answer) {
            (Some(probe), Some(answer)) => format!("; {probe}: {}", answer.replace('\n', ", ")),
            _ => String::new(),
        };
        let took = proved.took_ms as f64 / 1000.0;
        lines.push(("proved", format!("{}, up to {}: restored in {took:.1} s{answer}", ago(proved.at_ms), proved.position)));
    }
    if let Some(verify) = &upkeep.verify {
        let how_far = match (verify.whole_ms, &verify.cursor) {
            (Some(whole), None) => format!("all of it, {}", ago(whole)),
            (None, None) => format!("all of it, {}, with problems", ago(verify.at_ms)),
            (whole, Some(_)) => {
                let whole = whole.map_or_else(|| "never before".to_owned(), |whole| format!("before that all of it, {}", ago(whole)));
                format!("{} since {}; {whole}", words::bytes(verify.bytes), ago(verify.began_ms))
            }
        };
        let failed = verify.failed.as_ref().map_or_else(String::new, |why| format!("; the last part could not be read: {why}"));
        lines.push(("verified", format!("{how_far}{failed}")));
    }
    if let Some(skipped) = upkeep.drill.as_ref().and_then(|drill| drill.skipped.as_ref()) {
        lines.push(("no drill", skipped.clone()));
    }
    if let Some(prune) = &upkeep.prune {
        let objects = words::some(prune.objects, "object");
        let mut text = format!("{}: {objects}, {}", ago(prune.at_ms), words::bytes(prune.bytes));
        if prune.marked_objects > 0 {
            let left = words::some(prune.marked_objects, "object");
            text.push_str(&format!("; {left} may go and were not deleted, {}", words::bytes(prune.marked_bytes)));
        }
        if prune.denied.is_some() {
            text.push_str(" (the credentials may not delete)");
        }
        if let Some(why) = &prune.failed {
            text.push_str(&format!("; the last one failed: {why}"));
        }
        lines.push(("pruned", text));
    }
    lines.extend(upkeep.alarms().map(|problem| ("NOT SOUND", problem.to_owned())));
    lines
}

fn term_json(term: &Term) -> Value {
    json!({
        "epoch": term.epoch.0,
        "owner": term.owner.as_ref().map(|owner| owner.label.clone()),
        "began": term.began_ms.map(moment),
        "ended": term.ended_ms.map(moment),
        "how": term.end.word(),
        "taken_over_by": if let End::TakenOver(by) = &term.end { Some(by) } else { None },
        "last_lsn": term.last.0,
    })
}

fn term_row(term: &Term) -> Vec<String> {
    let moment = |ms: Option<u64>, none: &str| ms.map_or_else(|| none.to_owned(), words::time);
    let how = match &term.end {
        End::TakenOver(by) => format!("taken over by {by}"),
        end => end.word().to_owned(),
    };
    vec![
        term.epoch.to_string(),
        term.owner.as_ref().map_or_else(|| "(pruned)".to_owned(), |owner| owner.label.clone()),
        moment(term.began_ms, "(pruned)"),
        moment(term.ended_ms, "-"),
        how,
        term.last.to_string(),
    ]
}

fn journal(mode: JournalMode) -> &'static str {
    match mode {
        JournalMode::Rollback => "rollback",
        JournalMode::Wal => "wal",
    }
}

/// What whoever has the database open knows of it, and where it is not all here.
fn live(place: &Place) -> anyhow::Result<(Option<Peek>, Option<PeekSparse>)> {
    let Some((database, root)) = place.database.as_ref().zip(place.store_root.as_ref()) else { return Ok((None, None)) };
    let failed = EngineError::from;
    Ok((peek(root, database).map_err(failed)?, peek_sparse(root, database).map_err(failed)?))
}

/// What came since the last checkpoint, as far as the VFS has seen it.
fn since(live: &Peek) -> String {
    let Peek { commits_since, bytes_changed, fenced, .. } = live;
    let commits = words::some(*commits_since, "commit");
    match (fenced, bytes_changed) {
        (Some((epoch, owner)), _) if owner == NOBODY && *commits_since == 0 => {
            format!("nothing: released here (epoch {epoch}), and read-only until it is claimed anew")
        }
        (Some((epoch, owner)), _) if owner == NOBODY => format!("{commits} kept here after the release (epoch {epoch})"),
        (Some((epoch, owner)), _) => format!("{commits} kept here: {owner} took over (epoch {epoch})"),
        (None, None) => "not known: the next checkpoint compares all pages".to_owned(),
        (None, Some(0)) => "nothing: the object store has everything".to_owned(),
        // A backfill writes pages that were published out of the WAL: they are looked at again, and found unchanged.
        (None, Some(bytes)) if *commits_since == 0 => {
            format!("no commit was counted; {} came out of the WAL and are looked at again", words::bytes(*bytes))
        }
        (None, Some(bytes)) => format!("{commits}, {} to look at", words::bytes(*bytes)),
    }
}

/// What is owed of merging, and how many bytes changed since the newest checkpoint, as far as this store knows.
fn owed(place: &Place) -> anyhow::Result<Option<(Debt, u64)>> {
    let Some((found, manifest)) = place.found.as_ref().zip(place.manifest()?) else { return Ok(None) };
    let row = manifest.volume(&place.volume.value).map_err(EngineError::from)?;
    let Some(row) = row.filter(|row| row.meta.id == found.binding.id) else { return Ok(None) };
    Ok(Some((debt(&*manifest, &row)?, dirty_bytes(&*manifest, &row)?)))
}

/// In words. `None` where nothing is owed.
fn debt_line(debt: &Debt) -> Option<String> {
    let text = format!(
        "deltas of {}, {}, wait to be merged; up to {} in one chunk",
        words::some(debt.chunks, "chunk"),
        words::bytes(debt.bytes),
        words::count(debt.depth)
    );
    match debt.stretch() {
        1 => (debt.chunks > 0).then_some(text),
        times => Some(format!("{text}: checkpoints are put off, {times} times longer than usual (littoral coalesce FILE merges now)")),
    }
}

/// How this machine's database stands to what the remote holds. Value of `here` in the document.
fn here(place: &Place, tail: &TailRow) -> anyhow::Result<Option<Here>> {
    let Some(database) = &place.database else { return Ok(None) };
    let Some((store, found)) = place.store.as_ref().zip(place.found.as_ref()) else {
        let sentence = format!("{} is not bound to it", database.display());
        return Ok(Some(Here { word: "not-bound", sentence, tail: None }));
    };
    let row = place.manifest()?.map(|manifest| manifest.volume(&place.volume.value)).transpose().map_err(EngineError::from)?;
    let row = row.flatten().filter(|row| row.meta.id == found.binding.id);
    let ours = tail.owner.as_ref().is_none_or(|owner| owner.store == store.id());
    let (word, sentence) = match &row {
        None if ours => ("rebuildable", "bound; the local manifest is gone and is rebuilt by the next checkpoint".to_owned()),
        Some(row) if row.fenced.is_some() || !ours => {
            ("superseded", format!("another writer took over; --takeover={} takes it back", tail.epoch))
        }
        Some(row) if row.tail.seq < tail.seq => ("behind", format!("the remote is ahead (record {} here)", row.tail.seq)),
        Some(row) if row.tail.seq > tail.seq => ("ahead", format!("the remote lost records (record {} here)", row.tail.seq)),
        Some(row) if row.tail.hash != tail.hash => ("diverged", "record hashes differ".to_owned()),
        Some(_) if tail.owner.is_none() => ("released", "the next checkpoint claims it again".to_owned()),
        Some(_) => ("in-step", "this machine writes it, and knows every record".to_owned()),
        None => ("superseded", format!("another writer took over; --takeover={} takes it back", tail.epoch)),
    };
    Ok(Some(Here { word, sentence, tail: row.map(|row| row.tail) }))
}
