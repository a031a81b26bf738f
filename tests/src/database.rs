//! A SQLite database under random SQL, and the stock copies of it.

use crate::chance::Chance;
use littoral_cli::sqlite::{BUSY_TIMEOUT, SqliteSource, integrity_check};
use littoral_ports::PageSource as _;
use littoral_types::PageNo;
use std::path::{Path, PathBuf};

/// Page sizes that SQLite has.
pub const PAGE_SIZES: [u64; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

/// A database as one commit left it, by its pages.
#[derive(Clone, PartialEq, Eq)]
pub struct Stock {
    /// The page size.
    pub page_size: u64,
    /// The whole file.
    pub bytes: Vec<u8>,
}

impl Stock {
    /// Pages that differ from an older state; all of them where the page size does.
    pub fn differing(&self, older: Option<&Stock>) -> u64 {
        let size = self.page_size as usize;
        let old = older.filter(|older| older.page_size == self.page_size).map_or(&[][..], |older| &older.bytes);
        let mut theirs = old.chunks(size);
        self.bytes.chunks(size).filter(|page| theirs.next() != Some(page)).count() as u64
    }
}

impl std::fmt::Debug for Stock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pages of {}", self.bytes.len() as u64 / self.page_size.max(1), self.page_size)
    }
}

/// All pages of a source, one after another.
pub fn stock(source: &mut SqliteSource) -> Stock {
    let size = source.page_size().len();
    // What is not written by the source shows.
    let mut bytes = vec![0xa5; usize::try_from(source.page_count().0).unwrap() * size];
    for (index, page) in bytes.chunks_mut(size).enumerate() {
        source.read(PageNo::from_index(index as u64), page).unwrap();
    }
    Stock { page_size: source.page_size().bytes(), bytes }
}

/// Opens a read transaction.
pub fn source(path: &Path) -> SqliteSource {
    SqliteSource::open(path, BUSY_TIMEOUT).unwrap()
}

/// SQLite finds nothing wrong with a file.
pub fn assert_sound(path: &Path, why: &str) {
    assert_eq!(integrity_check(path, BUSY_TIMEOUT).unwrap(), Vec::<String>::new(), "{why}");
}

/// Where a database's growth ends.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes beyond which rows are deleted.
    pub bytes_max: u64,
    /// Whether the page size may change.
    pub reshapes: bool,
}

/// A database file and the connection that writes it.
pub struct Database {
    path: PathBuf,
    bounds: Bounds,
    open: Option<(libsql::Database, libsql::Connection)>,
}

impl Database {
    /// The file at this place; made with the first statement.
    pub const fn new(path: PathBuf, bounds: Bounds) -> Self {
        Self { path, bounds, open: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the connection, as the end of its process would, in order: the last one backfills the WAL and removes it.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// The file's bytes, with nobody at the database.
    pub fn quiescent(&mut self) -> Vec<u8> {
        self.close();
        let wal = self.path.with_file_name(format!("{}-wal", self.path.file_name().unwrap().to_string_lossy()));
        assert!(!std::fs::metadata(&wal).is_ok_and(|wal| wal.len() > 0), "a WAL was left behind");
        std::fs::read(&self.path).unwrap()
    }

    async fn connection(&mut self) -> &libsql::Connection {
        if self.open.is_none() {
            let database = libsql::Builder::new_local(&self.path).build().await.unwrap();
            let connection = database.connect().unwrap();
            // No power fails here, and a sync of every commit would be most of the time.
            connection.execute_batch("PRAGMA synchronous = OFF").await.unwrap();
            self.open = Some((database, connection));
        }
        &self.open.as_ref().unwrap().1
    }

    /// Runs statements; what SQLite complains of is the test's fault.
    pub async fn run(&mut self, sql: &str) {
        let done = self.connection().await.execute_batch(sql).await;
        if let Err(error) = done {
            let shown: String = sql.chars().take(300).collect();
            panic!("{shown}: {error}");
        }
    }

    async fn number(&mut self, sql: &str) -> i64 {
        let mut rows = self.connection().await.query(sql, ()).await.unwrap();
        rows.next().await.unwrap().unwrap().get(0).unwrap()
    }

    async fn names(&mut self, kind: &str) -> Vec<String> {
        let sql =
            format!("SELECT name FROM sqlite_schema WHERE type = '{kind}' AND name NOT LIKE 'sqlite_%' ORDER BY 1");
        let mut rows = self.connection().await.query(&sql, ()).await.unwrap();
        let mut names = Vec::new();
        while let Some(row) = rows.next().await.unwrap() {
            names.push(row.get(0).unwrap());
        }
        names
    }

    /// Gives a new database its shape.
    pub async fn shape(&mut self, chance: &Chance) {
        let page_size = chance.pick(&PAGE_SIZES);
        let auto_vacuum = chance.pick(&["NONE", "FULL", "INCREMENTAL"]);
        let journal = chance.pick(&["WAL", "WAL", "DELETE", "TRUNCATE", "PERSIST"]);
        self.run(&format!(
            "PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum}; PRAGMA journal_mode = {journal};"
        ))
        .await;
        if !chance.once_in(5) {
            self.run("CREATE TABLE t0(id INTEGER PRIMARY KEY, a TEXT, b BLOB, c INTEGER)").await;
            if chance.once_in(2) {
                let rows = chance.under(self.bounds.bytes_max.min(1 << 30) / 1000) + 1;
                self.run(&format!(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                     INSERT INTO t0(a, b, c) SELECT '{}' || i, zeroblob(i * 37 % 400), i * {} FROM n",
                    text(chance, 400),
                    chance.under(1 << 30)
                ))
                .await;
            }
        }
    }

    /// Changes something, somehow. With `gentle`, only rows: somebody may be reading.
    pub async fn change(&mut self, chance: &Chance, gentle: bool) {
        let bytes = self.number("PRAGMA page_count").await * self.number("PRAGMA page_size").await;
        let too_large = bytes as u64 > self.bounds.bytes_max;
        let tables = self.names("table").await;
        let Some(table) = (!tables.is_empty()).then(|| chance.pick(&tables).clone()) else {
            let fresh = chance.under(4);
            return self
                .run(&format!("CREATE TABLE t{fresh}(id INTEGER PRIMARY KEY, a TEXT, b BLOB, c INTEGER)"))
                .await;
        };
        if too_large {
            self.run(&format!("DELETE FROM {table} WHERE id % 4 <> {}", chance.under(4))).await;
            if !gentle && chance.once_in(2) {
                self.vacuum(chance).await;
            }
            return;
        }
        match chance.under(if gentle { 12 } else { 27 }) {
            0..=4 => self.insert(chance, &table).await,
            5..=7 => {
                let (every, rest) = (1 + chance.under(40), chance.under(40));
                let set = match chance.under(3) {
                    0 => format!("c = {}", chance.under(1 << 40)),
                    1 => format!("a = '{}'", text(chance, 100)),
                    _ => format!("b = {}", blob(chance, 600)),
                };
                self.run(&format!("UPDATE {table} SET {set} WHERE id % {every} = {}", rest % every)).await;
            }
            8 => self.run(&format!("DELETE FROM {table} WHERE id % {} = 0", 1 + chance.under(30))).await,
            9 => {
                let (table, row) = (&table, row(chance));
                self.run(&format!("BEGIN; INSERT INTO {table}(a, b, c) VALUES {row}; DELETE FROM {table}; ROLLBACK"))
                    .await;
            }
            10 => self.run(&format!("PRAGMA user_version = {}", chance.under(1 << 30))).await,
            11 => {
                // Pages that hold next to nothing.
                let bytes = chance.under((self.bounds.bytes_max / 4).min(1 << 20));
                self.run(&format!("INSERT INTO {table}(b) VALUES (zeroblob({bytes}))")).await;
            }
            12 => {
                let fresh = chance.under(5);
                self.run(&format!(
                    "CREATE TABLE IF NOT EXISTS t{fresh}(id INTEGER PRIMARY KEY, a TEXT, b BLOB, c INTEGER)"
                ))
                .await;
            }
            13 => {
                let (fresh, column) = (chance.under(6), chance.pick(&["a", "c", "c, a", "length(b)"]));
                self.run(&format!("CREATE INDEX IF NOT EXISTS i{fresh} ON {table}({column})")).await;
            }
            14 => {
                if let [_, ..] = self.names("index").await.as_slice() {
                    let index = chance.pick(&self.names("index").await).clone();
                    self.run(&format!("DROP INDEX {index}")).await;
                }
            }
            15 if chance.once_in(3) => self.run(&format!("DROP TABLE {table}")).await,
            16 if chance.once_in(3) => {
                let fresh = chance.under(1 << 40);
                self.run(&format!("ALTER TABLE {table} ADD COLUMN x{fresh} DEFAULT {fresh}")).await;
            }
            15..=17 => self.run(&format!("DELETE FROM {table}")).await,
            18..=20 => self.vacuum(chance).await,
            21..=22 => self.run(&format!("PRAGMA incremental_vacuum({})", chance.under(30))).await,
            23 => {
                let mode = chance.pick(&["PASSIVE", "FULL", "RESTART", "TRUNCATE"]);
                self.run(&format!("PRAGMA wal_checkpoint({mode})")).await;
            }
            24 => {
                let mode = chance.pick(&["WAL", "DELETE", "TRUNCATE", "PERSIST"]);
                self.run(&format!("PRAGMA journal_mode = {mode}")).await;
            }
            25 => self.run("REINDEX; ANALYZE").await,
            _ => {
                // Nothing but the file's own counters.
                self.run("PRAGMA schema_version").await;
            }
        }
    }

    /// Changes a few rows, as most transactions do.
    pub async fn touch(&mut self, chance: &Chance) {
        let Some(table) = self.names("table").await.into_iter().next() else { return };
        for _ in 0..1 + chance.under(3) {
            let (value, which) = (chance.under(1 << 40), chance.under(1 << 30));
            self.run(&format!(
                "UPDATE {table} SET c = {value} WHERE id = (SELECT max(id) FROM {table}) * {which} / {}",
                1 << 30
            ))
            .await;
        }
    }

    async fn vacuum(&mut self, chance: &Chance) {
        if !chance.once_in(3) {
            return self.run("VACUUM").await;
        }
        let auto_vacuum = chance.pick(&["NONE", "FULL", "INCREMENTAL"]);
        let page_size = match self.bounds.reshapes {
            true => *chance.pick(&PAGE_SIZES),
            false => self.number("PRAGMA page_size").await as u64,
        };
        let after = chance.pick(&["WAL", "DELETE", "PERSIST"]);
        // A page size changes in rollback mode only.
        self.run(&format!(
            "PRAGMA journal_mode = DELETE; PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum}; VACUUM;
             PRAGMA journal_mode = {after}"
        ))
        .await;
    }

    async fn insert(&mut self, chance: &Chance, table: &str) {
        if chance.once_in(3) {
            let count = 1 + chance.under(400);
            let (a, c) = (text(chance, 60), chance.under(1 << 20));
            return self
                .run(&format!(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
                     INSERT INTO {table}(a, b, c) SELECT '{a}' || i, NULL, i * {c} FROM n"
                ))
                .await;
        }
        let rows: Vec<String> = (0..1 + chance.under(12)).map(|_| row(chance)).collect();
        self.run(&format!("INSERT INTO {table}(a, b, c) VALUES {}", rows.join(", "))).await;
    }
}

fn row(chance: &Chance) -> String {
    format!("('{}', {}, {})", text(chance, 200), blob(chance, 3000), chance.under(1 << 40))
}

/// Text that compresses.
fn text(chance: &Chance, most: u64) -> String {
    const WORDS: [&str; 8] = ["tide ", "shore ", "reef ", "kelp ", "sand ", "gull ", "ebb ", "lagoon "];
    let mut text = String::new();
    let len = chance.under(most) as usize;
    while text.len() < len {
        text.push_str(chance.pick::<&str>(&WORDS));
    }
    text
}

/// Bytes that do not compress, and now and then more of them than a page holds.
fn blob(chance: &Chance, most: u64) -> String {
    let most = if chance.once_in(8) { most * 20 } else { most };
    let len = chance.under(most);
    let mut text = String::with_capacity(len as usize * 2 + 20);
    text.push_str("X'");
    for _ in 0..len / 8 {
        text.push_str(&format!("{:016x}", chance.number()));
    }
    text.push('\'');
    text
}
