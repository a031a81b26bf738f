//! `littoral_wait(position [, timeout_ms])`: on a replica, reading here what was written elsewhere; where it is written, having it in the
//! object store.

use super::{Cell, Function, Refusal, Run, Target, ours};
use crate::durable;
use crate::raw::abi::code;
use littoral_engine::follow::Replica;
use littoral_engine::tracker::Tracker;
use littoral_types::Position;
use std::time::Duration;

/// Answers the position that is shown by then: the one that was waited for, or a later one.
pub(super) const WAIT: Function = Function { name: "littoral_wait", arguments_max: 2, run: Run::OfDatabase(wait) };

/// How long is waited where nobody says.
const TIMEOUT_MS: u64 = 30_000;

fn wait(target: Option<&Target>, arguments: &[Option<String>]) -> Result<Cell, Refusal> {
    let target = ours(target)?;
    let usage = || {
        Refusal::usage(
            "littoral_wait takes a position, epoch.lsn, and perhaps milliseconds: littoral_wait('1.42', 5000)",
        )
    };
    // A pragma has one argument.
    let mut words = arguments.iter().flatten().flat_map(|argument| argument.split(',')).map(str::trim);
    let position: Position = words.next().and_then(|word| word.parse().ok()).ok_or_else(usage)?;
    let timeout = words.next().map_or(Some(TIMEOUT_MS), |word| word.parse().ok()).ok_or_else(usage)?;
    if words.next().is_some() {
        return Err(usage());
    }
    match target.database.replica() {
        Some(replica) => on_replica(target, &replica, position, Duration::from_millis(timeout)),
        None => on_writer(target, position, Duration::from_millis(timeout)),
    }
}

fn on_writer(target: &Target, position: Position, timeout: Duration) -> Result<Cell, Refusal> {
    let path = target.database.path().display();
    let published = || match target.database.tracker().and_then(|tracker| tracker.durable()) {
        Some(durable) => Ok(Some(durable)),
        None => super::status::published(target),
    };
    let other_term = |now: Position| {
        Refusal::usage(format!(
            "{path}: {position} is of another term than the volume's ({}): whether it was cut off, SELECT * FROM littoral_terms tells",
            now.epoch
        ))
    };
    if let Some(now) = published()?.filter(|now| now.epoch != position.epoch) {
        return Err(other_term(now));
    }
    let Some(tracker) = target.database.tracker() else {
        return Err(Refusal::usage(format!("{path}: is only read here: what others commit is not known")));
    };
    let is_there = |tracker: &Tracker| {
        tracker.durable().is_some_and(|durable| durable.epoch != position.epoch || durable.lsn >= position.lsn)
    };
    let waited = match published()? {
        Some(now) if now.lsn >= position.lsn => Ok(()),
        _ => durable::wait(target, tracker, timeout, &is_there),
    };
    match (waited, published()?) {
        (_, Some(now)) if now.epoch != position.epoch => Err(other_term(now)),
        (Ok(()), Some(now)) => Ok(Cell::text(now)),
        (Ok(()), None) => Err(Refusal::usage(format!("{path}: nothing was published"))),
        (Err(why), now) => {
            let now = now.map_or_else(|| "nothing".to_owned(), |now| now.to_string());
            let message = format!("{path}: {position} is not in the object store, {now} is: {why}");
            crate::last::refused(&message);
            Err(Refusal { code: code::BUSY, message })
        }
    }
}

fn on_replica(target: &Target, replica: &Replica, position: Position, timeout: Duration) -> Result<Cell, Refusal> {
    let newest = replica.wait(position, timeout)?;
    match target.shown {
        // A transaction reads one state until it ends.
        Some(shown) if shown.lsn < position.lsn => Err(Refusal::usage(format!(
            "{}: {newest} is here, but this connection is in a read transaction that shows {shown}: end it (COMMIT, or finish or reset its \
             statements), and ask again",
            target.database.path().display()
        ))),
        _ => Ok(Cell::text(newest)),
    }
}
