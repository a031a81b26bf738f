//! `littoral release FILE`: the end of our term, in order.

use super::shown::{Opened, known, session};
use crate::door::Door;
use crate::screen::Told;
use crate::words;
use littoral_engine::volume::release;
use serde_json::json;
use std::ffi::OsString;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database file
    file: OsString,
}

/// Does it. A volume that was released already stays as it is: opening it for writing would claim it first.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let found = known(door, &args.file).await?;
    let url = found.place.url();
    if found.preview.row.tail.owner.is_none() {
        let json = json!({ "verb": "release", "volume": url, "released": false });
        return Ok(Told::done(json, format!("{url} was released before\n")));
    }
    drop(found);
    let Opened { mut session, meter, .. } = session(door, &args.file).await?;
    let epoch = session.writer.row().tail.epoch;
    let record = release(&mut session.writer).await?;
    let json = json!({
        "verb": "release",
        "volume": url,
        "released": true,
        "epoch": epoch.0,
        "record": record.0,
        "cost": words::cost_json(&meter.all()),
    });
    let text = format!(
        "{url}: epoch {epoch} is over (record {record}). Any machine may go on with --takeover={epoch}; this one by its next \
         checkpoint\n  {}\n",
        words::cost(&meter.all())
    );
    Ok(Told::done(json, text))
}
