//! `littoral_status`: where the database stands, without asking the object store.

use super::{Cell, Function, Refusal, Table, Target, ours};
use crate::last;
use littoral_types::Position;

/// All of it as one text, a line for each word.
pub(super) const STATUS: Function = Function { name: "littoral_status", arguments_max: 0, run: told };

/// The same as rows.
pub(super) const TABLE: Table =
    Table { name: "littoral_status", columns: &["name TEXT", "value"], rows: |target| rows(ours(target)?) };

fn told(target: Option<&Target>, _: &[Option<String>]) -> Result<Cell, Refusal> {
    let rows = rows(ours(target)?)?;
    let lines = rows.iter().filter_map(|row| match row.as_slice() {
        [name, value] => Some(format!("{:<18}{}", name.shown(), value.shown())),
        _ => None,
    });
    Ok(Cell::Text(lines.collect::<Vec<_>>().join("\n")))
}

fn rows(target: &Target) -> Result<Vec<Vec<Cell>>, Refusal> {
    let Target { database, said, .. } = target;
    let place = said.place(database.path())?;
    let manifest = place.manifest()?;
    let row = manifest.and_then(|manifest| manifest.volume(&place.volume.value).transpose()).transpose();
    let row = row.map_err(littoral_engine::EngineError::from)?;
    let row = row.filter(|row| place.found.as_ref().is_some_and(|found| found.binding.id == row.meta.id));
    let tracker = database.tracker();
    let fence = tracker.and_then(|tracker| tracker.fenced());
    let basis = tracker.and_then(|tracker| tracker.basis());
    let commits = tracker.map(|tracker| tracker.commits_since());
    let marked = tracker.filter(|_| basis.is_some()).map(|tracker| tracker.marked_bytes());
    let tail = row.as_ref().map(|row| &row.tail);
    let safe = match (&fence, tail, commits, marked) {
        (Some((epoch, owner)), ..) => format!("no: {owner} took over (epoch {epoch}); nothing is published from here"),
        (None, None, ..) => "no: nothing was published yet (PRAGMA littoral_checkpoint)".to_owned(),
        (None, Some(_), Some(0), Some(0)) => "yes: the object store has everything".to_owned(),
        // A backfill writes pages that were published out of the WAL: they are looked at again, and found unchanged.
        (None, Some(_), Some(0), Some(_)) => {
            "yes, as far as commits were counted: none came since the last publication".to_owned()
        }
        (None, Some(_), Some(commits), Some(_)) => format!("not yet: {commits} commits since the last publication"),
        (None, Some(_), _, _) => "not known: the next checkpoint compares all pages".to_owned(),
    };
    let sparse = database.sparse().map(|sparse| {
        let (here, all) = sparse.progress();
        format!("{here} of {all} pages, of {}", sparse.origin().position)
    });
    let fetched = database.sparse().and_then(|sparse| sparse.cost()).map(|(totals, _)| {
        let all = totals.all();
        format!("{} bytes in {} requests", all.bytes_down, all.requests)
    });
    let text = |text: Option<String>| text.map_or(Cell::Null, Cell::Text);
    let number = |number: Option<u64>| number.map_or(Cell::Null, Cell::count);
    let rows = [
        ("safe", Cell::Text(safe)),
        ("volume", Cell::Text(place.url())),
        ("position", text(tail.map(|tail| Position { epoch: tail.epoch, lsn: tail.lsn }.to_string()))),
        ("record", number(tail.map(|tail| tail.seq.0))),
        ("commits_since", number(commits)),
        ("bytes_changed", number(marked)),
        ("writer", text(tail.and_then(|tail| tail.owner.as_ref()).map(|owner| owner.label.clone()))),
        ("fenced_by", text(fence.map(|(epoch, owner)| format!("{owner} (epoch {epoch})")))),
        ("here", Cell::Text(sparse.unwrap_or_else(|| "everything".to_owned()))),
        ("fetched", text(fetched)),
        ("store", text(place.store_root.as_ref().map(|root| root.display().to_string()))),
        ("last_error", text(last::last())),
    ];
    Ok(rows.map(|(name, value)| vec![Cell::text(name), value]).to_vec())
}
