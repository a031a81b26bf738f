//! The logs that are tables of a database, forked before it (rule P11): each a volume that begins as the parent's log is, and shares its blobs.
//!
//! What this room promises:
//! 1. A log's fork is made of the newest state of the parent's log, which has all rows that any published state of its database counts. What the
//!    forked state does not count is void there, from the first record on.
//! 2. It goes on with the parent's log: its records say so, and only its volume has an id of its own ([`VolumeMeta::log`]).
//! 3. No database counts rows of it before its own first record is there. What somebody left who died before is no volume of anybody's, and is
//!    made anew by whoever forks under that name next.
//!
//! [`VolumeMeta::log`]: littoral_types::VolumeMeta::log

use super::{Forked, make, pinned, put, taken};
use crate::components::Components;
use crate::error::EngineError;
use crate::exec::prune::leave;
use crate::log::pins::Pinned;
use crate::log::{Log, Opened};
use crate::logs::segments_of;
use crate::logs::tables::volume_of;
use littoral_format as format;
use littoral_format::keys;
use littoral_ports::RemoteError;
use littoral_types::{
    At, CountedLog, LogRow, LogTable, ManifestOp, Position, RecordBody, Seq, VolumeId, VolumeKind, VolumeName,
};

/// How often a log is put in the place of one that somebody else forked under the same name.
const PUTS_MAX: u32 = 3;

/// What became of a table's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForkedLog {
    /// It is a volume now, and begins here.
    Forked {
        /// Its volume.
        volume: VolumeName,
        /// Its last record; some may be no rows of the fork.
        position: Position,
        /// Bytes that were put in the object store.
        bytes: u64,
    },
    /// The table has no rows, and its log no volume yet.
    Empty,
    /// The object store does not have all rows that are counted, and why. The table says so.
    Missing(String),
}

/// The same, on its way.
#[derive(Debug)]
pub(super) enum Made {
    Forked(Box<Coming>),
    Empty,
    Missing(String),
}

/// A log's fork that is there, and what it takes to put it there again.
#[derive(Debug)]
pub(super) struct Coming {
    pub(super) parent: Log,
    pub(super) pinned: Pinned,
    child: Log,
    encoded: format::record::Encoded,
    forked: Forked,
}

impl Made {
    pub(super) fn told(self) -> ForkedLog {
        match self {
            Made::Forked(coming) => ForkedLog::Forked {
                volume: coming.forked.volume.name,
                position: coming.forked.position,
                bytes: coming.forked.bytes,
            },
            Made::Empty => ForkedLog::Empty,
            Made::Missing(why) => ForkedLog::Missing(why),
        }
    }
}

/// Forks the log of a table.
pub(super) async fn fork(
    database: &Log,
    forked: &Log,
    components: &Components,
    counted: &CountedLog,
) -> Result<Made, EngineError> {
    let parent = Log::new(database.remote().clone(), volume_of(database.name(), &counted.folder)?);
    let child = Log::new(database.remote().clone(), volume_of(forked.name(), &counted.folder)?);
    clear(&child, components).await?;
    if parent.newest().await?.is_none() {
        let is_empty = counted.last < counted.first;
        return Ok(if is_empty { Made::Empty } else { Made::Missing(format!("there is no volume {}", parent.url())) });
    }
    let id = VolumeId(components.bits());
    let (opened, pinned) = pinned(&parent, components, &At::Newest, (child.name(), id), VolumeKind::Log).await?;
    if let Some(why) = lacks(&parent, &opened, counted) {
        parent.unpin(&pinned.key).await?;
        return Ok(Made::Missing(why));
    }
    let made = make(&parent, &child, components, opened, (id, Some(counted))).await;
    let landed = match made {
        Ok((forked, encoded)) => {
            let landed = put(&child, components, &encoded).await;
            landed.map(|()| Coming { parent: parent.clone(), pinned: pinned.clone(), child, encoded, forked })
        }
        Err(error) => Err(error),
    };
    match landed {
        Ok(coming) => {
            components.faults.reach("fork.log")?;
            Ok(Made::Forked(Box::new(coming)))
        }
        Err(error) if error.is_crash() => Err(error),
        Err(error) => {
            parent.unpin(&pinned.key).await?;
            Err(error)
        }
    }
}

/// Why a log is not the one that is counted, or does not have all of it.
fn lacks(log: &Log, opened: &Opened, counted: &CountedLog) -> Option<String> {
    let (found, end) = (opened.meta.log(), opened.tail.lsn);
    (found != counted.log || end < counted.last).then(|| {
        format!(
            "{} ends at LSN {end} of log {found}, and rows are counted up to LSN {} of log {}",
            log.url(),
            counted.last,
            counted.log
        )
    })
}

/// What the rows of a log are to say where they say something else: which of its records the forked state does not count.
pub(super) async fn said(log: &Log, opened: &Opened, counted: &CountedLog) -> Result<Vec<ManifestOp>, EngineError> {
    let voids = counted.voids_up_to(opened.tail.lsn);
    let mut ops = Vec::new();
    for (chunk, row) in segments_of(log, opened).await? {
        let columns = row.table.as_ref().map(|table| table.columns.clone()).unwrap_or_default();
        let table = Some(LogTable { columns, voids: row.voids_among(&voids) });
        if row.table != table {
            ops.push(ManifestOp::PutSegment { chunk, segment: LogRow { table, ..row } });
        }
    }
    Ok(ops)
}

impl Coming {
    /// Whoever forked under the same name at the same time may have taken it for what somebody left: who has the name puts it there again.
    pub(super) async fn stays(&self, components: &Components) -> Result<(), EngineError> {
        for _ in 0..PUTS_MAX {
            if self.is_there().await? {
                return Ok(());
            }
            tracing::warn!(
                volume = self.child.url(),
                "somebody else began to fork under this name: its log is put there again"
            );
            remove(&self.child, components).await?;
            match put(&self.child, components, &self.encoded).await {
                Err(EngineError::Refused(_)) => {}
                landed => return landed,
            }
        }
        Err(EngineError::Interrupted(format!(
            "{}: somebody else forks under this name all the time, and its log is his. Remove what was made, and fork under another name",
            self.child.url()
        )))
    }

    /// It is nobody's, unless somebody has put his own in its place.
    pub(super) async fn take_back(&self) -> Result<(), EngineError> {
        if self.is_there().await? {
            self.child.remote().delete(&[keys::record(self.child.name(), Seq(1))]).await?;
        }
        self.parent.unpin(&self.pinned.key).await
    }

    async fn is_there(&self) -> Result<bool, EngineError> {
        match self.child.remote().get(&keys::record(self.child.name(), Seq(1))).await {
            Ok(found) => Ok(found == self.encoded.object),
            Err(RemoteError::Missing { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Removes what a fork that was cut off left under the name of a log. Anything else that is there stays, and refuses the name.
async fn clear(child: &Log, components: &Components) -> Result<(), EngineError> {
    if child.newest().await?.is_none() {
        return Ok(());
    }
    for (at, _) in child.name().as_str().match_indices('.') {
        // Of its dots any may be the one before the log's name.
        let Some(Ok(name)) = child.name().as_str().get(..at).map(str::parse::<VolumeName>) else { continue };
        if Log::new(child.remote().clone(), name).newest().await?.is_some() {
            return Err(taken(child));
        }
    }
    remove(child, components).await
}

/// Removes a log's fork that nobody has written to.
async fn remove(child: &Log, components: &Components) -> Result<(), EngineError> {
    let first = match child.newest().await? {
        None => return Ok(()),
        Some(Seq(1)) => child.record(Seq(1)).await?,
        Some(_) => return Err(taken(child)),
    };
    match first.map(|first| first.body) {
        Some(RecordBody::Fork(fork)) if fork.volume.kind == VolumeKind::Log => {
            match child.remote().delete(&[keys::record(child.name(), Seq(1))]).await {
                Err(RemoteError::Denied { what, detail }) => {
                    return Err(EngineError::Refused(format!(
                        "{}: a fork that was cut off left it, and nobody here may remove it ({what}: {detail}). Nothing was made: choose \
                         another name",
                        child.url()
                    )));
                }
                deleted => deleted?,
            }
            components.faults.reach("fork.cleared")?;
            leave(child, &fork).await
        }
        _ => Err(taken(child)),
    }
}
