//! `littoral shell FILE [SQL]`: SQL on a database, through the VFS.

use crate::door::{Door, arm};
use crate::exit::{Exit, Fault};
use crate::screen::Told;
use crate::sqlite::{Answer, Cell, OpenDatabase, hex};
use crate::words;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{BufRead, IsTerminal, Write, stdin, stdout};

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database file; opened from its volume where it is not here
    file: OsString,
    /// Statements to run; without them, statements are read from the terminal or a pipe
    sql: Vec<String>,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    arm()?;
    let file = door.file(&args.file)?;
    let database = OpenDatabase::open(&file, door.said())?;
    let mut answers: Vec<Value> = Vec::new();
    let mut told = |answer: Answer| {
        if answer.columns.is_empty() {
            return;
        }
        match door.screen.is_json() {
            true => answers.push(as_json(&answer)),
            false => door.screen.say(as_text(&answer).trim_end()),
        }
    };
    let failed = |why: String| Fault { exit: Exit::Failed, message: why, way_out: None };
    if args.sql.is_empty() {
        converse(&database, &mut told)?;
    } else {
        for sql in &args.sql {
            database.run(sql, &mut told).map_err(failed)?;
        }
    }
    Ok(Told::done(json!({ "verb": "shell", "file": file, "answers": answers }), String::new()))
}

/// Reads statements until there are no more. At a terminal a failed one is told and forgotten; in a pipe it is the last.
fn converse(database: &OpenDatabase, told: &mut dyn FnMut(Answer)) -> anyhow::Result<()> {
    let is_terminal = stdin().is_terminal();
    let prompt = |begun: bool| {
        if is_terminal {
            print!("{}", if begun { "      ...> " } else { "littoral> " });
            let _ = stdout().flush();
        }
    };
    let mut text = String::new();
    prompt(false);
    for line in stdin().lock().lines() {
        text.push_str(&line?);
        text.push('\n');
        if is_terminal && matches!(text.trim(), ".quit" | ".exit" | "exit" | "quit") {
            return Ok(());
        }
        if OpenDatabase::is_complete(&text) {
            run_one(database, &text, is_terminal, told)?;
            text.clear();
        }
        prompt(!text.trim().is_empty());
    }
    if !text.trim().is_empty() {
        run_one(database, &text, is_terminal, told)?;
    }
    Ok(())
}

fn run_one(database: &OpenDatabase, sql: &str, is_terminal: bool, told: &mut dyn FnMut(Answer)) -> anyhow::Result<()> {
    match database.run(sql, told) {
        Err(why) if is_terminal => {
            eprintln!("error: {why}");
            Ok(())
        }
        Err(message) => Err(Fault { exit: Exit::Failed, message, way_out: None }.into()),
        Ok(()) => Ok(()),
    }
}

fn as_text(answer: &Answer) -> String {
    let columns: Vec<&str> = answer.columns.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = answer.rows.iter().map(|row| row.iter().map(Cell::shown).collect()).collect();
    words::table(&columns, &rows)
}

fn as_json(answer: &Answer) -> Value {
    let cell = |cell: &Cell| match cell {
        Cell::Null => Value::Null,
        Cell::Number(number) => json!(number),
        Cell::Real(number) => json!(number),
        Cell::Text(text) => json!(text),
        Cell::Blob(bytes) => json!({ "blob": hex(bytes) }),
    };
    let row = |row: &Vec<Cell>| Value::Array(row.iter().map(cell).collect());
    json!({ "columns": answer.columns, "rows": answer.rows.iter().map(row).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_sql_and_as_json() {
        let row = vec![Cell::Null, Cell::Number(-1), Cell::Real(0.5), Cell::Text("a".into()), Cell::Blob(vec![0, 255])];
        let answer = Answer { columns: ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec(), rows: vec![row] };
        let text = as_text(&answer);
        assert!(["NULL", "-1", "0.5", "x'00ff'"].iter().all(|word| text.contains(word)), "{text}");
        let expected = json!({ "columns": ["a", "b", "c", "d", "e"], "rows": [[null, -1, 0.5, "a", { "blob": "00ff" }]] });
        assert_eq!(as_json(&answer), expected);
    }
}
