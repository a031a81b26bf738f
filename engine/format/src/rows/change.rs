//! One entry of the change log.

use crate::wire::{In, Out, Spell};
use crate::{FormatError, body, ops};
use littoral_types::{Change, ChangeSeq, RecordSummary, Seq, TakenAway, VolumeId};

/// The newest layout.
///
/// Version 2 says what work was cut off, and is written where some was.
pub const VERSION: u16 = 2;
const WHAT: &str = "change row";
/// More records than one batch brings.
const RECORDS_MAX: usize = 1 << 24;

/// Spells it.
pub fn encode(change: &Change) -> Result<Vec<u8>, FormatError> {
    super::encode(WHAT, if change.undone.is_some() { VERSION } else { 1 }, change)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<Change, FormatError> {
    super::decode_with(WHAT, VERSION, bytes, |input, version| {
        let mut change = Change::get(input)?;
        change.undone = if version > 1 { Some(TakenAway::get(input)?) } else { None };
        Ok(change)
    })
}

impl Spell for Change {
    fn put(&self, out: &mut Out) {
        out.varint("change", self.change.0);
        out.raw("volume", &self.volume.0);
        out.varint("records after", self.after.0);
        out.limit(self.records.len(), RECORDS_MAX);
        out.count("records", self.records.len());
        self.records.iter().for_each(|record| record.put(out));
        ops::put(out, &self.ops);
        if let Some(undone) = &self.undone {
            undone.put(out);
        }
    }

    /// Without what version 2 added at its end.
    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            change: ChangeSeq(input.varint()?),
            volume: VolumeId(input.array()?),
            after: Seq(input.varint()?),
            records: input.list(body::SUMMARY_LEN_MIN, RECORDS_MAX, RecordSummary::get)?,
            ops: ops::get(input)?,
            undone: None,
        })
    }
}
