//! `littoral demo`: the main job on the embedded default, told step by step, in a temporary folder.

use super::{checkpoint, history, hydrate, restore, snapshot};
use crate::door::Door;
use crate::exit::{Exit, Fault};
use crate::screen::Told;
use crate::sqlite::{BUSY_TIMEOUT, integrity_check};
use crate::words;
use anyhow::Context;
use littoral_engine::exec::restore::At;
use littoral_engine::open;
use littoral_engine::settings::Key;
use serde_json::{Value, json};
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave the folder there to look around in
    #[arg(long)]
    keep: bool,
    /// Rows of the database
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    rows: u32,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let folder = tempfile::Builder::new().prefix("littoral-demo-").tempdir().context("the system has no temporary folder")?;
    let root = folder.path().to_owned();
    // Said here, so that no variable of the user's leads elsewhere.
    let said = vec![(Key::Remote, remote(&root)?.into()), (Key::Volume, "notes.db".into())];
    let story = Story { door, inner: Door::within(said), at: root.clone(), folder: root, steps: Vec::new() };
    let steps = Box::pin(story.tell(args.rows)).await?;
    let kept = args.keep.then(|| folder.keep());
    let text = match &kept {
        Some(folder) => format!("\nLook around in {}\n", folder.display()),
        None => "\nThe folder is gone again (--keep leaves it). Next: littoral checkpoint YOUR.db\n".to_owned(),
    };
    Ok(Told::done(json!({ "verb": "demo", "steps": steps, "folder": kept }), text))
}

struct Story<'a> {
    door: &'a Door,
    /// Where the verbs are used: nobody's settings, nothing shown.
    inner: Door,
    folder: PathBuf,
    /// Where the database is now.
    at: PathBuf,
    steps: Vec<Value>,
}

impl Story<'_> {
    fn database(&self) -> PathBuf {
        self.at.join("notes.db")
    }

    fn chapter(&mut self, title: &str, told: &str, document: Value) {
        let number = self.steps.len() + 1;
        self.door.screen.say(&format!("\n{number}. {title}"));
        for line in told.lines() {
            self.door.screen.say(&format!("   {line}"));
        }
        self.steps.push(json!({ "step": number, "title": title, "told": document }));
    }

    async fn tell(mut self, rows: u32) -> anyhow::Result<Vec<Value>> {
        let file = self.database();
        self.door.screen.say(&format!("The main job of littoral, in {}", self.folder.display()));

        self.make(rows).await?;
        let size = fs::metadata(&file)?.len();
        let told = format!("notes.db: {} notes, {}", words::count(rows), words::bytes(size));
        self.chapter("A SQLite database, opened through littoral and filled with plain SQL", &told, json!({ "rows": rows, "bytes": size }));

        self.checkpoint("Its first checkpoint: everything goes to the object store, compressed").await?;

        let revise = "UPDATE notes SET body = body || ' (revised)' WHERE id % 997 = 0; INSERT INTO notes(body) VALUES ('one more')";
        self.sql(revise).await?;
        let first = self.checkpoint("A few notes change; the next checkpoint carries only the pages that did").await?;
        let old = copy(&file, &self.folder.join("expected-1.db"))?;

        let name = "before-the-accident".parse().context("a name")?;
        let done = Box::pin(snapshot::create(file.clone().into(), name, &self.inner)).await?;
        self.chapter("This state gets a name, which no prune takes away", &done.text, done.json);

        let lost = self.lose_the_machine()?;
        let told = format!("deleted: {}\nleft: .littoral/remote, which could as well be a bucket", lost.join(", "));
        self.chapter("The machine is lost: everything local is deleted, but not the remote", &told, json!({ "deleted": lost }));

        self.open_elsewhere(rows).await?;
        self.sql("DELETE FROM notes WHERE id > 10; VACUUM").await?;
        self.checkpoint("An accident: nearly all notes are deleted, and that is checkpointed too").await?;
        let new = copy(&self.database(), &self.folder.join("expected-2.db"))?;

        self.restore("The newest state is restored to a plain file", "newest.db", None, &new).await?;
        let at = At::Snapshot("before-the-accident".parse().context("a name")?);
        self.restore("And the state before the accident, by its name", "rescued.db", Some(at), &old).await?;
        let at = At::Lsn(first);
        self.restore("The same by its place in the history", "again.db", Some(at), &old).await?;

        let file = self.database().into();
        let done = history::run(history::Args { target: file, limit: 20, points: false, before: None }, &self.inner).await?;
        self.chapter("The history tells it all", &done.text, done.json);
        Ok(self.steps)
    }

    /// Another machine has nothing but the remote's address.
    async fn open_elsewhere(&mut self, rows: u32) -> anyhow::Result<()> {
        let remote = remote(&self.folder)?;
        let elsewhere = self.folder.join("elsewhere");
        fs::create_dir(&elsewhere)?;
        self.at = elsewhere;
        let file = self.database();
        // The lost machine has released nothing: its term is ended by name.
        let connection = littoral::Builder::new(&file).remote(remote).volume("notes.db").takeover(1).open().await?;
        let id = rows / 2;
        let mut found = connection.query("SELECT body FROM notes WHERE id = ?1", [i64::from(id)]).await?;
        let body: String = found.next().await?.context("the note is there")?.get(0)?;
        drop(found);
        let (here, all) = littoral_vfs::sparse(&file.canonicalize()?).context("not everything is here")?;
        let told = format!(
            "note {id}: {}...\n{} of {} were fetched to answer",
            body.chars().take(30).collect::<String>(),
            words::count(here),
            words::some(all, "page")
        );
        let document = json!({ "note": id, "pages_here": here, "pages": all });
        self.chapter("Another machine opens the database from the remote at once, and reads one note", &told, document);

        connection.execute("INSERT INTO notes(body) VALUES ('written elsewhere')", ()).await?;
        drop(connection);
        self.checkpoint("It takes over and writes on; its checkpoint carries what it wrote").await?;
        let done = hydrate::run(hydrate::Args { file: self.database().into() }, &self.inner).await?;
        self.chapter("What it has not read yet is fetched: the file is a plain SQLite database again", &done.text, done.json);
        Ok(())
    }

    /// A database of words, as notes have.
    async fn make(&self, rows: u32) -> anyhow::Result<()> {
        const WORDS: &str = "tide harbour ledger granite signal orchard meridian copper lantern estuary column gravel \
                             archive thimble current beacon";
        let connection = self.connect().await?;
        connection.execute_batch("CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT NOT NULL)").await?;
        connection.execute_batch("CREATE INDEX by_body ON notes(body)").await?;
        let words: Vec<&str> = WORDS.split_whitespace().collect();
        connection.execute("BEGIN", ()).await?;
        // A small generator of our own, so that every demo tells the same story.
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        for _ in 0..rows {
            let mut body = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = usize::try_from(state >> 33).unwrap_or(0) % words.len();
                body.push_str(words[at]);
                body.push(' ');
            }
            connection.execute("INSERT INTO notes(body) VALUES (?1)", [body]).await?;
        }
        connection.execute("COMMIT", ()).await?;
        settle(&connection).await
    }

    async fn sql(&self, statements: &str) -> anyhow::Result<()> {
        let connection = self.connect().await?;
        connection.execute_batch(statements).await?;
        settle(&connection).await
    }

    async fn connect(&self) -> anyhow::Result<littoral::libsql::Connection> {
        let remote = remote(&self.folder)?;
        Ok(littoral::Builder::new(self.database()).remote(remote).volume("notes.db").open().await?)
    }

    /// Checkpoints, and gives the commit's number.
    async fn checkpoint(&mut self, title: &str) -> anyhow::Result<littoral_types::Lsn> {
        let args = checkpoint::Args {
            file: self.database().into(),
            dry_run: false,
            check: false,
            no_check: false,
            wait: None,
no_coalesce: false,
        };
        let done = Box::pin(checkpoint::run(args, &self.inner)).await?;
        let position: littoral_types::Position = done.json["position"].as_str().unwrap_or_default().parse()?;
        self.chapter(title, &done.text, done.json);
        Ok(position.lsn)
    }

    /// Everything but the remote goes.
    fn lose_the_machine(&self) -> anyhow::Result<Vec<String>> {
        let mut lost = Vec::new();
        for name in ["notes.db", "notes.db-wal", "notes.db-shm"] {
            if self.folder.join(name).exists() {
                fs::remove_file(self.folder.join(name))?;
                lost.push(name.to_owned());
            }
        }
        for entry in fs::read_dir(self.folder.join(".littoral"))? {
            let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
            if name == "remote" {
                continue;
            }
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
            lost.push(format!(".littoral/{}", name.to_string_lossy()));
        }
        lost.sort();
        Ok(lost)
    }

    /// Restores, and holds the file against a stock copy: the same bytes, and SQLite's approval.
    async fn restore(&mut self, title: &str, name: &str, at: Option<At>, expected: &Path) -> anyhow::Result<()> {
        let dest = self.folder.join(name);
        let args = restore::Args { from: self.database().into(), dest: dest.clone(), force: false };
        let done = Box::pin(restore::restored(args, at, true, &self.inner)).await?;
        let problems = integrity_check(&dest, BUSY_TIMEOUT)?;
        let wrong = |message: String| Fault {
            exit: Exit::Corrupt,
            message,
            way_out: Some("this is a bug of littoral: please report it".to_owned()),
        };
        if let Some(problem) = problems.first() {
            return Err(wrong(format!("{name} is not sound: {problem}")).into());
        }
        if !same(&dest, expected)? {
            return Err(wrong(format!("{name} is not byte for byte what the database was")).into());
        }
        let mut json = done.json;
        json["integrity_check"] = json!("ok");
        json["equal_to_the_original"] = json!(true);
        let told = format!("{}integrity_check: ok; byte for byte what the database was then\n", done.text);
        self.chapter(title, &told, json);
        Ok(())
    }
}

/// The remote of the machine that is lost later.
fn remote(folder: &Path) -> anyhow::Result<String> {
    let folder = folder.join(".littoral").join("remote");
    fs::create_dir_all(&folder)?;
    open::directory_url(&folder).context("a temporary folder whose name is text")
}

/// Brings everything into the database file, so that a copy of that file alone is a copy of the database.
async fn settle(connection: &littoral::libsql::Connection) -> anyhow::Result<()> {
    let mut rows = connection.query("PRAGMA wal_checkpoint(TRUNCATE)", ()).await?;
    while rows.next().await?.is_some() {}
    Ok(())
}

fn copy(file: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    fs::copy(file, to)?;
    Ok(to.to_owned())
}

fn same(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (BufReader::new(fs::File::open(a)?), BufReader::new(fs::File::open(b)?));
    loop {
        let (from_a, from_b) = (a.fill_buf()?, b.fill_buf()?);
        let count = from_a.len().min(from_b.len());
        if count == 0 {
            return Ok(from_a.len() == from_b.len());
        }
        if from_a[..count] != from_b[..count] {
            return Ok(false);
        }
        a.consume(count);
        b.consume(count);
    }
}
