//! What is known of a segment after its entries up to a place: what its index will say.

use super::entry::entry_bytes;
use littoral_types::limits::{LOG_BLOCK_BYTES, LOG_HEAD_BYTES, LOG_SESSIONS_MAX};
use littoral_types::{
    LogBlock, LogEntryHead, LogEntryKind, LogHead, LogIndex, LogSession, Lsn, Serial, SessionName, Sessions,
};
use std::collections::BTreeMap;

/// An entry whose bytes are whole and that no appender writes: somebody's serials are not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogBreak {
    /// A serial that does not go up.
    #[error("session {session}: record {lsn} has serial {serial}, and the one before had {before}")]
    Serial {
        /// Whose.
        session: SessionName,
        /// Which record.
        lsn: Lsn,
        /// Its serial.
        serial: Serial,
        /// The session's serial before it.
        before: Serial,
    },
    /// A session goes on in a segment from another serial than it had.
    #[error("session {session}: it goes on at record {lsn} from serial {serial}, and was at {before}")]
    Resumed {
        /// Which.
        session: SessionName,
        /// The next record then.
        lsn: Lsn,
        /// From where it goes on.
        serial: Serial,
        /// Where it was.
        before: Serial,
    },
    /// A record of a session that the segment does not name, or a second name for a number.
    #[error("record {lsn} is of session number {number}, which {what}")]
    Number {
        /// Which record.
        lsn: Lsn,
        /// The number.
        number: u32,
        /// What is wrong with it.
        what: &'static str,
    },
}

#[derive(Clone, Copy, Debug)]
struct Known {
    number: u32,
    serial: Serial,
}

/// A segment's entries up to a place, taken one after another.
#[derive(Clone, Debug)]
pub struct Fold {
    head: LogHead,
    offset: u64,
    next: Lsn,
    blocks: Vec<LogBlock>,
    by_number: Vec<SessionName>,
    sessions: BTreeMap<SessionName, Known>,
}

impl Fold {
    /// Of no entries yet. `before`: the sessions at the end of the segment before.
    pub fn new(head: LogHead, before: &Sessions) -> Self {
        let known = |(name, serial): (&SessionName, &Serial)| (name.clone(), Known { number: 0, serial: *serial });
        let sessions = before.iter().map(known).collect();
        Self { head, offset: LOG_HEAD_BYTES, next: head.first, blocks: Vec::new(), by_number: Vec::new(), sessions }
    }

    /// Of which segment.
    pub const fn head(&self) -> &LogHead {
        &self.head
    }

    /// Where the next entry begins.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The LSN of the next record.
    pub const fn next(&self) -> Lsn {
        self.next
    }

    /// What the session of a number is called.
    pub fn name_of(&self, number: u32) -> Option<&SessionName> {
        self.by_number.get((number as usize).checked_sub(1)?)
    }

    /// The number that a session has in the segment.
    pub fn number_of(&self, session: &SessionName) -> Option<u32> {
        self.sessions.get(session).map(|known| known.number).filter(|number| *number > 0)
    }

    /// How far a session is.
    pub fn serial_of(&self, session: &SessionName) -> Option<Serial> {
        self.sessions.get(session).map(|known| known.serial)
    }

    /// How far each session is.
    pub fn sessions(&self) -> Sessions {
        self.sessions.iter().map(|(name, known)| (name.clone(), known.serial)).collect()
    }

    /// The next entry; `name` is what a [`LogEntryKind::Session`] holds.
    pub fn take(&mut self, entry: &LogEntryHead, name: Option<&SessionName>) -> Result<(), LogBreak> {
        let lsn = self.next;
        match (entry.kind, name) {
            (LogEntryKind::Record, _) => self.take_serial(entry)?,
            (LogEntryKind::Session, Some(name)) => self.take_session(entry, name)?,
            (LogEntryKind::Session, None) => {
                return Err(LogBreak::Number { lsn, number: entry.session, what: "has no name that is one" });
            }
        }
        let begins =
            self.blocks.last().is_none_or(|last| last.offset / LOG_BLOCK_BYTES < self.offset / LOG_BLOCK_BYTES);
        if begins {
            self.blocks.push(LogBlock { offset: self.offset, first: lsn, since_ms: u64::MAX, until_ms: 0 });
        }
        if let (LogEntryKind::Record, Some(block)) = (entry.kind, self.blocks.last_mut()) {
            block.since_ms = block.since_ms.min(entry.time_ms);
            block.until_ms = block.until_ms.max(entry.time_ms);
            self.next = lsn.next();
        }
        self.offset += entry_bytes(entry.len as usize) as u64;
        Ok(())
    }

    fn take_serial(&mut self, entry: &LogEntryHead) -> Result<(), LogBreak> {
        let (lsn, number) = (self.next, entry.session);
        if number == 0 {
            return match entry.serial.get() {
                0 => Ok(()),
                _ => Err(LogBreak::Number { lsn, number, what: "is nobody's and has a serial" }),
            };
        }
        let name = self.by_number.get(number as usize - 1);
        let known = name.and_then(|name| self.sessions.get_mut(name));
        let (Some(name), Some(known)) = (name, known) else {
            return Err(LogBreak::Number { lsn, number, what: "the segment has not named" });
        };
        if entry.serial <= known.serial {
            return Err(LogBreak::Serial { session: name.clone(), lsn, serial: entry.serial, before: known.serial });
        }
        known.serial = entry.serial;
        Ok(())
    }

    fn take_session(&mut self, entry: &LogEntryHead, name: &SessionName) -> Result<(), LogBreak> {
        let (lsn, number) = (self.next, entry.session);
        if number as usize != self.by_number.len() + 1 {
            return Err(LogBreak::Number { lsn, number, what: "does not follow from the one before" });
        }
        if !self.sessions.contains_key(name) && self.sessions.len() >= LOG_SESSIONS_MAX {
            return Err(LogBreak::Number { lsn, number, what: "is beyond what a log has" });
        }
        let zero = Known { number: 0, serial: Serial::ZERO };
        let known = self.sessions.entry(name.clone()).or_insert(zero);
        if known.number > 0 {
            return Err(LogBreak::Number { lsn, number, what: "names a session a second time" });
        }
        if known.serial != entry.serial {
            let (session, before) = (name.clone(), known.serial);
            return Err(LogBreak::Resumed { session, lsn, serial: entry.serial, before });
        }
        known.number = number;
        self.by_number.push(name.clone());
        Ok(())
    }

    /// A session was at this serial before this segment, where nothing else is known of it: for who has not read what is before.
    pub fn assume(&mut self, session: &SessionName, serial: Serial) {
        self.sessions.entry(session.clone()).or_insert(Known { number: 0, serial });
    }

    /// What its index says, were it sealed here.
    pub fn index(&self) -> LogIndex {
        let session = |(name, known): (&SessionName, &Known)| LogSession {
            name: name.clone(),
            number: known.number,
            serial: known.serial,
        };
        LogIndex {
            end: self.offset,
            first: self.head.first,
            records: self.next.0 - self.head.first.0,
            blocks: self.blocks.clone(),
            sessions: self.sessions.iter().map(session).collect(),
        }
    }
}
