//! A moment of a volume's history, as people say it at every door.
//!
//! | said | is |
//! |---|---|
//! | `2026-11-20T17:34:02Z`, `2026-11-20T19:34:02.5+02:00` | a time (RFC 3339) |
//! | `-5m`, `-1h30m`, `-2d` | a time, so long before now |
//! | `42` | a commit, by its LSN |
//! | `1.42` | the same, of this term alone |
//! | anything else that is a name | a named snapshot |

use crate::{Lsn, Position, SnapshotName};
use std::fmt;
use std::str::FromStr;

/// A state of a volume, named by anything but the clock of whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// The newest state.
    Newest,
    /// What was current at this time, in milliseconds since 1970.
    Time(u64),
    /// As of this commit.
    Lsn(Lsn),
    /// As of this commit of this term: refused when another term published it.
    Position(Position),
    /// A named snapshot.
    Snapshot(SnapshotName),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Newest => f.write_str("the newest state"),
            At::Time(ms) => write!(f, "{}", Utc(*ms)),
            At::Lsn(lsn) => write!(f, "{lsn}"),
            At::Position(position) => write!(f, "{position}"),
            At::Snapshot(name) => write!(f, "{name}"),
        }
    }
}

/// What was said: a state, or how long before now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So many milliseconds before whoever asks looks at the clock.
    Ago(u64),
    /// Whatever the clock says.
    At(At),
}

impl Moment {
    /// The state that is meant when it is said now.
    pub fn as_of(&self, now_ms: u64) -> At {
        match self {
            Moment::Ago(ago) => At::Time(now_ms.saturating_sub(*ago)),
            Moment::At(at) => at.clone(),
        }
    }

    /// Whether a snapshot of this name could be told from every other moment.
    pub fn is_snapshot(name: &SnapshotName) -> bool {
        matches!(name.as_str().parse(), Ok(Moment::At(At::Snapshot(_))))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Ago(ms) => write!(f, "{}", Ago(*ms)),
            Moment::At(at) => at.fmt(f),
        }
    }
}

/// What is no moment, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{said:?} is no moment: {why}. Say {TAKES}")]
pub struct MomentError {
    /// The words.
    pub said: String,
    /// What is wrong with them.
    pub why: String,
}

/// What a moment looks like.
pub const TAKES: &str =
    "a time such as 2026-11-20T17:34:02Z, how long ago such as -5m, an LSN such as 42 or 1.42, or a snapshot's name";

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        read(text).map_err(|why| MomentError { said: text.chars().take(80).collect(), why })
    }
}

fn read(text: &str) -> Result<Moment, String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() {
        return Err("nothing was said".to_owned());
    }
    if let Some(span) = text.strip_prefix('-') {
        return ago(span).map(Moment::Ago);
    }
    if is_number(text) {
        let lsn = text.parse().map_err(|_| "an LSN has at most 20 digits".to_owned())?;
        return Ok(Moment::At(At::Lsn(Lsn(lsn))));
    }
    if let Some((epoch, lsn)) = text.split_once('.').filter(|(epoch, lsn)| is_number(epoch) && is_number(lsn)) {
        let numbers = epoch.parse().ok().zip(lsn.parse().ok());
        let (epoch, lsn) = numbers.ok_or_else(|| "an epoch and an LSN have at most 20 digits".to_owned())?;
        return Ok(Moment::At(At::Position(Position { epoch: crate::Epoch(epoch), lsn: Lsn(lsn) })));
    }
    // No name holds a colon, and no time is without one.
    if text.contains(':') {
        return time(text).map(|ms| Moment::At(At::Time(ms)));
    }
    let name = text.parse().map_err(|error| format!("it is {error}"))?;
    Ok(Moment::At(At::Snapshot(name)))
}

/// A span such as `1h30m`.
fn ago(text: &str) -> Result<u64, String> {
    let mut rest = text;
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err("how long ago is missing, as in -5m".to_owned());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, behind) = behind.split_at(letters);
        if number.is_empty() {
            return Err(format!("a number should stand before {rest:?}, as in -5m"));
        }
        let unit = unit_ms(unit)
            .ok_or_else(|| format!("{unit:?} after {number} is no unit; there are ms, s, m, h, d, w and y"))?;
        let span = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        total = span.and_then(|span| total.checked_add(span)).ok_or_else(|| "that is too long ago".to_owned())?;
        rest = behind;
    }
    Ok(total)
}

/// Milliseconds of a unit of time; a year has 365 days.
pub(crate) fn unit_ms(unit: &str) -> Option<u64> {
    Some(match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => DAY_MS,
        "w" => 7 * DAY_MS,
        "y" => 365 * DAY_MS,
        _ => return None,
    })
}

const DAY_MS: u64 = 86_400_000;

/// RFC 3339: `2026-11-20T17:34:02.250+02:00`. A space may stand for the `T`. Before 1970 there was nothing: that is 1970 here.
fn time(text: &str) -> Result<u64, String> {
    let shape = || "a time is written as 2026-11-20T17:34:02Z or 2026-11-20T19:34:02+02:00 (RFC 3339)".to_owned();
    let bytes = text.as_bytes();
    let number = |from: usize, len: usize| -> Option<u64> {
        let part = text.get(from..from + len)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten()
    };
    let is = |at: usize, one_of: &[u8]| bytes.get(at).is_some_and(|byte| one_of.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return Err(shape());
    }
    let parts = [(0, 4), (5, 2), (8, 2), (11, 2), (14, 2), (17, 2)].map(|(from, len)| number(from, len));
    let [Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)] = parts else {
        return Err(shape());
    };
    if !(1..=12).contains(&month) {
        return Err(format!("there is no month {month:02}"));
    }
    if !(1..=days_of(year, month)).contains(&day) {
        return Err(format!("there is no day {day:02} in {year:04}-{month:02}"));
    }
    // A leap second is the last of its minute, and so the first of the next one here.
    if hour > 23 || minute > 59 || second > 60 {
        return Err(format!("{hour:02}:{minute:02}:{second:02} is no time of a day"));
    }
    let mut at = 19;
    let mut ms = 0;
    if is(at, b".") {
        let digits = bytes.iter().skip(at + 1).take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return Err("digits of a second should follow its point".to_owned());
        }
        let shown = digits.min(3);
        ms = number(at + 1, shown).unwrap_or_default() * 10_u64.pow(3 - shown as u32);
        at += 1 + digits;
    }
    let offset_minutes = match bytes.get(at) {
        Some(b'Z' | b'z') if bytes.len() == at + 1 => 0,
        Some(sign @ (b'+' | b'-')) if bytes.len() == at + 6 && is(at + 3, b":") => {
            let offset = number(at + 1, 2).zip(number(at + 4, 2)).filter(|(hour, minute)| *hour < 24 && *minute < 60);
            let (hour, minute) = offset.ok_or_else(|| "its offset is none: write Z, or as in +02:00".to_owned())?;
            let minutes = i64::try_from(hour * 60 + minute).unwrap_or_default();
            if *sign == b'+' { minutes } else { -minutes }
        }
        None => return Err("which time zone is missing: write Z for UTC, or an offset as in +02:00".to_owned()),
        Some(_) => return Err("its offset is none: write Z, or as in +02:00".to_owned()),
    };
    let seconds = days_since_1970(year, month, day) * 86_400
        + i64::try_from(hour * 3600 + minute * 60 + second).unwrap_or_default()
        - offset_minutes * 60;
    Ok(u64::try_from(seconds).map_or(0, |seconds| seconds * 1000 + ms))
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// In the calendar of all ages: years begin in March, so that the leap day is the last.
fn days_since_1970(year: u64, month: u64, day: u64) -> i64 {
    // January and February are of the year before; one era more keeps that from being negative.
    let (year, of_year, eras_before) = if month > 2 { (year, month - 3, 0) } else { (year + 399, month + 9, 1) };
    let (era, of_era) = (year / 400, year % 400);
    let day_of_year = (153 * of_year + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + day_of_year;
    let days = i64::try_from(era * 146_097 + day_of_era).unwrap_or_default();
    days - eras_before * 146_097 - 719_468
}

/// Milliseconds since 1970 as RFC 3339 has them, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc(pub u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, of_day) = (self.0 / DAY_MS, self.0 % DAY_MS);
        let (year, month, day) = civil(days);
        let (second, ms) = (of_day / 1000, of_day % 1000);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if ms > 0 { write!(f, ".{ms:03}Z") } else { f.write_str("Z") }
    }
}

/// A month of the calendar, in UTC: what object stores ask their price for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Month {
    /// Months since the year 0.
    pub number: u64,
    /// When it begins, in milliseconds since 1970.
    pub from_ms: u64,
    /// When the next one does.
    pub until_ms: u64,
}

impl Month {
    /// The one that a moment is in.
    pub fn of(ms: u64) -> Self {
        let (year, month, day) = civil(ms / DAY_MS);
        let first = (ms / DAY_MS).saturating_sub(day - 1);
        let until_ms = (first + days_of(year, month)) * DAY_MS;
        Self { number: year * 12 + month - 1, from_ms: first * DAY_MS, until_ms }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.number / 12, self.number % 12 + 1)
    }
}

/// The year, month and day of a day since 1970.
const fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// A span in the largest units that make it up: `-1h30m`.
struct Ago(u64);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("-")?;
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, ms) in [("d", DAY_MS), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if rest >= ms {
                write!(f, "{}{unit}", rest / ms)?;
                rest %= ms;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    fn moment(text: &str) -> Moment {
        text.parse().unwrap()
    }

    fn refused(text: &str) -> String {
        text.parse::<Moment>().unwrap_err().to_string()
    }

    #[test]
    fn a_moment_is_a_time_a_span_a_commit_or_a_name() {
        assert_eq!(moment("42"), Moment::At(At::Lsn(Lsn(42))));
        assert_eq!(moment("1.42"), Moment::At(At::Position(Position { epoch: Epoch(1), lsn: Lsn(42) })));
        assert_eq!(moment("before-v2"), Moment::At(At::Snapshot("before-v2".parse().unwrap())));
        // A date alone is a name that people give.
        assert_eq!(moment("2026-11-20"), Moment::At(At::Snapshot("2026-11-20".parse().unwrap())));
        assert_eq!(moment("-5m"), Moment::Ago(300_000));
        assert_eq!(moment("-1h30m"), Moment::Ago(5_400_000));
        assert_eq!(moment("-0s"), Moment::Ago(0));
        assert_eq!(moment("-1y2w3d4h5m6s7ms"), Moment::Ago((((365 + 14 + 3) * 24 + 4) * 60 + 5) * 60_000 + 6_007));
        assert_eq!(moment("-5m").as_of(1_000_000), At::Time(700_000));
        assert_eq!(moment("-5m").as_of(1_000), At::Time(0), "there was nothing before 1970");
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01t00:00:00.001z", 1),
            ("2000-02-29T12:00:00Z", 951_825_600_000),
            ("2026-11-20T17:34:02Z", 1_795_196_042_000),
            ("2026-11-20 17:34:02Z", 1_795_196_042_000),
            ("2026-11-20T19:34:02+02:00", 1_795_196_042_000),
            ("2026-11-20T11:04:02.25-06:30", 1_795_196_042_250),
            ("2026-11-20T17:34:02.123456789Z", 1_795_196_042_123),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("1969-12-31T23:59:59Z", 0),
            ("1970-01-01T00:30:00+01:00", 0),
            ("0000-01-01T00:00:00Z", 0),
        ] {
            assert_eq!(moment(text), Moment::At(At::Time(ms)), "{text}");
        }
    }

    #[test]
    fn every_day_of_five_centuries_reads_back_as_it_prints() {
        let mut before = None;
        for day in 0..365 * 500 {
            let ms = day * DAY_MS + day % DAY_MS;
            let text = Utc(ms).to_string();
            assert_eq!(moment(&text), Moment::At(At::Time(ms)), "{text}");
            assert!(before.is_none_or(|before: String| before < text), "{text}");
            before = Some(text);
        }
    }

    #[test]
    fn months_follow_one_another_without_a_gap() {
        let mut month = Month::of(0);
        assert_eq!((month.to_string().as_str(), month.from_ms), ("1970-01", 0));
        for _ in 0..12 * 200 {
            let next = Month::of(month.until_ms);
            assert_eq!(Month::of(month.until_ms - 1), month);
            assert_eq!((next.number, next.from_ms), (month.number + 1, month.until_ms));
            month = next;
        }
        assert_eq!(month.to_string(), "2170-01");
    }

    #[test]
    fn what_is_no_moment_is_refused_with_what_is_wrong_and_what_would_be_right() {
        for (text, why) in [
            ("", "nothing was said"),
            ("yesterday at noon", "not a name"),
            ("a/b", "not a name"),
            (".hidden", "not a name"),
            ("2026-11-20T17:34:02", "time zone is missing"),
            ("2026-11-20T17:34", "RFC 3339"),
            ("20:15", "RFC 3339"),
            ("20.11.2026 17:34:02Z", "RFC 3339"),
            ("2026-13-20T17:34:02Z", "no month 13"),
            ("2026-02-29T17:34:02Z", "no day 29 in 2026-02"),
            ("2026-11-00T17:34:02Z", "no day 00"),
            ("2026-11-20T24:00:00Z", "no time of a day"),
            ("2026-11-20T17:34:02.Z", "digits of a second"),
            ("2026-11-20T17:34:02+2:00", "offset is none"),
            ("2026-11-20T17:34:02+25:00", "offset is none"),
            ("2026-11-20T17:34:02Zulu", "offset is none"),
            ("2026-11-20Tü7:34:02Z", "RFC 3339"),
            ("-", "how long ago is missing"),
            ("-5", "no unit"),
            ("-m", "a number should stand"),
            ("-5 m", "no unit"),
            ("-5parsecs", "\"parsecs\" after 5 is no unit"),
            ("-99999999999999999999d", "too long ago"),
            ("-99999999999999999d", "too long ago"),
            ("99999999999999999999999", "20 digits"),
            ("1.99999999999999999999999", "20 digits"),
        ] {
            let error = refused(text);
            assert!(error.contains(why) && error.contains(TAKES), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_was_said_reads_back_as_it_prints() {
        for text in ["-5m", "-1h30m", "-2d", "-0s", "-15ms", "42", "1.42", "before-v2", "2026-11-20T17:34:02.250Z"] {
            assert_eq!(moment(text).to_string(), text);
        }
    }

    #[test]
    fn a_snapshot_is_not_called_like_another_moment() {
        for name in ["v2", "2026-11-20", "1.2.3", "a", "1.x"] {
            assert!(Moment::is_snapshot(&name.parse().unwrap()), "{name}");
        }
        for name in ["42", "1.42", "-5m", "-v2", "-"] {
            assert!(!Moment::is_snapshot(&name.parse().unwrap()), "{name}");
        }
    }
}
