//! The stock `sqlite3` shell as a process of its own, driven by pipes: with the extension or without it.

use crate::built::built;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

/// Nothing that a test asks takes longer.
const PATIENCE: Duration = Duration::from_secs(120);
const MARK: &str = "--- that was it ---";

/// Which VFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// SQLite's own.
    Stock,
    /// Ours.
    Littoral,
}

/// A shell that runs.
#[derive(Debug)]
pub struct Shell {
    how: How,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    asked: usize,
    /// Of an answer that is not complete.
    said: Vec<String>,
}

/// What it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Lines, errors among them.
    Lines(Vec<String>),
    /// It died before it had said all.
    Died(Vec<String>),
}

impl Shell {
    /// Starts one in a folder.
    pub fn start(folder: &Path, how: How) -> Self {
        Self::of(Command::new("sqlite3"), folder, how).expect("a shell that lives")
    }

    fn of(mut command: Command, folder: &Path, how: How) -> Option<Self> {
        let (reader, writer) = std::io::pipe().unwrap();
        command.args(["-batch"]).current_dir(folder).env("HOME", folder);
        without_settings(&mut command);
        command.stdin(Stdio::piped()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let mut child = command.spawn().expect("the sqlite3 shell");
        drop(command);
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines() {
                let Ok(line) = line else { return };
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        let mut shell = Self { how, child, input, lines, asked: 0, said: Vec::new() };
        if how == How::Littoral {
            let extension = built().extension.display().to_string();
            let said = shell.survives(&format!(".load '{extension}' sqlite3_littoral_init"))?;
            assert_eq!(said, Vec::<String>::new());
        }
        Some(shell)
    }

    /// Starts one in a folder, with variables.
    pub fn with(folder: &Path, how: How, variables: &[(&str, &OsStr)]) -> Self {
        let mut command = Command::new("sqlite3");
        command.envs(variables.iter().copied());
        Self::of(command, folder, how).expect("a shell that lives")
    }

    /// Starts one whose system calls are met by something, in strace's words: `fdatasync:signal=KILL:when=3`.
    /// `None` when it died before it could be asked anything.
    pub fn injected(folder: &Path, how: How, inject: &str) -> Option<Self> {
        let mut command = Command::new("strace");
        let calls = inject.split(':').next().unwrap();
        let (trace, inject) = (format!("trace={calls}"), format!("inject={inject}"));
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject, "sqlite3"]);
        Self::of(command, folder, how)
    }

    /// Which VFS it has.
    pub fn how(&self) -> How {
        self.how
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Opens a database; parameters as in a URI, without ours.
    pub fn open(&mut self, name: &str, parameters: &str) -> Vec<String> {
        let uri = self.uri(name, parameters);
        self.run(&format!(".open {uri}"))
    }

    /// A database's name as this shell is to say it.
    pub fn uri(&self, name: &str, parameters: &str) -> String {
        let parameters = match (self.how, parameters) {
            (How::Stock, "") => String::new(),
            (How::Stock, more) => format!("?{more}"),
            (How::Littoral, "") => "?vfs=littoral".to_owned(),
            (How::Littoral, more) => format!("?vfs=littoral&{more}"),
        };
        format!("file:{name}{parameters}")
    }

    /// Asks without waiting.
    pub fn ask(&mut self, text: &str) {
        self.asked += 1;
        if let Some(input) = &mut self.input {
            // It may have died, and then the answer says so.
            let _ = writeln!(input, "{text}\n.print '{MARK}'").and_then(|()| input.flush());
        }
    }

    /// Waits for the answer to everything that was asked.
    pub fn answer(&mut self) -> Said {
        let mut said = Vec::new();
        while self.asked > 0 {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.ends_with(MARK) => self.asked -= 1,
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Disconnected) => return Said::Died(said),
                Err(RecvTimeoutError::Timeout) => panic!("no answer for {PATIENCE:?}; so far: {said:?}"),
            }
        }
        Said::Lines(said)
    }

    /// Whether everything that was asked is answered, or nothing will be any more.
    pub fn has_answered_all(&mut self) -> bool {
        loop {
            match self.lines.try_recv() {
                Ok(line) if line.ends_with(MARK) => self.asked -= 1,
                Ok(line) => self.said.push(line),
                Err(TryRecvError::Empty) => return self.asked == 0,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// The answer to the one thing that was asked, if it is there.
    pub fn answered(&mut self) -> Option<Vec<String>> {
        while let Ok(line) = self.lines.try_recv() {
            if line.ends_with(MARK) {
                self.asked -= 1;
                return Some(std::mem::take(&mut self.said));
            }
            self.said.push(line);
        }
        None
    }

    /// Asks, and waits for the lines of the answer.
    pub fn run(&mut self, text: &str) -> Vec<String> {
        self.ask(text);
        match self.answer() {
            Said::Lines(lines) => lines,
            Said::Died(lines) => panic!("the shell died of {text:?}: {lines:?}"),
        }
    }

    /// The one line of an answer.
    pub fn one(&mut self, text: &str) -> String {
        let lines = self.run(text);
        assert_eq!(lines.len(), 1, "{text}: {lines:?}");
        lines[0].clone()
    }

    /// Runs what must say nothing.
    pub fn quietly(&mut self, text: &str) {
        let lines = self.run(text);
        assert_eq!(lines, Vec::<String>::new(), "{text}");
    }

    /// Asks what it may die of: what it said, or nothing when it died.
    pub fn survives(&mut self, text: &str) -> Option<Vec<String>> {
        self.ask(text);
        match self.answer() {
            Said::Lines(lines) => Some(lines),
            Said::Died(_) => None,
        }
    }

    /// Whether it ended by itself, and of no signal.
    pub fn has_gone_in_order(&mut self) -> bool {
        drop(self.input.take());
        self.child.wait().is_ok_and(|status| status.code().is_some())
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGKILL, and what it had said by then of everything that it was not waited for.
    pub fn killed(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut said = std::mem::take(&mut self.said);
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            if !line.ends_with(MARK) {
                said.push(line);
            }
        }
        said
    }

    /// The end in order.
    pub fn quit(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.child.kill();
        }
        self.end();
    }
}

/// What the machine's variables would say of a database. Nothing is published unasked: tests count what is.
pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"LITTORAL_") {
            command.env_remove(name);
        }
    }
    command.env("LITTORAL_SYNC_INTERVAL", "off");
}

/// Where a line of a script stands is no part of what went wrong.
pub fn without_line_numbers(line: &str) -> String {
    match line.split_once(" near line ") {
        Some((what, rest)) => match rest.split_once(':') {
            Some((_, why)) => format!("{what}:{why}"),
            None => line.to_owned(),
        },
        None => line.to_owned(),
    }
}
