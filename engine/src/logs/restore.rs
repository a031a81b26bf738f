//! A log made of what its volume holds: a folder like the one that was shipped, segment by segment, every byte of it verified before it gets its name.

use super::remote::{piece_of, rows_of, segments, start_of};
use crate::components::Components;
use crate::error::EngineError;
use crate::exec::at::{Found, find};
use crate::exec::rebuild::Rows;
use crate::exec::restore::pin;
use crate::log::{Log as VolumeLog, Opened};
use littoral_local::log::Restoring;
use littoral_local::log::void::{self, Void, add};
use littoral_ports::progress::Unit;
use littoral_types::limits::LOG_SEGMENT_BYTES;
use littoral_types::{At, CountedLog, LogRow, Lsn, Position, Seq, Serial, SessionName};
use std::collections::BTreeMap;
use std::path::Path;

/// Where a test may make a process die that restores a log.
pub const RESTORE_POINTS: [&str; 2] = ["log_restore.segment", "log_restore.written"];

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoredLog {
    /// The state.
    pub position: Position,
    /// Its record in the volume's log.
    pub seq: Seq,
    /// When its last record was made, milliseconds since 1970.
    pub time_ms: u64,
    /// Its first record, or the one that would be.
    pub start: Lsn,
    /// How many of its records are void.
    pub void: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes that were fetched of them.
    pub bytes: u64,
    /// Whether a pin kept pruners away meanwhile.
    pub pinned: bool,
}

impl RestoredLog {
    /// How many records it has that are given to readers.
    pub fn records(&self) -> u64 {
        (self.position.lsn.0 + 1).saturating_sub(self.start.0).saturating_sub(self.void)
    }
}

/// Restores a log to a folder that is not there yet, or empty.
pub async fn restore(
    log: &VolumeLog,
    components: &Components,
    at: &At,
    dest: &Path,
) -> Result<RestoredLog, EngineError> {
    restore_as(log, components, at, dest, None).await
}

/// The same; of a table's log as a database counts it, where it does.
pub(super) async fn restore_as(
    log: &VolumeLog,
    components: &Components,
    at: &At,
    dest: &Path,
    counted: Option<&CountedLog>,
) -> Result<RestoredLog, EngineError> {
    let Found { opened, point } = find(log, at).await?;
    EngineError::unless_log(&log.url(), opened.meta.kind)?;
    let (rows, pinned) = futures::future::join(rows_of(log, &opened), pin(log, components, &opened, at)).await;
    let pinned = pinned?;
    let written = match rows {
        Ok(rows) => write_out(log, components, &opened, &rows, dest, counted).await,
        Err(error) => Err(error),
    };
    if let Some(pinned) = &pinned
        && !written.as_ref().is_err_and(EngineError::is_crash)
        && let Err(error) = log.unpin(&pinned.key).await
    {
        tracing::warn!(%error, "the restore's pin was not taken back: it expires by itself");
    }
    Ok(RestoredLog { pinned: pinned.is_some(), time_ms: point.time_ms, ..written? })
}

/// How much of the disk a log takes that is restored.
pub(crate) async fn room_of(log: &VolumeLog, opened: &Opened) -> Result<u64, EngineError> {
    let rows = rows_of(log, opened).await?;
    Ok(segments(&rows).map(|(_, row)| row.sealed.unwrap_or(LOG_SEGMENT_BYTES)).sum())
}

/// How far each session was before a log begins in its volume.
pub(crate) fn sessions_before(opened: &Opened) -> BTreeMap<SessionName, Serial> {
    let marks = opened.sessions.marks();
    marks.filter_map(|mark| Some((mark.session.clone(), mark.step.serial()?))).collect()
}

/// Voids of several segments as those of one log.
pub(super) fn joined<'a>(voids: impl Iterator<Item = &'a Void>) -> Vec<Void> {
    let mut all = Vec::new();
    voids.for_each(|void| add(&mut all, *void));
    all
}

async fn write_out(
    log: &VolumeLog,
    components: &Components,
    opened: &Opened,
    rows: &Rows,
    dest: &Path,
    counted: Option<&CountedLog>,
) -> Result<RestoredLog, EngineError> {
    let (start, meta) = (start_of(rows, opened), &opened.meta);
    let mut out = Restoring::begin(dest, meta.log(), meta.created_ms, start, sessions_before(opened))?;
    let all: u64 = segments(rows).flat_map(|(_, row)| &row.pieces).map(littoral_types::LogPiece::len).sum();
    components.progress.phase("restoring", all, Unit::Bytes);
    let (mut count, mut bytes) = (0, 0);
    let mut last = start;
    for (_, row) in segments(rows) {
        bytes += segment(log, components, row, &mut out).await?;
        count += 1;
        last = row.next();
        components.faults.reach("log_restore.segment")?;
    }
    if last != opened.tail.lsn.next() {
        return Err(
            log.inconsistent(format!("its segments end before LSN {last}, and its log at LSN {}", opened.tail.lsn))
        );
    }
    let tables: Vec<_> = segments(rows).filter_map(|(_, row)| row.table.as_ref()).collect();
    let mut voids = match counted {
        Some(counted) => counted.voids_up_to(opened.tail.lsn),
        None => joined(tables.iter().flat_map(|table| &table.voids)),
    };
    voids.retain(|(_, to)| *to >= start);
    if tables.is_empty() {
        voids = joined(segments(rows).flat_map(|(_, row)| &row.taken_back));
    }
    let void = void::count(&voids, start, opened.tail.lsn);
    match tables.last() {
        Some(table) => out.of_a_table(&table.columns, voids)?,
        None => out.without(voids),
    }
    components.faults.reach("log_restore.written")?;
    out.finish()?;
    let tail = &opened.tail;
    let position = Position { epoch: tail.epoch, lsn: tail.lsn };
    let (seq, time_ms) = (tail.seq, tail.time_ms);
    Ok(RestoredLog { position, seq, time_ms, start, void, segments: count, bytes, pinned: false })
}

/// Fetches one segment, each of its objects once, and verifies it.
async fn segment(
    log: &VolumeLog,
    components: &Components,
    row: &LogRow,
    out: &mut Restoring,
) -> Result<u64, EngineError> {
    let mut pieces: Vec<_> = row.pieces.iter().collect();
    // Those of one object one after another.
    pieces.sort_by_key(|piece| (piece.blob.name, piece.at));
    let mut whole = None;
    for piece in pieces {
        let bytes = piece_of(log, piece, &mut whole).await?;
        out.put(row.first, piece.from, &bytes)?;
        components.progress.advance(piece.len());
    }
    out.end_segment(row)?;
    Ok(row.pieces.iter().map(littoral_types::LogPiece::len).sum())
}
