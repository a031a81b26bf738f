//! Databases with text-like rows: words of uneven frequency, keys, two indexes.

use std::fmt::Write;
use std::path::Path;

/// Words as a language has them: a few that are everywhere, many that are rare.
#[derive(Debug)]
pub struct Words {
    words: Vec<String>,
    state: u64,
}

impl Words {
    /// The same seed gives the same text.
    pub fn new(seed: u64) -> Self {
        let mut new = Self { words: Vec::new(), state: 99 };
        for _ in 0..20_000 {
            let len = 2 + new.below(9);
            let word = (0..len).map(|at| {
                if at % 2 == 0 { b"bcdfghlmnprst"[new.below(13) as usize] } else { b"aeiou"[new.below(5) as usize] }
            });
            let word: Vec<u8> = word.collect();
            new.words.push(String::from_utf8(word).unwrap());
        }
        new.state = seed;
        new
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((u128::from(self.state >> 11) * u128::from(bound)) >> 53) as u64
    }

    /// So many characters of text, roughly.
    pub fn text(&mut self, len: usize) -> String {
        let mut text = String::with_capacity(len + 12);
        while text.len() < len {
            // A product of two uniform draws: small places are likely.
            let place = self.below(20_000) * self.below(20_000) / 20_000;
            write!(text, "{} ", self.words[place as usize]).unwrap();
        }
        text
    }
}

/// A connection to a file.
#[derive(Debug)]
pub struct Sql {
    connection: libsql::Connection,
    _database: libsql::Database,
    runtime: tokio::runtime::Runtime,
}

impl Sql {
    /// Opens or makes it.
    pub fn open(path: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let database = runtime.block_on(libsql::Builder::new_local(path).build()).unwrap();
        let connection = database.connect().unwrap();
        Self { connection, _database: database, runtime }
    }

    /// Runs statements.
    pub fn run(&self, sql: &str) {
        self.runtime.block_on(self.connection.execute_batch(sql)).unwrap();
    }

    /// Runs one statement with parameters.
    pub fn with(&self, sql: &str, params: impl libsql::params::IntoParams) {
        self.runtime.block_on(self.connection.execute(sql, params)).unwrap();
    }
}

/// Makes a database of about so many bytes.
pub fn database(path: &Path, bytes: u64) {
    apart(|| make(path, bytes));
}

/// Changes one row on so many random pages, in place: page counts do not move.
pub fn update(path: &Path, rows: u64, seed: u64) {
    apart(|| change(path, rows, seed));
}

/// On a thread of its own: the caller may stand inside a runtime, and libsql's calls are driven by another.
fn apart(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap());
}

fn make(path: &Path, bytes: u64) {
    let sql = Sql::open(path);
    sql.run(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
         CREATE TABLE rows(id INTEGER PRIMARY KEY, who TEXT, at INTEGER, body TEXT);
         BEGIN;",
    );
    let mut words = Words::new(1);
    let mut written = 0;
    while written < bytes {
        let body_len = 200 + words.below(400) as usize;
        let (who, body) = (words.text(12), words.text(body_len));
        written += (who.len() * 2 + body.len() + 40) as u64;
        let at = 1_700_000_000 + (written / 1000) as i64;
        sql.with("INSERT INTO rows(who, at, body) VALUES (?1, ?2, ?3)", libsql::params![who, at, body]);
    }
    sql.run("COMMIT; CREATE INDEX by_who ON rows(who, at); PRAGMA journal_mode = DELETE;");
}

fn change(path: &Path, rows: u64, seed: u64) {
    let sql = Sql::open(path);
    let mut words = Words::new(seed);
    sql.run("PRAGMA synchronous = OFF; BEGIN;");
    for _ in 0..rows {
        let at = words.below(1 << 40) as i64;
        let text = words.text(60).chars().take(30).collect::<String>();
        // The tail of the body is replaced by as many characters, so that no row moves.
        sql.with(
            "UPDATE rows SET body = substr(body, 1, length(body) - 30) || ?2
             WHERE id = 1 + ?1 % (SELECT max(id) FROM rows)",
            libsql::params![at, text],
        );
    }
    sql.run("COMMIT;");
}
