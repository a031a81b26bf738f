//! `littoral fork SRC DST`: a volume that begins as another one was, and shares its blobs.

use super::shown::Meter;
use crate::door::{Door, Target};
use crate::exit::Fault;
use crate::screen::Told;
use crate::words;
use littoral_engine::exec::fork::{ForkedLog, fork};
use littoral_engine::open::Place;
use littoral_types::{At, CountedLog, Moment, MomentError, VolumeName};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is forked: a volume's URL, or a database whose volume it is; with @ and a state at its end, as it was then
    #[arg(value_name = "URL|FILE[@AT]")]
    src: OsString,
    /// The new volume: a name beside the other one, or the URL that it will have, under the same remote
    #[arg(value_name = "NAME|URL")]
    dst: String,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let (src, said) = parted(&args.src);
    let said: Option<Moment> = said
        .map(str::parse)
        .transpose()
        .map_err(|why: MomentError| Fault::usage(why.to_string(), "say it as littoral restore --at takes it"))?;
    let (place, settings) = door.place(&src, None)?;
    let moment = match (said, settings.at.as_ref().map(|at| at.value.clone())) {
        (Some(_), Some(_)) => {
            return Err(Fault::usage("a state was named twice, by @ and by --at", "say it once").into());
        }
        (said, flag) => said.or(flag),
    };
    let name = name(&args.dst, &place)?;
    let components = door.components(&settings)?;
    let at = moment.map_or(At::Newest, |moment| moment.as_of(components.clock.wall_ms()));
    let (log, remote) = place.log(&settings, &components)?;
    let meter = Meter::new(remote);
    let done = Box::pin(fork(&log, &components, &at, &name)).await?;
    let remote = place.url().rsplit_once('/').map(|(remote, _)| remote.to_owned()).unwrap_or_default();
    let url = format!("{remote}/{name}");
    let (pages, size) = (done.figures.page_count, done.figures.page_size.map_or(0, |size| size.bytes()));
    let json = json!({
        "verb": "fork",
        "volume": url,
        "id": done.volume.id.to_string(),
        "position": done.position.to_string(),
        "parent": { "volume": place.url(), "position": done.parent.position.to_string(), "record": done.parent.seq.0 },
        "pages": pages.0,
        "bytes": pages.0 * size,
        "bytes_written": done.bytes,
        "logs": done.logs.iter().map(|log| log_json(&remote, log)).collect::<Vec<_>>(),
        "cost": words::cost_json(&meter.all()),
    });
    let logs: String = done.logs.iter().map(|log| log_text(&remote, log)).collect();
    let text = format!(
        "{url} begins as {} was at {} ({}, of which nothing was copied)\n{logs}  {}\n  open it with\n    \
         littoral shell {name} --remote={remote} --volume={name}\n",
        place.url(),
        done.parent.position,
        words::bytes(pages.0 * size),
        words::cost(&meter.all())
    );
    Ok(Told::done(json, text))
}

/// What became of a table's log, for machines.
fn log_json(remote: &str, (log, forked): &(CountedLog, ForkedLog)) -> Value {
    let (state, volume, position, bytes, why) = match forked {
        ForkedLog::Forked { volume, position, bytes } => {
            ("forked", Some(format!("{remote}/{volume}")), Some(position.to_string()), *bytes, None)
        }
        ForkedLog::Empty => ("empty", None, None, 0, None),
        ForkedLog::Missing(why) => ("missing", None, None, 0, Some(why)),
    };
    json!({
        "table": log.table,
        "state": state,
        "volume": volume,
        "position": position,
        "rows_up_to": log.last.0,
        "bytes_written": bytes,
        "why": why,
    })
}

/// The same for people.
fn log_text(remote: &str, (log, forked): &(CountedLog, ForkedLog)) -> String {
    let table = &log.table;
    match forked {
        ForkedLog::Forked { volume, .. } => {
            format!(
                "  its table {table} has its log at {remote}/{volume}, with rows up to LSN {}; nothing was copied\n",
                log.last
            )
        }
        ForkedLog::Empty => format!("  its table {table} has no rows yet, and no log\n"),
        ForkedLog::Missing(why) => {
            format!("  the log of its table {table} is not forked, and its rows are not there: {why}\n")
        }
    }
}

/// What is forked, and the state where one is named behind an @. No volume's name has one; a file's may.
fn parted(src: &OsStr) -> (OsString, Option<&str>) {
    let whole = || (src.to_owned(), None);
    let Some(text) = src.to_str() else { return whole() };
    let from = if matches!(Target::read(src), Target::Url(_)) { text.rfind('/').unwrap_or(0) } else { 0 };
    if from == 0 && Path::new(text).exists() {
        return whole();
    }
    match text.get(from..).and_then(|last| last.split_once('@')) {
        Some((name, at)) => (format!("{}{name}", text.get(..from).unwrap_or_default()).into(), Some(at)),
        None => whole(),
    }
}

/// What the new volume is called: its blobs lie where its parent's do.
fn name(dst: &str, src: &Place) -> anyhow::Result<VolumeName> {
    if !dst.contains("://") {
        let wrong =
            |error| Fault::usage(format!("a volume cannot be called {dst}: {error}"), "choose letters, digits, . _ -");
        return Ok(dst.parse().map_err(wrong)?);
    }
    let url = Place::of_url(dst)?.url();
    let parts =
        |url: &str| url.rsplit_once('/').map(|(remote, name)| (remote.to_owned(), name.to_owned())).unwrap_or_default();
    let ((remote, name), (of_src, _)) = (parts(&url), parts(&src.url()));
    if remote != of_src {
        let message = format!(
            "{url} lies under another remote than {}: a fork shares the blobs of what it is made from",
            src.url()
        );
        return Err(Fault::usage(
            message,
            "name it under the same remote; or copy: littoral restore, then littoral checkpoint with --remote",
        )
        .into());
    }
    Ok(name.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_from_a_name() {
        for (text, src, at) in [
            ("s3://b/p/app.db", "s3://b/p/app.db", None),
            ("s3://b/p/app.db@42", "s3://b/p/app.db", Some("42")),
            ("s3://b/p@q/app.db@1.42", "s3://b/p@q/app.db", Some("1.42")),
            ("s3://b/p@q/app.db", "s3://b/p@q/app.db", None),
            ("/no/such/app.db@before", "/no/such/app.db", Some("before")),
            ("/no/such/app.db", "/no/such/app.db", None),
        ] {
            assert_eq!(parted(OsStr::new(text)), (src.into(), at), "{text}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a@b.db");
        std::fs::write(&file, b"").unwrap();
        assert_eq!(parted(file.as_os_str()), (file.clone().into(), None), "a file that has one in its name");
    }
}
