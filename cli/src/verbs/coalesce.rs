//! `littoral coalesce FILE`: deltas into fewer, in all chunks.

use super::shown::{Opened, session};
use crate::door::Door;
use crate::screen::Told;
use crate::words;
use littoral_engine::Session;
use littoral_engine::exec::beside::Quietly;
use littoral_engine::exec::coalesce::coalesce_beside;
use serde_json::json;
use std::ffi::OsString;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database file
    file: OsString,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let Opened { place, settings, mut session, meter } = session(door, &args.file).await?;
    let Session { writer, scratch, .. } = &mut session;
    let done = Box::pin(coalesce_beside(writer, scratch, None, settings.compression.value, &mut Quietly::of(&place))).await?;
    let json = json!({
        "verb": "coalesce",
        "volume": place.url(),
        "chunks": done.chunks,
        "deltas": done.deltas,
        "bytes": done.bytes,
        "records": done.records,
        "cost": words::cost_json(&meter.all()),
    });
    let mut text = match done.chunks as u64 {
        0 => format!("{}: nothing to merge\n", place.url()),
        chunks => format!(
            "{}: {} of {} merged into {}\n",
            place.url(),
            words::some(done.deltas as u64, "delta"),
            words::some(chunks, "chunk"),
            words::bytes(done.bytes)
        ),
    };
    text.push_str(&format!("  {}\n", words::cost(&meter.all())));
    Ok(Told::done(json, text))
}
