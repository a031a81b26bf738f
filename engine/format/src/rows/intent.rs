//! What is about to be published.

use crate::nouns::Ascending;
use crate::wire::{In, Out, Spell};
use crate::{FormatError, record};
use littoral_types::limits::RECORD_INLINE_MAX;
use littoral_types::{BlobName, Intent, PageIdentity, Seq};

/// The newest layout.
pub const VERSION: u16 = 1;
const WHAT: &str = "intent row";
const RECORD_MAX: usize = record::HEADER_BYTES_MAX + RECORD_INLINE_MAX;
/// Identities of one record: those of a first checkpoint of 16 TB of 4 KiB pages.
const IDENTITIES_MAX: usize = 1 << 32;

/// Spells it. The identities' pages ascend.
pub fn encode(intent: &Intent) -> Result<Vec<u8>, FormatError> {
    super::encode(WHAT, VERSION, intent)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<Intent, FormatError> {
    super::decode(WHAT, VERSION, bytes)
}

impl Spell for Intent {
    fn put(&self, out: &mut Out) {
        out.varint("seq", self.seq.0);
        out.limit(self.record.len(), RECORD_MAX);
        out.blob("record: its object", &self.record);
        out.optional("body is a blob", self.body.as_ref(), |out, (name, len)| {
            name.put(out);
            out.varint("body: bytes", *len);
        });
        out.limit(self.identities.len(), IDENTITIES_MAX);
        out.count("identities", self.identities.len());
        let mut place = Ascending::default();
        for (page, identity) in &self.identities {
            place.put(out, *page);
            out.raw("page: identity", &identity.0);
        }
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let mut place = Ascending::default();
        Ok(Self {
            seq: Seq(input.varint()?),
            record: input.blob(RECORD_MAX)?.to_vec(),
            body: input.optional(|input| Ok((BlobName::get(input)?, input.varint()?)))?,
            identities: input.list(1 + PageIdentity::LEN, IDENTITIES_MAX, |input| {
                Ok((place.get(input)?, PageIdentity(input.array()?)))
            })?,
        })
    }
}
