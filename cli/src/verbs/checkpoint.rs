//! `littoral checkpoint FILE`: what changed goes to the remote, as one record.

use super::shown::Meter;
use crate::door::Door;
use crate::screen::Told;
use crate::sqlite::{BUSY_TIMEOUT, SqliteSource};
use crate::words;
use littoral_engine::exec::checkpoint::{Checkpointed, Options, Planned};
use littoral_engine::exec::coalesce::{Coalesced, coalesce};
use littoral_engine::exec::snapshot::{Written, snapshot_if_due};
use littoral_engine::exec;
use littoral_engine::open::{Place, Totals};
use littoral_engine::preview::preview;
use littoral_engine::settings::Settings;
use littoral_engine::{Components, EngineError, Session, open, open_for_writing};
use littoral_ports::SourceError;
use littoral_types::{ChunkId, Position};
use serde_json::{Value, json};
use std::ffi::OsString;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database file
    pub(super) file: OsString,
    /// Only show the plan: nothing is changed, here or there
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Run SQLite's quick_check first (by default only when the volume is new to this database)
    #[arg(long, conflicts_with = "no_check")]
    pub(super) check: bool,
    /// Publish without a check even when the volume is new
    #[arg(long)]
    pub(super) no_check: bool,
    /// Leave deltas as they are; `littoral coalesce` merges them later
    #[arg(long)]
    pub(super) no_coalesce: bool,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let file = door.file(&args.file)?;
    let settings = door.settings(Some(&file))?;
    let mut source = SqliteSource::open(&file, BUSY_TIMEOUT)?;
    let place = Place::of_database(&file, &settings)?;
    let components = door.components(&settings)?;
    // A damaged database is found before anything is made for it, here or there.
    if args.check || (place.found.is_none() && !args.no_check) {
        checked(&mut source, args.check, door)?;
    }
    if args.dry_run {
        return dry_run(&place, &settings, &components, &mut source).await;
    }
    let (stores, remote) = open::stores(&place, &settings, &components)?;
    let mut meter = Meter::new(remote);
    let target = place.target(&settings)?;
    // Held whole until the end: the store's lock is in it.
    let mut session = Box::pin(open_for_writing(&stores, &components, &target)).await?;
    let Session { writer, scratch, finished_intent, .. } = &mut session;
    let opening = meter.step();
    let options = Options { compression: settings.compression.value, ..Options::default() };
    let done = Box::pin(exec::checkpoint::checkpoint(writer, scratch, &mut source, &options)).await?;
    let tail = &writer.row().tail;
    let stands = Position { epoch: tail.epoch, lsn: tail.lsn };
    let checkpoint = meter.step();

    // From here on the checkpoint is published, and what fails is done by the next one.
    let snapshot = later(door, "manifest snapshot", snapshot_if_due(writer, Some(&mut source)).await)?.flatten();
    let snapshotted = meter.step();
    // A reader's transaction keeps a WAL from starting over, and in rollback mode writers from committing.
    let changed_since = source.end().unwrap_or(true);
    let chunks: Vec<ChunkId> =
        done.iter().flat_map(|done| &done.plan.chunks).map(|chunk| chunk.chunk).collect();
    let coalesced = match args.no_coalesce || done.is_none() {
        true => None,
        false => {
            let work = Box::pin(coalesce(writer, scratch, Some(&chunks), settings.compression.value));
            later(door, "coalescing", work.await)?.filter(|done| done.records > 0)
        }
    };
    let coalescing = meter.step();
    let steps = Steps { opening, checkpoint, snapshotted, coalescing };
    let told = Report {
        place: &place,
        finished_intent: *finished_intent,
        stands,
        done,
        snapshot,
        coalesced,
        steps,
        total: meter.all(),
        changed_since,
    };
    Ok(Told::done(told.json(), told.text()))
}

/// SQLite's own opinion. Where it has none, because only the application could check its schema, that is no objection.
fn checked(source: &mut SqliteSource, asked_for: bool, door: &Door) -> anyhow::Result<()> {
    match source.check() {
        Err(SourceError::Failed(why)) if !asked_for => {
            door.screen.warn(&format!("not checked: {why}"));
            Ok(())
        }
        checked => Ok(checked?),
    }
}

/// Work that follows a checkpoint: when it fails the checkpoint stays good, and the next one does it.
fn later<T>(door: &Door, what: &str, done: Result<T, EngineError>) -> anyhow::Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.is_crash() => Err(error.into()),
        Err(error) => {
            door.screen.warn(&format!(
                "the checkpoint is published; the {what} that was due after it failed, and is tried again after the next one: \
                 {error}"
            ));
            Ok(None)
        }
    }
}

async fn dry_run(
    place: &Place,
    settings: &Settings,
    components: &Components,
    source: &mut SqliteSource,
) -> anyhow::Result<Told> {
    let (existing, remote) = place.existing(settings, components)?;
    let target = place.target(settings)?;
    let found = preview(&existing, components, &target).await?;
    let policy = Options::default().policy;
    let planned = exec::checkpoint::planned(&*found.manifest, &found.row, source, &policy, &*components.progress)?;
    let asked = remote.map(|remote| remote.totals()).unwrap_or_default();
    let Planned { difference, plan } = planned;
    let chunks: Vec<Value> = plan.iter().flat_map(|plan| &plan.chunks).map(chunk_json).collect();
    let json = json!({
        "verb": "checkpoint",
        "dry_run": true,
        "volume": place.url(),
        "new_volume": found.is_new,
        "finishes_interrupted": found.unfinished,
        "pages_compared": difference.looked_at,
        "pages_changed": plan.as_ref().map_or(0, |plan| plan.changed_pages()),
        "chunks": chunks,
        "chunks_unchanged": plan.as_ref().map(|plan| plan.unchanged),
        "estimate": plan.as_ref().map(|plan| json!({ "bytes": plan.estimate.bytes, "puts": plan.estimate.puts })),
        "cost": words::cost_json(&asked),
    });
    let mut text = match (found.is_new, found.unfinished) {
        (true, _) => format!("{}: a new volume (its claim and a test of conditional PUT come on top)\n", place.url()),
        (false, true) => format!("{}: an interrupted publication would be finished first\n", place.url()),
        (false, false) => format!("{} stands at {}.{}\n", place.url(), found.row.tail.epoch, found.row.tail.lsn),
    };
    match &plan {
        None => text.push_str("nothing changed: nothing would be written\n"),
        Some(plan) => {
            let rows: Vec<Vec<String>> = plan
                .chunks
                .iter()
                .map(|chunk| {
                    let told = chunk.action.to_string();
                    let (action, reason) = told.split_once(": ").unwrap_or((&told, ""));
                    vec![
                        chunk.chunk.to_string(),
                        format!("{}+{}", chunk.span.first, words::count(chunk.span.count.0)),
                        words::count(chunk.changed),
                        action.to_owned(),
                        reason.to_owned(),
                        words::bytes(chunk.bytes),
                    ]
                })
                .collect();
            text.push_str(&words::table(&["chunk", "pages", "changed", "action", "reason", "about"], &rows));
            text.push_str(&format!(
                "{} unchanged; about {} in {}\n",
                words::some(plan.unchanged, "chunk"),
                words::bytes(plan.estimate.bytes),
                words::some(plan.estimate.puts, "PUT")
            ));
        }
    }
    text.push_str("dry run: nothing was written\n");
    Ok(Told::done(json, text))
}

fn chunk_json(chunk: &littoral_engine::ChunkPlan) -> Value {
    let told = chunk.action.to_string();
    json!({
        "chunk": chunk.chunk.0,
        "first_page": chunk.span.first.get(),
        "pages": chunk.span.count.0,
        "changed": chunk.changed,
        "action": chunk.action.word(),
        "reason": told.split_once(": ").map(|(_, reason)| reason),
        "bytes": chunk.bytes,
    })
}

struct Steps {
    opening: Totals,
    checkpoint: Totals,
    snapshotted: Totals,
    coalescing: Totals,
}

struct Report<'a> {
    place: &'a Place,
    finished_intent: bool,
    stands: Position,
    done: Option<Checkpointed>,
    snapshot: Option<Written>,
    coalesced: Option<Coalesced>,
    steps: Steps,
    total: Totals,
    changed_since: bool,
}

impl Report<'_> {
    fn json(&self) -> Value {
        json!({
            "verb": "checkpoint",
            "dry_run": false,
            "volume": self.place.url(),
            "position": self.stands.to_string(),
            "changed": self.done.is_some(),
            "finished_interrupted": self.finished_intent,
            "checkpoint": self.done.as_ref().map(|done| json!({
                "position": done.position.to_string(),
                "record": done.seq.0,
                "generation": done.generation.0,
                "pages_changed": done.plan.changed_pages(),
                "chunks": done.plan.chunks.iter().map(chunk_json).collect::<Vec<_>>(),
                "bytes": done.bytes,
                "blobs": done.blobs,
                "blobs_resumed": done.resumed,
            })),
            "snapshot": self.snapshot.map(|snapshot| json!({
                "record": snapshot.seq.0,
                "shards": snapshot.shards,
                "rows": snapshot.rows,
                "bytes": snapshot.bytes,
            })),
            "coalesced": self.coalesced.map(|done| json!({
                "chunks": done.chunks,
                "deltas": done.deltas,
                "bytes": done.bytes,
                "records": done.records,
            })),
            "changed_since": self.changed_since,
            "cost": {
                "open": words::cost_json(&self.steps.opening),
                "checkpoint": words::cost_json(&self.steps.checkpoint),
                "snapshot": words::cost_json(&self.steps.snapshotted),
                "coalesce": words::cost_json(&self.steps.coalescing),
                "total": words::cost_json(&self.total),
            },
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if self.finished_intent {
            text.push_str("an interrupted publication was finished first\n");
        }
        match &self.done {
            None => text.push_str(&format!("{}: nothing changed since {}\n", self.place.url(), self.stands)),
            Some(done) => {
                let count = |word: &str| done.plan.chunks.iter().filter(|chunk| chunk.action.word() == word).count() as u64;
                let kinds: Vec<String> = ["rewrite", "delta", "drop"]
                    .into_iter()
                    .filter(|word| count(word) > 0)
                    .map(|word| words::some(count(word), word))
                    .collect();
                text.push_str(&format!(
                    "{} is at {} (record {})\n  {} changed: {}; {} in {}{}\n",
                    self.place.url(),
                    done.position,
                    done.seq,
                    words::some(done.plan.changed_pages(), "page"),
                    if kinds.is_empty() { "no chunk touched".to_owned() } else { kinds.join(", ") },
                    words::bytes(done.bytes),
                    words::some(done.blobs as u64, "blob"),
                    match done.resumed {
                        0 => String::new(),
                        resumed => format!(", {resumed} of them from an interrupted attempt"),
                    },
                ));
            }
        }
        let mut step = |name: &str, totals: &Totals, what: String| {
            if totals.all().requests > 0 || !what.is_empty() {
                text.push_str(&format!("  {name:<11}{}{what}\n", words::cost(totals)));
            }
        };
        step("open", &self.steps.opening, String::new());
        step("checkpoint", &self.steps.checkpoint, String::new());
        let rows = |snapshot: Written| format!(": manifest snapshot, {}", words::some(snapshot.rows as u64, "row"));
        step("snapshot", &self.steps.snapshotted, self.snapshot.map(rows).unwrap_or_default());
        let merged = |done: Coalesced| {
            let deltas = words::some(done.deltas as u64, "delta");
            format!(": {deltas} of {} merged", words::some(done.chunks as u64, "chunk"))
        };
        step("coalesce", &self.steps.coalescing, self.coalesced.map(merged).unwrap_or_default());
        text
    }
}
