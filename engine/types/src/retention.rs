//! How long which restore points stay: all of them for a while, then fewer.

use crate::moment::unit_ms;
use std::fmt;
use std::str::FromStr;

/// Restore points of an age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// One in so many milliseconds stays.
    pub every_ms: u64,
    /// Until it is so old.
    pub for_ms: u64,
}

/// What stays: every restore point for a while, then one in so long, each tier coarser and longer than the one before. `24h,1h:30d,1d:1y`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    all_ms: u64,
    tiers: Vec<Tier>,
}

/// Tiers that a retention has at most.
const TIERS_MAX: usize = 8;
/// For ever.
const FOREVER: &str = "forever";

impl Default for Retention {
    /// Every restore point for a day, hourly for thirty, daily for a year.
    fn default() -> Self {
        const HOUR: u64 = 3_600_000;
        const DAY: u64 = 24 * HOUR;
        let tiers = vec![Tier { every_ms: HOUR, for_ms: 30 * DAY }, Tier { every_ms: DAY, for_ms: 365 * DAY }];
        Self { all_ms: DAY, tiers }
    }
}

impl Retention {
    /// All restore points for so long, and none after it.
    pub const fn all_within(ms: u64) -> Self {
        Self { all_ms: ms, tiers: Vec::new() }
    }

    /// How long every restore point stays.
    pub const fn all_ms(&self) -> u64 {
        self.all_ms
    }

    /// What stays after that, finest first.
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Span(self.all_ms))?;
        self.tiers.iter().try_for_each(|tier| write!(f, ",{}:{}", Span(tier.every_ms), Span(tier.for_ms)))
    }
}

/// What is no retention, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RetentionError(pub String);

impl FromStr for Retention {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        let wrong = |why: String| RetentionError(why);
        let mut parts = text.split(',').map(str::trim);
        let all_ms = parts
            .next()
            .and_then(span)
            .ok_or_else(|| wrong("how long every restore point stays comes first, as in 24h".to_owned()))?;
        let mut retention = Self { all_ms, tiers: Vec::new() };
        let mut before = Tier { every_ms: 0, for_ms: all_ms };
        for part in parts {
            let tier = part.split_once(':').and_then(|(every, long)| Some((span(every.trim())?, span(long.trim())?)));
            let (every_ms, for_ms) =
                tier.ok_or_else(|| wrong(format!("{part:?} should say how many for how long, as in 1h:30d")))?;
            if every_ms == 0 || every_ms == u64::MAX || every_ms <= before.every_ms {
                return Err(wrong(format!("{part:?} should keep fewer than what stands before it")));
            }
            if for_ms <= before.for_ms {
                return Err(wrong(format!("{part:?} should keep longer than what stands before it")));
            }
            before = Tier { every_ms, for_ms };
            retention.tiers.push(before);
        }
        if retention.tiers.len() > TIERS_MAX {
            return Err(wrong(format!("there are more than {TIERS_MAX} steps")));
        }
        Ok(retention)
    }
}

/// One number and its unit, or for ever.
fn span(text: &str) -> Option<u64> {
    if text == FOREVER {
        return Some(u64::MAX);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = if unit.is_empty() && number == 0 { 1 } else { unit_ms(unit)? };
    number.checked_mul(unit).filter(|ms| *ms < u64::MAX)
}

/// In the largest unit that it is a whole number of.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["y", "d", "h", "m", "s", "ms"].map(|unit| (unit, unit_ms(unit).unwrap_or(1)));
        match units.into_iter().find(|(_, ms)| self.0.is_multiple_of(*ms)) {
            _ if self.0 == u64::MAX => f.write_str(FOREVER),
            _ if self.0 == 0 => f.write_str("0"),
            Some((unit, ms)) => write!(f, "{}{unit}", self.0 / ms),
            None => write!(f, "{}ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_reads_back_as_it_prints() {
        for text in ["24h,1h:30d,1d:1y", "0", "7d", "forever", "1h,5m:1d,1h:1w,1d:forever", "90m,10h:3y"] {
            let said: Retention = text.parse().unwrap();
            let shown = said.to_string();
            assert_eq!(shown.parse::<Retention>().unwrap(), said, "{text}: {shown}");
        }
        assert_eq!("1d, 1h:30d, 24h:365d".parse(), Ok(Retention::default()));
        assert_eq!(Retention::default().to_string(), "1d,1h:30d,1d:1y");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_why() {
        for (text, why) in [
            ("", "comes first"),
            ("1h:30d", "comes first"),
            ("24h,30d", "how many for how long"),
            ("24h,1h:", "how many for how long"),
            ("24h,0:30d", "fewer"),
            ("24h,1h:30d,1h:1y", "fewer"),
            ("24h,forever:forever", "fewer"),
            ("24h,1h:24h", "longer"),
            ("24h,1h:30d,1d:1d", "longer"),
            ("forever,1h:30d", "longer"),
            ("1h,1m:2h,2m:3h,3m:4h,4m:5h,5m:6h,6m:7h,7m:8h,8m:9h,9m:10h", "more than 8"),
            ("99999999999999999999d", "comes first"),
        ] {
            let error = text.parse::<Retention>().unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
