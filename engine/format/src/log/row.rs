//! A row of a log's table, which is a record's bytes: its session, its serial, then its columns' values, each behind its type.
//!
//! Types are those of SQLite's own records, so that a value takes the bytes that it would take there: 0 NULL; 1 to 6 whole numbers of 1, 2, 3,
//! 4, 6 and 8 bytes; 7 a real one of 8; 8 and 9 the numbers 0 and 1; 12 and more, even: a blob of (type - 12) / 2 bytes; 13 and more, odd: text
//! of (type - 13) / 2. Numbers are little-endian.

use crate::FormatError;
use crate::wire::In;
use littoral_types::LogCell;
use std::ops::Range;

const WHAT: &str = "row of a log";

/// What a row begins with.
pub const ROW: u8 = 1;
/// Values of a row before its columns': the session, the serial.
pub const ROW_LEADS: usize = 2;

/// Bytes of whole numbers, by their type less one.
const WIDTHS: [u8; 6] = [1, 2, 3, 4, 6, 8];

/// Begins a row.
#[inline]
pub fn begin_row(out: &mut Vec<u8>) {
    out.push(ROW);
}

/// Puts a row's next value.
#[inline]
pub fn put_cell(out: &mut Vec<u8>, cell: &LogCell<&[u8]>) {
    match cell {
        LogCell::Null => out.push(0),
        LogCell::Integer(0) => out.push(8),
        LogCell::Integer(1) => out.push(9),
        LogCell::Integer(number) => {
            let bits = 65 - (number ^ (number >> 63)).leading_zeros();
            let kind = WIDTHS.iter().position(|width| u32::from(*width) * 8 >= bits).unwrap_or(WIDTHS.len() - 1);
            out.push(kind as u8 + 1);
            out.extend_from_slice(&number.to_le_bytes()[..usize::from(WIDTHS[kind])]);
        }
        LogCell::Real(number) => {
            out.push(7);
            out.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        LogCell::Blob(bytes) => put_bytes(out, 12, bytes),
        LogCell::Text(bytes) => put_bytes(out, 13, bytes),
    }
}

#[inline]
fn put_bytes(out: &mut Vec<u8>, kind: u64, bytes: &[u8]) {
    let mut value = kind + bytes.len() as u64 * 2;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out.extend_from_slice(bytes);
}

/// Reads a row: text and blobs as places in its bytes.
pub fn decode_row(bytes: &[u8], into: &mut Vec<LogCell<Range<usize>>>) -> Result<(), FormatError> {
    into.clear();
    let mut input = In::new(WHAT, bytes);
    match input.u8()? {
        ROW => {}
        other => return Err(input.invalid(format!("it begins with {other}"))),
    }
    while input.left() > 0 {
        let kind = input.varint()?;
        let cell = match kind {
            0 => LogCell::Null,
            7 => {
                let number = f64::from_bits(input.u64()?);
                if number.is_nan() {
                    return Err(input.invalid("a number that is none"));
                }
                LogCell::Real(number)
            }
            8 => LogCell::Integer(0),
            9 => LogCell::Integer(1),
            1..=6 => {
                let taken = input.take(usize::from(WIDTHS[kind as usize - 1]))?;
                let is_negative = taken.last().is_some_and(|last| last & 0x80 != 0);
                let mut word = [if is_negative { 0xff } else { 0 }; 8];
                word[..taken.len()].copy_from_slice(taken);
                LogCell::Integer(i64::from_le_bytes(word))
            }
            10 | 11 => return Err(input.invalid(format!("type {kind}"))),
            _ => {
                let len = usize::try_from((kind - 12) / 2).unwrap_or(usize::MAX);
                let begin = bytes.len() - input.left();
                input.take(len)?;
                let place = begin..begin + len;
                if kind % 2 == 0 { LogCell::Blob(place) } else { LogCell::Text(place) }
            }
        };
        into.push(cell);
    }
    Ok(())
}
