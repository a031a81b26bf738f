//! `littoral_session`, `littoral_serial`, `littoral_durable_serial` and the table `littoral_sessions`: exactly-once for who names himself
//! (rule P10).
//!
//! A serial is the application's, and is written by the application's own transaction: what this room does is a statement on the connection
//! that asks.

use super::{Cell, Function, Refusal, Rows, Run, Table, Target, manifest_of, ours};
use crate::raw::abi::code;
use crate::raw::asking::Asking;
use crate::seat::Seat;
use littoral_engine::EngineError;
use littoral_engine::sessions::{TABLE as SERIALS, holders};
use littoral_types::{Serial, SessionMark, SessionName};
use std::collections::BTreeMap;

/// Which session this connection is. With a name it becomes that one, with an empty one it is none any more.
pub(super) const SESSION: Function =
    Function { name: "littoral_session", arguments_max: 1, run: Run::OfDatabase(session) };

/// How far this connection's session is in what it reads; with a number, in the transaction that is open, how far it is from here on.
pub(crate) const SERIAL: Function =
    Function { name: "littoral_serial", arguments_max: 1, run: Run::OfDatabase(serial) };

/// How far a session is in the object store: this connection's, or the one that is named.
pub(super) const DURABLE_SERIAL: Function =
    Function { name: "littoral_durable_serial", arguments_max: 1, run: Run::OfDatabase(durable_serial) };

/// All sessions that are in the database, in the object store, or held by somebody.
pub(super) const TABLE: Table = Table {
    name: "littoral_sessions",
    columns: &["session TEXT", "serial INTEGER", "durable_serial INTEGER", "position TEXT", "holder TEXT"],
    rows: Rows::OfDatabase(rows),
};

/// What a connection without a name is told: commits are counted, and a count says nothing for certain.
const UNKNOWN: &str = "unknown";

/// The table, and what keeps the application's own statements to the same rule.
const MAKES: [&str; 3] = [
    "CREATE TABLE main.littoral_serials(session TEXT PRIMARY KEY, serial INTEGER)",
    "CREATE TRIGGER main.littoral_serials_go_up BEFORE UPDATE OF serial ON littoral_serials WHEN NEW.serial <= OLD.serial \
     BEGIN SELECT RAISE(ABORT, 'littoral: a serial must be above the last one of its session'); END",
    "CREATE TRIGGER main.littoral_serials_stay BEFORE INSERT ON littoral_serials \
     WHEN EXISTS (SELECT 1 FROM littoral_serials WHERE session = NEW.session AND serial >= NEW.serial) \
     BEGIN SELECT RAISE(ABORT, 'littoral: a serial must be above the last one of its session'); END",
];

fn name_of(text: &str) -> Result<SessionName, Refusal> {
    text.parse().map_err(|error: littoral_types::SessionNameError| Refusal::usage(error.to_string()))
}

fn session(target: Option<&Target>, said: &[Option<String>]) -> Result<Cell, Refusal> {
    let target = ours(target)?;
    if let Some(said) = said.first() {
        match said.as_deref().unwrap_or_default() {
            "" => target.seat.leave(),
            name if target.database.replica().is_some() => target.seat.look(name_of(name)?),
            name => take(target, &name_of(name)?)?,
        }
    }
    Ok(shown(&target.seat))
}

fn shown(seat: &Seat) -> Cell {
    seat.name().map_or(Cell::Null, Cell::text)
}

fn take(target: &Target, name: &SessionName) -> Result<(), Refusal> {
    let path = target.database.path().display();
    target.seat.take(&target.database, name).map_err(|error| match error {
        littoral_engine::LocalError::Busy { holder, .. } => {
            let message = format!(
                "{path}: session {name} is held by {holder}. One connection at a time is a session: let that one be closed, or choose \
                 another name. A holder that dies lets it go"
            );
            crate::last::error(&message);
            Refusal { code: code::BUSY, message }
        }
        error => EngineError::from(error).into(),
    })
}

fn serial(target: Option<&Target>, said: &[Option<String>]) -> Result<Cell, Refusal> {
    let target = ours(target)?;
    match said.first() {
        None => current(target.asking, &target.seat),
        Some(said) => go_on(target, said.as_deref().unwrap_or_default()),
    }
}

/// How far the session is in what the connection reads now.
fn current(asking: Asking, seat: &Seat) -> Result<Cell, Refusal> {
    match seat.name() {
        None => Ok(Cell::text(UNKNOWN)),
        Some(name) => Ok(last(asking, &name)?.map_or(Cell::Null, Cell::Number)),
    }
}

fn last(asking: Asking, name: &SessionName) -> Result<Option<i64>, Refusal> {
    if !asking.has_table(SERIALS)? {
        return Ok(None);
    }
    let rows = asking.rows(c"SELECT serial FROM main.littoral_serials WHERE session = ?1", &[Cell::text(name)])?;
    Ok(rows.first().and_then(|row| match row.first() {
        Some(Cell::Number(number)) => Some(*number),
        _ => None,
    }))
}

fn go_on(target: &Target, said: &str) -> Result<Cell, Refusal> {
    let path = target.database.path().display();
    let number = said.trim().parse().ok().filter(|number| Serial::of_sql(*number).is_some());
    let Some(number) = number else {
        return Err(Refusal::usage(format!("not a serial: {said:?}: whole numbers from 0 to {}", Serial::MAX)));
    };
    let Some(name) = target.seat.name() else {
        return Err(Refusal::usage(format!(
            "{path}: this connection is no named session, and serials of others are not kept: PRAGMA littoral_session='NAME' first"
        )));
    };
    if target.database.replica().is_some() {
        return Err(Refusal::usage(format!("{path}: is a replica: it is only read here")));
    }
    if !target.asking.is_in_transaction() {
        return Err(Refusal::usage(format!(
            "{path}: a serial belongs into the transaction of what it stands for, and none is open: BEGIN, do it, SELECT \
             littoral_serial({number}), COMMIT"
        )));
    }
    let asking = target.asking;
    if !asking.has_table(SERIALS)? {
        MAKES.iter().try_for_each(|sql| asking.run(sql))?;
    }
    if let Some(last) = last(asking, &name)?.filter(|last| *last >= number) {
        return Err(Refusal::usage(format!(
            "{path}: session {name} is at serial {last}, and {number} is not above it: what it stands for was done already. Nothing was \
             written; go on from {last} (SELECT littoral_serial())"
        )));
    }
    // The table may be the application's own, without anything that an upsert could name.
    let values = [Cell::text(&name), Cell::Number(number)];
    asking.rows(c"UPDATE main.littoral_serials SET serial = ?2 WHERE session = ?1", &values)?;
    let insert = c"INSERT INTO main.littoral_serials(session, serial) SELECT ?1, ?2 WHERE NOT EXISTS \
                   (SELECT 1 FROM main.littoral_serials WHERE session = ?1)";
    asking.rows(insert, &values)?;
    Ok(Cell::Number(number))
}

fn durable_serial(target: Option<&Target>, said: &[Option<String>]) -> Result<Cell, Refusal> {
    let known = ours(target)?;
    let name = match said.first() {
        Some(said) => name_of(said.as_deref().unwrap_or_default())?,
        None => match known.seat.name() {
            Some(name) => name,
            None => return Ok(Cell::text(UNKNOWN)),
        },
    };
    let found = durable(target)?.remove(&name).and_then(|mark| mark.step.serial());
    // One that began anew here, which no record tells yet: what is there is of the numbering before.
    let here = if known.asking.has_table(SERIALS)? { last(known.asking, &name)? } else { None };
    let is_of_it =
        |serial: &Serial| here.is_some_and(|here| u64::try_from(here).is_ok_and(|here| here >= serial.get()));
    Ok(found.filter(is_of_it).map_or(Cell::Null, |serial| Cell::count(serial.get())))
}

/// What the volume's records say, as far as this store has published or read them.
fn durable(target: Option<&Target>) -> Result<BTreeMap<SessionName, SessionMark>, Refusal> {
    let Some((manifest, volume)) = manifest_of(target)? else { return Ok(BTreeMap::new()) };
    let marks = manifest.sessions(&volume).map_err(EngineError::from)?;
    Ok(marks.into_iter().map(|mark| (mark.session.clone(), mark)).collect())
}

fn rows(target: Option<&Target>) -> Result<Vec<Vec<Cell>>, Refusal> {
    let known = ours(target)?;
    let mut all: BTreeMap<SessionName, [Cell; 4]> = BTreeMap::new();
    let mut put = |name: SessionName, at: usize, cell: Cell| {
        let row = all.entry(name).or_insert([Cell::Null, Cell::Null, Cell::Null, Cell::Null]);
        if let Some(slot) = row.get_mut(at) {
            *slot = cell;
        }
    };
    if known.asking.has_table(SERIALS)? {
        for row in known.asking.rows(c"SELECT session, serial FROM main.littoral_serials", &[])? {
            let [Cell::Text(name), serial] = row.as_slice() else { continue };
            if let Ok(name) = name.parse() {
                put(name, 0, serial.clone());
            }
        }
    }
    for (name, mark) in durable(target)? {
        if let Some(serial) = mark.step.serial() {
            put(name.clone(), 1, Cell::count(serial.get()));
            put(name, 2, Cell::text(mark.position));
        }
    }
    for (name, holder) in holders(&known.database.sessions()).map_err(EngineError::from)? {
        put(name, 3, Cell::Text(holder));
    }
    Ok(all.into_iter().map(|(name, row)| [vec![Cell::text(name)], row.to_vec()].concat()).collect())
}

/// Answers what a moment of the past can be asked of sessions; `None` for other questions.
pub(crate) fn of_past(
    asking: Asking,
    seat: &Seat,
    name: &str,
    said: &[Option<String>],
) -> Option<Result<Cell, Refusal>> {
    if name == SERIAL.name && said.is_empty() {
        return Some(current(asking, seat));
    }
    if name != SESSION.name {
        return None;
    }
    let moved = match said.first().map(|said| said.as_deref().unwrap_or_default()) {
        None => Ok(()),
        Some("") => {
            seat.leave();
            Ok(())
        }
        Some(name) => name_of(name).map(|name| seat.look(name)),
    };
    Some(moved.map(|()| shown(seat)))
}
