//! What puts checkpoints off, and what brings them forward: what is owed of merging, and how much has changed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use littoral_engine::Components;
use littoral_engine::leases::{Held, Leases, Wanted};
use littoral_engine::open::{self, Place};
use littoral_engine::settings::Settings;
use littoral_types::{ChunkId, Generation, Work};
use rig::Rig;
use serde_json::Value;

/// Kinds of the newest records, newest first.
fn history(rig: &Rig) -> Vec<String> {
    let told = rig.json(["history", "app.db", "--limit", "500"]);
    told["records"].as_array().unwrap().iter().map(|record| record["kind"].as_str().unwrap().to_owned()).collect()
}

fn checkpoints(rig: &Rig) -> usize {
    history(rig).iter().filter(|kind| *kind == "checkpoint").count()
}

fn debt(rig: &Rig) -> Value {
    rig.json(["status", "app.db"])["debt"].clone()
}

/// How many segments came between any two checkpoints, the newest first.
fn runs(rig: &Rig) -> Vec<usize> {
    let history = history(rig);
    let runs = history.split(|kind| kind == "checkpoint");
    runs.map(|run| run.iter().filter(|kind| *kind == "segment").count()).collect()
}

/// Commits what each statement does in one process, and has it shipped. Where each got to.
fn shipped(rig: &Rig, said: &[&str], statements: &[&str]) -> Vec<u64> {
    let mut words = vec!["shell", "app.db"];
    words.extend(said);
    for sql in statements {
        words.extend([sql, "PRAGMA littoral_sync"]);
    }
    let run = rig.run(words);
    let text = run.succeeds().stdout.clone();
    // A pragma's column is called as its answer.
    let mut lsns: Vec<u64> = text.split_whitespace().filter_map(|word| word.strip_prefix("1.")?.parse().ok()).collect();
    lsns.dedup();
    assert_eq!(lsns.len(), statements.len(), "{text}");
    lsns
}

const ONE_ROW: &str = "UPDATE t SET body = hex(randomblob(60)) WHERE id = 17";
const ALL_ROWS: &str = "UPDATE t SET body = hex(randomblob(60))";

/// Who says that he is at work on the first chunk, and does nothing.
fn at_work(rig: &Rig) -> Held {
    let file = rig.path("app.db");
    let components = Components::of_this_machine(open::quota(&Settings::default()));
    let place = Place::of_database(&file, &Settings::default()).unwrap();
    let volume = place.found.as_ref().unwrap().binding.id;
    let chunks = Some([ChunkId(0)].into_iter().collect());
    let wanted = Wanted { volume, work: Work::Repack, chunks, generation: Generation(1) };
    Leases::of(&place, &components).unwrap().unwrap().take(wanted).unwrap().unwrap()
}

#[test]
fn p06_what_is_owed_of_merging_puts_checkpoints_off_and_no_commit_and_is_paid_then() {
    let rig = Rig::new();
    rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    assert_eq!(debt(&rig)["checkpoints_put_off"], 1, "{}", debt(&rig));
    // Nothing is owed: after forty-eight commits that travelled by themselves a checkpoint folds them.
    shipped(&rig, &[], &[ONE_ROW; 52]);
    assert_eq!(runs(&rig).into_iter().max(), Some(48), "{:?}", history(&rig));
    // Somebody else is at work on the chunk, and gets nowhere: deltas pile up.
    let held = at_work(&rig);
    for id in 0..13 {
        let sql = format!("UPDATE t SET body = hex(randomblob(60)) WHERE id = {}", 100 * id + 1);
        rig.run(["shell", "app.db", &sql]).succeeds();
        rig.run(["checkpoint", "app.db"]).succeeds();
    }
    let owed = debt(&rig);
    assert!(owed["deltas_deepest"].as_u64() > Some(12) && owed["bytes"].as_u64() > Some(0), "{owed}");
    assert_eq!((&owed["checkpoints_put_off"], &owed["chunks"]), (&2.into(), &1.into()), "{owed}");
    let text = rig.run(["status", "app.db"]).succeeds().stdout.clone();
    assert!(text.contains("debt") && text.contains("put off, 2 times") && text.contains("littoral coalesce"), "{text}");
    // Twice as many commits travel before the next one, each as soon as it was made: none of them waits.
    let lsns = shipped(&rig, &[], &[ONE_ROW; 91]);
    assert!(lsns.windows(2).all(|two| two[1] == two[0] + 1), "a commit did not travel: {lsns:?}");
    assert!(runs(&rig)[0] >= 90, "{:?}", history(&rig));
    shipped(&rig, &[], &[ONE_ROW; 12]);
    assert_eq!(runs(&rig).into_iter().max(), Some(96), "put off, and not for ever: {:?}", history(&rig));
    assert_eq!(debt(&rig)["checkpoints_put_off"], 2, "{}", debt(&rig));
    // What is owed is paid with the first checkpoint that can.
    drop(held);
    shipped(&rig, &[], &[ONE_ROW; 97]);
    let paid = debt(&rig);
    assert_eq!((&paid["checkpoints_put_off"], &paid["chunks"]), (&1.into(), &0.into()), "{paid}");
    assert!(!rig.run(["status", "app.db"]).succeeds().stdout.contains("put off"));
    rig.run(["verify", "app.db"]).succeeds();
}

#[test]
fn a_checkpoint_is_made_when_so_many_bytes_have_changed_where_that_was_said_and_pages_count_once() {
    let mut rig = Rig::new();
    rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let dirty = |rig: &Rig| rig.json(["status", "app.db"])["dirty_bytes"].as_u64().unwrap();
    assert_eq!(dirty(&rig), 0);
    let said = &["--checkpoint_dirty", "100kB"];
    // What follows the first one, which was no commit of the WAL's, is a checkpoint.
    shipped(&rig, said, &[ONE_ROW]);
    let before = checkpoints(&rig);
    // One row over and over is one page over and over.
    shipped(&rig, said, &[ONE_ROW; 10]);
    assert_eq!(checkpoints(&rig), before, "{:?}", history(&rig));
    assert!((4096..=3 * 4096).contains(&dirty(&rig)), "{}", dirty(&rig));
    // All rows are far more: what comes next is a checkpoint, though few commits travelled.
    shipped(&rig, said, &[ALL_ROWS]);
    assert!(dirty(&rig) > 400_000 && checkpoints(&rig) == before, "{} {:?}", dirty(&rig), history(&rig));
    shipped(&rig, said, &[ONE_ROW]);
    assert_eq!((checkpoints(&rig), dirty(&rig)), (before + 1, 0), "{:?}", history(&rig));
    // Where nobody said so, nothing is made of it.
    shipped(&rig, &[], &[ALL_ROWS, ONE_ROW, ALL_ROWS]);
    assert!(dirty(&rig) > 400_000 && checkpoints(&rig) == before + 1, "{} {:?}", dirty(&rig), history(&rig));
    // By a variable as by a flag, and refused where it makes no sense.
    rig.set("LITTORAL_CHECKPOINT_DIRTY", "100kB");
    shipped(&rig, &[], &[ONE_ROW]);
    assert_eq!((checkpoints(&rig), dirty(&rig)), (before + 2, 0), "{:?}", history(&rig));
    rig.set("LITTORAL_CHECKPOINT_DIRTY", "much");
    rig.run(["status", "app.db"]).fails(2, &["LITTORAL_CHECKPOINT_DIRTY", "64MB"]);
    rig.unset("LITTORAL_CHECKPOINT_DIRTY");
    rig.run(["verify", "app.db"]).succeeds();
}
