//! `littoral release FILE`: the end of our term, in order, after everything was shipped.

use super::shown::{Meter, Opened, known, session};
use crate::door::{Door, Target};
use crate::exit::Fault;
use crate::screen::Told;
use crate::sqlite::OpenDatabase;
use crate::words;
use littoral_engine::hand_over::{self, Released};
use littoral_engine::live::Stream;
use littoral_engine::logs::{self, Carrier, Log, LogSync};
use littoral_engine::volume::release;
use littoral_types::Position;
use serde_json::json;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database file
    file: OsString,
}

/// Does it. A volume that was released already stays as it is: opening it for writing would claim it first.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    if let Target::File(file) = Target::read(&args.file)
        && logs::identity(&file).is_ok()
    {
        return release_log(&file, door).await;
    }
    let found = known(door, &args.file).await?;
    let url = found.place.url();
    if found.preview.row.tail.owner.is_none() {
        let json = json!({ "verb": "release", "volume": url, "released": false });
        return Ok(Told::done(json, format!("{url} was released before\n")));
    }
    let file = door.file(&args.file)?;
    let (done, cost) = if file.exists() {
        let (place, settings, components) = (&found.place, &found.settings, &found.components);
        let database = OpenDatabase::quietly(&file, door.said())?;
        let mut stream = Stream::new(file.clone(), Arc::new(settings.clone()));
        let mut sources = move || database.live();
        let released = hand_over::release(place, settings, components, &mut stream, &mut sources);
        (Box::pin(released).await?, None)
    } else {
        // The file is gone, and with it whatever was not shipped: the term can still end in order.
        drop(found);
        let Opened { mut session, meter, .. } = session(door, &args.file).await?;
        let record = release(&mut session.writer).await?;
        let tail = &session.writer.row().tail;
        let position = Position { epoch: tail.epoch, lsn: tail.lsn };
        (Released { position, record: Some(record) }, Some(Meter::all(&meter)))
    };
    let Released { position, record } = done;
    let epoch = position.epoch;
    let json = json!({
        "verb": "release",
        "volume": url,
        "released": true,
        "epoch": epoch.0,
        "position": position.to_string(),
        "record": record.map(|record| record.0),
        "cost": cost.as_ref().map(words::cost_json),
    });
    let text = format!(
        "{url}: everything is published, up to {position}, and epoch {epoch} is over. Any machine may open it and go on; here it is \
         read-only until littoral checkpoint, or PRAGMA littoral_sync, claims it anew\n"
    );
    Ok(Told::done(json, text))
}

/// The same of a log: who appends next, anywhere, needs no takeover.
async fn release_log(path: &Path, door: &Door) -> anyhow::Result<Told> {
    let settings = door.settings(Some(path))?;
    let components = door.components(&settings)?;
    let Some(mut carrier) = Carrier::of(path, &settings, &components)? else {
        let message = format!("{}: this log has no volume", path.display());
        return Err(Fault::usage(message, "say where it is to be: littoral log ship PATH --remote=URL").into());
    };
    let log = Log::open(path, LogSync::default(), logs::parts(&components))?;
    let position = carrier.release(&log.prefix()).await?;
    log.close()?;
    let (url, epoch) = (carrier.url(), position.epoch);
    let json = json!({
        "verb": "release",
        "volume": url,
        "released": true,
        "epoch": epoch.0,
        "position": position.to_string(),
    });
    let text = format!(
        "{url}: everything is published, up to {position}, and epoch {epoch} is over. Any machine may restore it and go on; here the next \
         append claims it anew, where nobody else has\n"
    );
    Ok(Told::done(json, text))
}
