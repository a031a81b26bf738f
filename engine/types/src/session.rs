//! Sessions: who wrote, and how far each of them is (rule P10).

use crate::Position;
use crate::limits::SESSION_NAME_LEN_MAX;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Why a session's name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a session's name (1 to 128 bytes without control characters): {0:?}")]
pub struct SessionNameError(pub String);

/// What a session is called: any text of 1 to 128 bytes without control characters, so that it can be printed on one line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionName(Box<str>);

impl SessionName {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionName {
    type Err = SessionNameError;

    fn from_str(text: &str) -> Result<Self, SessionNameError> {
        let fits = (1..=SESSION_NAME_LEN_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.into())) } else { Err(SessionNameError(text.to_owned())) }
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a session is: the number that the application gave its last operation. Never more than SQL's largest integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(u64);

impl Serial {
    /// Before the first.
    pub const ZERO: Serial = Serial(0);
    /// The largest.
    pub const MAX: Serial = Serial(i64::MAX as u64);

    /// What SQL says; `None` for what is below zero.
    pub fn of_sql(number: i64) -> Option<Self> {
        u64::try_from(number).ok().map(Self)
    }

    /// What a record says; `None` for what SQL cannot.
    pub fn new(number: u64) -> Option<Self> {
        (number <= Self::MAX.0).then_some(Self(number))
    }

    /// The one after this; `None` after the largest.
    pub fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }

    /// So many after this; the largest where there are not as many.
    pub fn saturating_add(self, many: u64) -> Self {
        Self(self.0.saturating_add(many).min(Self::MAX.0))
    }

    /// As a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far each named session of a state is.
pub type Sessions = BTreeMap<SessionName, Serial>;

/// What became of a session with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionStep {
    /// It went on to this serial, which is above the one before.
    On(Serial),
    /// It began anew: its serial is not above the one before, and its writer knew. A rewind does that, and who takes its row away and puts
    /// another one.
    Anew(Serial),
    /// Its row is gone, or says nothing that is a serial.
    Gone,
}

impl SessionStep {
    /// How far it is then.
    pub const fn serial(self) -> Option<Serial> {
        match self {
            SessionStep::On(serial) | SessionStep::Anew(serial) => Some(serial),
            SessionStep::Gone => None,
        }
    }
}

/// How far a session was at the end of a record that changed it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionMark {
    /// Which.
    pub session: SessionName,
    /// What became of it.
    pub step: SessionStep,
    /// The last commit of the record that brought it.
    pub position: Position,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_printed_on_one_line_is_refused_and_so_is_a_serial_that_sql_does_not_have() {
        for text in ["", "a\nb", "a\0", "\u{7f}", &"x".repeat(129)] {
            assert!(text.parse::<SessionName>().is_err(), "{text:?}");
        }
        for text in ["worker-7", "größe 3/4", &"x".repeat(128)] {
            assert_eq!(text.parse::<SessionName>().unwrap().as_str(), text);
        }
        assert_eq!((Serial::of_sql(-1), Serial::new(1 << 63)), (None, None));
        assert_eq!(Serial::of_sql(i64::MAX), Some(Serial::MAX));
    }
}
