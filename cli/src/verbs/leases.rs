//! `littoral leases list|release|audit FILE`: who works on which chunks, and what was taken away from whom.

use super::shown::moment;
use crate::door::Door;
use crate::exit::{Exit, Fault};
use crate::screen::Told;
use crate::words;
use littoral_engine::EngineError;
use littoral_engine::leases::{Leases, Standing};
use littoral_engine::open::Place;
use littoral_types::limits::TAKEN_AWAY_MAX;
use littoral_types::{ChunkId, Lease, TakenAway, VolumeId};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// All leases of the store of a database: who does what to which chunks, and since when
    List {
        /// The database file
        file: OsString,
    },
    /// Take the leases on a chunk of the database from whoever holds them: nothing of what he does under them is published
    Release {
        /// The database file
        file: OsString,
        /// The chunk's number, or `all`
        chunk: String,
        /// Also from one who lives and has time left
        #[arg(long)]
        force: bool,
        /// Why, for those who read the audit
        #[arg(long, value_name = "TEXT", required_if_eq("force", "true"))]
        reason: Option<String>,
    },
    /// Which leases were taken away: when, by whom, why, and what was held
    Audit {
        /// The database file
        file: OsString,
    },
}

impl Args {
    /// All leases of the store of a database.
    pub(crate) fn list(file: &Path) -> Self {
        Self { what: What::List { file: file.into() } }
    }

    /// Takes those on a chunk away.
    pub(crate) fn release(file: &Path, chunk: String, force: bool, reason: Option<String>) -> Self {
        Self { what: What::Release { file: file.into(), chunk, force, reason } }
    }
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    match args.what {
        What::List { file } => list(&Store::of(door, &file)?),
        What::Release { file, chunk, force, reason } => {
            let chunk = match chunk.as_str() {
                "all" => None,
                number => Some(ChunkId(number.parse().map_err(|_| {
                    let text = format!("{number:?} is no chunk: give its number, or all");
                    Fault::usage(text, "littoral leases list FILE shows which chunks are held")
                })?)),
            };
            release(&Store::of(door, &file)?, chunk, force, reason.as_deref())
        }
        What::Audit { file } => audit(&Store::of(door, &file)?),
    }
}

/// A database's store.
struct Store {
    place: Place,
    leases: Option<Leases>,
}

impl Store {
    fn of(door: &Door, file: &OsString) -> anyhow::Result<Self> {
        let file = door.file_or_log(file)?;
        let settings = door.settings(Some(&file))?;
        let place = Place::of_database(&file, &settings)?;
        let leases = Leases::of(&place, &door.components(&settings)?)?;
        Ok(Self { place, leases })
    }

    /// What the volumes of the store are called.
    fn names(&self) -> anyhow::Result<BTreeMap<VolumeId, String>> {
        let bindings = self.place.store.as_ref().map(|store| store.bindings()).transpose().map_err(EngineError::from)?;
        Ok(bindings.unwrap_or_default().into_iter().map(|bound| (bound.id, bound.volume.to_string())).collect())
    }

    fn held(&self) -> anyhow::Result<Vec<(Lease, Standing)>> {
        Ok(self.leases.as_ref().map(Leases::all).transpose()?.unwrap_or_default())
    }
}

fn list(store: &Store) -> anyhow::Result<Told> {
    let (held, names) = (store.held()?, store.names()?);
    let json: Vec<Value> = held.iter().map(|(lease, standing)| lease_json(lease, Some(*standing), &names)).collect();
    let rows: Vec<Vec<String>> = held
        .iter()
        .map(|(lease, standing)| {
            let mut row = row(lease, &names);
            row.push(standing.word().to_owned());
            row
        })
        .collect();
    let text = match rows.is_empty() {
        true => "nobody is at work on any chunk\n".to_owned(),
        false => words::table(&["lease", "volume", "work", "chunks", "generation", "process", "since", "stands"], &rows),
    };
    Ok(Told::done(json!({ "verb": "leases", "leases": json }), text))
}

fn release(store: &Store, chunk: Option<ChunkId>, force: bool, reason: Option<&str>) -> anyhow::Result<Told> {
    let names = store.names()?;
    let what = chunk.map_or_else(|| "any chunk".to_owned(), |chunk| format!("chunk {}", chunk.0));
    let none = || {
        let text = format!("{}: nobody has {what}", store.place.url());
        let way_out = Some("littoral leases list FILE shows which chunks are held".to_owned());
        Fault { exit: Exit::Nothing, message: text, way_out }
    };
    let volume = store.place.found.as_ref().map(|found| found.binding.id).ok_or_else(none)?;
    let leases = store.leases.as_ref().ok_or_else(none)?;
    let covers = |(lease, _): &(Lease, Standing)| {
        lease.wish.volume == volume && chunk.is_none_or(|chunk| lease.covers(chunk))
    };
    let found: Vec<(Lease, Standing)> = store.held()?.into_iter().filter(covers).collect();
    if found.is_empty() {
        return Err(none().into());
    }
    if let Some((lease, _)) = found.iter().find(|(_, standing)| *standing == Standing::Held && !force) {
        let text = format!(
            "{}: process {} is at work on {what} ({}, lease {}). Nothing was taken away",
            store.place.url(),
            lease.wish.process,
            lease.wish.work,
            lease.token
        );
        let way_out = Some("wait for it, or take it away: --force --reason TEXT".to_owned());
        return Err(Fault { exit: Exit::Refused, message: text, way_out }.into());
    }
    let mut released = Vec::new();
    for (lease, standing) in found {
        let why = reason.unwrap_or(match standing {
            Standing::Held | Standing::RunOut => "its time had run out",
            Standing::Dead => "its process had ended",
        });
        released.extend(leases.take_away(&lease, why)?);
    }
    let json: Vec<Value> = released.iter().map(|lease| lease_json(lease, None, &names)).collect();
    let line = |lease: &Lease| {
        format!(
            "lease {} on chunks {} was taken from process {}: nothing of its {} is published\n",
            lease.token,
            lease.chunks(),
            lease.wish.process,
            lease.wish.work
        )
    };
    let text = match released.is_empty() {
        true => "it was over by then: nothing was taken away\n".to_owned(),
        false => released.iter().map(line).collect(),
    };
    Ok(Told::done(json!({ "verb": "leases", "released": json }), text))
}

fn audit(store: &Store) -> anyhow::Result<Told> {
    let names = store.names()?;
    let most = usize::try_from(TAKEN_AWAY_MAX).unwrap_or(usize::MAX);
    let taken = store.leases.as_ref().map(|leases| leases.taken_away(most)).transpose()?.unwrap_or_default();
    let json: Vec<Value> = taken.iter().map(|taken| taken_json(taken, &names)).collect();
    let rows: Vec<Vec<String>> = taken
        .iter()
        .map(|taken| {
            let mut row = row(&taken.lease, &names);
            row.extend([words::time(taken.at_ms), taken.by.clone(), taken.why.clone()]);
            row
        })
        .collect();
    let heads = ["lease", "volume", "work", "chunks", "generation", "process", "since", "taken away", "by", "why"];
    let text = match rows.is_empty() {
        true => "no lease was taken away\n".to_owned(),
        false => words::table(&heads, &rows),
    };
    Ok(Told::done(json!({ "verb": "leases", "taken_away": json }), text))
}

fn row(lease: &Lease, names: &BTreeMap<VolumeId, String>) -> Vec<String> {
    vec![
        lease.token.to_string(),
        name(lease, names),
        lease.wish.work.to_string(),
        lease.chunks(),
        lease.wish.generation.0.to_string(),
        lease.wish.process.to_string(),
        words::time(lease.wish.taken_ms),
    ]
}

fn name(lease: &Lease, names: &BTreeMap<VolumeId, String>) -> String {
    names.get(&lease.wish.volume).cloned().unwrap_or_else(|| lease.wish.volume.to_string())
}

fn lease_json(lease: &Lease, standing: Option<Standing>, names: &BTreeMap<VolumeId, String>) -> Value {
    let chunks = lease.wish.chunks.as_ref().map(|chunks| {
        chunks.runs().iter().map(|(first, last)| json!({ "first": first.0, "last": last.0 })).collect::<Vec<_>>()
    });
    json!({
        "lease": lease.token.0,
        "volume": name(lease, names),
        "work": lease.wish.work.word(),
        "chunks": chunks,
        "generation": lease.wish.generation.0,
        "process": lease.wish.process,
        "since": moment(lease.wish.taken_ms),
        "stands": standing.map(Standing::word),
    })
}

fn taken_json(taken: &TakenAway, names: &BTreeMap<VolumeId, String>) -> Value {
    json!({
        "held": lease_json(&taken.lease, None, names),
        "at": moment(taken.at_ms),
        "by": taken.by,
        "why": taken.why,
        "forced": taken.is_forced,
    })
}
