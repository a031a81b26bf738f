//! Names that people choose.

use crate::limits::NAME_LEN_MAX;
use std::fmt;
use std::str::FromStr;

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a name (1 to 128 of A-Z a-z 0-9 . _ -, not beginning with a dot): {0:?}")]
pub struct NameError(pub String);

fn checked(text: &str) -> Result<Box<str>, NameError> {
    let fits = (1..=NAME_LEN_MAX).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if fits { Ok(text.into()) } else { Err(NameError(text.to_owned())) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// As it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                checked(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A volume's name: the last part of its URL. `.` and `..` and hidden names are refused, so that a directory
    /// backend can use it as it is.
    VolumeName
}
name! {
    /// A named snapshot's name.
    SnapshotName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        for text in ["", ".", "..", ".hidden", "a/b", "a b", "é", &"x".repeat(129)] {
            assert!(text.parse::<VolumeName>().is_err(), "{text:?}");
        }
        for text in ["app.db", "A-1_b", &"x".repeat(128)] {
            assert_eq!(text.parse::<VolumeName>().unwrap().as_str(), text);
        }
    }
}
