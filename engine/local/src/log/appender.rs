//! One thread's way into a log.

use super::error::LogError;
use super::live::Live;
use super::open::Inner;
use super::sync::LogSync;
use littoral_format::log::EntrySum;
use littoral_types::limits::LOG_RECORD_MAX;
use littoral_types::{LogEntryHead, LogEntryKind, Lsn, Serial, SessionName};
use std::sync::Arc;

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The record's place in the log.
    pub lsn: Lsn,
    /// The session's serial with it; zero without a session's name.
    pub serial: Serial,
    /// When it was appended, milliseconds since 1970.
    pub time_ms: u64,
}

/// Appends records. Made by [`super::Log::appender`]; each thread has its own.
#[derive(Debug)]
pub struct Appender {
    inner: Arc<Inner>,
    live: Arc<Live>,
    session: Option<(SessionName, Serial)>,
    /// The session's number in the segment; zero where it has none there yet.
    number: u32,
}

impl Appender {
    pub(super) fn new(inner: Arc<Inner>, session: Option<(SessionName, Serial)>) -> Self {
        Self { live: inner.current(), inner, session, number: 0 }
    }

    /// The serial of the session's last record; zero before the first, and without a session's name.
    pub fn serial(&self) -> Serial {
        self.session.as_ref().map_or(Serial::ZERO, |(_, serial)| *serial)
    }

    /// Appends a record. It is seen by readers when this returns, and durable as the log was opened: see [`LogSync`].
    pub fn append(&mut self, body: &[u8]) -> Result<Appended, LogError> {
        let serial = match &self.session {
            None => Serial::ZERO,
            Some((name, last)) => {
                let beyond = || LogError::Behind { session: name.clone(), last: *last, serial: *last };
                last.next().ok_or_else(beyond)?
            }
        };
        self.append_with(serial, body)
    }

    /// The same with a serial of the application's own, which goes up. One that does not is refused: the record was appended before.
    pub fn append_as(&mut self, serial: Serial, body: &[u8]) -> Result<Appended, LogError> {
        match &self.session {
            None => Err(LogError::Anonymous),
            Some((name, last)) if serial <= *last => {
                Err(LogError::Behind { session: name.clone(), last: *last, serial })
            }
            Some(_) => self.append_with(serial, body),
        }
    }

    fn append_with(&mut self, serial: Serial, body: &[u8]) -> Result<Appended, LogError> {
        if body.len() > LOG_RECORD_MAX {
            return Err(LogError::TooLarge { len: body.len(), max: LOG_RECORD_MAX });
        }
        self.inner.check()?;
        let time_ms = self.inner.now_ms();
        // Before room is reserved: others wait for what is reserved.
        let mut sum = EntrySum::of(body);
        let lsn = loop {
            if let Some(lsn) = self.try_append(serial, time_ms, body, &mut sum)? {
                break lsn;
            }
            self.live = self.inner.roll(&self.live)?;
            self.number = 0;
        };
        if let Some((_, last)) = &mut self.session {
            *last = serial;
        }
        match self.inner.how {
            LogSync::None | LogSync::Interval(_) => self.inner.bell.appended(),
            LogSync::Each => self.inner.sync_to(lsn)?,
        }
        Ok(Appended { lsn, serial, time_ms })
    }

    /// `None`: the segment is full.
    fn try_append(
        &mut self,
        serial: Serial,
        time_ms: u64,
        body: &[u8],
        sum: &mut EntrySum,
    ) -> Result<Option<Lsn>, LogError> {
        if let (Some((name, last)), 0) = (&self.session, self.number) {
            let Some(number) = self.live.number(name, *last, time_ms) else { return Ok(None) };
            self.number = number;
        }
        let len = body.len() as u32;
        let entry = LogEntryHead { kind: LogEntryKind::Record, session: self.number, len, serial, time_ms };
        self.live.append(&entry, body, sum, self.inner.faults())
    }

    /// Makes everything durable that was appended before, by anybody.
    pub fn sync(&self) -> Result<(), LogError> {
        self.inner.check()?;
        self.inner.sync()
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.inner.left(self.session.take());
    }
}
