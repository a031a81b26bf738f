//! What a database consists of, as its schema says: tables and indexes, and what each of them costs.

use crate::limits::OBJECT_NAME_LEN_MAX;
use crate::{PageNo, Position};

/// Numbers a table or an index for as long as it lives, wherever its tree begins and whatever it is called. A number that was given is not
/// given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub u32);

impl ObjectId {
    /// Pages that nobody knows the owner of, and what is in no page.
    pub const REST: ObjectId = ObjectId(0);
    /// `sqlite_schema`.
    pub const SCHEMA: ObjectId = ObjectId(1);
    /// The list of free pages.
    pub const FREE: ObjectId = ObjectId(2);
    /// Pages that SQLite keeps for itself: pointer maps of auto-vacuum, and the page that its locks are on.
    pub const POINTERS: ObjectId = ObjectId(3);
    /// The first that a table or an index may have.
    pub const FIRST: ObjectId = ObjectId(4);
    /// The last one.
    pub const LAST: ObjectId = ObjectId((1 << 29) - 1);
}

/// What an object is. Numbers are persisted and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// [`ObjectId::REST`].
    Rest = 0,
    /// [`ObjectId::SCHEMA`].
    Schema = 1,
    /// [`ObjectId::FREE`].
    Free = 2,
    /// [`ObjectId::POINTERS`].
    Pointers = 3,
    /// A table. One without row ids, and the shadow tables of a virtual one, are tables like any other.
    Table = 4,
    /// An index, made by hand or by a constraint.
    Index = 5,
}

impl ObjectKind {
    /// All of them.
    pub const ALL: [ObjectKind; 6] = [
        ObjectKind::Rest,
        ObjectKind::Schema,
        ObjectKind::Free,
        ObjectKind::Pointers,
        ObjectKind::Table,
        ObjectKind::Index,
    ];

    /// The word users see.
    pub const fn word(self) -> &'static str {
        match self {
            ObjectKind::Rest => "unattributed",
            ObjectKind::Schema => "schema",
            ObjectKind::Free => "free",
            ObjectKind::Pointers => "pointers",
            ObjectKind::Table => "table",
            ObjectKind::Index => "index",
        }
    }
}

/// Pages that checkpoints took, and what they weigh there, compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Taken {
    /// How many, each as often as it was taken.
    pub pages: u64,
    /// Bytes of blobs: a page's share of its frame.
    pub bytes: u64,
}

impl Taken {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Taken) -> Taken {
        Taken { pages: self.pages.saturating_add(other.pages), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    /// What it is.
    pub kind: ObjectKind,
    /// What it is called.
    pub name: Box<str>,
    /// The table that it is, or is an index of.
    pub table: Box<str>,
    /// Where its tree begins; none for what is no tree.
    pub root: Option<PageNo>,
    /// How many pages it has.
    pub pages: u64,
    /// How many of them nobody has looked at yet: what they name may be counted elsewhere, or unattributed.
    pub open: u64,
    /// The newest checkpoint that took something of it, or found that it has another name, root or size.
    pub position: Position,
    /// What that one took.
    pub taken: Taken,
    /// What all checkpoints took since it is known.
    pub total: Taken,
}

impl Object {
    /// What a name is kept as: its beginning, where it is longer than any sensible one.
    pub fn name_of(text: &str) -> Box<str> {
        let mut end = text.len().min(OBJECT_NAME_LEN_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.get(..end).unwrap_or_default().into()
    }
}

/// A tree that a schema names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// A table or an index.
    pub kind: ObjectKind,
    /// What it is called.
    pub name: Box<str>,
    /// The table that it is, or is an index of.
    pub table: Box<str>,
    /// Where it begins.
    pub root: PageNo,
}

/// What a checkpoint says of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectMark {
    /// Which.
    pub id: ObjectId,
    /// What is known of it; `None` where it was dropped.
    pub object: Option<Object>,
}

/// As what a page belongs to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Part {
    /// A page of its tree.
    Node = 0,
    /// What did not fit there.
    Overflow = 1,
    /// A page that lists free ones.
    Trunk = 2,
    /// A page that nothing is in.
    Empty = 3,
}

/// Whose a page is, as of the newest checkpoint; and whether nobody has looked yet what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageOwner(u32);

impl PageOwner {
    /// Nobody knows.
    pub const UNKNOWN: PageOwner = PageOwner(0);

    /// Somebody's.
    pub const fn new(id: ObjectId, part: Part, is_open: bool) -> Self {
        Self((id.0 & ObjectId::LAST.0) << 3 | (part as u32) << 1 | is_open as u32)
    }

    /// As it is kept.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// What [`PageOwner::bits`] gave.
    pub const fn of_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whose; [`ObjectId::REST`] where nobody knows.
    pub const fn id(self) -> ObjectId {
        ObjectId(self.0 >> 3)
    }

    /// As what.
    pub const fn part(self) -> Part {
        match self.0 >> 1 & 3 {
            0 => Part::Node,
            1 => Part::Overflow,
            2 => Part::Trunk,
            _ => Part::Empty,
        }
    }

    /// Whether what it names was not looked at.
    pub const fn is_open(self) -> bool {
        self.0 & 1 == 1
    }

    /// Whether anybody knows.
    pub const fn is_known(self) -> bool {
        self.id().0 != 0
    }

    /// Whether it is the same part of the same object.
    pub const fn is_as(self, other: PageOwner) -> bool {
        self.0 >> 1 == other.0 >> 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_what_it_was_made_of() {
        for id in [ObjectId::REST, ObjectId::FREE, ObjectId::LAST] {
            for part in [Part::Node, Part::Overflow, Part::Trunk, Part::Empty] {
                for is_open in [false, true] {
                    let owner = PageOwner::new(id, part, is_open);
                    assert_eq!((owner.id(), owner.part(), owner.is_open()), (id, part, is_open));
                    assert_eq!(PageOwner::of_bits(owner.bits()), owner);
                    assert!(owner.is_as(PageOwner::new(id, part, !is_open)));
                }
            }
        }
        assert!(!PageOwner::UNKNOWN.is_known());
    }

    #[test]
    fn a_name_that_is_too_long_is_cut_between_characters() {
        let long = "ä".repeat(OBJECT_NAME_LEN_MAX);
        let name = Object::name_of(&long);
        assert!(name.len() <= OBJECT_NAME_LEN_MAX && long.starts_with(&*name) && !name.is_empty());
        assert_eq!(&*Object::name_of("t"), "t");
    }
}
