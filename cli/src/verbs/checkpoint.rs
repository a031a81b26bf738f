//! `littoral checkpoint FILE`: what changed goes to the remote, as one record.

use crate::door::Door;
use crate::screen::Told;
use crate::sqlite::{BUSY_TIMEOUT, OpenDatabase, SqliteSource};
use crate::words;
use littoral_engine::exec;
use littoral_engine::exec::checkpoint::Planned;
use littoral_engine::exec::coordinator::Took;
use littoral_engine::exec::phases::Passed;
use littoral_engine::exec::coalesce::Coalesced;
use littoral_engine::exec::snapshot::Written;
use littoral_engine::live::{self, Done};
use littoral_engine::open::{Place, Totals};
use littoral_engine::preview::{Preview, preview};
use littoral_engine::settings::Settings;
use littoral_engine::{Components, open, volume};
use littoral_ports::{PageSource, SourceError};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database file
    pub(crate) file: OsString,
    /// Only show the plan: nothing is changed, here or there
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Run SQLite's quick_check first (by default only when the volume is new to this database)
    #[arg(long, conflicts_with = "no_check")]
    pub(crate) check: bool,
    /// Publish without a check even when the volume is new
    #[arg(long)]
    pub(crate) no_check: bool,
    /// Wait so many seconds for a transaction that keeps readers out, with --dry-run also for whoever is at work, then give up (30)
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait: Option<u64>,
    /// Leave deltas as they are; `littoral coalesce` merges them later
    #[arg(long)]
    pub(crate) no_coalesce: bool,
}

impl Args {
    /// Of a database, as where nothing else is said.
    pub(crate) fn of(file: &Path) -> Self {
        Self { file: file.into(), dry_run: false, check: false, no_check: false, wait: None, no_coalesce: false }
    }
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let file = door.file(&args.file)?;
    let settings = door.settings(Some(&file))?;
    let plain = SqliteSource::open(&file, BUSY_TIMEOUT);
    // What is no database to others may be one of which not everything is here.
    let plain = match plain {
        Err(SourceError::NotADatabase(_)) if open::is_sparse(&Place::of_database(&file, &settings)?) => None,
        // Whoever keeps readers out is waited for where that is told.
        Err(SourceError::Busy(_)) if looks_at_nothing(&args, &file, &settings)? => None,
        plain => Some(plain?),
    };
    let place = Place::of_database(&file, &settings)?;
    // What cannot be written is refused before anything is looked at.
    place.target(&settings)?;
    let components = door.components(&settings)?;
    if let Some(mut source) = plain {
        // A damaged database is found before anything is made for it, here or there.
        if args.check || (place.found.is_none() && !args.no_check) {
            checked(&mut source, args.check, door)?;
        }
        if args.dry_run {
            let (found, asked) = looked(&place, &settings, &components).await?;
            return dry_run(&place, &settings, &components, &found, &asked, &mut source).await;
        }
    }
    // What is wrong with the remote's address is said before anything is made.
    place.existing(&settings, &components)?;
    let database = match OpenDatabase::quietly(&file, door.said()) {
        Ok(database) => database,
        Err(error) => {
            // Where it is the volume that keeps it shut, this door has words of its own for the choices.
            looked(&place, &settings, &components).await?;
            return Err(error.into());
        }
    };
    let mut source = database.live()?;
    let wait_ms = args.wait.map(|seconds| seconds.saturating_mul(1000));
    if args.dry_run {
        // Marks are looked at, and put back: whoever else works here comes before, or waits.
        let _alone = volume::alone(&place, &components, wait_ms).await?;
        let (found, asked) = looked(&place, &settings, &components).await?;
        return dry_run(&place, &settings, &components, &found, &asked, &mut *source).await;
    }
    let options = live::Options { no_coalesce: args.no_coalesce, wait_ms, ..live::Options::default() };
    let done = Box::pin(live::checkpoint(&place, &settings, &components, &mut *source, options)).await?;
    for later in &done.later {
        door.screen.warn(&format!(
            "the checkpoint is published; what was due after it failed, and is tried again after the next one: {later}"
        ));
    }
    let told = Report { place: &place, changed_since: source.commits_left() > 0, done };
    Ok(Told::done(told.json(), told.text()))
}

/// Whether all that is to be done is a checkpoint of a database that has a volume.
fn looks_at_nothing(args: &Args, file: &Path, settings: &Settings) -> anyhow::Result<bool> {
    Ok(!args.check && !args.dry_run && Place::of_database(file, settings)?.found.is_some())
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

/// What opening it for writing would find, and what looking cost.
async fn looked(place: &Place, settings: &Settings, components: &Components) -> anyhow::Result<(Preview, Totals)> {
    let (existing, remote) = place.existing(settings, components)?;
    let found = preview(&existing, components, &place.target(settings)?).await?;
    Ok((found, remote.map(|remote| remote.totals()).unwrap_or_default()))
}

async fn dry_run(
    place: &Place,
    settings: &Settings,
    components: &Components,
    found: &Preview,
    asked: &Totals,
    source: &mut dyn PageSource,
) -> anyhow::Result<Told> {
    let policy = place.policy(settings)?;
    let planned = exec::checkpoint::planned(found.manifest.clone(), &found.row, source, &policy, components).await?;
    let Planned { difference, plan, phases, took } = planned;
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
        "phases": phases_json(&phases),
        "participants": participants_json(&took),
        "cost": words::cost_json(asked),
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

fn phases_json(phases: &[Passed]) -> Value {
    let phase = |passed: &Passed| {
        json!({ "phase": passed.phase.word(), "ms": passed.took_ms, "waited_for": passed.waited_for })
    };
    phases.iter().map(phase).collect()
}

fn participants_json(took: &[Took]) -> Value {
    let participant = |took: &Took| {
        json!({
            "participant": took.who.word(),
            "begin_ms": took.begin_ms,
            "prepare_ms": took.prepare_ms,
            "commit_ms": took.commit_ms,
            "waited_for": took.waited_for,
        })
    };
    took.iter().map(participant).collect()
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

struct Report<'a> {
    place: &'a Place,
    changed_since: bool,
    done: Done,
}

impl Report<'_> {
    fn json(&self) -> Value {
        json!({
            "verb": "checkpoint",
            "dry_run": false,
            "volume": self.place.url(),
            "position": self.done.position.to_string(),
            "changed": self.done.checkpoint.is_some(),
            "finished_interrupted": self.done.finished_intent,
            "checkpoint": self.done.checkpoint.as_ref().map(|done| json!({
                "position": done.position.to_string(),
                "record": done.seq.0,
                "generation": done.generation.0,
                "pages_changed": done.plan.changed_pages(),
                "chunks": done.plan.chunks.iter().map(chunk_json).collect::<Vec<_>>(),
                "bytes": done.bytes,
                "blobs": done.blobs,
                "blobs_resumed": done.resumed,
                "phases": phases_json(&done.phases),
                "participants": participants_json(&done.took),
            })),
            "snapshot": self.done.snapshot.map(|snapshot| json!({
                "record": snapshot.seq.0,
                "shards": snapshot.shards,
                "rows": snapshot.rows,
                "bytes": snapshot.bytes,
            })),
            "coalesced": self.done.coalesced.map(|done| json!({
                "chunks": done.chunks,
                "deltas": done.deltas,
                "bytes": done.bytes,
                "records": done.records,
            })),
            "changed_since": self.changed_since,
            "cost": {
                "open": words::cost_json(&self.done.cost.opening),
                "checkpoint": words::cost_json(&self.done.cost.checkpoint),
                "snapshot": words::cost_json(&self.done.cost.snapshot),
                "coalesce": words::cost_json(&self.done.cost.coalescing),
                "total": words::cost_json(&self.done.cost.total),
            },
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if self.done.finished_intent {
            text.push_str("an interrupted publication was finished first\n");
        }
        match &self.done.checkpoint {
            None => text.push_str(&format!("{}: nothing changed since {}\n", self.place.url(), self.done.position)),
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
        for passed in self.done.checkpoint.iter().flat_map(|done| &done.phases) {
            if let Some(who) = &passed.waited_for {
                text.push_str(&format!("  {} waited for {who}\n", passed.phase));
            }
        }
        let mut step = |name: &str, totals: &Totals, what: String| {
            if totals.all().requests > 0 || !what.is_empty() {
                text.push_str(&format!("  {name:<11}{}{what}\n", words::cost(totals)));
            }
        };
        step("open", &self.done.cost.opening, String::new());
        step("checkpoint", &self.done.cost.checkpoint, String::new());
        let rows = |snapshot: Written| format!(": manifest snapshot, {}", words::some(snapshot.rows as u64, "row"));
        step("snapshot", &self.done.cost.snapshot, self.done.snapshot.map(rows).unwrap_or_default());
        let merged = |done: Coalesced| {
            let deltas = words::some(done.deltas as u64, "delta");
            format!(": {deltas} of {} merged", words::some(done.chunks as u64, "chunk"))
        };
        step("coalesce", &self.done.cost.coalescing, self.done.coalesced.map(merged).unwrap_or_default());
        text
    }
}
