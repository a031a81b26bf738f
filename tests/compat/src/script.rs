//! Scenes of several shells and what happens to their files, played twice: under the stock VFS and under ours.
//!
//! One line is one step:
//!
//! | line | what happens |
//! |---|---|
//! | `1 open NAME [PARAMETERS]` | shell 1 opens a database, and is started if it is not there |
//! | `1> TEXT` | shell 1 runs SQL or a dot command; `@NAME@` is that database's URI |
//! | `1? TEXT` | the same, without waiting |
//! | `1 wait` | waits for what shell 1 was asked |
//! | `1 kill`, `1 quit` | SIGKILL; the end in order |
//! | `copy FROM TO`, `move FROM TO`, `delete FILE`, `cut FILE BYTES`, `forbid FILE` | behind the VFS's back |
//! | `state` | which files there are, and what the databases hold |

use crate::place::Place;
use crate::shell::{How, Said, Shell, without_line_numbers};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

/// What was said, line by line, and at the end every file by its name.
#[derive(Debug, Default)]
pub struct Played {
    /// What was said.
    pub lines: Vec<String>,
    /// Databases: byte for byte. Everything else: whether it is there.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Plays a scene.
pub fn play(place: &Place, how: How, scene: &str) -> Played {
    let mut shells: BTreeMap<String, Shell> = BTreeMap::new();
    let mut lines = Vec::new();
    for step in scene.lines().map(str::trim).filter(|step| !step.is_empty()) {
        lines.push(format!("== {step}"));
        if let Some((name, text)) = step.split_once('>').filter(|(name, _)| name.len() == 1) {
            let shell = shells.get_mut(name).expect("an open shell");
            lines.extend(shell.run(&with_names(shell, text.trim())));
        } else if let Some((name, text)) = step.split_once('?').filter(|(name, _)| name.len() == 1) {
            let shell = shells.get_mut(name).expect("an open shell");
            let text = with_names(shell, text.trim());
            shell.ask(&text);
        } else {
            let words: Vec<&str> = step.split_whitespace().collect();
            match words.as_slice() {
                [name, "open", file, more @ ..] => {
                    let shell = shells.entry((*name).to_owned()).or_insert_with(|| Shell::start(place.path(), how));
                    lines.extend(shell.open(file, &more.join("")));
                }
                [name, "wait"] => match shells.get_mut(*name).expect("an open shell").answer() {
                    Said::Lines(said) | Said::Died(said) => lines.extend(said),
                },
                [name, "kill"] => shells.remove(*name).expect("an open shell").kill(),
                [name, "quit"] => shells.remove(*name).expect("an open shell").quit(),
                ["copy", from, to] => drop(fs::copy(place.file(from), place.file(to)).unwrap()),
                ["move", from, to] => fs::rename(place.file(from), place.file(to)).unwrap(),
                ["delete", file] => fs::remove_file(place.file(file)).unwrap(),
                ["cut", file, bytes] => {
                    File::options()
                        .write(true)
                        .open(place.file(file))
                        .unwrap()
                        .set_len(bytes.parse().unwrap())
                        .unwrap();
                }
                ["forbid", file] => {
                    let mut permissions = fs::metadata(place.file(file)).unwrap().permissions();
                    permissions.set_readonly(true);
                    fs::set_permissions(place.file(file), permissions).unwrap();
                }
                ["state"] => lines.extend(names(place.path())),
                _ => panic!("no such step: {step}"),
            }
        }
    }
    shells.into_values().for_each(Shell::quit);
    let folder = place.path().display().to_string();
    let plainly = |line: &String| {
        // A name that was not found is told as it was spelled, and ours is spelled with our VFS.
        let line = line.replace(&folder, "FOLDER").replace("vfs=littoral&", "").replace("?vfs=littoral", "");
        without_line_numbers(&line)
    };
    let lines = lines.iter().map(plainly).collect();
    let files = names(place.path()).into_iter().map(|name| {
        let bytes = if name.ends_with(".db") { fs::read(place.file(&name)).unwrap() } else { Vec::new() };
        (name, bytes)
    });
    Played { lines, files: files.collect() }
}

fn with_names(shell: &Shell, text: &str) -> String {
    let mut whole = String::new();
    for (nth, part) in text.split('@').enumerate() {
        if nth % 2 == 1 {
            whole.push_str(&shell.uri(part, ""));
        } else {
            whole.push_str(part);
        }
    }
    whole
}

/// The files of a folder, without our store.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.retain(|name| name != ".littoral" && !name.starts_with("restored"));
    names.sort();
    names
}
