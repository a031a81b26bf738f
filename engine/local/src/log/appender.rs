//! One thread's way into a log.

use super::error::LogError;
use super::live::Live;
use super::open::Inner;
use super::sync::LogSync;
use littoral_format::log::{Batch, EntrySum, Stamp, entry_bytes};
use littoral_types::limits::{LOG_PART_BYTES, LOG_RECORD_MAX};
use littoral_types::{LogEntryHead, LogEntryKind, Lsn, Serial, SessionName};
use std::ops::Range;
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
    sum: EntrySum,
}

impl Appender {
    pub(super) fn new(inner: Arc<Inner>, session: Option<(SessionName, Serial)>) -> Self {
        Self { live: inner.current(), inner, session, number: 0, sum: EntrySum::default() }
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
        // Before room is reserved: others wait for what is reserved.
        self.sum.take(body);
        self.append_one_or_more(serial, |appender, time_ms| appender.try_append(serial, time_ms, body))
    }

    /// Appends some records of a batch, all of them or none, with consecutive LSNs and serials, in one write: records that come together cost less so
    /// than one by one. As much at once as a record may have, and a little more; [`Batch::part`] says how many that are. What became of the last one; none where there is none.
    pub fn append_part(&mut self, batch: &mut Batch, records: Range<usize>) -> Result<Option<Appended>, LogError> {
        let records = records.start..records.end.min(batch.len());
        if records.is_empty() {
            return Ok(None);
        }
        let (len, max) = (batch.bytes_of(&records), entry_bytes(LOG_RECORD_MAX) + LOG_PART_BYTES);
        if len > max {
            return Err(LogError::TooLarge { len, max });
        }
        let many = records.len() as u64;
        let (first, last) = match &self.session {
            None => (Serial::ZERO, Serial::ZERO),
            Some((name, last)) => {
                let beyond = || LogError::Behind { session: name.clone(), last: *last, serial: *last };
                let new = Serial::new(last.get() + many).ok_or_else(beyond)?;
                (last.saturating_add(1), new)
            }
        };
        self.append_one_or_more(last, |appender, time_ms| appender.try_part(first, time_ms, batch, &records)).map(Some)
    }

    /// Whatever `put` appends, until there is a segment that it fits in; the last of it has this serial.
    fn append_one_or_more(
        &mut self,
        serial: Serial,
        mut put: impl FnMut(&mut Self, u64) -> Result<Option<Lsn>, LogError>,
    ) -> Result<Appended, LogError> {
        self.inner.check()?;
        let time_ms = self.inner.now_ms();
        let lsn = loop {
            if let Some(lsn) = put(self, time_ms)? {
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
    fn try_append(&mut self, serial: Serial, time_ms: u64, body: &[u8]) -> Result<Option<Lsn>, LogError> {
        if !self.is_named(time_ms) {
            return Ok(None);
        }
        let len = body.len() as u32;
        let entry = LogEntryHead { kind: LogEntryKind::Record, session: self.number, len, serial, time_ms };
        self.live.append(&entry, body, &mut self.sum, self.inner.faults())
    }

    /// The same.
    fn try_part(
        &mut self,
        serial: Serial,
        time_ms: u64,
        batch: &mut Batch,
        records: &Range<usize>,
    ) -> Result<Option<Lsn>, LogError> {
        if !self.is_named(time_ms) {
            return Ok(None);
        }
        let stamp = Stamp { log: self.live.head, first: Lsn::ZERO, session: self.number, serial, time_ms };
        let done = self.live.append_part(batch, records, stamp, self.inner.faults());
        if let Err(error) = &done {
            // What was reserved stays as it is: nobody gets beyond it.
            self.inner.stop_for(error);
        }
        done
    }

    /// Whether the segment names the session, if there is one: it is named now, where there is room.
    fn is_named(&mut self, time_ms: u64) -> bool {
        let (Some((name, last)), 0) = (&self.session, self.number) else { return true };
        let Some(number) = self.live.number(name, *last, time_ms) else { return false };
        self.number = number;
        true
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
