//! What docs/hosts shows is what happens: files are written and commands are run as a new user would, in an empty folder with the
//! extension in it. Numbers may differ; words may not.
//!
//! A fenced block with a file's name behind its language is that file. An `sh` block is run, and the `text` block behind it is what it
//! says. `sh install` is what `programs.sh` did; `sh wheel`, `sh npm` and `sh prefix` are what the rig does with our own packages; and `sh frameworks`
//! needs what may not be had everywhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::packages::{frameworks, unpacked};
use littoral_hosts::{built, command, program, room, said};
use std::fs;
use std::path::{Path, PathBuf};

struct Block {
    language: String,
    rest: String,
    body: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let (language, rest) = info.split_once(' ').unwrap_or((info, ""));
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        found.push(Block { language: language.to_owned(), rest: rest.to_owned(), body: body.join("\n") + "\n" });
    }
    found
}

/// Runs of digits, and spaces, are not compared.
fn words(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        match letter {
            '0'..='9' if shown.ends_with('#') => {}
            '0'..='9' => shown.push('#'),
            other => shown.push(other),
        }
    }
    shown
}

fn try_page(name: &str) {
    let page = fs::read_to_string(room().join("../../docs/hosts").join(name)).unwrap();
    // The page's folders are the user's: here they are this test's.
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("elsewhere");
    let mine = |text: &str| text.replace("/tmp/littoral-docs", elsewhere.to_str().unwrap());
    let here = folder.path().join("here");
    fs::create_dir(&here).unwrap();
    let built = built();
    std::os::unix::fs::symlink(&built.extension, here.join("liblittoral.so")).unwrap();
    let (python, node) = (program("python"), program("node"));
    let path = [python.join("bin"), node.join("bin"), built.littoral.parent().unwrap().to_owned()];
    let path = std::env::join_paths(
        path.iter().map(Path::new).chain(["/usr/local/bin", "/usr/bin", "/bin"].iter().map(Path::new)),
    );
    let (path, mut last, mut ran) = (path.unwrap(), None, 0);
    let mut left_out = false;
    let ours = unpacked();
    let joined = |paths: &[PathBuf]| std::env::join_paths(paths).unwrap();
    let shell = |body: &str, python: &[PathBuf]| {
        let mut shell = command("bash");
        shell.args(["-euc", &mine(body)]).current_dir(&here);
        shell.env("PATH", &path).env("HOME", folder.path());
        shell.env("PYTHONPATH", joined(python)).env("PYTHONDONTWRITEBYTECODE", "1");
        shell.env("NODE_PATH", joined(&[node.join("node_modules"), ours.node.clone()]));
        shell.env("PKG_CONFIG_PATH", ours.prefix.join("lib/pkgconfig"));
        shell.env("LD_LIBRARY_PATH", ours.prefix.join("lib"));
        Some(said(&mut shell))
    };
    for Block { language, rest, body } in blocks(&page) {
        match (language.as_str(), rest.as_str()) {
            ("sh", "install") => {
                let pinned = said(command("bash").arg(room().join("programs.sh")).arg("--versions"));
                let wanted = body.split_whitespace().last().unwrap();
                assert!(
                    pinned.split_whitespace().any(|pin| pin == wanted),
                    "{name}: {wanted} is not what is tried: {pinned}"
                );
            }
            ("sh", "wheel" | "npm" | "prefix") => {}
            ("sh", "frameworks") => match frameworks() {
                Some(frameworks) => last = shell(&body, &[ours.python.clone(), here.clone(), frameworks]),
                None => left_out = true,
            },
            ("sh", "") => {
                last = shell(&body, std::slice::from_ref(&ours.python));
                ran += 1;
            }
            ("text", "") if left_out => left_out = false,
            ("text", "") => {
                let told = last.take().expect("a text is what the commands before it say");
                assert_eq!(words(&told), words(&mine(&body)), "{name}, after:\n{told}");
            }
            (_, "") => {}
            (_, file) => fs::write(here.join(file), mine(&body)).unwrap(),
        }
    }
    assert!(ran > 1, "{name} shows nothing");
}

#[test]
fn the_page_of_the_sqlite3_shell() {
    try_page("sqlite3.md");
}

#[test]
fn the_page_of_python() {
    try_page("python.md");
}

#[test]
fn the_page_of_apsw() {
    try_page("apsw.md");
}

#[test]
fn the_page_of_c() {
    try_page("c.md");
}

#[test]
fn the_page_of_node() {
    try_page("node.md");
}
