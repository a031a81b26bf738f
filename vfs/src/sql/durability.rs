//! `littoral_durability`, `littoral_durability_once` and `littoral_durable_lsn`: when a commit counts as done, and how far that is.

use super::{Cell, Function, Refusal, Run, Target, ours};
use littoral_engine::settings::Durability;

/// When this connection's commits count as done: `local` or `remote`. Without a value it says which.
pub(super) const DURABILITY: Function =
    Function { name: "littoral_durability", arguments_max: 1, run: Run::OfDatabase(durability) };

/// The same for the transaction that is open, or for the next one.
pub(super) const ONCE: Function =
    Function { name: "littoral_durability_once", arguments_max: 1, run: Run::OfDatabase(once) };

/// The position up to which the object store has everything, as far as anybody here has published.
pub(super) const DURABLE_LSN: Function = Function {
    name: "littoral_durable_lsn",
    arguments_max: 0,
    run: Run::OfDatabase(|target, _| durable_lsn(ours(target)?)),
};

fn durability(target: Option<&Target>, said: &[Option<String>]) -> Result<Cell, Refusal> {
    let target = ours(target)?;
    if let Some(said) = said.first() {
        target.wish.set(parsed(said.as_deref())?);
    }
    Ok(Cell::text(target.wish.now()))
}

fn once(target: Option<&Target>, said: &[Option<String>]) -> Result<Cell, Refusal> {
    let target = ours(target)?;
    let wish = parsed(said.first().and_then(Option::as_deref))?;
    target.wish.set_once(wish);
    Ok(Cell::text(wish))
}

fn parsed(said: Option<&str>) -> Result<Durability, Refusal> {
    said.and_then(|said| said.parse().ok()).ok_or_else(|| {
        let said = said.map_or_else(String::new, |said| format!(", not {said:?}"));
        Refusal::usage(format!("durability is local or remote{said}"))
    })
}

fn durable_lsn(target: &Target) -> Result<Cell, Refusal> {
    if let Some(position) = target.database.tracker().and_then(|tracker| tracker.durable()) {
        return Ok(Cell::text(position));
    }
    Ok(super::status::published(target)?.map_or(Cell::Null, Cell::text))
}
