//! Numbers, sizes and times as people read them.

use littoral_engine::open::{Op, Totals};
use serde_json::{Value, json};
use std::fmt::Write;

/// Bytes with a unit: `0 B`, `999 B`, `1.2 MB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1000.0, 0);
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A number with its thousands apart: `16,384`.
pub fn count(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and its noun: `1 chunk`, `2 chunks`.
pub fn some(number: impl Into<u64>, noun: &str) -> String {
    let number = number.into();
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A moment, UTC: `2026-11-20 08:37:07Z`.
pub fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of a day counted from 1970, in the calendar of all ages: years begin in March, so that the leap day
/// is the last.
const fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let era = day / 146_097;
    let of_era = day % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// How long something took or is ago: `0.4 s`, `12 min`, `3 days`.
pub fn span(ms: u64) -> String {
    match ms {
        0..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        60_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}

/// What requests cost: `24 requests (9 writes), 20.2 MB up, 1.3 kB down`.
pub fn cost(totals: &Totals) -> String {
    let (all, writes) = (totals.all(), totals.writes());
    format!(
        "{} ({}), {} up, {} down",
        some(all.requests, "request"),
        some(writes.requests, "write"),
        bytes(all.bytes_up),
        bytes(all.bytes_down)
    )
}

/// [`cost`] for machines.
pub fn cost_json(totals: &Totals) -> Value {
    let one = |totals: littoral_engine::open::OpTotals| {
        json!({
            "requests": totals.requests,
            "bytes_up": totals.bytes_up,
            "bytes_down": totals.bytes_down,
            "errors": totals.errors,
        })
    };
    let by: serde_json::Map<String, Value> =
        totals.by_op.iter().map(|(op, totals): (&Op, _)| (op.word().to_owned(), one(*totals))).collect();
    let all = totals.all();
    json!({
        "requests": all.requests,
        "writes": totals.writes().requests,
        "bytes_up": all.bytes_up,
        "bytes_down": all.bytes_down,
        "errors": all.errors,
        "by": by,
    })
}

/// Rows under a header, each column as wide as its widest cell; the last one is not padded.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain(header.get(at).map(|cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_numbers_read_easily() {
        let shown: Vec<String> = [0, 999, 1000, 1_234_567, 999_949, 999_950, u64::MAX].map(bytes).into();
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "1.2 MB", "999.9 kB", "1.0 MB", "18.4 EB"]);
        assert_eq!(
            [count(0u64), count(999u64), count(1000u64), count(16_777_216u64)],
            ["0", "999", "1,000", "16,777,216"]
        );
        assert_eq!([some(1u64, "chunk"), some(2u64, "chunk")], ["1 chunk", "2 chunks"]);
        assert_eq!([span(400), span(61_000), span(8_000_000), span(200_000_000)], ["0.4 s", "1 min", "2 h", "2 days"]);
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_400_000, "2000-02-29 00:00:00Z"),
            (1_709_251_199_999, "2024-02-29 23:59:59Z"),
            (1_795_163_827_000, "2026-11-20 08:37:07Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(time(ms), text);
        }
    }

    #[test]
    fn columns_stand_below_their_headers() {
        let rows = vec![vec!["1".to_owned(), "two".to_owned()], vec!["long one".to_owned(), "x".to_owned()]];
        assert_eq!(table(&["a", "b"], &rows), "a         b\n1         two\nlong one  x\n");
    }
}
