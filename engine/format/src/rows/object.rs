//! What is known of a table or an index: a row of the local manifest, and the same bytes in operations and manifest snapshots.

use crate::FormatError;
use crate::wire::{In, Out, Spell};
use littoral_types::limits::OBJECT_NAME_LEN_MAX;
use littoral_types::{Epoch, Lsn, Object, ObjectId, ObjectKind, ObjectMark, PageNo, Position, Taken};

/// The newest layout.
pub const VERSION: u16 = 1;
const WHAT: &str = "object row";

/// Spells it.
pub fn encode(mark: &ObjectMark) -> Result<Vec<u8>, FormatError> {
    super::encode(WHAT, VERSION, mark)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<ObjectMark, FormatError> {
    super::decode(WHAT, VERSION, bytes)
}

impl Spell for ObjectMark {
    fn put(&self, out: &mut Out) {
        if self.id > ObjectId::LAST {
            out.refuse("a number beyond 29 bits");
        }
        out.varint("object: number", u64::from(self.id.0));
        out.optional("object: is there", self.object.as_ref(), |out, object| object.put(out));
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let number = input.varint()?;
        let id = u32::try_from(number).ok().map(ObjectId).filter(|id| *id <= ObjectId::LAST);
        let id = id.ok_or_else(|| input.invalid(format!("object {number}")))?;
        Ok(Self { id, object: input.optional(Object::get)? })
    }
}

impl Spell for Object {
    fn put(&self, out: &mut Out) {
        out.u8("object: kind (0 unattributed, 1 schema, 2 free, 3 pointers, 4 table, 5 index)", self.kind as u8);
        out.limit(self.name.len().max(self.table.len()), OBJECT_NAME_LEN_MAX);
        out.text("object: name", &self.name);
        out.text("object: its table", &self.table);
        out.varint("object: root, 0 for none", self.root.map_or(0, PageNo::get));
        out.varint("object: pages", self.pages);
        out.varint("object: open pages", self.open);
        out.varint("object: checkpoint's epoch", self.position.epoch.0);
        out.varint("object: checkpoint's LSN", self.position.lsn.0);
        out.varint("object: pages taken by it", self.taken.pages);
        out.varint("object: bytes taken by it", self.taken.bytes);
        out.varint("object: pages taken since it is known", self.total.pages);
        out.varint("object: bytes taken since it is known", self.total.bytes);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let number = input.u8()?;
        let kind = ObjectKind::ALL.into_iter().find(|kind| *kind as u8 == number);
        let kind = kind.ok_or_else(|| input.invalid(format!("object kind {number}")))?;
        let (name, table): (Box<str>, Box<str>) = (input.text()?.into(), input.text()?.into());
        if name.len().max(table.len()) > OBJECT_NAME_LEN_MAX {
            return Err(input.invalid("a longer name than any that is kept"));
        }
        let root = PageNo::new(input.varint()?);
        Ok(Self {
            kind,
            name,
            table,
            root,
            pages: input.varint()?,
            open: input.varint()?,
            position: Position { epoch: Epoch(input.varint()?), lsn: Lsn(input.varint()?) },
            taken: Taken { pages: input.varint()?, bytes: input.varint()? },
            total: Taken { pages: input.varint()?, bytes: input.varint()? },
        })
    }
}
