//! Joins on a database that is not all here: what a statement's program foresees is fetched with its first rows, and nobody notices
//! anything else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::{Place, python, room, said};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A volume, and what joins answer on the machine that made it.
struct Rig {
    place: Place,
    known: String,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self { place: Place::new(), known: String::new() };
        assert!(said(&mut rig.command("first", &["make"])).starts_with("1."));
        rig.known = said(&mut rig.command("first", &["known"]));
        rig
    }

    fn folder(&self, machine: &str) -> PathBuf {
        let folder = self.place.machine().parent().unwrap().join(machine);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("known.json"), &self.known).unwrap();
        folder
    }

    fn command(&self, machine: &str, arguments: &[&str]) -> Command {
        let mut command = self.place.host(python());
        command.current_dir(self.folder(machine)).arg(room().join("scripts/joins.py")).args(arguments);
        command
    }
}

#[test]
fn joins_of_many_threads_and_processes_answer_as_on_a_whole_database_while_others_write() {
    for journal in ["wal", "delete"] {
        let rig = Rig::new();
        let sql = format!("PRAGMA journal_mode = {journal};");
        said(Command::new("sqlite3").current_dir(rig.folder("first")).args(["app.db", &sql]));
        said(&mut rig.command("first", &["known"]));
        let mut again = rig.place.host("sqlite3");
        let script = format!(
            ".load {} sqlite3_littoral_init\n.open 'file:app.db?vfs=littoral&remote={}'\nPRAGMA littoral_checkpoint;\n",
            littoral_hosts::built().extension.display(),
            rig.place.remote()
        );
        fs::write(rig.folder("first").join("publish.sql"), script).unwrap();
        let input = fs::File::open(rig.folder("first").join("publish.sql")).unwrap();
        assert!(
            again
                .current_dir(rig.folder("first"))
                .args(["-batch", ":memory:"])
                .stdin(input)
                .status()
                .unwrap()
                .success()
        );

        said(&mut rig.command("far", &["claim"]));
        let running: Vec<_> = ["0", "1"]
            .map(|place| rig.command("far", &["run", journal, place, "2"]).stderr(Stdio::piped()).spawn().unwrap())
            .into();
        for one in running {
            let done = one.wait_with_output().unwrap();
            assert!(done.status.success(), "{journal}: {}", String::from_utf8_lossy(&done.stderr));
        }
        // As it is now: what is here, and what a machine that has nothing gets of it.
        assert_eq!(said(&mut rig.command("far", &["known"])), rig.known, "{journal}");
        let mut shell = rig.place.host("sqlite3");
        let script = format!(
            ".load {} sqlite3_littoral_init\n.open 'file:app.db?vfs=littoral&remote={}'\nPRAGMA integrity_check;
             SELECT count(*), count(DISTINCT process * 2 + thread), sum(n) FROM written;
             SELECT count(*) FROM rows WHERE length(body) = 301;\n",
            littoral_hosts::built().extension.display(),
            rig.place.remote()
        );
        fs::write(rig.folder("far").join("look.sql"), script).unwrap();
        let input = fs::File::open(rig.folder("far").join("look.sql")).unwrap();
        let told = shell.current_dir(rig.folder("far")).args(["-batch", ":memory:"]).stdin(input).output().unwrap();
        // 160 of 240 classes of rows were written to, once each.
        assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), "ok\n160|4|3120\n8000", "{journal}: {told:?}");
    }
}

#[test]
fn what_is_asked_of_a_statement_leaves_no_lock_and_no_file_behind() {
    let rig = Rig::new();
    said(&mut rig.command("far", &["idle"]));
    assert_eq!(said(&mut rig.command("far", &["known"])), rig.known);
}

#[test]
fn a_child_asks_for_itself() {
    let rig = Rig::new();
    said(&mut rig.command("far", &["fork"]));
}

#[test]
fn a_joins_first_row_brings_the_rows_after_it_and_one_that_cannot_be_seen_brings_itself() {
    let rig = Rig::new();
    let pages =
        |machine: &str, sql: &str| -> u64 { said(&mut rig.command(machine, &["first", sql])).trim().parse().unwrap() };
    let join = "SELECT r.body FROM numbers JOIN rows r ON r.id = n";
    let seen = pages("far-0", join);
    assert!(seen > 300, "the rows after it: {seen} pages");
    // A limit: fewer at first. A function that only this connection has: none.
    let limited = pages("far-1", &format!("{join} LIMIT 100"));
    assert!(limited > 64 && limited < seen, "{limited} of {seen}");
    let hidden = pages("far-2", &format!("{join} WHERE mine(n) = n"));
    assert!(hidden <= 64, "{hidden}");
}
