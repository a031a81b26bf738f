//! A copy becomes a volume of its own, because its primary is lost or is to be left.
//!
//! Two object stores have no common compare-and-swap, so that nothing that is written to a copy keeps the primary's writer from
//! publishing there. Where the primary can be reached it is fenced first, in its own log, and what it has is copied to the end: nothing is
//! lost, and its writer is told where it goes on. Where it cannot, whoever promotes says so, and answers for it that nobody writes there.
//!
//! | state | durable | after a crash |
//! |---|---|---|
//! | the primary claimed, for nobody | its writer is superseded | claimed once more: a term without a commit |
//! | its logs promoted, each in this way | the logs that are tables of it go on here, and have all that it counts | found promoted |
//! | copied to its end | the copy holds the claim | found there |
//! | marked | the copy is a volume | nothing is left to do |

use crate::components::Components;
use crate::error::EngineError;
use crate::exec::rebuild::begin;
use crate::exec::replicate::{Order, mark_of, position_of, put_promotion, replicate};
use crate::log::{Draft, Log, Writer};
use crate::logs::tables::{counted_at, volume_of};
use littoral_local::Spool;
use littoral_ports::{MemoryManifest, RemoteError};
use littoral_types::{Claim, CopyMark, CopyState, Owner, Position, RecordBody, StoreId, VolumeName};
use std::sync::Arc;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Promoted {
    /// Where the copy ends: the next writer names this epoch.
    pub position: Position,
    /// What that is labelled with.
    pub time_ms: u64,
    /// Whether the primary's log says so.
    pub fenced: bool,
    /// Where the primary is, or was.
    pub of: String,
    /// It was one already.
    pub was_promoted: bool,
    /// The logs that are tables of it, and what came of each; nothing where it is not at the copy.
    pub logs: Vec<(VolumeName, Option<Promoted>)>,
}

/// Opens the primary, or another one of its volumes.
pub type Primary<'a> = &'a (dyn Fn(&CopyMark, &VolumeName) -> Result<Log, EngineError> + Sync);

/// Makes a volume of a copy, and of those of the logs that are tables of it. `primary` is its primary's log, if it can be opened at all; `without`
/// allows to go on where that cannot be fenced.
pub async fn promote(
    copy: &Log,
    primary: Primary<'_>,
    spool: &Spool,
    components: &Components,
    without: bool,
) -> Result<Promoted, EngineError> {
    let url = copy.url();
    let Some(mark) = mark_of(copy).await? else {
        return Err(EngineError::Refused(format!(
            "{url} is no copy: there is nothing to promote. A volume is taken over from with --takeover=EPOCH"
        )));
    };
    let nothing = || EngineError::NoVolume(url.clone());
    match &mark.state {
        CopyState::Promoted { fenced, .. } => {
            let (position, time_ms) = position_of(copy).await?.ok_or_else(nothing)?;
            let logs = Vec::new();
            return Ok(Promoted { position, time_ms, fenced: *fenced, of: mark.of, was_promoted: true, logs });
        }
        CopyState::Fills(seq) => {
            return Err(EngineError::Refused(format!(
                "{url} is a copy that is being filled at record {seq}, and not whole: it cannot be promoted before that is done \
                 (littoral copy)"
            )));
        }
        CopyState::Follows => {}
    }
    let (fenced, logs) = match fence(primary(&mark, copy.name()), &mark, copy, components).await {
        Ok(from) => {
            components.faults.reach("promote.fenced")?;
            // Nothing is published at the primary any more, so that they have all that it counts.
            let logs = Box::pin(promote_logs(&from, copy, primary, spool, components, without)).await?;
            let order = Order {
                from: &from,
                row: None,
                seen: None,
                to: copy,
                spool,
                file: None,
                others: &[],
                grace_ms: u64::MAX,
            };
            Box::pin(replicate(&order, components, &mut None)).await?;
            (true, logs)
        }
        Err(error) if error.is_crash() => return Err(error),
        Err(error) if without => {
            tracing::warn!(%error, primary = mark.of, "the primary is not fenced: whoever writes there is not stopped by this");
            (false, Box::pin(promote_logs(copy, copy, primary, spool, components, without)).await?)
        }
        Err(error) => {
            let (position, _) = position_of(copy).await?.ok_or_else(nothing)?;
            return Err(EngineError::Refused(format!(
                "the primary at {} cannot be fenced: {error}. Whoever writes there would go on, and what he commits since {position} would be \
                 missing here. Nothing was changed. If he is stopped for good: littoral promote {url} --without-primary",
                mark.of
            )));
        }
    };
    let (position, time_ms) = position_of(copy).await?.ok_or_else(nothing)?;
    components.faults.reach("promote.copied")?;
    // What was copied meanwhile is in it.
    let mark = mark_of(copy).await?.unwrap_or(mark);
    let state = CopyState::Promoted { at_ms: components.clock.wall_ms(), fenced, by: host() };
    let mark = put_promotion(copy, CopyMark { state, ..mark }).await?;
    components.faults.reach("promote.marked")?;
    // Somebody else's at the same time says the same.
    let fenced = fenced && matches!(mark.state, CopyState::Promoted { fenced: true, .. });
    Ok(Promoted { position, time_ms, fenced, of: mark.of, was_promoted: false, logs })
}

/// Promotes the logs that a database's newest state counts rows of. One that its copy never had is copied now, where the primary can be read.
async fn promote_logs(
    state: &Log,
    copy: &Log,
    primary: Primary<'_>,
    spool: &Spool,
    components: &Components,
    without: bool,
) -> Result<Vec<(VolumeName, Option<Promoted>)>, EngineError> {
    let Some(opened) = state.open().await? else { return Ok(Vec::new()) };
    let mut promoted = Vec::new();
    for counted in counted_at(state, &opened).await? {
        let name = volume_of(copy.name(), &counted.folder)?;
        let to = Log::new(copy.remote().clone(), name.clone());
        let is_whole =
            matches!(mark_of(&to).await?.map(|mark| mark.state), Some(state) if !matches!(state, CopyState::Fills(_)));
        if !is_whole {
            let from = Log::new(state.remote().clone(), name.clone());
            if state.url() == copy.url() || from.newest().await?.is_none() {
                promoted.push((name, None));
                continue;
            }
            let (from, to) = (&from, &to);
            let order = Order { from, row: None, seen: None, to, spool, file: None, others: &[], grace_ms: u64::MAX };
            Box::pin(replicate(&order, components, &mut None)).await?;
        }
        let done = Box::pin(promote(&to, primary, spool, components, without)).await?;
        components.faults.reach("promote.log")?;
        promoted.push((name, Some(done)));
    }
    Ok(promoted)
}

/// Ends whoever's term it is at the primary, on behalf of nobody who writes there. Its log.
async fn fence(
    primary: Result<Log, EngineError>,
    mark: &CopyMark,
    copy: &Log,
    components: &Components,
) -> Result<Log, EngineError> {
    let log = primary?;
    let opened = log.open().await?.ok_or_else(|| EngineError::NoVolume(log.url()))?;
    if opened.meta.id != mark.volume {
        let detail = "another volume was made under this name since it was copied".to_owned();
        return Err(EngineError::NotAVolume { volume: log.url(), detail });
    }
    refuse_copy(&log).await?;
    let label = label(copy);
    match &opened.tail.owner {
        // By an attempt that was cut off.
        Some(owner) if owner.label == label => return Ok(log),
        // The claim that ended the term at its own primary, of which it was a copy, says so of this place itself.
        Some(owner) if owner.label.starts_with(GOES_ON) && owner.label != self::label(&log) => {
            let at = owner.label.trim_start_matches(GOES_ON);
            return Err(EngineError::Refused(format!(
                "it was left for {at}, where the volume goes on: copy from there first (littoral copy {at} {})",
                copy.remote().url()
            )));
        }
        _ => {}
    }
    let manifest = Arc::new(MemoryManifest::new());
    let row = begin(&log, &opened, &*manifest, components).await?;
    let (epoch, meta) = (row.tail.epoch, row.meta.clone());
    let owner = Owner { store: StoreId(components.bits()), label };
    let mut writer = Writer::new(log.clone(), manifest, components.clone(), owner.store, row);
    let takes_over = opened.tail.owner.is_some().then_some(epoch);
    let draft = Draft::of(RecordBody::Claim(Claim { owner, takes_over, volume: meta }), writer.row().tail.figures);
    writer.publish(draft).await?;
    Ok(log)
}

/// What a primary's log says of its owner once it was left, before the URL of the place.
const GOES_ON: &str = "nobody here: it goes on at ";

fn label(copy: &Log) -> String {
    let label = format!("{GOES_ON}{}", copy.url());
    label.chars().take(littoral_types::limits::TEXT_LEN_MAX / 4).collect()
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Refuses to claim a volume at a copy that nobody promoted, and to take it for a primary.
pub(crate) async fn refuse_copy(log: &Log) -> Result<(), EngineError> {
    match mark_of(log).await {
        Ok(None) => Ok(()),
        Ok(Some(mark)) if matches!(mark.state, CopyState::Promoted { .. }) => Ok(()),
        Ok(Some(mark)) => Err(EngineError::Refused(format!(
            "{url} is a copy of the volume at {of}, which alone may be written and copied. Nothing was published. Choose: the primary \
             (remote={of}, copy={here}); or, if that is lost or to be left for good, littoral promote {url}",
            url = log.url(),
            of = mark.of,
            here = log.remote().url()
        ))),
        // Whoever may not read it will be told by what follows.
        Err(EngineError::Remote(RemoteError::Denied { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Refuses to begin a volume whose primary is empty, where a copy has one of that name.
pub(crate) async fn refuse_lost(log: &Log) -> Result<(), EngineError> {
    for copy in log.remote().copies() {
        let copy = Log::new(copy, log.name().clone());
        // One that cannot be asked keeps nobody from beginning.
        let Ok(Some((position, _))) = position_of(&copy).await else { continue };
        return Err(EngineError::Refused(format!(
            "{} holds no volume, and its copy at {} holds one, up to {position}: the primary has lost it. Nothing was published. Choose: \
             littoral promote {} and remote={}; the copy's state (littoral restore {0} DEST --copy={3}); or a name of its own (--volume=NAME)",
            log.url(),
            copy.url(),
            copy.url(),
            copy.remote().url()
        )));
    }
    Ok(())
}
