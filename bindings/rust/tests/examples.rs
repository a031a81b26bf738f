//! The examples run, from nothing and again on what they left.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::process::Command;

#[test]
fn every_example_runs_twice() {
    let here = std::env::current_exe().unwrap();
    let built: PathBuf = here.ancestors().nth(2).unwrap().join("examples");
    let sources = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut ran = 0;
    for source in std::fs::read_dir(sources).unwrap() {
        let name = source.unwrap().path().file_stem().unwrap().to_owned();
        let folder = tempfile::tempdir().unwrap();
        for time in 1..=2 {
            let mut command = Command::new(built.join(&name));
            // What this shell says is not what the example's reader says.
            for (variable, _) in std::env::vars_os() {
                if variable.to_string_lossy().starts_with("LITTORAL_") {
                    command.env_remove(variable);
                }
            }
            let done = command.arg("app.db").current_dir(folder.path()).output().unwrap();
            let said = String::from_utf8_lossy(&done.stdout).into_owned();
            let why = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{name:?}, time {time}: {said}{why}");
            assert!(said.contains("safe up to 1."), "{name:?}, time {time}: {said}{why}");
        }
        ran += 1;
    }
    assert_eq!(ran, 3);
}
