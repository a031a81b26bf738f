//! A moment of a volume's history, found: the last restore point that is not later, or why there is none (rule P9).
//!
//! What this room promises:
//! 1. What `plan/at.rs` chooses, in a number of requests that grows with the logarithm of the history.
//! 2. From the newest prune's floor on every record is there. Before it, restore points are exactly the manifest snapshots that stand:
//!    each is whole in itself, and needs no record.
//! 3. A refusal names what there is: the oldest, the newest, the neighbours, the nearest name.

use crate::error::EngineError;
use crate::log::read::{RECORDS_IN_FLIGHT, is_missing};
use crate::log::{Glance, Log, Opened};
use crate::settings::nearest;
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_format::keys::{self, Folder, ObjectKey, PinKey};
use littoral_plan::{Asked, Choice, Label, choose, in_gap};
use littoral_types::moment::Utc;
use littoral_types::{
    At, Epoch, Gap, Lsn, Position, RecordBody, RecordKind, RecordSummary, Seq, SnapshotName, TailRow, VolumeKind,
};
use std::collections::HashMap;

/// Probes of one round.
const PROBES: usize = 16;
/// How often it is looked again because a pruner went past.
const LOOKS_MAX: usize = 3;
/// Names that a refusal lists.
const NAMES_SHOWN: usize = 8;

/// A state that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The log as of it.
    pub opened: Opened,
    /// The restore point: the record at which its last commit arrived, as far as that is still known.
    pub point: Label,
}

/// Finds a state and opens the log at it.
pub async fn find(log: &Log, at: &At) -> Result<Found, EngineError> {
    for left in (0..LOOKS_MAX).rev() {
        let found = match at {
            At::Snapshot(name) => return named(log, name).await,
            At::Newest => newest(log).await.map(|opened| Found { point: label_of(&opened.tail), opened }),
            At::Time(ms) => search(log, Asked::Time(*ms), at, None).await,
            At::Lsn(lsn) => search(log, Asked::Lsn(*lsn), at, None).await,
            At::Position(position) => search(log, Asked::Lsn(position.lsn), at, Some(position.epoch)).await,
        };
        match found {
            Err(error) if left > 0 && is_missing(&error) => {
                tracing::info!(volume = %log.name(), %error, "pruned while it was being looked for: looking again");
            }
            found => return found,
        }
    }
    Err(EngineError::Interrupted(format!("{}: {at} was pruned while it was being looked for", log.url())))
}

async fn newest(log: &Log) -> Result<Opened, EngineError> {
    log.open().await?.ok_or_else(|| EngineError::NoVolume(log.url()))
}

async fn named(log: &Log, name: &SnapshotName) -> Result<Found, EngineError> {
    let Some(pin) = log.named(name).await? else { return Err(no_such_name(log, name).await?) };
    let opened = match log.open_snapshot(pin.seq).await? {
        Some(opened) => Some(opened),
        None => log.open_at(pin.seq).await?,
    };
    let opened = opened.ok_or_else(|| log.inconsistent(format!("the state that snapshot {name} holds is gone")))?;
    if opened.tail.hash != pin.record {
        return Err(log.inconsistent(format!("record {} is not the one that was named", opened.tail.seq)));
    }
    Ok(Found { point: label_of(&opened.tail), opened })
}

/// A name that nobody gave, and the nearest one that somebody did.
pub async fn no_such_name(log: &Log, name: &SnapshotName) -> Result<EngineError, EngineError> {
    if log.newest().await?.is_none() {
        return Ok(EngineError::NoVolume(log.url()));
    }
    let listed = log.remote().list(&keys::folder(log.name(), Folder::Pins), None, usize::MAX).await?;
    let names: Vec<String> = listed
        .iter()
        .filter_map(|meta| match ObjectKey::parse(&meta.path) {
            Some((_, ObjectKey::Pin(PinKey::Snapshot(name)))) => Some(name.to_string()),
            _ => None,
        })
        .collect();
    let there = match nearest(name.as_str(), names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => "there are none".to_owned(),
        None => {
            let shown: Vec<&str> = names.iter().take(NAMES_SHOWN).map(String::as_str).collect();
            let more = if names.len() > shown.len() { ", ..." } else { "" };
            format!("there are {}{more}", shown.join(", "))
        }
    };
    let is_date = name.as_str().len() == 10 && name.as_str().as_bytes().get(4) == Some(&b'-');
    let date = if is_date { format!(" (a time is written in full, as in {name}T00:00:00Z)") } else { String::new() };
    let detail = format!("no snapshot is called {name}: {there}{date}");
    Ok(EngineError::NoSuchPosition { volume: log.url(), detail })
}

/// The records since the newest prune's floor, for who looks which prunes are among them.
#[derive(Clone, Copy, Debug)]
pub enum Since<'a> {
    /// All of them.
    All(&'a [RecordSummary]),
    /// They are looked for, where anything stands before the floor.
    Newest(&'a Glance),
}

/// Restore points that a coarser history left before the newest prune's floor, newest first: up to `max` of those before a record.
pub async fn kept_before(
    log: &Log,
    floor: Seq,
    before: Seq,
    since: Since<'_>,
    max: usize,
) -> Result<Vec<Label>, EngineError> {
    let labels = Labels { log, known: HashMap::new() };
    let mut standing = standing(log, floor, since).await?;
    standing.retain(|seq| *seq < before);
    let newest = standing.into_iter().rev().take(max);
    stream::iter(newest)
        .map(|seq| {
            let labels = &labels;
            async move {
                match labels.of(seq).await {
                    Ok(label) => Ok(Some(label)),
                    // Pruned since it was listed.
                    Err(error) if is_missing(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        })
        .buffered(RECORDS_IN_FLIGHT)
        .try_filter_map(|label| async move { Ok(label) })
        .try_collect()
        .await
}

/// The restore points before the newest prune's floor, ascending. What a prune that is still in the log has doomed is none any more, though
/// it may not be deleted yet: whoever deletes may be at it, and nobody is to rely on it (rule P1).
async fn standing(log: &Log, floor: Seq, since: Since<'_>) -> Result<Vec<Seq>, EngineError> {
    let mut standing = log.standing_before(floor).await?;
    if standing.is_empty() {
        return Ok(standing);
    }
    for prune in prunes(log, floor, since).await? {
        let doomed = match log.record(prune.seq).await?.map(|record| record.body) {
            Some(RecordBody::Prune(prune)) => prune.snapshots,
            _ => return Err(log.gone(prune.seq)),
        };
        standing.retain(|seq| !doomed.contains(seq));
    }
    Ok(standing)
}

/// Those that are prunes. Where nobody may delete, what one has named stands for as long as its record does: the newest records alone do not
/// tell of it.
pub(super) async fn prunes(log: &Log, floor: Seq, since: Since<'_>) -> Result<Vec<RecordSummary>, EngineError> {
    let is_prune = |record: &&RecordSummary| record.kind == RecordKind::Prune && record.seq >= floor;
    Ok(match since {
        Since::All(records) => records.iter().filter(is_prune).cloned().collect(),
        Since::Newest(glance) => {
            let all = log.history(glance, glance.tail.seq.next(), usize::MAX).await?;
            all.iter().filter(is_prune).cloned().collect()
        }
    })
}

fn label_of(tail: &TailRow) -> Label {
    Label { seq: tail.seq, epoch: tail.epoch, first: None, lsn: tail.lsn, time_ms: tail.time_ms, is_gap: false }
}

fn label(summary: &RecordSummary) -> Label {
    let first = (!summary.lsns.is_empty()).then_some(summary.lsns.first);
    let is_gap = summary.kind == RecordKind::Gap;
    Label { seq: summary.seq, epoch: summary.epoch, first, lsn: summary.lsns.last, time_ms: summary.time_ms, is_gap }
}

/// Where labels are read.
struct Labels<'a> {
    log: &'a Log,
    known: HashMap<Seq, Label>,
}

impl Labels<'_> {
    /// A record's label; of one that is gone, that of the manifest snapshot which stands in its place.
    async fn of(&self, seq: Seq) -> Result<Label, EngineError> {
        if let Some(label) = self.known.get(&seq) {
            return Ok(*label);
        }
        if let Some(envelope) = self.log.envelope(seq).await? {
            return Ok(label(&crate::log::read::summary(&envelope)));
        }
        let snapshot = self.log.snapshot(seq).await?.ok_or_else(|| self.log.gone(seq))?;
        let (epoch, lsn, time_ms) = (snapshot.epoch, snapshot.lsn, snapshot.time_ms);
        Ok(Label { seq, epoch, first: None, lsn, time_ms, is_gap: false })
    }

    /// Of `count` places in ascending order: the label of the last that is reached before the first that is not, and that one's.
    async fn around(
        &self,
        asked: Asked,
        count: u64,
        place: impl Fn(u64) -> Seq,
    ) -> Result<(Option<Label>, Option<Label>), EngineError> {
        let (mut low, mut high) = (0, count);
        let (mut before, mut after) = (None, None);
        while low < high {
            let step = (high - low).div_ceil(PROBES as u64);
            let places = (low..high).step_by(usize::try_from(step).unwrap_or(usize::MAX));
            let probes: Vec<(u64, Label)> = stream::iter(places)
                .map(|nth| {
                    let seq = place(nth);
                    async move { self.of(seq).await.map(|label| (nth, label)) }
                })
                .buffered(RECORDS_IN_FLIGHT)
                .try_collect()
                .await?;
            for (nth, label) in probes {
                if !asked.reaches(&label) {
                    (high, after) = (nth, Some(label));
                    break;
                }
                (low, before) = (nth + 1, Some(label));
            }
        }
        Ok((before, after))
    }
}

async fn search(log: &Log, asked: Asked, at: &At, epoch: Option<Epoch>) -> Result<Found, EngineError> {
    let opened = newest(log).await?;
    let tail = &opened.tail;
    let floor = tail.floor.max(Seq(1));
    let known =
        opened.recent.iter().filter(|entry| entry.seq >= floor).map(|entry| (entry.seq, label(entry))).collect();
    let labels = Labels { log, known };
    // From the floor on nothing is missing.
    let count = tail.seq.0 - floor.0 + 1;
    let (before, after) = Box::pin(labels.around(asked, count, |nth| Seq(floor.0 + nth))).await?;
    // A claim comes before the first commit: nothing can be restored as of it.
    let before = before.filter(|label| label.lsn > Lsn::ZERO);
    let found = match before {
        Some(before) => {
            let next = match after {
                // What brought no commit is no end of anything.
                Some(after) if after.first.is_none() => {
                    let next = Asked::Lsn(before.lsn);
                    Box::pin(labels.around(next, count, |nth| Seq(floor.0 + nth))).await?.1
                }
                after => after,
            };
            told_apart(log, &labels, floor, (asked, at), (&before, next.as_ref())).await?;
            chosen(log, &labels, &opened, asked, at, (Some(before), after), false).await?;
            let opened = if before.lsn == tail.lsn {
                opened
            } else {
                let seen = tail.seq;
                let found = log.open_at(before.seq).await?.ok_or_else(|| log.gone(before.seq))?;
                Opened { seen, ..found }
            };
            Found { point: arrived(&labels, before, floor).await?, opened }
        }
        None => {
            let standing = standing(log, floor, Since::Newest(&opened.glance())).await?;
            let count = standing.len() as u64;
            let place = |nth| usize::try_from(nth).ok().and_then(|nth| standing.get(nth)).copied().unwrap_or_default();
            let (before, between) = Box::pin(labels.around(asked, count, place)).await?;
            let after = match (between, after) {
                (Some(label), _) => Some(label),
                // The floor's record brought its commits itself, or is that of a state that was there before.
                (None, after) => after,
            };
            if let Some(before) = &before {
                told_apart(log, &labels, floor, (asked, at), (before, after.as_ref())).await?;
            }
            chosen(log, &labels, &opened, asked, at, (before, after), true).await?;
            let before = before.ok_or_else(|| log.gone(floor))?;
            let seen = tail.seq;
            let found = log.open_snapshot(before.seq).await?.ok_or_else(|| log.gone(before.seq))?;
            Found { point: before, opened: Opened { seen, ..found } }
        }
    };
    if found.opened.tail.figures.page_size.is_none() && found.opened.meta.kind == VolumeKind::Database {
        return Err(refused(log, "nothing was checkpointed yet".to_owned()));
    }
    match (epoch, asked) {
        (Some(epoch), Asked::Lsn(lsn)) => of_term(log, found, Position { epoch, lsn }).await,
        _ => Ok(found),
    }
}

/// Refuses a moment of which nobody knows the state, and names the two restore points around it (rule P9).
async fn told_apart(
    log: &Log,
    labels: &Labels<'_>,
    floor: Seq,
    (asked, at): (Asked, &At),
    (before, after): (&Label, Option<&Label>),
) -> Result<(), EngineError> {
    let Some(after) = after.filter(|after| after.is_gap) else { return Ok(()) };
    // What came after its last commit, and brought none, is no end of anything.
    let before = &arrived(labels, *before, floor).await?;
    if !in_gap(asked, before, after, 0) {
        return Ok(());
    }
    let gap = gap_of(log, after.seq).await?.ok_or_else(|| log.gone(after.seq))?;
    if !in_gap(asked, before, after, gap.since_ms) {
        return Ok(());
    }
    let what = what(at);
    Err(refused(
        log,
        format!(
            "{what} lies in a gap of the history: what was committed between {} and {} cannot be told apart ({}). Name one of these two",
            told(before),
            told(after),
            gap.reason
        ),
    ))
}

/// What a record says of commits that cannot be told apart. `None` where it is gone, or says nothing.
pub async fn gap_of(log: &Log, seq: Seq) -> Result<Option<Gap>, EngineError> {
    Ok(log.record(seq).await?.and_then(|record| match record.body {
        RecordBody::Checkpoint(checkpoint) => checkpoint.gap,
        _ => None,
    }))
}

fn what(at: &At) -> String {
    match at {
        At::Lsn(_) => format!("LSN {at}"),
        _ => at.to_string(),
    }
}

/// Refuses what the plan does not take, and names what there is.
async fn chosen(
    log: &Log,
    labels: &Labels<'_>,
    newest: &Opened,
    asked: Asked,
    at: &At,
    (before, after): (Option<Label>, Option<Label>),
    is_thinned: bool,
) -> Result<(), EngineError> {
    let what = what(at);
    let choice = choose(asked, before.as_ref(), after.as_ref(), is_thinned);
    let detail = match (choice, before, after) {
        (Choice::Take, ..) => return Ok(()),
        (Choice::Pruned, Some(before), Some(after)) => {
            format!("{what} was pruned: the restore points around it are {} and {}", told(&before), told(&after))
        }
        (Choice::TooLate, ..) => {
            format!("{what} is not published: the newest restore point is {}", told(&label_of(&newest.tail)))
        }
        (Choice::Pruned | Choice::TooEarly, ..) => match oldest(log, labels, newest).await? {
            None => "nothing was checkpointed yet".to_owned(),
            Some(oldest) if matches!(asked, Asked::Lsn(lsn) if lsn > Lsn::ZERO) && oldest.first != Some(Lsn(1)) => {
                format!("{what} was pruned: the oldest restore point is {}", told(&oldest))
            }
            Some(oldest) => {
                format!("{what} is before history begins: the oldest restore point is {}", told(&oldest))
            }
        },
    };
    Err(refused(log, detail))
}

fn refused(log: &Log, detail: String) -> EngineError {
    EngineError::NoSuchPosition { volume: log.url(), detail }
}

fn told(label: &Label) -> String {
    format!("{} of {}", label.position(), Utc(label.time_ms))
}

/// The oldest state that there is.
async fn oldest(log: &Log, labels: &Labels<'_>, newest: &Opened) -> Result<Option<Label>, EngineError> {
    let floor = newest.tail.floor.max(Seq(1));
    for seq in standing(log, floor, Since::Newest(&newest.glance())).await? {
        let label = labels.of(seq).await?;
        if label.lsn > Lsn::ZERO {
            return Ok(Some(label));
        }
    }
    // The first that brought a commit, which is one of the first.
    let first = Asked::Lsn(Lsn::ZERO);
    let count = newest.tail.seq.0 - floor.0 + 1;
    let (_, after) = Box::pin(labels.around(first, count, |nth| Seq(floor.0 + nth))).await?;
    Ok(after)
}

/// Where the last commit of a state arrived: what came after it, and brought none, is not what people know it by.
async fn arrived(labels: &Labels<'_>, state: Label, floor: Seq) -> Result<Label, EngineError> {
    let mut point = state;
    while point.first.is_none() && point.seq > floor {
        let before = labels.of(Seq(point.seq.0 - 1)).await?;
        if before.lsn != state.lsn {
            break;
        }
        point = before;
    }
    Ok(point)
}

/// Refuses a commit of a term that did not publish it: a takeover has cut it off.
async fn of_term(log: &Log, found: Found, asked: Position) -> Result<Found, EngineError> {
    let tail = &found.opened.tail;
    let mut published = found.point.epoch;
    let mut until = tail.epoch;
    if asked.lsn != tail.lsn {
        // It was published with what came next.
        let mut seq = tail.seq.next();
        while let Some(envelope) = log.envelope(seq).await? {
            (published, until) = (envelope.header.epoch, envelope.header.epoch);
            if !envelope.header.lsns.is_empty() {
                break;
            }
            seq = seq.next();
        }
    }
    // A claim brings no commit: the newest one may be older than the term that it is the newest of.
    if asked.epoch >= published && asked.epoch <= until {
        return Ok(found);
    }
    Err(refused(
        log,
        format!(
            "LSN {} was published in epoch {published}, not in {}: that position was cut off",
            asked.lsn, asked.epoch
        ),
    ))
}
