//! `littoral salvage FILE`: what is here and not in the volume, and how to keep it.

use super::checkpoint;
use crate::door::Door;
use crate::exit::{Exit, Fault};
use crate::screen::Told;
use crate::sqlite::{Answer, Cell, OpenDatabase};
use crate::words;
use littoral_engine::EngineError;
use littoral_engine::exec::salvage::{Kept, kept};
use littoral_engine::open::Place;
use littoral_engine::settings::Key;
use littoral_engine::tracker::peek::{Peek, peek};
use littoral_ports::Unit;
use littoral_types::{PageNo, VolumeName};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Pages that are read at once.
const PAGES_AT_ONCE: u64 = 512;
/// Pages that are shown one by one.
const SHOWN_MAX: usize = 10_000;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database file
    file: OsString,
    /// Only say what is here and not in the volume: what is done without any option
    #[arg(long)]
    list: bool,
    /// Write the database as it is here to a plain SQLite file
    #[arg(long, value_name = "OUT.db", conflicts_with = "list")]
    export: Option<PathBuf>,
    /// Publish the database as it is here as a new volume of this name, under the same remote; written to a plain file beside it first
    #[arg(long = "as", value_name = "NAME", conflicts_with = "list")]
    name: Option<VolumeName>,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let file = door.file(&args.file)?;
    if !file.exists() {
        return Err(Fault::usage(format!("{}: no such database here", file.display()), "salvage is for what is here").into());
    }
    let settings = door.settings(Some(&file))?;
    let place = Place::of_database(&file, &settings)?;
    let components = door.components(&settings)?;
    let not_bound = || EngineError::Refused(format!("{}: bound to no volume: all of it is here alone", file.display()));
    let found = place.found.as_ref().ok_or_else(not_bound)?;
    let database = OpenDatabase::quietly(&file, door.said())?;
    // Whoever else works here waits: marks are looked at, and put back.
    let publisher = place.store.as_ref().map(|store| store.lock_volume(&file)).transpose().map_err(EngineError::from)?;
    let manifest = place.manifest()?;
    let row = manifest.as_ref().map(|manifest| manifest.volume(&found.binding.volume)).transpose();
    let row = row.map_err(EngineError::from)?.flatten().filter(|row| row.meta.id == found.binding.id && row.tail.seen_ms > 0);
    let kept = match (&manifest, &row) {
        (Some(manifest), Some(row)) => {
            let (log, _) = place.log(&settings, &components)?;
            let mut source = database.live()?;
            Some(Box::pin(kept(&log, &components, &**manifest, row, &mut *source)).await?)
        }
        _ => None,
    };
    drop(publisher);
    let live = match &place.store_root {
        Some(root) => peek(root, place.database.as_deref().unwrap_or(&file)).map_err(EngineError::from)?,
        None => None,
    };
    let tables = kept.as_ref().and_then(|kept| tables(&database, &kept.pages));
    let out = match (&args.export, &args.name) {
        (Some(out), _) => Some(out.clone()),
        (None, Some(name)) => Some(beside(&file, name)),
        (None, None) => None,
    };
    if let Some(out) = &out {
        export(&database, out, &|pages, all| {
            if pages == 0 {
                components.progress.phase("writing", all, Unit::Pages);
            }
            components.progress.advance(pages);
        })?;
    }
    drop(database);
    let published = match (&args.name, &out) {
        (Some(name), Some(out)) => Some(publish(&place, name, out).await?),
        _ => None,
    };
    let json = json!({
        "verb": "salvage",
        "file": file,
        "volume": place.url(),
        "published": kept.as_ref().map(|kept| kept.position.to_string()),
        "commits": kept.as_ref().map(|kept| kept.commits),
        "pages_changed": kept.as_ref().map(|kept| kept.pages.len()),
        "pages": kept.as_ref().map(|kept| kept.pages.iter().take(SHOWN_MAX).map(|page| page.get()).collect::<Vec<_>>()),
        "certain": kept.as_ref().map(|kept| kept.unsure.is_none()),
        "tables": tables,
        "taken_over_by": fenced(live.as_ref()),
        "exported": out,
        "as": published.as_ref().map(|told| told["volume"].clone()),
    });
    Ok(Told::done(json, text(&file, &place, kept.as_ref(), tables.as_deref(), live.as_ref(), out.as_deref(), args.name.as_ref())))
}

fn fenced(live: Option<&Peek>) -> Option<String> {
    let (epoch, owner) = live?.fenced.clone()?;
    (!owner.is_empty()).then(|| format!("{owner} (epoch {epoch})"))
}

fn text(
    file: &Path,
    place: &Place,
    kept: Option<&Kept>,
    tables: Option<&[String]>,
    live: Option<&Peek>,
    out: Option<&Path>,
    name: Option<&VolumeName>,
) -> String {
    let (path, url) = (file.display(), place.url());
    let mut text = match kept {
        None => format!("{path}: nothing is known here of what was published of it (the local manifest is gone)\n"),
        Some(kept) if kept.pages.is_empty() && kept.commits == 0 && kept.size.0 == kept.size.1 => {
            format!("{path}: everything is in {url}, at {}\n", kept.position)
        }
        Some(Kept { position, commits, pages, unsure, size }) => {
            let mut text = format!("{path} has what {url} has not, since {position}\n");
            text.push_str(&format!("  commits   {}\n", words::some(*commits, "commit")));
            let at_most = if unsure.is_some() { "at most " } else { "" };
            text.push_str(&format!("  pages     {at_most}{}, of {} (then {})\n", words::some(pages.len() as u64, "page"), size.0, size.1));
            if let Some(tables) = tables.filter(|tables| !tables.is_empty()) {
                text.push_str(&format!("  in        {}\n", tables.join(", ")));
            }
            if let Some(why) = unsure {
                text.push_str(&format!("  not compared with the volume: {why}\n"));
            }
            text
        }
    };
    if let Some(by) = fenced(live) {
        text.push_str(&format!("  taken over by {by}: this machine publishes nothing any more\n"));
    }
    match (out, name) {
        (Some(out), Some(name)) => text.push_str(&format!("published as volume {name}, out of {}\n", out.display())),
        (Some(out), None) => text.push_str(&format!("written as a plain SQLite file: {}\n", out.display())),
        (None, _) => text.push_str(&format!(
            "to keep it: littoral salvage {path} --export OUT.db, or --as NAME for a volume of its own\nto go on with the volume: then \
             remove {path} and open it anew, from {url}\n"
        )),
    }
    text
}

/// Where the plain file goes that is published under another name.
fn beside(file: &Path, name: &VolumeName) -> PathBuf {
    let folder = file.parent().unwrap_or(Path::new(""));
    folder.join(if Path::new(name.as_str()).extension().is_some() { name.to_string() } else { format!("{name}.db") })
}

fn failed(message: String) -> anyhow::Error {
    Fault { exit: Exit::Failed, message, way_out: None }.into()
}

/// The tables and indexes that pages belong to, where this SQLite can tell. It reads every page for that: not where some would have to be
/// fetched.
fn tables(database: &OpenDatabase, pages: &[PageNo]) -> Option<Vec<String>> {
    if database.sparse().is_some() {
        return None;
    }
    let wanted: BTreeSet<i64> = pages.iter().filter_map(|page| i64::try_from(page.get()).ok()).collect();
    let mut names = BTreeSet::new();
    let mut look = |answer: Answer| {
        for row in answer.rows {
            if let [Cell::Text(name), Cell::Number(page)] = row.as_slice()
                && wanted.contains(page)
            {
                names.insert(name.clone());
            }
        }
    };
    database.run("SELECT name, pageno FROM dbstat", &mut look).ok()?;
    Some(names.into_iter().collect())
}

/// Writes the database as it is here, all of one commit. What is not here comes from where the file was made from.
fn export(database: &OpenDatabase, out: &Path, told: &dyn Fn(u64, u64)) -> anyhow::Result<()> {
    let cannot = |error: std::io::Error| failed(format!("{}: {error}", out.display()));
    let partial = out.with_extension("partial");
    if out.exists() {
        return Err(Fault::usage(format!("{} exists", out.display()), "choose another name: nothing is replaced").into());
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&partial).map_err(cannot)?;
    let written = database
        .run("BEGIN", &mut |_| {})
        .map_err(failed)
        .and_then(|()| pages(database, &mut file, told).map_err(|why| failed(format!("{}: {why}", out.display()))));
    let _ = database.run("ROLLBACK", &mut |_| {});
    let done = written.and_then(|()| {
        file.sync_all().and_then(|()| std::fs::rename(&partial, out)).map_err(cannot)?;
        let folder = out.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(cannot)
    });
    if done.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    done
}

fn pages(database: &OpenDatabase, file: &mut File, told: &dyn Fn(u64, u64)) -> Result<(), String> {
    let number = |sql: &str| {
        let mut found = None;
        database.run(sql, &mut |answer| {
            if let Some([Cell::Number(number)]) = answer.rows.first().map(Vec::as_slice) {
                found = u64::try_from(*number).ok();
            }
        })?;
        found.ok_or_else(|| format!("{sql} answered nothing"))
    };
    number("SELECT count(*) FROM sqlite_schema")?;
    let (all, size) = (number("PRAGMA page_count")?, number("PRAGMA page_size")?);
    told(0, all);
    let mut next = 1;
    while next <= all {
        let last = (next + PAGES_AT_ONCE - 1).min(all);
        let mut rows = Vec::new();
        let sql = format!("SELECT pgno, data FROM sqlite_dbpage WHERE pgno BETWEEN {next} AND {last} ORDER BY pgno");
        database.run(&sql, &mut |answer| rows = answer.rows)?;
        for (row, page) in rows.iter().zip(next..) {
            match row.as_slice() {
                [Cell::Number(number), Cell::Blob(image)] if *number == page as i64 && image.len() as u64 == size => {
                    file.write_all(image).map_err(|error| error.to_string())?;
                }
                _ => return Err(format!("page {page} cannot be read")),
            }
        }
        if rows.len() as u64 != last - next + 1 {
            return Err(format!("pages {next} to {last} cannot be read"));
        }
        told(last - next + 1, all);
        next = last + 1;
    }
    Ok(())
}

/// A first checkpoint of the plain file, under its own name beside the volume that was lost.
async fn publish(place: &Place, name: &VolumeName, out: &Path) -> anyhow::Result<Value> {
    let remote = place.url().rsplit_once('/').map(|(remote, _)| remote.to_owned()).unwrap_or_default();
    let door = Door::within(vec![(Key::Remote, remote.into()), (Key::Volume, name.as_str().into())]);
    let args = checkpoint::Args {
        file: out.as_os_str().to_owned(),
        dry_run: false,
        check: false,
        no_check: false,
        wait: None,
no_coalesce: false,
    };
    Ok(Box::pin(checkpoint::run(args, &door)).await?.json)
}
