//! The end of a term, in order: everything is shipped, then the term ends, then nobody here writes.
//!
//! | state | durable | after a crash |
//! |---|---|---|
//! | shipped | every commit so far, in the object store | the term goes on |
//! | released | the end of the term | another machine may begin the next one, and so may this one: what is committed here meanwhile is found by whoever publishes next, and refused where somebody else did |
//! | noted here | that writers are refused until the volume is claimed anew | |
//!
//! A transaction that began before the note may end after it. It is kept, counted, and what `littoral salvage` is for.

use crate::components::Components;
use crate::error::EngineError;
use crate::live::Stream;
use crate::log::Log;
use crate::open::{self, Place};
use crate::settings::Settings;
use crate::volume::{open_for_writing, release as end};
use littoral_ports::{LiveSource, SourceError};
use littoral_types::{Position, Seq};

/// How often a term is ended and begun again because somebody committed in between.
const TRIES_MAX: u32 = 5;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Where the volume stands, in the term that is over.
    pub position: Position,
    /// The record that ended it; `None` where it was over before.
    pub record: Option<Seq>,
}

/// Opens a database's pages, each time anew.
pub type Sources<'a> = &'a mut (dyn FnMut() -> Result<Box<dyn LiveSource>, SourceError> + Send);

/// Ends the term of a database that is open.
pub async fn release(
    place: &Place,
    settings: &Settings,
    components: &Components,
    stream: &mut Stream,
    open_source: Sources<'_>,
) -> Result<Released, EngineError> {
    let (log, _) = place.log(settings, components)?;
    let at = |log: &Log, glance: Option<crate::log::Glance>| {
        let glance = glance.ok_or_else(|| EngineError::NoVolume(log.url()))?;
        let position = Position { epoch: glance.tail.epoch, lsn: glance.tail.lsn };
        Ok::<_, EngineError>((position, glance.tail.owner.is_none()))
    };
    let (position, is_over) = at(&log, log.glance().await?)?;
    let mut source = open_source()?;
    if is_over && source.commits_left() == 0 {
        source.superseded(position.epoch, NOBODY);
        return Ok(Released { position, record: None });
    }
    for _ in 0..TRIES_MAX {
        let position = Box::pin(stream.sync(&mut *source)).await?.position();
        let (stores, _) = open::stores(place, settings, components)?;
        let mut session = Box::pin(open_for_writing(&stores, components, &place.target(settings)?)).await?;
        let record = end(&mut session.writer).await?;
        components.faults.reach("release.landed")?;
        source.superseded(position.epoch, NOBODY);
        if source.commits_left() == 0 {
            return Ok(Released { position, record: Some(record) });
        }
        source = open_source()?;
    }
    Err(EngineError::Refused(format!(
        "{}: somebody committed each time after everything was shipped: stop writing, and release again",
        log.url()
    )))
}

/// Whose term it is that writers are told of after a release.
pub const NOBODY: &str = "";
