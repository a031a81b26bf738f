//! A machine whose power can fail, and the object store that is another machine's.

use super::disk::Disk;
use crate::built::{built, preload};
use crate::chance::Chance;
use crate::ledger;
use crate::place::NAME;
use crate::shell::{How, Shell, without_settings};
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// The machine.
#[derive(Debug)]
pub struct Machine {
    folder: TempDir,
    /// Its disk.
    pub disk: Disk,
    boots: u64,
}

impl Machine {
    /// A new one, with nothing on its disk.
    pub fn new(chance: Chance, is_strict: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("littoral-power").tempdir().unwrap();
        for name in ["machine", "first", "elsewhere"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("times"), "").unwrap();
        let disk = Disk::new(&folder.path().join("machine"), chance, is_strict);
        let mut machine = Self { folder, disk, boots: 0 };
        machine.boot();
        machine
    }

    /// What lies beside the machine, and the machine's own folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of the machine's.
    pub fn its(&self, name: &str) -> PathBuf {
        self.file("machine").join(name)
    }

    /// The object store.
    pub fn remote(&self) -> String {
        format!("file://{}", self.file("remote").display())
    }

    fn boot(&mut self) {
        self.boots += 1;
        fs::write(self.file("boot"), format!("{:032x}\n", self.boots)).unwrap();
    }

    /// A shell on the machine.
    pub fn shell(&self) -> Shell {
        let files = ["boot", "times"].map(|name| self.file(name));
        let variables: [(&str, &OsStr); 4] = [
            ("LD_PRELOAD", preload().as_os_str()),
            ("POWER_DISK", self.disk.line().as_os_str()),
            ("POWER_BOOT", files[0].as_os_str()),
            ("POWER_TIMES", files[1].as_os_str()),
        ];
        Shell::with(&self.file("machine"), How::Littoral, &variables)
    }

    /// The power fails under these shells, and comes back: what each had said.
    pub fn fails(&mut self, shells: Vec<Shell>, is_all_lost: bool) -> Vec<Vec<String>> {
        self.disk.cut();
        let said = shells.into_iter().map(Shell::killed).collect();
        self.disk.put_back(&self.file("times"), is_all_lost);
        self.boot();
        said
    }

    /// Which commit the machine's files end at for a stock SQLite, and its bytes without a WAL.
    pub fn as_stock_reads_it(&self) -> Result<(u64, Vec<u8>), String> {
        let copy = tempfile::tempdir_in(self.folder.path()).unwrap();
        for suffix in ["", "-wal", "-journal"] {
            let name = format!("{NAME}{suffix}");
            if self.its(&name).exists() {
                fs::copy(self.its(&name), copy.path().join(name)).unwrap();
            }
        }
        let mut shell = Shell::start(copy.path(), How::Stock);
        shell.open(NAME, "");
        let found = ledger::read(&mut shell)?;
        shell.run("PRAGMA wal_checkpoint(TRUNCATE);");
        shell.quit();
        let mut bytes = fs::read(copy.path().join(NAME)).unwrap();
        // A file may be longer than the database in it: that it was cut was lost.
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
        let size = match number(&bytes[16..18]) {
            1 => 65536,
            size => size,
        };
        bytes.truncate(size * number(&bytes[28..32]));
        Ok((found, bytes))
    }

    /// A copy of what a shell has open, which reads every page.
    pub fn copy_of(&self, shell: &mut Shell) -> Vec<u8> {
        let into = self.file("elsewhere").join("copy.db");
        let _ = fs::remove_file(&into);
        shell.quietly(&format!("VACUUM INTO '{}';", into.display()));
        fs::read(into).unwrap()
    }

    /// The same of one that was restored.
    pub fn copy_of_restored(&self, name: &str) -> Vec<u8> {
        let mut shell = Shell::start(&self.file("elsewhere"), How::Stock);
        shell.open(name, "");
        self.copy_of(&mut shell)
    }

    /// Restores the newest state elsewhere: which commit it ends at.
    pub fn restored(&self, into: &str) -> Result<u64, String> {
        let elsewhere = self.file("elsewhere");
        let mut command = Command::new(&built().littoral);
        command.current_dir(&elsewhere).env("HOME", &elsewhere);
        without_settings(&mut command);
        command.args(["restore", &format!("{}/{NAME}", self.remote()), into, "--force", "--quiet"]);
        let output = command.output().unwrap();
        if !output.status.success() {
            return Err(format!("{:?} {}", output.status, String::from_utf8_lossy(&output.stderr)));
        }
        let mut shell = Shell::start(&elsewhere, How::Stock);
        shell.open(into, "");
        ledger::read(&mut shell)
    }

    /// Keeps all of it for who looks into what went wrong.
    pub fn keep(&self) {
        if let Some(into) = std::env::var_os("POWER_KEEP") {
            let _ = Command::new("cp").arg("-a").arg(self.folder.path()).arg(into).status();
        }
    }
}
