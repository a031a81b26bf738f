//! Whether a block can hold a row that a condition asks for, by what its values are between.
//!
//! SQLite compares once more what it is given: here too much may be let through, and nothing may be left out. So a block is passed over only where
//! no conversion that SQLite makes before it compares could change the answer.

use super::schema::Affinity;
use littoral_types::limits::LOG_ZONE_BYTES;
use littoral_types::{LogCell, LogZone};
use std::cmp::Ordering;

/// How a column is compared with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A condition on one value of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Which, by its place in the row.
    pub cell: usize,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub value: LogCell<Vec<u8>>,
}

/// Takes one more value into a zone.
pub fn widen(zone: &mut LogZone, value: &LogCell<&[u8]>) {
    if matches!(value, LogCell::Null) {
        return;
    }
    if let LogCell::Text(text) = value {
        zone.like_numbers |= is_number(text);
    }
    let (is_less, is_more) = match &zone.bounds {
        None => (true, true),
        Some((least, greatest)) => {
            let greater = order(value, &borrowed(greatest));
            (
                order(value, &borrowed(least)) == Ordering::Less,
                greater == Ordering::Greater && !(zone.is_cut && begins(value, greatest)),
            )
        }
    };
    if !is_less && !is_more {
        return;
    }
    let (kept, is_cut) = cut(value);
    let (least, greatest) = match zone.bounds.take() {
        None => {
            zone.is_cut = is_cut;
            (kept.clone(), kept)
        }
        Some((least, greatest)) => {
            zone.is_cut = if is_more { is_cut } else { zone.is_cut };
            (if is_less { kept.clone() } else { least }, if is_more { kept } else { greatest })
        }
    };
    zone.bounds = Some((least, greatest));
}

/// Whether a value begins as a cut one does.
fn begins(value: &LogCell<&[u8]>, cut: &LogCell<Vec<u8>>) -> bool {
    match (value, cut) {
        (LogCell::Text(value), LogCell::Text(cut)) | (LogCell::Blob(value), LogCell::Blob(cut)) => {
            value.starts_with(cut)
        }
        _ => false,
    }
}

/// A value's beginning, and whether that is not all of it. Of a greatest value that is cut, what is greater may begin with it.
fn cut(value: &LogCell<&[u8]>) -> (LogCell<Vec<u8>>, bool) {
    let short = |bytes: &[u8]| (bytes[..bytes.len().min(LOG_ZONE_BYTES)].to_vec(), bytes.len() > LOG_ZONE_BYTES);
    match value {
        LogCell::Null => (LogCell::Null, false),
        LogCell::Integer(number) => (LogCell::Integer(*number), false),
        LogCell::Real(number) => (LogCell::Real(*number), false),
        LogCell::Text(bytes) => {
            let (kept, is_cut) = short(bytes);
            (LogCell::Text(kept), is_cut)
        }
        LogCell::Blob(bytes) => {
            let (kept, is_cut) = short(bytes);
            (LogCell::Blob(kept), is_cut)
        }
    }
}

fn borrowed(value: &LogCell<Vec<u8>>) -> LogCell<&[u8]> {
    match value {
        LogCell::Null => LogCell::Null,
        LogCell::Integer(number) => LogCell::Integer(*number),
        LogCell::Real(number) => LogCell::Real(*number),
        LogCell::Text(bytes) => LogCell::Text(bytes),
        LogCell::Blob(bytes) => LogCell::Blob(bytes),
    }
}

/// Whether text is what SQLite takes for a number, all of it.
fn is_number(text: &[u8]) -> bool {
    let is_space = |byte: &u8| b" \t\n\x0b\x0c\r".contains(byte);
    let begin = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(begin, |last| last + 1);
    // How many bytes a sign takes.
    let unsigned = |text: &[u8]| usize::from(text.first().is_some_and(|first| b"+-".contains(first)));
    let are_digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    let text = &text[begin..end];
    let text = &text[unsigned(text)..];
    let (mantissa, exponent) = match text.iter().position(|byte| b"eE".contains(byte)) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &[][..]),
    };
    let is_exponent = exponent.is_none_or(|exponent| {
        let digits = &exponent[unsigned(exponent)..];
        !digits.is_empty() && are_digits(digits)
    });
    !(whole.is_empty() && fraction.is_empty()) && are_digits(whole) && are_digits(fraction) && is_exponent
}

/// SQLite's order of values, text by its bytes.
fn order(one: &LogCell<&[u8]>, other: &LogCell<&[u8]>) -> Ordering {
    use LogCell::{Blob, Integer, Null, Real, Text};
    let class = |value: &LogCell<&[u8]>| match value {
        Null => 0,
        Integer(_) | Real(_) => 1,
        Text(_) => 2,
        Blob(_) => 3,
    };
    match (one, other) {
        (Integer(one), Integer(other)) => one.cmp(other),
        (Real(one), Real(other)) => one.partial_cmp(other).unwrap_or(Ordering::Equal),
        (Integer(one), Real(other)) => of_numbers(*one, *other),
        (Real(one), Integer(other)) => of_numbers(*other, *one).reverse(),
        (Text(one), Text(other)) | (Blob(one), Blob(other)) => one.cmp(other),
        _ => class(one).cmp(&class(other)),
    }
}

fn of_numbers(whole: i64, real: f64) -> Ordering {
    /// Two to the power of 63.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if real >= BEYOND {
        return Ordering::Less;
    }
    if real < -BEYOND {
        return Ordering::Greater;
    }
    let floor = real.floor();
    match whole.cmp(&(floor as i64)) {
        Ordering::Equal if floor < real => Ordering::Less,
        order => order,
    }
}

/// Whether a block with this zone holds nothing that the condition asks for.
pub fn excludes(zone: &LogZone, condition: &Condition, affinity: Affinity) -> bool {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    use LogCell::{Blob, Integer, Null, Real, Text};
    let Condition { comparison, value, .. } = condition;
    // No comparison with NULL holds.
    let Some((least, greatest)) = &zone.bounds else { return true };
    let value = match value {
        Null => return true,
        value => borrowed(value),
    };
    let is_plain = match (affinity, &value) {
        (affinity, Integer(_) | Real(_)) if affinity.is_number() => true,
        // What looks like a number may be compared as one, with what a column of numbers holds and is none: it is less, then.
        (Affinity::Text, Text(text)) => {
            !zone.like_numbers || is_number(text) || !matches!(comparison, Less | LessOrEqual)
        }
        (Affinity::Blob, Blob(_)) => true,
        (Affinity::Blob, Integer(_) | Real(_)) => !zone.like_numbers,
        (Affinity::Blob, Text(_)) => !zone.like_numbers && matches!(least, Text(_) | Blob(_)),
        _ => false,
    };
    if !is_plain {
        return false;
    }
    let least = order(&borrowed(least), &value);
    let is_beyond = match order(&borrowed(greatest), &value) {
        Ordering::Less => !(zone.is_cut && begins(&value, greatest)),
        Ordering::Equal => zone.is_cut,
        Ordering::Greater => false,
    };
    let greatest = order(&borrowed(greatest), &value);
    match comparison {
        Equal => least == Ordering::Greater || (greatest == Ordering::Less && is_beyond),
        Less => least != Ordering::Less,
        LessOrEqual => least == Ordering::Greater,
        Greater => (greatest == Ordering::Less && is_beyond) || (greatest == Ordering::Equal && !zone.is_cut),
        GreaterOrEqual => greatest == Ordering::Less && is_beyond,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(values: &[LogCell<&[u8]>]) -> LogZone {
        let mut zone = LogZone::default();
        values.iter().for_each(|value| widen(&mut zone, value));
        zone
    }

    fn asks(zone: &LogZone, comparison: Comparison, value: LogCell<&[u8]>, affinity: Affinity) -> bool {
        let value = cut_nothing(&value);
        !excludes(zone, &Condition { cell: 0, comparison, value }, affinity)
    }

    fn cut_nothing(value: &LogCell<&[u8]>) -> LogCell<Vec<u8>> {
        match value {
            LogCell::Null => LogCell::Null,
            LogCell::Integer(number) => LogCell::Integer(*number),
            LogCell::Real(number) => LogCell::Real(*number),
            LogCell::Text(bytes) => LogCell::Text(bytes.to_vec()),
            LogCell::Blob(bytes) => LogCell::Blob(bytes.to_vec()),
        }
    }

    const ALL: [Comparison; 5] =
        [Comparison::Equal, Comparison::Less, Comparison::LessOrEqual, Comparison::Greater, Comparison::GreaterOrEqual];

    fn holds(comparison: Comparison, order: Ordering) -> bool {
        match comparison {
            Comparison::Equal => order == Ordering::Equal,
            Comparison::Less => order == Ordering::Less,
            Comparison::LessOrEqual => order != Ordering::Greater,
            Comparison::Greater => order == Ordering::Greater,
            Comparison::GreaterOrEqual => order != Ordering::Less,
        }
    }

    #[test]
    fn no_block_is_passed_over_that_holds_what_is_asked_for_and_those_that_do_not_mostly_are() {
        let long = [b'x'; 40];
        let longer = [b'x'; 50];
        let above = [&[b'x'; 32][..], b"y"].concat();
        let values: Vec<LogCell<&[u8]>> = vec![
            LogCell::Integer(i64::MIN),
            LogCell::Integer(-1),
            LogCell::Integer(7),
            LogCell::Integer(i64::MAX),
            LogCell::Real(-0.5),
            LogCell::Real(7.5),
            LogCell::Real(9.3e18),
            LogCell::Text(b""),
            LogCell::Text(b"abc"),
            LogCell::Text(&long),
            LogCell::Text(&longer),
            LogCell::Text(&above),
            LogCell::Blob(b"\xff"),
            LogCell::Blob(&longer),
        ];
        let (mut asked, mut passed) = (0, 0);
        for one in &values {
            for other in &values {
                let zone = zone(&[LogCell::Null, one.clone(), other.clone()]);
                for value in &values {
                    let affinity = match value {
                        LogCell::Text(_) => Affinity::Text,
                        LogCell::Blob(_) => Affinity::Blob,
                        _ => Affinity::Numeric,
                    };
                    for comparison in ALL {
                        let is_there = [one, other].into_iter().any(|held| holds(comparison, order(held, value)));
                        let is_asked = asks(&zone, comparison, value.clone(), affinity);
                        assert!(is_asked || !is_there, "{one:?} {other:?} {comparison:?} {value:?}");
                        asked += usize::from(is_asked && !is_there);
                        passed += usize::from(!is_asked);
                    }
                }
            }
        }
        assert!(passed > 3 * asked, "{passed} blocks passed over, {asked} read in vain");
    }

    #[test]
    fn a_number_is_what_sqlite_takes_for_one() {
        for text in ["5", " -5\n", "+.5", "5.", "1e3", "1.5E-10", "007"] {
            assert!(is_number(text.as_bytes()), "{text:?}");
        }
        for text in ["", " ", ".", "e5", "1e", "1e+", "5 5", "0x10", "2026-01-01", "1.2.3", "inf", "--5", "5\0"] {
            assert!(!is_number(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn what_sqlite_would_convert_before_it_compares_passes_nothing_over() {
        let numbers = zone(&[LogCell::Text(b"3000"), LogCell::Text(b"abc")]);
        assert!(asks(&numbers, Comparison::Less, LogCell::Text(b"2026-01-01"), Affinity::Text));
        let dates = zone(&[LogCell::Text(b"2026-02-01"), LogCell::Text(b"2026-03-01")]);
        assert!(!asks(&dates, Comparison::Less, LogCell::Text(b"2026-01-01"), Affinity::Text));
        assert!(asks(&zone(&[LogCell::Text(b"5")]), Comparison::Equal, LogCell::Integer(5), Affinity::Blob));
        assert!(asks(&zone(&[LogCell::Integer(5)]), Comparison::Equal, LogCell::Text(b"5"), Affinity::Blob));
        assert!(asks(&zone(&[LogCell::Integer(5)]), Comparison::Equal, LogCell::Text(b"5"), Affinity::Integer));
        assert!(!asks(&zone(&[LogCell::Null]), Comparison::Equal, LogCell::Text(b"5"), Affinity::Text));
        assert!(!asks(&zone(&[LogCell::Integer(5)]), Comparison::Equal, LogCell::Null, Affinity::Integer));
    }
}
