//! What is about to be published.

use crate::nouns::Ascending;
use crate::wire::{In, Out, Spell};
use crate::{FormatError, record};
use littoral_types::limits::RECORD_INLINE_MAX;
use littoral_types::{BlobName, Intent, PageIdentity, PageOwner, Seq};

/// The newest layout.
pub const VERSION: u16 = 2;
/// The version of who does not know whose pages are.
const WITHOUT_OWNERS: u16 = 1;
const WHAT: &str = "intent row";
const RECORD_MAX: usize = record::HEADER_BYTES_MAX + RECORD_INLINE_MAX;
/// Identities of one record: those of a first checkpoint of 16 TB of 4 KiB pages.
const IDENTITIES_MAX: usize = 1 << 32;

/// Spells it. The identities' pages ascend.
pub fn encode(intent: &Intent) -> Result<Vec<u8>, FormatError> {
    let version = if intent.owners.is_none() { WITHOUT_OWNERS } else { VERSION };
    super::encode(WHAT, version, intent)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<Intent, FormatError> {
    super::decode_with(WHAT, VERSION, bytes, get)
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
        let Some(owners) = &self.owners else { return };
        out.limit(owners.len(), IDENTITIES_MAX);
        out.count("owners", owners.len());
        let mut place = Ascending::default();
        for (page, owner) in owners {
            place.put(out, *page);
            out.varint("page: owner, as in a row of owners", u64::from(owner.bits()));
        }
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        get(input, VERSION)
    }
}

/// Before version 2 nobody said whose pages are.
fn get(input: &mut In<'_>, version: u16) -> Result<Intent, FormatError> {
    let mut place = Ascending::default();
    let mut intent = Intent {
        seq: Seq(input.varint()?),
        record: input.blob(RECORD_MAX)?.to_vec(),
        body: input.optional(|input| Ok((BlobName::get(input)?, input.varint()?)))?,
        identities: input.list(1 + PageIdentity::LEN, IDENTITIES_MAX, |input| {
            Ok((place.get(input)?, PageIdentity(input.array()?)))
        })?,
        owners: None,
    };
    if version > WITHOUT_OWNERS {
        let mut place = Ascending::default();
        let owners = input.list(2, IDENTITIES_MAX, |input| {
            let page = place.get(input)?;
            let bits = input.varint()?;
            let bits = u32::try_from(bits).map_err(|_| input.invalid(format!("owner {bits}")))?;
            Ok((page, PageOwner::of_bits(bits)))
        })?;
        intent.owners = Some(owners);
    }
    Ok(intent)
}
