//! A database that this process has open, as a checkpoint reads it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use littoral_cli::sqlite::OpenDatabase;
use littoral_engine::log::publish::new_volume;
use littoral_types::{IdentityKey, PageNo, VolumeId, VolumeKind, VolumeMeta, VolumeRow};
use rig::{Rig, sql};
use std::path::Path;
use std::process::Command;

/// A volume of which there is no record yet.
fn row() -> VolumeRow {
    new_volume(VolumeMeta {
        id: VolumeId([1; 16]),
        name: "app.db".parse().unwrap(),
        kind: VolumeKind::Database,
        identity_key: IdentityKey([1; 32]),
        created_ms: 1,
        began_as: None,
    })
}

/// Writes from another process, which waits for nobody. Whether it could.
fn writes(file: &Path) -> bool {
    let write = "UPDATE t SET b = hex(randomblob(8)) WHERE id = 1";
    let mut command = Command::new("sqlite3");
    command.args(["-batch", "-init", "/dev/null"]).arg(file).arg(write).output().unwrap().status.success()
}

#[test]
fn a_checkpoint_that_is_given_up_while_its_source_stands_still_keeps_nobody_from_writing() {
    let rig = Rig::new();
    let file = rig.path("app.db");
    // More than is taken at once.
    sql(
        &file,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) INSERT INTO t SELECT i, zeroblob(4000) FROM n;",
    );
    let database = OpenDatabase::quietly(&file, &[]).unwrap();
    let mut source = database.live().unwrap();
    let mut image = vec![0; source.page_size().len()];
    for _ in 0..2 {
        source.begin(&row()).unwrap();
        // Somebody writes past us, until nobody is let in between any more.
        let mut rounds = 0;
        loop {
            source.read(PageNo::from_index(7), &mut image).unwrap();
            source.rest().unwrap();
            if !writes(&file) {
                break;
            }
            rounds += 1;
            assert!(rounds < 20, "it never stands still");
            source.catch_up().unwrap();
        }
        source.given_up();
        assert!(writes(&file), "no transaction stays open");
    }
}
