//! Waiting until a replica shows a position: reading here what was written elsewhere.

use super::following::Following;
use super::{FollowError, Inner};
use crate::error::EngineError;
use crate::log::Opened;
use crate::log::read::Glance;
use crate::runtime;
use littoral_types::{Position, RecordSummary};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long a look at the log's past may take.
const HISTORY_DEADLINE: Duration = Duration::from_secs(60);
/// Records of the past that are read at a time.
const HISTORY_STEP: usize = 256;
/// How often news of other processes are looked for in shared memory.
const GLANCE: Duration = Duration::from_millis(20);

/// How a position stands to a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// The state shows it.
    Shown,
    /// It comes, or not: nobody knows yet.
    Ahead,
    /// Another term began before it.
    CutOff,
    /// What is known does not reach back to where it would be.
    Unknown,
}

/// Compares a position with the newest state, by what is known of its past: ascending, up to the newest record.
fn stands(position: Position, newest: Position, past: &[RecordSummary]) -> Stands {
    if position.epoch >= newest.epoch {
        let is_shown = position.epoch == newest.epoch && position.lsn <= newest.lsn;
        return if is_shown { Stands::Shown } else { Stands::Ahead };
    }
    if position.lsn > newest.lsn {
        return Stands::CutOff;
    }
    // The first record of a later term says where its own ended. One that is not the first that is known follows one of an earlier term.
    match past.iter().position(|record| record.epoch > position.epoch) {
        Some(at) if at > 0 || past.first().is_some_and(|first| first.seq.0 == 1) => {
            let ended = past.get(at).map_or(0, |record| record.lsns.first.0.saturating_sub(1));
            if position.lsn.0 <= ended { Stands::Shown } else { Stands::CutOff }
        }
        _ => Stands::Unknown,
    }
}

impl Inner {
    pub(super) fn wait(self: &Arc<Self>, position: Position, timeout: Duration) -> Result<Position, FollowError> {
        let began = Instant::now();
        loop {
            let told = *self.moved.0.lock().unwrap_or_else(PoisonError::into_inner);
            let following = self.up_to_date()?;
            let opened = following.opened_now();
            let newest = Position { epoch: opened.tail.epoch, lsn: opened.tail.lsn };
            let mut found = stands(position, newest, &opened.recent);
            if found == Stands::Unknown {
                found = stands(position, newest, &self.past(&following, &opened, position)?);
            }
            match found {
                Stands::Shown => return Ok(newest),
                Stands::CutOff => {
                    return Err(EngineError::Refused(format!(
                        "{}: {position} was cut off: another writer took over before it was published, and the volume goes on as {newest}. It \
                         will never be shown",
                        self.log.url()
                    ))
                    .into());
                }
                Stands::Unknown => {
                    return Err(EngineError::Refused(format!(
                        "{}: {position} is of a term so long ago that its records were pruned: whether it was cut off is not known any more",
                        self.log.url()
                    ))
                    .into());
                }
                Stands::Ahead => {}
            }
            let left = timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                let trouble = self.local.trouble().map(|why| format!(" ({why})")).unwrap_or_default();
                return Err(FollowError::Late(format!(
                    "{}: {position} is not shown here after {} ms, but {newest}{trouble}",
                    self.log.url(),
                    timeout.as_millis()
                )));
            }
            self.poke();
            let (moved, told_of) = &self.moved;
            let guard = moved.lock().unwrap_or_else(PoisonError::into_inner);
            let slice = left.min(GLANCE);
            drop(told_of.wait_timeout_while(guard, slice, |now| *now == told));
        }
    }

    fn up_to_date(self: &Arc<Self>) -> Result<Arc<Following>, FollowError> {
        let following = self.known_newest();
        if following.files.number() == self.local.current() && following.end().seq >= following.files.newest() {
            return Ok(following);
        }
        let mut reader = super::Reader::new(self.clone());
        reader.begin()?;
        Ok(self.known_newest())
    }

    /// What is known of the log's past, back to before a position's term ended.
    fn past(
        &self,
        following: &Following,
        opened: &Opened,
        position: Position,
    ) -> Result<Vec<RecordSummary>, FollowError> {
        let (log, opened) = (following.log.clone(), opened.clone());
        let past = runtime::cross(HISTORY_DEADLINE, async move || {
            let glance = Glance { volume: opened.meta.id, tail: opened.tail.clone(), recent: opened.recent.clone() };
            let mut past: Vec<RecordSummary> = Vec::new();
            let mut before = opened.tail.seq.next();
            loop {
                let step = log.history(&glance, before, HISTORY_STEP).await?;
                let Some(oldest) = step.last().map(|record| record.seq) else { break };
                let reaches = step.iter().any(|record| record.epoch <= position.epoch);
                past.extend(step);
                if reaches || oldest >= before {
                    break;
                }
                before = oldest;
            }
            past.reverse();
            Ok::<_, EngineError>(past)
        });
        Ok(past??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_types::{Epoch, FooterFigures, Lsn, LsnRange, PageCount, RecordHash, RecordKind, Seq};

    fn position(text: &str) -> Position {
        text.parse().unwrap()
    }

    fn past(records: &[(u64, u64, u64, u64)]) -> Vec<RecordSummary> {
        let record = |(seq, epoch, first, last): &(u64, u64, u64, u64)| RecordSummary {
            seq: Seq(*seq),
            kind: RecordKind::Segment,
            hash: RecordHash::NONE,
            epoch: Epoch(*epoch),
            lsns: LsnRange { first: Lsn(*first), last: Lsn(*last) },
            time_ms: 0,
            page_count: PageCount(1),
            added: FooterFigures::default(),
        };
        records.iter().map(record).collect()
    }

    #[test]
    fn p04_a_position_that_a_takeover_cut_off_is_never_taken_for_one_that_came() {
        // The first term ended with LSN 40, the second brought up to 44, the third goes on.
        let log = past(&[(1, 1, 1, 0), (2, 1, 1, 40), (3, 2, 41, 40), (4, 2, 41, 44), (5, 3, 45, 44), (6, 3, 45, 50)]);
        let at = |text| stands(position(text), position("3.50"), &log);
        assert_eq!(
            [at("1.40"), at("1.1"), at("1.41"), at("1.50"), at("1.51")],
            [Stands::Shown, Stands::Shown, Stands::CutOff, Stands::CutOff, Stands::CutOff]
        );
        assert_eq!(
            [at("2.40"), at("2.44"), at("2.45"), at("2.99")],
            [Stands::Shown, Stands::Shown, Stands::CutOff, Stands::CutOff]
        );
        assert_eq!(
            [at("3.50"), at("3.51"), at("4.1"), at("4.60")],
            [Stands::Shown, Stands::Ahead, Stands::Ahead, Stands::Ahead]
        );
        // What is known begins in the middle of the third term.
        let rest = &log[5..];
        assert_eq!(stands(position("2.44"), position("3.50"), rest), Stands::Unknown);
        assert_eq!(stands(position("2.51"), position("3.50"), rest), Stands::CutOff);
    }
}
