//! Tables that tell which commits they hold.
//!
//! Every transaction takes the next number of one clock, notes it in a ledger, and writes it into some cells. So a state of the
//! database is a committed prefix exactly when its ledger holds all numbers up to its clock, and each cell the last one that was
//! its turn; a mixture of two states is neither. What else happens (tables that come and go, vacuums, rollbacks) changes pages only.

use crate::shell::Shell;

/// Cells of the table.
const CELLS: u64 = 240;
/// Every so many transactions, one writes all of them.
const ALL_AT: u64 = 17;
/// Cells of any other.
const SOME: u64 = 6;

/// Makes the tables, as of commit zero.
pub fn begin() -> String {
    format!(
        "CREATE TABLE clock(id INTEGER PRIMARY KEY, c INTEGER);
         CREATE TABLE ledger(c INTEGER PRIMARY KEY, pad TEXT);
         CREATE TABLE cells(id INTEGER PRIMARY KEY, c INTEGER, v TEXT);
         INSERT INTO clock VALUES (1, 0);
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {CELLS} - 1)
         INSERT INTO cells SELECT i, 0, printf('%.*c', 900, 'z') FROM n;"
    )
}

/// A transaction, with something that grows in it. `before_commit` is run inside of it, at its end.
pub fn transaction(pad: u64, before_commit: &str) -> String {
    format!(
        "BEGIN IMMEDIATE;
         UPDATE clock SET c = c + 1;
         INSERT INTO ledger SELECT c, printf('%.*c', {pad}, 'p') FROM clock;
         UPDATE cells SET (c, v) = (SELECT clock.c, printf('%.*c', 1 + (clock.c * 37 + cells.id) % 1900, char(65 + clock.c % 26))
             FROM clock WHERE clock.id = 1)
           WHERE (SELECT c FROM clock) % {ALL_AT} = 0
              OR (id - (SELECT c FROM clock) * 79 + {CELLS} * 100000) % {CELLS} < {SOME};
         {before_commit}
         COMMIT;"
    )
}

/// Which commit a database ends at; or why it is no committed prefix.
pub fn read(shell: &mut Shell) -> Result<u64, String> {
    let check = shell.run("PRAGMA integrity_check;");
    if check != ["ok"] {
        return Err(format!("damaged: {check:?}"));
    }
    let said = shell.run(
        "SELECT (SELECT c FROM clock), count(*), coalesce(max(c), 0), coalesce(sum(length(pad) < 0), 0) FROM ledger;
         SELECT count(*) FROM cells WHERE c > 0
            AND v IS NOT printf('%.*c', 1 + (c * 37 + id) % 1900, char(65 + c % 26));
         SELECT id || '|' || c FROM cells ORDER BY id;",
    );
    let clock: u64 = said.first().and_then(|line| line.split('|').next()?.parse().ok()).unwrap_or(0);
    if said.len() < 2 || said[0] != format!("{clock}|{clock}|{clock}|0") || said[1] != "0" {
        return Err(format!("no prefix: {:?}", &said[..said.len().min(2)]));
    }
    let wanted: Vec<String> = (0..CELLS).map(|id| format!("{id}|{}", last_turn(id, clock))).collect();
    if said[2..] != wanted {
        let wrong: Vec<_> = said[2..].iter().zip(&wanted).filter(|(found, wanted)| found != wanted).take(5).collect();
        return Err(format!("as of {clock}, a mixture: {wrong:?}"));
    }
    Ok(clock)
}

/// Which commit a database ends at, by one row: whatever else there is, is not read.
pub fn glance(shell: &mut Shell) -> Result<u64, String> {
    let said = shell.run("SELECT c FROM clock; SELECT max(c) FROM ledger;");
    match said.as_slice() {
        [clock, last] if clock == last || (clock == "0" && last.is_empty()) => {
            clock.parse().map_err(|_| format!("no clock: {said:?}"))
        }
        _ => Err(format!("no prefix: {said:?}")),
    }
}

/// The last transaction up to `clock` whose turn it was to write a cell.
fn last_turn(id: u64, clock: u64) -> u64 {
    let turn = |c: u64| c.is_multiple_of(ALL_AT) || (id + CELLS * 100_000 - c * 79) % CELLS < SOME;
    (1..=clock).rev().find(|c| turn(*c)).unwrap_or(0)
}
