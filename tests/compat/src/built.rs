//! The extension and the command line, built once for each program that asks.
//!
//! Several programs may ask at once, for several shapes: each shape is kept as a copy of its own under a lock, so that what one
//! loads is not replaced by what another builds.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A folder that holds both already: for whoever is trying something, and has no need of a build each time.
const READY: &str = "COMPAT_READY";

/// What was built.
#[derive(Debug)]
pub struct Built {
    /// The loadable extension.
    pub extension: PathBuf,
    /// The command line.
    pub littoral: PathBuf,
}

/// As every test uses it.
pub fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| match std::env::var_os(READY) {
        Some(folder) => {
            let folder = PathBuf::from(folder);
            Built { extension: folder.join("liblittoral.so"), littoral: folder.join("littoral") }
        }
        None => build("tested", &["littoral-ext", "littoral-cli"], &[]),
    })
}

/// The extension with our own rooms as in a release; what they are made of always is.
pub fn measured() -> &'static Path {
    static MEASURED: OnceLock<Built> = OnceLock::new();
    let rooms =
        ["littoral-ext", "littoral-vfs", "littoral-engine", "littoral-local", "littoral-types", "littoral-format"];
    let settings = ["opt-level=3", "overflow-checks=false", "debug-assertions=false"];
    let as_released: Vec<String> =
        rooms.iter().flat_map(|room| settings.map(|setting| format!("profile.dev.package.{room}.{setting}"))).collect();
    &MEASURED.get_or_init(|| build("measured", &["littoral-ext"], &as_released)).extension
}

fn build(shape: &str, packages: &[&str], config: &[String]) -> Built {
    let program = std::env::current_exe().unwrap();
    let debug =
        program.ancestors().find(|folder| folder.ends_with("debug")).expect("a test lies in target/debug").to_owned();
    let target = debug.parent().unwrap();
    let into = target.join("compat").join(shape);
    fs::create_dir_all(&into).unwrap();
    let lock = File::create(target.join("compat").join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).env("CARGO_TARGET_DIR", target);
    cargo.args(["build", "--quiet", "--locked"]);
    cargo.args(packages.iter().flat_map(|package| ["-p", package]));
    cargo.args(config.iter().flat_map(|setting| ["--config", setting]));
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let kept = |name: &str| {
        let (from, to) = (debug.join(name), into.join(name));
        let is_there = from.exists();
        if is_there && !same(&from, &to) {
            // A new file each time: the old one may be mapped by a process that runs.
            let fresh = into.join(format!("{name}.new"));
            fs::copy(&from, &fresh).unwrap();
            fs::rename(&fresh, &to).unwrap();
        }
        to
    };
    Built { extension: kept("liblittoral.so"), littoral: kept("littoral") }
}

fn same(one: &Path, two: &Path) -> bool {
    fs::read(two).is_ok_and(|two| fs::read(one).unwrap() == two)
}

/// What is preloaded into the processes of a machine whose power can fail.
pub fn preload() -> &'static Path {
    static PRELOAD: OnceLock<PathBuf> = OnceLock::new();
    PRELOAD.get_or_init(|| {
        let program = std::env::current_exe().unwrap();
        let debug = program.ancestors().find(|folder| folder.ends_with("debug")).expect("a test lies in target/debug");
        let into = debug.parent().unwrap().join("compat");
        fs::create_dir_all(&into).unwrap();
        let (fresh, done) = (into.join(format!("preload-{}.so", std::process::id())), into.join("preload.so"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/power/preload.c");
        let mut compiler = Command::new("gcc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&fresh).arg(source).arg("-ldl");
        let output = compiler.output().expect("gcc");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // A new file each time: the old one may be mapped by a process that runs.
        fs::rename(&fresh, &done).unwrap();
        done
    })
}
