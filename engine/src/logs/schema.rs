//! The columns of a log's table: what `CREATE VIRTUAL TABLE … USING littoral_log(…)` says of them.

use littoral_types::limits::LOG_COLUMNS_MAX;
use std::path::PathBuf;

/// Columns of every log's table that are not shown unless they are asked for.
pub const HIDDEN: [&str; 4] = ["lsn", "session", "serial", "appended_ms"];

/// What becomes of a value that is put into a column, by SQLite's rules for the type's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// It stays as it is.
    Blob,
    /// Numbers become text.
    Text,
    /// Text that is a number becomes one.
    Numeric,
    /// The same; what is whole is an INTEGER.
    Integer,
    /// The same; what is whole is a REAL all the same.
    Real,
}

impl Affinity {
    /// Of a type, by its name.
    pub fn of(declared: &str) -> Self {
        let name = declared.to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if has(&["INT"]) {
            Affinity::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Affinity::Text
        } else if name.is_empty() || has(&["BLOB"]) {
            Affinity::Blob
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }

    /// Whether text that is a number is one there.
    pub const fn is_number(self) -> bool {
        matches!(self, Affinity::Numeric | Affinity::Integer | Affinity::Real)
    }
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, without quotes.
    pub name: String,
    /// Its type, as it was written.
    pub declared: String,
    /// What that means.
    pub affinity: Affinity,
    /// Whether NULL is refused.
    pub is_required: bool,
}

/// All columns, and where the log is if that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// In their order.
    pub columns: Vec<Column>,
    /// `log='PATH'`.
    pub log: Option<PathBuf>,
}

/// Words that begin what SQLite would keep to in an ordinary table.
const CONSTRAINTS: [&str; 10] =
    ["PRIMARY", "UNIQUE", "CHECK", "DEFAULT", "COLLATE", "REFERENCES", "FOREIGN", "CONSTRAINT", "GENERATED", "AS"];

impl Schema {
    /// Reads what stands between the parentheses, an argument each.
    pub fn parse<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut found = Self { columns: Vec::new(), log: None };
        for argument in arguments.into_iter().map(str::trim).filter(|argument| !argument.is_empty()) {
            match log_of(argument) {
                Some(path) if path.is_empty() => return Err("log='PATH' has no path".to_owned()),
                Some(path) => found.log = Some(PathBuf::from(path)),
                None => found.columns.push(column(argument)?),
            }
        }
        if found.columns.is_empty() {
            return Err("a log's table has columns: USING littoral_log(ts INTEGER, level TEXT, body TEXT)".to_owned());
        }
        if found.columns.len() + HIDDEN.len() > LOG_COLUMNS_MAX {
            return Err(format!("more columns than a table has: at most {}", LOG_COLUMNS_MAX - HIDDEN.len()));
        }
        for (nth, column) in found.columns.iter().enumerate() {
            let is_same = |name: &str| name.eq_ignore_ascii_case(&column.name);
            if HIDDEN.into_iter().any(is_same) {
                return Err(format!("{}: every log's table has a hidden column of this name", column.name));
            }
            if found.columns[..nth].iter().any(|before| is_same(&before.name)) {
                return Err(format!("{}: two columns of one name", column.name));
            }
        }
        Ok(found)
    }

    /// The table, as SQLite is told.
    pub fn declared(&self) -> String {
        let columns: Vec<String> = self.said();
        format!(
            "CREATE TABLE t({}, lsn INTEGER HIDDEN, session TEXT HIDDEN, serial INTEGER HIDDEN, appended_ms INTEGER HIDDEN)",
            columns.join(", ")
        )
    }

    /// The columns, as the log keeps them.
    pub fn said(&self) -> Vec<String> {
        let said = |column: &Column| {
            let words = [column.declared.as_str(), if column.is_required { "NOT NULL" } else { "" }];
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            [&[quoted(&column.name).as_str()], words.as_slice()].concat().join(" ")
        };
        self.columns.iter().map(said).collect()
    }

    /// Whether these are the columns of a log, and where not, which.
    pub fn differs(&self, kept: &[String]) -> Option<String> {
        let said = self.said();
        let nth = (0..said.len().max(kept.len())).find(|nth| said.get(*nth) != kept.get(*nth))?;
        let shown = |column: Option<&String>| column.map_or_else(|| "none".to_owned(), |column| column.clone());
        Some(format!(
            "column {} is {} in the table and {} in the log; the log's are ({})",
            nth + 1,
            shown(said.get(nth)),
            shown(kept.get(nth)),
            kept.join(", ")
        ))
    }

    /// What a value of a row becomes, by its place in the row: the session, the serial, then the columns.
    pub fn affinity(&self, cell: usize) -> Affinity {
        match cell {
            0 => Affinity::Text,
            1 => Affinity::Integer,
            _ => self.columns.get(cell - 2).map_or(Affinity::Blob, |column| column.affinity),
        }
    }
}

/// A name as SQL takes any.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn log_of(argument: &str) -> Option<String> {
    let (key, value) = argument.split_once('=')?;
    if !key.trim().eq_ignore_ascii_case("log") {
        return None;
    }
    let value = value.trim();
    let quote = value.chars().next().filter(|first| matches!(first, '\'' | '"'));
    let bare = quote.and_then(|quote| value.strip_prefix(quote)?.strip_suffix(quote).map(|bare| (bare, quote)));
    Some(
        bare.map_or_else(
            || value.to_owned(),
            |(bare, quote)| bare.replace(&format!("{quote}{quote}"), &quote.to_string()),
        ),
    )
}

fn column(argument: &str) -> Result<Column, String> {
    let end = match argument.chars().next() {
        Some(open @ ('"' | '`' | '\'' | '[')) => {
            let close = if open == '[' { ']' } else { open };
            let mut at = open.len_utf8();
            loop {
                let Some(found) = argument[at..].find(close) else {
                    return Err(format!("{argument}: a quote without an end"));
                };
                at += found + 1;
                if close == ']' || !argument[at..].starts_with(close) {
                    break at;
                }
                at += 1;
            }
        }
        _ => argument.find(|letter: char| letter.is_whitespace()).unwrap_or(argument.len()),
    };
    let (name, rest) = argument.split_at(end);
    let name = match name.chars().next() {
        Some(quote @ ('"' | '`' | '\'')) => {
            name[1..name.len() - 1].replace(&format!("{quote}{quote}"), &quote.to_string())
        }
        Some('[') => name[1..name.len() - 1].to_owned(),
        _ if name.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '$')) => name.to_owned(),
        _ => return Err(format!("{argument}: not a column: a name, and perhaps a type")),
    };
    let words: Vec<&str> = rest.split_whitespace().collect();
    let is_word = |word: &str, said: &str| word.eq_ignore_ascii_case(said);
    let (types, is_required) = match words.as_slice() {
        [types @ .., not, null] if is_word(not, "NOT") && is_word(null, "NULL") => (types, true),
        types => (types, false),
    };
    let bare = |word: &str| word.split('(').next().unwrap_or_default().to_ascii_uppercase();
    if let Some(word) = types.iter().find(|word| CONSTRAINTS.contains(&bare(word).as_str()) || is_word(word, "NOT")) {
        return Err(format!(
            "{argument}: {word}: of what an ordinary table keeps to, a log's table keeps to types and NOT NULL"
        ));
    }
    if name.is_empty() {
        return Err(format!("{argument}: a column without a name"));
    }
    let declared = types.join(" ");
    if declared.eq_ignore_ascii_case("HIDDEN") || declared.to_ascii_uppercase().split(' ').any(|word| word == "HIDDEN")
    {
        return Err(format!("{argument}: HIDDEN is no type"));
    }
    Ok(Column { name, affinity: Affinity::of(&declared), declared, is_required })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_as_sqlite_reads_them() {
        let schema = Schema::parse([
            "ts INTEGER NOT NULL",
            "\"a \"\"b\" VARCHAR(10)",
            "[x]",
            "d DOUBLE PRECISION",
            "log='it''s'",
        ])
        .unwrap();
        let seen: Vec<(&str, Affinity, bool)> =
            schema.columns.iter().map(|column| (column.name.as_str(), column.affinity, column.is_required)).collect();
        assert_eq!(
            seen,
            [
                ("ts", Affinity::Integer, true),
                ("a \"b", Affinity::Text, false),
                ("x", Affinity::Blob, false),
                ("d", Affinity::Real, false)
            ]
        );
        assert_eq!(schema.log, Some(PathBuf::from("it's")));
        assert_eq!(
            schema.said(),
            ["\"ts\" INTEGER NOT NULL", "\"a \"\"b\" VARCHAR(10)", "\"x\"", "\"d\" DOUBLE PRECISION"]
        );
        // What is said reads as what it was.
        let said = schema.said();
        assert_eq!(Schema::parse(said.iter().map(String::as_str)).unwrap().columns, schema.columns);
        assert_eq!(schema.differs(&said), None);
    }

    #[test]
    fn what_would_not_be_kept_to_is_refused_by_its_word() {
        for (argument, word) in [
            ("id INTEGER PRIMARY KEY", "PRIMARY"),
            ("a TEXT DEFAULT 'x'", "DEFAULT"),
            ("a TEXT COLLATE NOCASE", "COLLATE"),
            ("a CHECK(a > 1)", "CHECK"),
            ("lsn INTEGER", "lsn"),
            ("\"a", "without an end"),
            ("a+b", "not a column"),
            ("log=''", "no path"),
            ("", "has columns"),
        ] {
            let refused = Schema::parse([argument]).unwrap_err();
            assert!(refused.contains(word), "{argument}: {refused}");
        }
        assert!(Schema::parse(["a", "A TEXT"]).unwrap_err().contains("two columns"));
    }

    #[test]
    fn a_difference_names_the_columns() {
        let schema = Schema::parse(["ts INTEGER", "level TEXT"]).unwrap();
        let refused = schema.differs(&["\"ts\" INTEGER".to_owned(), "\"body\" TEXT".to_owned()]).unwrap();
        assert!(refused.contains("column 2 is \"level\" TEXT in the table and \"body\" TEXT in the log"), "{refused}");
        assert!(schema.differs(&["\"ts\" INTEGER".to_owned()]).unwrap().contains("and none in the log"));
    }
}
