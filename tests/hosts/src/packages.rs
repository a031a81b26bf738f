//! The packages as users get them, made out of the extension under test, and machines that have them and nothing else of ours.

use crate::{Place, built, command, program, room, said};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Makes a package, of a kind that `bindings/package.py` knows, once in a test program.
pub fn package(kind: &str) -> PathBuf {
    static MADE: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut made_before = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = made_before.get(kind) {
        return path.clone();
    }
    let into = built().extension.with_file_name("packages");
    fs::create_dir_all(&into).unwrap();
    // Tests of several programs may want it at once, and one that is half written is none.
    let lock = File::create(into.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let path = made(kind, &into);
    made_before.insert(kind.to_owned(), path.clone());
    path
}

/// The same, into a folder of one's own.
pub fn made(kind: &str, into: &Path) -> PathBuf {
    let mut maker = Command::new("python3");
    maker.arg(room().join("../../bindings/package.py")).arg(kind).arg(built().extension.parent().unwrap()).arg(into);
    PathBuf::from(said(&mut maker).trim_end())
}

/// A folder of this test program's own, empty at first: what is installed into it is too much to be left in a temporary one.
fn own(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let folder = built().extension.with_file_name("installed").join(program.file_name().unwrap()).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The packages' contents, for variables that say where such things are.
#[derive(Debug)]
pub struct Unpacked {
    /// For `PYTHONPATH`.
    pub python: PathBuf,
    /// For `NODE_PATH`.
    pub node: PathBuf,
    /// The prefix of the package for C.
    pub prefix: PathBuf,
}

/// Unpacks all of them.
pub fn unpacked() -> &'static Unpacked {
    static UNPACKED: OnceLock<Unpacked> = OnceLock::new();
    UNPACKED.get_or_init(|| {
        let (python, node, prefix) = (own("python"), own("node"), own("prefix"));
        said(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(package("wheel")).arg(&python));
        for (kind, into) in [("npm", node.join("littoral")), ("c", prefix.clone())] {
            fs::create_dir_all(&into).unwrap();
            said(Command::new("tar").arg("xf").arg(package(kind)).args(["--strip-components=1", "-C"]).arg(into));
        }
        Unpacked { python, node, prefix }
    })
}

/// A machine that has Python and our wheel.
#[derive(Debug)]
pub struct Installed {
    folder: PathBuf,
}

impl Installed {
    /// Installs the wheel into a fresh environment, without any network.
    pub fn wheel() -> &'static Self {
        static WHEEL: OnceLock<Installed> = OnceLock::new();
        WHEEL.get_or_init(|| {
            // It is there, and can make environments.
            let python = program("python").join("bin/python3").canonicalize().unwrap();
            let folder = own("venv");
            said(Command::new(python).args(["-m", "venv"]).arg(&folder));
            let mut pip = Command::new(folder.join("bin/python3"));
            pip.args(["-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-index"]);
            said(pip.arg(package("wheel")));
            Self { folder }
        })
    }

    /// The environment's Python.
    pub fn python(&self) -> PathBuf {
        self.folder.join("bin/python3")
    }

    /// One of this room's scripts, standing on a machine.
    pub fn script(&self, place: &Place, script: &str, words: &[&str]) -> Command {
        let mut command = command(self.python());
        command.current_dir(place.machine()).arg(room().join("scripts").join(script)).args(words);
        command
    }
}

/// What stands over SQLite in Python, as a folder for `PYTHONPATH`; `None`, and said, where no registry has it to give.
pub fn frameworks() -> Option<PathBuf> {
    let mut script = Command::new("bash");
    script.arg(room().join("programs.sh")).arg("frameworks").stdin(Stdio::null());
    let done = script.output().unwrap();
    if done.status.success() {
        return Some(PathBuf::from(String::from_utf8(done.stdout).unwrap().trim_end()));
    }
    eprintln!(
        "skipped: SQLAlchemy, Django, apsw and pysqlite3 under the wheel: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    None
}
