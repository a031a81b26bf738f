//! Records as SQLite keeps them in the cells of its trees, as far as they lie in the page itself; and the order of an index's keys.
//!
//! Everything here is a hint: what goes on in an overflow page, or makes no sense, is not known.

use crate::btree::{NodeKind, integer, varint, width};
use littoral_types::PageNo;
use std::cmp::Ordering;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

/// How one field of a key is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyField {
    pub(crate) collation: Collation,
    pub(crate) descending: bool,
}

/// The collations that SQLite brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collation {
    Binary,
    NoCase,
    RightTrim,
}

/// One entry of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    /// Of a table's row.
    pub(crate) row_id: Option<i64>,
    /// The record, as far as it lies in the page.
    record: Vec<u8>,
}

impl Row {
    /// The entry of a cell; `None` where there is none.
    pub(crate) fn read(image: &[u8], kind: NodeKind, cell: usize, usable: usize) -> Option<Row> {
        let mut at = if kind.is_interior() { cell.checked_add(4)? } else { cell };
        if kind == NodeKind::TableInterior {
            return Some(Row { row_id: Some(varint(image, &mut at)?.cast_signed()), record: Vec::new() });
        }
        let payload = usize::try_from(varint(image, &mut at)?).ok()?;
        let row_id = match kind {
            NodeKind::TableLeaf => Some(varint(image, &mut at)?.cast_signed()),
            _ => None,
        };
        let end = at.checked_add(local(payload, kind, usable)?)?;
        Some(Row { row_id, record: image.get(at..end)?.to_vec() })
    }

    /// The first page that the entry of a cell goes on in; `None` where it does not.
    pub(crate) fn overflow(image: &[u8], kind: NodeKind, cell: usize, usable: usize) -> Option<PageNo> {
        let mut at = cell;
        let payload = usize::try_from(varint(image, &mut at)?).ok()?;
        if kind != NodeKind::TableLeaf {
            return None;
        }
        varint(image, &mut at)?;
        let here = local(payload, kind, usable)?;
        let end = at.checked_add(here).filter(|_| here < payload)?;
        let page = image.get(end..)?.first_chunk()?;
        PageNo::new(u64::from(u32::from_be_bytes(*page)))
    }

    /// More of the record, from a page that it goes on in.
    pub(crate) fn goes_on(&mut self, more: &[u8]) {
        self.record.extend_from_slice(more);
    }

    /// A field as text, of a database in this encoding: 1 is UTF-8, 2 and 3 are UTF-16, little and big end first.
    pub(crate) fn text(&self, nth: usize, encoding: u8) -> Option<String> {
        let Some(Value::Text(bytes)) = self.field(nth) else { return None };
        let units = |of: fn([u8; 2]) -> u16| {
            let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|unit| of(*unit)).collect();
            String::from_utf16(&units).ok()
        };
        match encoding {
            2 => units(u16::from_le_bytes),
            3 => units(u16::from_be_bytes),
            _ => String::from_utf8(bytes).ok(),
        }
    }

    /// A field of the record.
    pub(crate) fn field(&self, nth: usize) -> Option<Value> {
        let mut at = 0;
        let header = usize::try_from(varint(&self.record, &mut at)?).ok()?;
        let mut value = header;
        for _ in 0..nth {
            value = value.checked_add(width(self.serial(&mut at, header)?)?)?;
        }
        let kind = self.serial(&mut at, header)?;
        let bytes = self.record.get(value..value.checked_add(width(kind)?)?)?;
        Some(match kind {
            0 => Value::Null,
            7 => Value::Real(f64::from_be_bytes(bytes.try_into().ok()?)),
            1..=9 => Value::Integer(integer(&self.record, value, kind)?),
            kind if kind % 2 == 1 => Value::Text(bytes.to_vec()),
            _ => Value::Blob(bytes.to_vec()),
        })
    }

    fn serial(&self, at: &mut usize, header: usize) -> Option<u64> {
        if *at >= header { None } else { varint(&self.record, at) }
    }

    /// The row that an index's entry names: its last field.
    pub(crate) fn names(&self) -> Option<i64> {
        if self.row_id.is_some() {
            return self.row_id;
        }
        let mut at = 0;
        let header = usize::try_from(varint(&self.record, &mut at)?).ok()?;
        let mut count = 0_usize;
        while at < header {
            varint(&self.record, &mut at)?;
            count += 1;
        }
        match self.field(count.checked_sub(1)?)? {
            Value::Integer(row) => Some(row),
            _ => None,
        }
    }

    /// How an index's entry compares with the beginning of a key; `None` where that is not known.
    pub(crate) fn compare(&self, key: &[Value], fields: &[KeyField]) -> Option<Ordering> {
        for (nth, (value, field)) in key.iter().zip(fields).enumerate() {
            let order = order(&self.field(nth)?, value, field.collation);
            if order.is_ne() {
                return Some(if field.descending { order.reverse() } else { order });
            }
        }
        (key.len() <= fields.len()).then_some(Ordering::Equal)
    }
}

/// Bytes of a payload that lie in the cell's own page.
pub(crate) fn local(payload: usize, kind: NodeKind, usable: usize) -> Option<usize> {
    let share = |of: usize| (usable.checked_sub(12)? * of / 255).checked_sub(23);
    let most = if kind == NodeKind::TableLeaf { usable.checked_sub(35)? } else { share(64)? };
    if payload <= most {
        return Some(payload);
    }
    let least = share(32)?;
    let kept = least + payload.checked_sub(least)? % usable.checked_sub(4).filter(|room| *room > 0)?;
    Some(if kept <= most { kept } else { least })
}

fn class(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 1,
        Value::Text(_) => 2,
        Value::Blob(_) => 3,
    }
}

fn order(a: &Value, b: &Value, collation: Collation) -> Ordering {
    match (a, b) {
        (Value::Integer(a), Value::Integer(b)) => a.cmp(b),
        (Value::Real(a), Value::Real(b)) => a.total_cmp(b),
        (Value::Integer(a), Value::Real(b)) => (*a as f64).total_cmp(b),
        (Value::Real(a), Value::Integer(b)) => a.total_cmp(&(*b as f64)),
        (Value::Text(a), Value::Text(b)) => match collation {
            Collation::Binary => a.cmp(b),
            Collation::NoCase => a.to_ascii_lowercase().cmp(&b.to_ascii_lowercase()),
            Collation::RightTrim => trimmed(a).cmp(trimmed(b)),
        },
        (Value::Blob(a), Value::Blob(b)) => a.cmp(b),
        (a, b) => class(a).cmp(&class(b)),
    }
}

fn trimmed(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    text.get(..end).unwrap_or_default()
}

impl Value {
    /// What becomes of it when it is to be compared with a column of this affinity, by SQLite's letter for it.
    pub(crate) fn with_affinity(self, affinity: u8) -> Value {
        match (affinity, self) {
            (b'B', Value::Integer(number)) => Value::Text(number.to_string().into_bytes()),
            (b'C' | b'D' | b'E', Value::Text(text)) => match std::str::from_utf8(&text).map(str::trim) {
                Ok(number) if number.parse::<i64>().is_ok() => Value::Integer(number.parse().unwrap_or_default()),
                Ok(number) if number.parse::<f64>().is_ok_and(f64::is_finite) => {
                    Value::Real(number.parse().unwrap_or_default())
                }
                _ => Value::Text(text),
            },
            (_, value) => value,
        }
    }

    /// As a row's number.
    pub(crate) fn row(self) -> Option<i64> {
        match self.with_affinity(b'D') {
            Value::Integer(row) => Some(row),
            Value::Real(row) if row.fract() == 0.0 && row.abs() < 9e15 => Some(row as i64),
            _ => None,
        }
    }
}

/// A page's number as a program spells it.
pub(crate) fn root(number: i64) -> Option<PageNo> {
    PageNo::new(u64::try_from(number).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: KeyField = KeyField { collation: Collation::NoCase, descending: false };
    const DOWN: KeyField = KeyField { collation: Collation::Binary, descending: true };

    #[test]
    fn a_record_is_read_field_by_field_and_compared_as_its_index_says() {
        // 'aB', 7, 1.5, null, x'00', and the row 300.
        let mut image = vec![0; 40];
        let record: &[u8] = &[7, 17, 1, 7, 0, 14, 2, b'a', b'B', 7, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0, 0, 1, 44];
        image[10] = record.len() as u8;
        image[11..11 + record.len()].copy_from_slice(record);
        let row = Row::read(&image, NodeKind::IndexLeaf, 10, 4096).unwrap();
        let fields: Vec<Option<Value>> = (0..7).map(|nth| row.field(nth)).collect();
        assert_eq!(fields[0], Some(Value::Text(b"aB".to_vec())));
        assert_eq!(fields[1], Some(Value::Integer(7)));
        assert_eq!(fields[2], Some(Value::Real(1.5)));
        assert_eq!(fields[3], Some(Value::Null));
        assert_eq!(fields[4], Some(Value::Blob(vec![0])));
        assert_eq!((fields[5].clone(), &fields[6]), (Some(Value::Integer(300)), &None));
        assert_eq!(row.names(), Some(300));
        let key = |number| [Value::Text(b"Ab".to_vec()), Value::Integer(number)];
        for (number, expected) in [(7, Ordering::Equal), (8, Ordering::Greater), (6, Ordering::Less)] {
            assert_eq!(row.compare(&key(number), &[TEXT, DOWN]), Some(expected), "{number}");
        }
        assert_eq!(row.compare(&key(7), &[DOWN, DOWN]), Some(Ordering::Less), "byte by byte, and downwards");
        assert_eq!(Value::Text(b" 12 ".to_vec()).with_affinity(b'C'), Value::Integer(12));
        assert_eq!(Value::Integer(12).with_affinity(b'B'), Value::Text(b"12".to_vec()));
        assert_eq!((Value::Real(4.0).row(), Value::Text(b"x".to_vec()).row()), (Some(4), None));
    }

    #[test]
    fn what_goes_on_in_an_overflow_page_is_not_known() {
        // Of 1,000 bytes an index's page of 512 keeps 39 to 102: here (1000 - 39) % 508 + 39 is too much, so 39.
        assert_eq!(local(1000, NodeKind::IndexLeaf, 512), Some(39));
        assert_eq!(local(102, NodeKind::IndexLeaf, 512), Some(102));
        assert_eq!(local(103, NodeKind::TableLeaf, 512), Some(103));
        assert_eq!(local(100, NodeKind::IndexLeaf, 8), None);
    }
}
