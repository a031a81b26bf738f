//! A log's way to its volume: what is durable here, record by record of the volume's, and what is sealed, once and for good.
//!
//! What this room promises:
//! 1. Nothing is shipped that is not durable here (rule S2), nothing twice that is an object of its own (rule P15), and nothing that does
//!    not verify.
//! 2. A volume's LSNs are the log's. Whoever dies is followed by whoever ships next: where the volume ends its own rows say.
//! 3. A log that is behind its volume, or another one, ships nothing, and nothing is appended to it.
//! 4. Who was superseded appends nothing more from the moment that he learns it (rule P4).
//! 5. What was rolled back here is said there before anything else travels, and what was rolled back there is void here before anything is shipped.

use super::restore::joined;
use super::truncation::{all_rows, let_go};
use crate::components::Components;
use crate::error::EngineError;
use crate::exec::rebuild::rows;
use crate::exec::snapshot::snapshot_if_due;
use crate::log::{Draft, Log as VolumeLog, Writer};
use crate::open::{self, Counting, Place};
use crate::settings::{Origin, Setting, Settings};
use crate::volume::{Rested, Session, open_log, open_tables_log, release};
use littoral_format as format;
use littoral_format::record::HEADER_BYTES_MAX;
use littoral_local::log::schema::columns;
use littoral_local::log::truncate::truncate_past_cursors;
use littoral_local::log::void::{Void, add, keep_voids};
use littoral_local::log::{Cut, LogError, Prefix, Runs, Stand, identity};
use littoral_plan::{Piece, pieces};
use littoral_ports::BlobBody;
use littoral_types::limits::{LOG_HEAD_BYTES, SEGMENT_INLINE_MAX};
use littoral_types::moment::Utc;
use littoral_types::{
    BlobKind, BlobName, BlobRef, Checkpoint, ChunkId, Commit, CountedLog, Epoch, FooterFigures, Generation, Home,
    LogPiece, LogRow, LogTable, Lsn, ManifestOp, PageCount, Position, RecordBody, RecordKind, Segment, Seq, Serial,
    SessionMark, SessionName, SessionStep, TailRow, VolumeFigures, VolumeId, Work,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a test may make a process die that ships a log, in the order in which they are reached; between them are those of every publication.
pub const SHIP_POINTS: [&str; 3] = ["carry.walked", "carry.uploaded", "carry.published"];

/// A sealed segment that would be of more pieces than this goes up whole.
const SEALED_PIECES_MAX: usize = 64;

/// What was shipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shipped {
    /// Where the volume stands now; `None` where it was never opened.
    pub position: Option<Position>,
    /// Records of the log that went.
    pub records: u64,
    /// Bytes that went, those that travelled once more included.
    pub bytes: u64,
    /// Segments that are there for good.
    pub sealed: u64,
}

impl Shipped {
    fn add(&mut self, other: Shipped) {
        self.position = other.position.or(self.position);
        self.records += other.records;
        self.bytes += other.bytes;
        self.sealed += other.sealed;
    }
}

/// Carries a log to its volume, and keeps that open between two times. Others of its store may publish in between.
#[derive(Debug)]
pub struct Carrier {
    pub(super) path: PathBuf,
    /// Which log. The volume of one that was forked has an id of its own.
    id: VolumeId,
    created_ms: u64,
    pub(super) place: Place,
    pub(super) settings: Settings,
    pub(super) components: Components,
    pub(super) open: Option<(Rested, Arc<Counting>)>,
    /// Whether what is here was found to go on from what is there.
    is_compared: bool,
    /// When it was looked last whether there is more than the log need keep.
    pub(super) retained_boot_ms: Option<u64>,
    /// Whether it is a database's table.
    is_table: bool,
}

/// What a database says of a log that is a table of it.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    /// The table's columns, where they are known here.
    pub(super) columns: Vec<String>,
    /// What it counts.
    pub(super) counted: CountedLog,
}

impl Rows {
    /// What is said of a segment, where the volume ends at a record.
    fn of(&self, row: &LogRow, end: Lsn) -> LogTable {
        let known = row.table.as_ref().map(|table| table.columns.clone()).unwrap_or_default();
        let columns = if self.columns.is_empty() { known } else { self.columns.clone() };
        LogTable { columns, voids: row.voids_among(&self.counted.voids_up_to(end)) }
    }
}

/// What is said of segments besides where their bytes are.
pub(super) enum Said<'a> {
    /// Of a log that is no table's: what was rolled back and stays in its place.
    TakenBack(Vec<Void>),
    /// Of a table's: what its database says.
    Rows(&'a Rows),
}

impl Said<'_> {
    /// A segment of which that is said, where the volume ends at a record.
    fn of(&self, row: &LogRow, end: Lsn) -> LogRow {
        match self {
            Said::Rows(rows) => LogRow { table: Some(rows.of(row, end)), ..row.clone() },
            Said::TakenBack(voids) => {
                let mut taken_back = row.taken_back.clone();
                row.voids_among(voids).into_iter().for_each(|void| add(&mut taken_back, void));
                LogRow { taken_back, ..row.clone() }
            }
        }
    }

    /// Whether it is said of all of them.
    pub(super) fn is_said(&self, rows: &[(ChunkId, LogRow)], end: Lsn) -> bool {
        rows.iter().all(|(_, row)| self.of(row, end) == *row)
    }
}

impl Carrier {
    /// Of a log that is bound to a volume, or for which somebody names a remote. `None`: it lives here alone. Nothing is asked of anybody.
    pub fn of(path: &Path, settings: &Settings, components: &Components) -> Result<Option<Self>, EngineError> {
        let (id, created_ms) = identity(path)?;
        let place = Place::of_database(path, settings)?;
        if place.found.is_none() && settings.remote.is_none() {
            return Ok(None);
        }
        place.refuse_impossible(settings)?;
        if columns(path)?.is_some() {
            return Err(EngineError::Refused(format!(
                "{}: is a database's table: which of its records are rows the database says, and it travels with that (littoral checkpoint, \
                 littoral log ship). Nothing was done. SELECT littoral_log_truncate(TABLE, LSN) lets its oldest rows go",
                path.display()
            )));
        }
        Ok(Some(Self::at(path, (id, created_ms), place, (settings, components))))
    }

    /// Of a log that is a table, for who ships its database.
    pub(super) fn of_table(path: &Path, settings: &Settings, components: &Components) -> Result<Self, EngineError> {
        let place = Place::of_database(path, settings)?;
        place.refuse_impossible(settings)?;
        let carrier = Self::at(path, identity(path)?, place, (settings, components));
        Ok(Self { is_table: true, ..carrier })
    }

    fn at(
        path: &Path,
        (id, created_ms): (VolumeId, u64),
        place: Place,
        (settings, components): (&Settings, &Components),
    ) -> Self {
        Self {
            path: path.to_owned(),
            id,
            created_ms,
            place,
            settings: settings.clone(),
            components: components.clone(),
            open: None,
            is_compared: false,
            is_table: false,
            retained_boot_ms: None,
        }
    }

    /// The volume's URL.
    pub fn url(&self) -> String {
        self.place.url()
    }

    /// Whether anything may be appended here. What was never bound to its volume is bound now; of what was, this store knows, and nothing is
    /// asked of the object store: appending goes on while that is away.
    pub async fn admit(&mut self, prefix: &Prefix) -> Result<(), EngineError> {
        if self.place.found.is_none() || self.settings.takeover.is_some() {
            return self.begin(prefix).await.map(drop);
        }
        let Some(manifest) = self.place.manifest()? else { return Ok(()) };
        let row = manifest.volume(&self.place.volume.value)?.filter(|row| row.meta.log() == self.id);
        let Some(row) = row else { return Ok(()) };
        let done = match row.fenced {
            Some((epoch, owner)) => {
                Err(EngineError::Superseded { volume: self.url(), owner, epoch, seq: row.tail.seq })
            }
            None => refuse_behind(&self.url(), &row.tail, prefix),
        };
        self.told(prefix, done).await
    }

    /// Makes the volume, or takes it over where that was said: it is ours then, and refused is what can be.
    pub async fn begin(&mut self, prefix: &Prefix) -> Result<Position, EngineError> {
        let done = Box::pin(self.session(Some(prefix))).await;
        let (session, meter) = self.told(prefix, done).await?;
        let tail = &session.writer.row().tail;
        let position = Position { epoch: tail.epoch, lsn: tail.lsn };
        self.open = Some((session.rest(&self.path), meter));
        Ok(position)
    }

    /// Ships what is durable and not there yet, and lets go of what the log need not keep.
    pub async fn ship(&mut self, prefix: &Prefix) -> Result<Shipped, EngineError> {
        let shipped = self.ship_alone(prefix).await?;
        self.retain_if_due(shipped.sealed > 0).await?;
        Ok(shipped)
    }

    /// Ships, and lets nothing go.
    pub(super) async fn ship_alone(&mut self, prefix: &Prefix) -> Result<Shipped, EngineError> {
        let done = Box::pin(self.ship_all(prefix)).await;
        self.told(prefix, done).await
    }

    async fn ship_all(&mut self, prefix: &Prefix) -> Result<Shipped, EngineError> {
        let (mut session, meter) = self.session(Some(prefix)).await?;
        // Nobody rolls it back from here on: who does has the volume first.
        if !prefix.holds()? {
            return Err(EngineError::Interrupted("the log's end was rolled back meanwhile: look again".to_owned()));
        }
        let done = carry(&mut session.writer, prefix).await?;
        self.open = Some((session.rest(&self.path), meter));
        Ok(done)
    }

    /// Ships the rows of a table up to the last one that its database counts, and says which records are none. Lets go there of what was let go of
    /// here. Up to which record what is there is sealed.
    pub(super) async fn ship_rows(&mut self, prefix: &Prefix, rows: &Rows) -> Result<(Shipped, Lsn), EngineError> {
        let (mut session, meter) = self.session(Some(prefix)).await?;
        let writer = &mut session.writer;
        writer.settle().await?;
        amend(writer, &Said::Rows(rows)).await?;
        let start = prefix.start()?;
        if rows_of(writer)?.first().is_some_and(|(_, row)| row.first < start) {
            match let_go(writer, &self.path, Cut::Before(start), (true, false)).await {
                // Somebody reads it there: it goes the next time, and nobody's commits wait for that.
                Err(EngineError::Leased { .. }) | Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        let done = carry_as(writer, prefix, &Said::Rows(rows)).await?;
        let sealed = rows_of(writer)?.iter().rev().find(|(_, row)| row.sealed.is_some()).map(|(_, row)| row.next());
        self.open = Some((session.rest(&self.path), meter));
        Ok((done, Lsn(sealed.unwrap_or(start).0.saturating_sub(1))))
    }

    /// Whether its volume has all of that, as far as this store knows: nobody is asked.
    pub(super) fn has_shipped(&self, prefix: &Prefix, rows: &Rows) -> Result<bool, EngineError> {
        let Some(manifest) = self.place.manifest()?.filter(|_| self.place.found.is_some()) else { return Ok(false) };
        let Some(row) = manifest.volume(&self.place.volume.value)?.filter(|row| row.meta.log() == self.id) else {
            return Ok(false);
        };
        let is_ours = row.fenced.is_none() && row.tail.owner.is_some() && manifest.intent(&row.meta.id)?.is_none();
        if !is_ours || row.tail.lsn < prefix.last() {
            return Ok(false);
        }
        let known = all_rows(&*manifest, &row.meta.id)?;
        let (start, end) = (prefix.start()?, row.tail.lsn);
        Ok(known.iter().all(|(_, row)| row.first >= start) && Said::Rows(rows).is_said(&known, end))
    }

    /// The term that is there ends with what is shipped next.
    pub(super) fn takes_over(&mut self, epoch: Epoch) {
        self.open = None;
        self.settings.takeover = Some(Setting { value: epoch, origin: Origin::Default });
    }

    /// It has ended.
    pub(super) fn has_taken_over(&mut self) {
        self.settings.takeover = None;
    }

    /// Ships at the interval of the settings for as long as work goes on that blocks its thread, and gives its outcome. What fails is tried again
    /// the next time; once this was superseded it is over, and appending with it.
    pub async fn ship_while<T: Send + 'static>(
        &mut self,
        prefix: &Prefix,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, Shipped), EngineError> {
        let mut work = tokio::task::spawn_blocking(work);
        let (mut all, mut is_over) = (Shipped::default(), false);
        loop {
            let rest = async {
                match self.settings.sync_interval_ms.value.filter(|_| !is_over) {
                    Some(asked) => {
                        let (account, now) = (&*self.components.account, self.components.clock.wall_ms());
                        let interval = open::interval_ms(asked, &self.settings, account, now);
                        self.components.clock.sleep_ms(interval).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                done = &mut work => {
                    let done = done.map_err(|error| EngineError::Interrupted(format!("appending broke down: {error}")))?;
                    return Ok((done, all));
                }
                () = rest => {}
            }
            match self.ship(prefix).await {
                Ok(shipped) => all.add(shipped),
                Err(error) => {
                    tracing::warn!(log = %self.path.display(), %error, "a log's records wait here, and are durable here");
                    is_over =
                        matches!(error, EngineError::Log(LogError::Fenced { .. }) | EngineError::OtherKind { .. });
                }
            }
        }
    }

    /// Ends our term in order: the next one who appends, anywhere, needs no takeover.
    pub async fn release(&mut self, prefix: &Prefix) -> Result<Position, EngineError> {
        let done = Box::pin(self.release_all(prefix)).await;
        self.told(prefix, done).await
    }

    async fn release_all(&mut self, prefix: &Prefix) -> Result<Position, EngineError> {
        let (mut session, _) = self.session(Some(prefix)).await?;
        carry(&mut session.writer, prefix).await?;
        release(&mut session.writer).await?;
        let tail = &session.writer.row().tail;
        prefix.fence("it was released: the next append claims it anew");
        Ok(Position { epoch: tail.epoch, lsn: tail.lsn })
    }

    /// The volume, open to be extended. Who appends here compares what is here with what is there.
    pub(super) async fn session(&mut self, prefix: Option<&Prefix>) -> Result<(Session, Arc<Counting>), EngineError> {
        if let Some((rested, meter)) = self.open.take() {
            let lock = rested.turn(&self.components, true).await?;
            match rested.resume(lock) {
                Ok(session) => return Ok((session, meter)),
                Err(EngineError::Interrupted(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if let (Some(prefix), Some(_)) = (prefix, &self.settings.takeover) {
            // Before anybody's term ends: what is here must be all that is there, and perhaps more.
            let (log, _) = self.place.log(&self.settings, &self.components)?;
            if let Some(opened) = log.open().await?.filter(|opened| opened.meta.log() == self.id) {
                let rows = rows(&log, &opened).await?;
                let last = rows.values().next_back().and_then(|row| row.segment.as_ref());
                refuse_unlike(&self.url(), &opened.tail, last, prefix)?;
            }
        }
        let (stores, meter) = open::stores(&self.place, &self.settings, &self.components)?;
        let target = self.place.target(&self.settings)?;
        let paying = self.components.charged_to(meter.account());
        let who = (self.id, self.created_ms);
        let session = match self.is_table {
            true => Box::pin(open_tables_log(&stores, &paying, &target, who)).await?,
            false => Box::pin(open_log(&stores, &paying, &target, who)).await?,
        };
        if let (Some(prefix), false) = (prefix, self.is_compared) {
            let row = session.writer.row();
            refuse_unlike(&self.url(), &row.tail, last_row(&session.writer)?.as_ref(), prefix)?;
            let rows = rows_of(&session.writer)?;
            // A truncation that was killed had said in the volume that they are gone.
            if let Some((_, first)) = rows.first()
                && first.first > prefix.start()?
            {
                truncate_past_cursors(&self.path, Cut::Before(first.first), false, &*self.components.faults)?;
            }
            // A folder that was put back knows nothing of what was rolled back since.
            let taken_back = joined(rows.iter().flat_map(|(_, row)| &row.taken_back));
            if !taken_back.is_empty() && keep_voids(&self.path, &taken_back)? {
                tracing::warn!(log = %self.path.display(), "what was rolled back in its volume is void here, too");
            }
            self.is_compared = true;
        }
        Ok((session, meter))
    }

    /// Where somebody else has taken over, or what is here is not what is there, nothing more is appended: it is said who does, and since when.
    async fn told<T>(&mut self, prefix: &Prefix, done: Result<T, EngineError>) -> Result<T, EngineError> {
        let error = match done {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let why = match &error {
            EngineError::Superseded { epoch, owner, seq, .. } => {
                let since = match self.place.log(&self.settings, &self.components) {
                    Ok((log, _)) => began(&log, *epoch).await,
                    Err(_) => None,
                };
                let since = since.map_or_else(String::new, |ms| format!(" since {}", Utc(ms)));
                let (url, owner) = (self.url(), &owner.label);
                format!(
                    "{owner} appends to {url}{since} (epoch {epoch}, record {seq}). What was appended here and not shipped can be read here \
                     (littoral log read). To take it back on purpose, where all that is there is here, too: --takeover={epoch}"
                )
            }
            EngineError::Refused(_) | EngineError::OtherKind { .. } | EngineError::Diverged { .. } => error.to_string(),
            _ => return Err(error),
        };
        self.is_compared = false;
        prefix.fence(&why);
        match error {
            EngineError::Superseded { .. } => Err(LogError::Fenced { durable: prefix.last(), why }.into()),
            error => Err(error),
        }
    }
}

/// When a term began, as far as the newest records tell.
async fn began(log: &VolumeLog, epoch: Epoch) -> Option<u64> {
    let glance = log.glance().await.ok()??;
    let claim = glance.recent.iter().rfind(|record| record.kind == RecordKind::Claim && record.epoch == epoch)?;
    Some(claim.time_ms)
}

/// The newest row that a writer's store knows: of the segment that is open, else of the last one that was sealed.
fn last_row(writer: &Writer) -> Result<Option<LogRow>, EngineError> {
    let row = writer.row();
    let number = row.tail.figures.generation.0;
    for number in [Some(number), number.checked_sub(1)].into_iter().flatten() {
        if let Some(found) = writer.manifest().row(&row.meta.id, ChunkId(number))?.and_then(|row| row.segment) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn refuse_behind(url: &str, tail: &TailRow, prefix: &Prefix) -> Result<(), EngineError> {
    if prefix.last() >= tail.lsn || prefix.held()? >= tail.lsn {
        return Ok(());
    }
    Err(EngineError::Refused(format!(
        "{}: the log here ends at LSN {}, and its volume {url} at LSN {}: it was put back to an earlier state, or the disk lost what it had. \
         Nothing was shipped, and nothing is appended: records would get numbers that others have. Make a new copy of what is there \
         (littoral restore {url} DEST), and go on in that",
        prefix.path().display(),
        prefix.last(),
        tail.lsn
    )))
}

/// Refuses a log that does not hold all that its volume does.
fn refuse_unlike(url: &str, tail: &TailRow, last: Option<&LogRow>, prefix: &Prefix) -> Result<(), EngineError> {
    refuse_behind(url, tail, prefix)?;
    let Some((row, piece)) = last.and_then(|row| Some((row, row.pieces.last()?))) else { return Ok(()) };
    if piece.blob.len != piece.len() {
        return Ok(());
    }
    let here = match prefix.bytes(row.first, piece.from, piece.to) {
        Ok(bytes) => format::hash::blob(&bytes) == piece.blob.name.hash,
        Err(LogError::Crash(crash)) => return Err(crash.into()),
        Err(_) => false,
    };
    if here {
        return Ok(());
    }
    Err(EngineError::Refused(format!(
        "{}: what stands here up to LSN {} is not what its volume {url} holds: the two went on apart. Nothing was shipped, and nothing is \
         appended. Go on in a copy of what is there (littoral restore {url} DEST); what is here alone can be read here (littoral log read), and \
         appended there. To keep this one whole: copy its folder to another one, and give that a volume of its own (littoral log ship COPY \
         --remote=URL --volume=NAME)",
        prefix.path().display(),
        tail.lsn
    )))
}

/// Ships all that is durable, for who has the volume open.
pub async fn carry(writer: &mut Writer, prefix: &Prefix) -> Result<Shipped, EngineError> {
    writer.settle().await?;
    refuse_behind(&writer.log().url(), &writer.row().tail, prefix)?;
    let said = Said::TakenBack(prefix.voids()?);
    amend(writer, &said).await?;
    carry_as(writer, prefix, &said).await
}

/// Says of what was shipped before which records are given to nobody, where that is not what was said: rolled back since, or of a state that a table's
/// database was taken back from.
pub(super) async fn amend(writer: &mut Writer, said: &Said<'_>) -> Result<(), EngineError> {
    if matches!(said, Said::TakenBack(voids) if voids.is_empty()) {
        return Ok(());
    }
    let end = writer.row().tail.lsn;
    let changed = rows_of(writer)?.into_iter().filter_map(|(chunk, row)| {
        let segment = said.of(&row, end);
        (segment != row).then_some(ManifestOp::PutSegment { chunk, segment })
    });
    let ops: Vec<ManifestOp> = changed.collect();
    if ops.is_empty() {
        return Ok(());
    }
    let figures = writer.row().tail.figures;
    let body = RecordBody::Checkpoint(Checkpoint { ops, ..Checkpoint::default() });
    writer.publish(Draft::of(body, figures)).await.map(drop)
}

fn rows_of(writer: &Writer) -> Result<Vec<(ChunkId, LogRow)>, EngineError> {
    all_rows(&**writer.manifest(), &writer.row().meta.id)
}

async fn carry_as(writer: &mut Writer, prefix: &Prefix, said: &Said<'_>) -> Result<Shipped, EngineError> {
    let mut shipped = Shipped::default();
    loop {
        writer.settle().await?;
        // Its place is in the names of what travels in it: nothing may come between.
        writer.index_if_due().await?;
        refuse_behind(&writer.log().url(), &writer.row().tail, prefix)?;
        let Some(step) = Step::next(writer, prefix)? else { break };
        shipped.add(step.publish(writer, prefix, said).await?);
    }
    let tail = &writer.row().tail;
    shipped.position = Some(Position { epoch: tail.epoch, lsn: tail.lsn });
    match snapshot_if_due(writer, None).await {
        Err(error) if !error.is_crash() => {
            tracing::warn!(volume = %writer.log().name(), %error, "a manifest snapshot is due and was not written");
        }
        done => drop(done?),
    }
    Ok(shipped)
}

/// What travels of a segment.
enum Travels {
    /// In the record.
    Inside(Vec<u8>),
    /// As an object of its own, which is read from the segment's file while it is sent.
    Apart(BlobName, Runs),
}

/// What goes next: entries of one segment.
struct Step {
    number: ChunkId,
    stand: Stand,
    /// What is there of the segment.
    before: Vec<LogPiece>,
    /// Where what travels begins, and the record there.
    from: (u64, Lsn),
    walked: littoral_local::log::Walked,
}

impl Step {
    fn next(writer: &Writer, prefix: &Prefix) -> Result<Option<Self>, EngineError> {
        let row = writer.row();
        let (tail, number) = (&row.tail, ChunkId(row.tail.figures.generation.0));
        let known = writer.manifest().row(&row.meta.id, number)?.and_then(|row| row.segment);
        let stand = match &known {
            Some(known) => Stand { first: known.first, offset: known.end, next: known.next() },
            None => {
                let first = if tail.lsn == Lsn::ZERO { prefix.start()? } else { tail.lsn.next() };
                Stand { first, offset: LOG_HEAD_BYTES, next: first }
            }
        };
        if known.is_some() && stand.next != tail.lsn.next() {
            let url = writer.log().url();
            let detail =
                format!("its segment {number} ends before LSN {}, and its log at LSN {}", stand.next, tail.lsn);
            return Err(EngineError::Inconsistent { volume: url, detail });
        }
        let before = known.map(|known| known.pieces).unwrap_or_default();
        let Some(walked) = prefix.walk(stand)?.filter(|walked| walked.next > stand.next || walked.sealed.is_some())
        else {
            return Ok(None);
        };
        let mut step = Self { number, stand, before, from: (stand.offset, stand.next), walked };
        step.from = step.begins();
        if step.from.0 < stand.offset {
            // What travels once more is looked at once more: the disk may have lost it meanwhile, and the first copy may go.
            let again = Stand { first: stand.first, offset: step.from.0.max(LOG_HEAD_BYTES), next: step.from.1 };
            let Some(walked) = prefix.walk(again)? else { return Ok(None) };
            if walked.sealed.is_some() != step.walked.sealed.is_some() {
                // It was sealed in between, and travels otherwise.
                return Self::next(writer, prefix);
            }
            step.walked = walked;
        }
        Ok(Some(step))
    }

    /// Where the first byte stands that travels.
    fn begins(&self) -> (u64, Lsn) {
        if let Some(bytes) = self.walked.sealed {
            return self.spans(bytes).first().map_or(self.from, |(from, _, first)| (*from, *first));
        }
        let sizes: Vec<Piece> = self.before.iter().map(size_of).collect();
        let kept = pieces(&sizes, self.walked.to - self.stand.offset);
        self.before.get(kept).map_or(self.from, |piece| (piece.from, piece.first))
    }

    /// The runs of a sealed segment's file that lie in no object of their own: from, to, and the LSN at its beginning.
    fn spans(&self, file_bytes: u64) -> Vec<(u64, u64, Lsn)> {
        let mut spans = Vec::new();
        let (mut at, mut first) = (0, self.stand.first);
        for piece in &self.before {
            if size_of(piece).is_apart {
                spans.extend((piece.from > at).then_some((at, piece.from, first)));
                (at, first) = (piece.to, self.first_at(piece.to));
            }
        }
        spans.extend((file_bytes > at).then_some((at, file_bytes, first)));
        let kept = self.before.iter().filter(|piece| size_of(piece).is_apart).count();
        if kept + spans.len() > SEALED_PIECES_MAX { vec![(0, file_bytes, self.stand.first)] } else { spans }
    }

    fn first_at(&self, offset: u64) -> Lsn {
        self.before.iter().find(|piece| piece.from == offset).map_or(self.stand.next, |piece| piece.first)
    }

    async fn publish(self, writer: &mut Writer, prefix: &Prefix, said: &Said<'_>) -> Result<Shipped, EngineError> {
        let faults = writer.components().faults.clone();
        faults.reach("carry.walked")?;
        let tail = writer.row().tail.clone();
        let seq = tail.seq.next();
        let records = self.walked.next.0 - self.stand.first.0;
        let commits = self.walked.next.0 - 1 - tail.lsn.0;
        let (pieces, travels) = match self.walked.sealed {
            Some(file_bytes) => self.whole(prefix, file_bytes, tail.seq)?,
            None => self.open(prefix, seq, tail.seq)?,
        };
        let mut held = None;
        let (len, inside) = match travels {
            Travels::Inside(bytes) => (bytes.len() as u64, bytes),
            Travels::Apart(name, runs) => {
                held = writer.lease_or_refuse(Work::Checkpoint, Some([self.number].into_iter().collect()))?;
                match &held {
                    Some(held) => held.during(writer.upload_from(&name, &runs)).await?,
                    None => writer.upload_from(&name, &runs).await?,
                }
                faults.reach("carry.uploaded")?;
                (runs.len(), Vec::new())
            }
        };
        let old = writer.manifest().row(&writer.row().meta.id, self.number)?.and_then(|row| row.segment);
        let (old_since, old_until) = old.as_ref().map_or((u64::MAX, 0), |row| (row.since_ms, row.until_ms));
        let segment = LogRow {
            first: self.stand.first,
            created_ms: self.walked.head.created_ms,
            end: self.walked.to,
            records,
            since_ms: old_since.min(self.walked.since_ms),
            until_ms: old_until.max(self.walked.until_ms),
            sealed: self.walked.sealed,
            pieces,
            table: None,
            taken_back: old.map(|row| row.taken_back).unwrap_or_default(),
        };
        let segment = said.of(&segment, tail.lsn);
        let time_ms = segment.until_ms.max(tail.time_ms);
        let mut ops = vec![ManifestOp::PutSegment { chunk: self.number, segment }];
        if tail.lsn == Lsn::ZERO {
            ops.extend(before_all(prefix, tail.epoch)?);
        }
        let mut figures = tail.figures;
        let body = match self.walked.sealed {
            Some(_) => {
                figures = VolumeFigures { generation: Generation(figures.generation.0 + 1), ..figures };
                RecordBody::Checkpoint(Checkpoint { ops, ..Checkpoint::default() })
            }
            None => {
                let last = Commit { lsn: Lsn(tail.lsn.0 + commits), time_ms, page_count: PageCount(0), session: None };
                RecordBody::Segment(Segment { commits: vec![last], wal: None, ops, frames: inside })
            }
        };
        let added = FooterFigures { pages: 0, bytes: len };
        let draft = Draft { commits, added, ..Draft::of(body, figures) };
        let published = writer.publish_under(held.as_deref(), draft, Some(time_ms)).await?;
        faults.reach("carry.published")?;
        if published != seq {
            return Err(EngineError::Interrupted("something came between: look again".to_owned()));
        }
        Ok(Shipped { position: None, records: commits, bytes: len, sealed: u64::from(self.walked.sealed.is_some()) })
    }

    /// Of a segment that is open.
    fn open(&self, prefix: &Prefix, seq: Seq, birth: Seq) -> Result<(Vec<LogPiece>, Travels), EngineError> {
        let ((from, first), to) = (self.from, self.walked.to);
        let len = to - from;
        let (name, at, travels) = if len > SEGMENT_INLINE_MAX as u64 {
            let runs = prefix.runs(self.stand.first, vec![(from, to)])?;
            let name = BlobName { kind: BlobKind::Segment, hash: runs.hash(), birth };
            (name, 0, Travels::Apart(name, runs))
        } else {
            let bytes = prefix.bytes(self.stand.first, from, to)?;
            let name = BlobName { kind: BlobKind::Record, hash: format::hash::blob(&bytes), birth: seq };
            (name, HEADER_BYTES_MAX as u64, Travels::Inside(bytes))
        };
        let blob = BlobRef { home: Home::Own, name, len };
        let mut all: Vec<LogPiece> = self.before.iter().filter(|piece| piece.from < from).cloned().collect();
        all.push(LogPiece { from, to, first, blob, at });
        Ok((all, travels))
    }

    /// The same of one that is sealed: what lies in objects of its own stays there, the rest is one more.
    fn whole(&self, prefix: &Prefix, file_bytes: u64, birth: Seq) -> Result<(Vec<LogPiece>, Travels), EngineError> {
        let spans = self.spans(file_bytes);
        let runs = prefix.runs(self.stand.first, spans.iter().map(|(from, to, _)| (*from, *to)).collect())?;
        let name = BlobName { kind: BlobKind::Segment, hash: runs.hash(), birth };
        let blob = BlobRef { home: Home::Own, name, len: runs.len() };
        let covered = |piece: &LogPiece| spans.iter().any(|(from, to, _)| piece.from >= *from && piece.to <= *to);
        let mut all: Vec<LogPiece> = self.before.iter().filter(|piece| !covered(piece)).cloned().collect();
        let mut at = 0;
        for (from, to, first) in &spans {
            all.push(LogPiece { from: *from, to: *to, first: *first, blob: blob.clone(), at });
            at += to - from;
        }
        all.sort_by_key(|piece| piece.from);
        Ok((all, Travels::Apart(name, runs)))
    }
}

fn size_of(piece: &LogPiece) -> Piece {
    Piece { len: piece.len(), is_apart: piece.blob.name.kind != BlobKind::Record }
}

/// How far each session was before the log begins: what was truncated before anything was shipped.
fn before_all(prefix: &Prefix, epoch: Epoch) -> Result<Vec<ManifestOp>, EngineError> {
    let (start, sessions) = prefix.begins()?;
    Ok(marks(sessions, start, epoch).collect())
}

/// How far sessions were before a place: what a log that begins there begins with.
pub(super) fn marks(
    sessions: impl IntoIterator<Item = (SessionName, Serial)>,
    start: Lsn,
    epoch: Epoch,
) -> impl Iterator<Item = ManifestOp> {
    let position = Position { epoch, lsn: Lsn(start.0.saturating_sub(1)) };
    let mark = move |(session, serial)| SessionMark { session, step: SessionStep::On(serial), position };
    sessions.into_iter().map(mark).map(ManifestOp::Session)
}
