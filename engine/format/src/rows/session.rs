//! How far a named session is: a row of the local manifest, and the same bytes in operations and manifest snapshots.

use crate::FormatError;
use crate::nouns::name;
use crate::wire::{In, Out, Spell};
use littoral_types::{Epoch, Lsn, Position, Serial, SessionMark, SessionStep};

/// The newest layout.
pub const VERSION: u16 = 1;
const WHAT: &str = "session row";

/// Spells it.
pub fn encode(mark: &SessionMark) -> Result<Vec<u8>, FormatError> {
    super::encode(WHAT, VERSION, mark)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<SessionMark, FormatError> {
    super::decode(WHAT, VERSION, bytes)
}

impl Spell for SessionMark {
    fn put(&self, out: &mut Out) {
        out.text("session: name", self.session.as_str());
        let (step, serial) = match self.step {
            SessionStep::Gone => (0, None),
            SessionStep::On(serial) => (1, Some(serial)),
            SessionStep::Anew(serial) => (2, Some(serial)),
        };
        out.u8("session: step (0 gone, 1 on, 2 anew)", step);
        if let Some(serial) = serial {
            out.varint("session: serial", serial.get());
        }
        out.varint("session: epoch", self.position.epoch.0);
        out.varint("session: LSN", self.position.lsn.0);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let session = name(input)?;
        let step = input.u8()?;
        let mut serial = || {
            let number = input.varint()?;
            Serial::new(number).ok_or_else(|| input.invalid(format!("serial {number}")))
        };
        let step = match step {
            0 => SessionStep::Gone,
            1 => SessionStep::On(serial()?),
            2 => SessionStep::Anew(serial()?),
            other => return Err(input.invalid(format!("step {other} of a session"))),
        };
        Ok(Self { session, step, position: Position { epoch: Epoch(input.varint()?), lsn: Lsn(input.varint()?) } })
    }
}
