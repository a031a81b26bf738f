//! SQLite's B-tree pages, as far as reading ahead and skeletons need them.
//!
//! Everything here is a hint: bytes that make no sense as a B-tree page are no page, never an error.

use littoral_types::PageNo;

/// Where the B-tree header of page 1 begins: behind the database header.
const DATABASE_HEADER: usize = 100;

/// What a B-tree page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Interior page of a table.
    TableInterior,
    /// Leaf of a table: rows.
    TableLeaf,
    /// Interior page of an index.
    IndexInterior,
    /// Leaf of an index: keys and the rows they name.
    IndexLeaf,
}

impl NodeKind {
    /// What the first byte of a page's header says.
    const fn of(byte: u8) -> Option<Self> {
        match byte {
            0x02 => Some(NodeKind::IndexInterior),
            0x05 => Some(NodeKind::TableInterior),
            0x0a => Some(NodeKind::IndexLeaf),
            0x0d => Some(NodeKind::TableLeaf),
            _ => None,
        }
    }

    /// Whether it has children.
    pub const fn is_interior(self) -> bool {
        matches!(self, NodeKind::TableInterior | NodeKind::IndexInterior)
    }

    /// Whether it belongs to a table.
    pub const fn is_table(self) -> bool {
        matches!(self, NodeKind::TableInterior | NodeKind::TableLeaf)
    }
}

/// What a B-tree page says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Children in key order; none for a leaf.
    pub children: Vec<PageNo>,
    /// Where its cells begin, in key order.
    pub cells: Vec<usize>,
}

/// What kind of B-tree page this is, if it is one: a look at one byte.
pub fn kind(page: PageNo, image: &[u8]) -> Option<NodeKind> {
    NodeKind::of(*image.get(start(page))?)
}

fn start(page: PageNo) -> usize {
    if page == PageNo::FIRST { DATABASE_HEADER } else { 0 }
}

impl Node {
    /// Reads it; `None` for what is no B-tree page.
    pub fn read(page: PageNo, image: &[u8]) -> Option<Node> {
        let start = start(page);
        let kind = kind(page, image)?;
        let count = usize::from(u16_at(image, start + 3)?);
        let pointers = start + if kind.is_interior() { 12 } else { 8 };
        let cells: Option<Vec<usize>> =
            (0..count).map(|at| u16_at(image, pointers + 2 * at).map(usize::from)).collect();
        let cells = cells?;
        let mut children = Vec::new();
        if kind.is_interior() {
            children.reserve(count + 1);
            for cell in &cells {
                children.push(PageNo::new(u64::from(u32_at(image, *cell)?))?);
            }
            children.push(PageNo::new(u64::from(u32_at(image, start + 8)?))?);
        }
        Some(Node { kind, children, cells })
    }

    /// The largest row id below each child of a table's interior page but the last.
    pub fn row_ids(&self, image: &[u8]) -> Option<Vec<i64>> {
        if self.kind != NodeKind::TableInterior {
            return None;
        }
        let key = |cell: &usize| varint(image, &mut cell.checked_add(4)?).map(u64::cast_signed);
        self.cells.iter().map(key).collect()
    }
}

/// The rows that an index's leaf names, in its order: the last value of each key. Keys that reach into overflow pages are passed
/// over, and so are those that do not end in an integer (of tables without row ids).
pub fn named_rows(image: &[u8], node: &Node, usable: usize) -> Vec<i64> {
    if node.kind != NodeKind::IndexLeaf {
        return Vec::new();
    }
    node.cells.iter().filter_map(|cell| last_integer(image, *cell, usable)).collect()
}

fn last_integer(image: &[u8], cell: usize, usable: usize) -> Option<i64> {
    let mut at = cell;
    let payload = usize::try_from(varint(image, &mut at)?).ok()?;
    // What is larger goes on in an overflow page.
    if payload > (usable.checked_sub(12)? * 64 / 255).checked_sub(23)? {
        return None;
    }
    let record = at;
    let header = record.checked_add(usize::try_from(varint(image, &mut at)?).ok()?)?;
    let mut last = None;
    let mut value = header;
    while at < header {
        let kind = varint(image, &mut at)?;
        last = Some((value, kind));
        value = value.checked_add(width(kind)?)?;
    }
    let (value, kind) = last?;
    integer(image, value, kind)
}

/// An integer of this serial type.
pub(crate) fn integer(image: &[u8], at: usize, kind: u64) -> Option<i64> {
    match kind {
        8 => return Some(0),
        9 => return Some(1),
        1..=6 => {}
        _ => return None,
    }
    let bytes = image.get(at..at.checked_add(width(kind)?)?)?;
    let negative = bytes.first()? & 0x80 != 0;
    let start = if negative { -1i64 } else { 0 };
    Some(bytes.iter().fold(start, |number, byte| number << 8 | i64::from(*byte)))
}

/// One row of `sqlite_schema`, as far as reading ahead needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaRow {
    /// Whether it is a table; else an index.
    pub is_table: bool,
    /// The table it is, or is an index of: its name's bytes.
    pub table: Vec<u8>,
    /// Where its tree begins.
    pub root: PageNo,
}

/// The trees that a leaf of `sqlite_schema` names: views and virtual tables have none.
pub fn schema_rows(image: &[u8], node: &Node) -> Vec<SchemaRow> {
    if node.kind != NodeKind::TableLeaf {
        return Vec::new();
    }
    node.cells.iter().filter_map(|cell| schema_row(image, *cell)).collect()
}

fn schema_row(image: &[u8], cell: usize) -> Option<SchemaRow> {
    let mut at = cell;
    varint(image, &mut at)?; // Payload size.
    varint(image, &mut at)?; // Row id.
    let record = at;
    let header = usize::try_from(varint(image, &mut at)?).ok()?;
    let mut value = record.checked_add(header)?;
    let mut text: [&[u8]; 3] = [&[]; 3];
    for column in &mut text {
        let end = value.checked_add(width(varint(image, &mut at)?)?)?;
        *column = image.get(value..end)?;
        value = end;
    }
    let root = match varint(image, &mut at)? {
        8 => return None, // The constant 0: a view or a virtual table.
        9 => 1,
        kind @ 1..=6 => {
            let bytes = image.get(value..value.checked_add(width(kind)?)?)?;
            bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
        }
        _ => return None,
    };
    // In UTF-16 every other byte is zero.
    let plain = |bytes: &[u8]| -> Vec<u8> { bytes.iter().copied().filter(|byte| *byte != 0).collect() };
    let [kind, _, table] = text;
    let is_table = plain(kind) == b"table";
    Some(SchemaRow { is_table, table: table.to_vec(), root: PageNo::new(root)? })
}

/// Bytes of a value of this serial type.
pub(crate) fn width(kind: u64) -> Option<usize> {
    Some(match kind {
        0 | 8 | 9 => 0,
        1..=4 => usize::try_from(kind).ok()?,
        5 => 6,
        6 | 7 => 8,
        10 | 11 => return None,
        kind => usize::try_from((kind - 12) / 2).ok()?,
    })
}

pub(crate) fn varint(image: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for step in 0..9 {
        let byte = *image.get(*at)?;
        *at += 1;
        if step == 8 {
            return Some(value << 8 | u64::from(byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

fn u16_at(image: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(image.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(image: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(image.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_page_or_none_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), kind in 0usize..4) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = [0x02, 0x05, 0x0a, 0x0d][kind];
            }
            for page in [1, 2] {
                let page = PageNo::new(page).unwrap();
                if let Some(node) = Node::read(page, &bytes) {
                    node.row_ids(&bytes);
                    named_rows(&bytes, &node, bytes.len());
                    schema_rows(&bytes, &node);
                }
            }
        }
    }
}
