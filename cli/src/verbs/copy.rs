//! `littoral copy FILE|URL [URL]`: what is published goes to other object stores, too.

use super::shown::moment;
use crate::door::Door;
use crate::errands::judged;
use crate::screen::Told;
use crate::words;
use littoral_engine::EngineError;
use littoral_engine::copies::{Copier, LogCopied, Outcome};
use littoral_engine::exec::replicate::Replicated;
use littoral_engine::jobs::{self, Noting};
use littoral_types::Task;
use serde_json::{Value, json};
use std::ffi::OsString;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume: a database whose volume it is, or a URL
    #[arg(value_name = "FILE|URL")]
    pub(crate) target: OsString,
    /// The other object store, without the volume's name [default: what copy= says]
    #[arg(value_name = "URL")]
    pub(crate) to: Option<String>,
}

/// Does it: copies what is missing at each place. One that cannot be reached keeps no other from it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let (place, settings) = door.place(&args.target, None)?;
    let components = door.components(&settings)?;
    let urls: Vec<String> = match &args.to {
        Some(url) => vec![url.trim_end_matches('/').to_owned()],
        None => settings.copies().to_vec(),
    };
    if urls.is_empty() {
        return Err(EngineError::Settings(
            "there is nowhere to copy to: name the place (littoral copy FILE s3://other/prefix), or say it for good (copy=URL)".to_owned(),
        )
        .into());
    }
    let (components, noting) = Noting::over(&components);
    // What a job says does not hold a place: whoever went on with it would copy to those that the settings name.
    let errand = match args.to.is_some() {
        true => None,
        false => Box::pin(jobs::begin_at(&place, &components, Task::Replicate, Some(noting))).await?,
    };
    let work = async {
        let outcomes = Box::pin(Copier::default().copy_to(&place, &settings, &components, &urls)).await?;
        told(&place.url(), outcomes)
    };
    let judge = |error: &anyhow::Error| judged(error);
    Box::pin(jobs::run(errand, judge, |told: &Told| Ok(told.text.trim_end().replace('\n', "; ")), work)).await
}

/// What was copied where; or, where a place failed, why, and how far the others are.
fn told(volume: &str, outcomes: Vec<Outcome>) -> anyhow::Result<Told> {
    let mut copies: Vec<Value> = Vec::new();
    let mut text = String::new();
    let mut failed: Option<(String, EngineError)> = None;
    for Outcome { url, did, logs } in outcomes {
        match did {
            Ok(Some(did)) => {
                text.push_str(&line(&url, &did));
                logs.iter().for_each(|log| text.push_str(&log_line(log)));
                let mut json = as_json(&url, &did);
                json["logs"] = logs.iter().map(|log| log_json(&url, log)).collect();
                copies.push(json);
            }
            Ok(None) => {
                text.push_str(&format!("{url}: another process copies there just now\n"));
                copies.push(json!({ "url": url, "busy": true }));
            }
            Err(error) if failed.is_none() => failed = Some((url, error)),
            Err(error) => text.push_str(&format!("{url}: failed: {error}\n")),
        }
    }
    match failed {
        None => Ok(Told::done(json!({ "verb": "copy", "volume": volume, "copies": copies }), text)),
        Some((url, error)) => {
            let others = if text.is_empty() { text } else { format!(" ({})", text.trim_end().replace('\n', "; ")) };
            let told = format!("{url}: {error}{others}");
            Err(anyhow::Error::from(error).context(told))
        }
    }
}

/// What went before: of a table.
fn log_line(log: &LogCopied) -> String {
    let (table, volume) = (&log.table, &log.volume);
    match &log.did {
        Some(did) => format!("  the log of table {table}: {}", line(volume.as_str(), did)),
        None => format!(
            "  the log of table {table} is not copied, and its rows are not there: the primary has no volume {volume}\n"
        ),
    }
}

fn log_json(url: &str, log: &LogCopied) -> Value {
    let mut json = log.did.as_ref().map_or_else(|| json!({ "missing": true }), |did| as_json(url, did));
    json["table"] = json!(log.table);
    json["volume"] = json!(format!("{url}/{}", log.volume));
    json
}

fn line(url: &str, did: &Replicated) -> String {
    let position = did.position.map(|position| position.to_string()).unwrap_or_default();
    let mut text = match (did.records, did.filled) {
        (0, None) => format!("{url}: holds everything, up to {position}"),
        (records, _) => format!(
            "{url}: up to {position}: {}, {}, {}",
            words::some(records, "record"),
            words::some(did.blobs, "blob"),
            words::bytes(did.bytes)
        ),
    };
    if did.fetched > 0 {
        text.push_str(&format!(", of which {} were read from the primary", words::bytes(did.fetched)));
    }
    if let Some(seq) = did.filled {
        text.push_str(&format!("; begun at record {seq}, the oldest that is there"));
    }
    if did.pruned.objects > 0 {
        text.push_str(&format!("; {} pruned there", words::some(did.pruned.objects, "object")));
    }
    if !did.names_taken.is_empty() {
        let names = did.names_taken.join(", ");
        text.push_str(&format!("; not copied, as the name stands for another state there: {names}"));
    }
    if let Some(why) = &did.pruned.held {
        text.push_str(&format!("; a prune waits there: {why}"));
    }
    text.push('\n');
    text
}

fn as_json(url: &str, did: &Replicated) -> Value {
    json!({
        "url": url,
        "position": did.position.map(|position| position.to_string()),
        "record": did.seq.0,
        "published": moment(did.time_ms),
        "records": did.records,
        "blobs": did.blobs,
        "bytes": did.bytes,
        "bytes_from_primary": did.fetched,
        "began_at_record": did.filled.map(|seq| seq.0),
        "pruned": did.pruned.objects,
        "prune_waits": did.pruned.held,
        "names_taken": did.names_taken,
    })
}
