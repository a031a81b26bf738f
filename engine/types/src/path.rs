//! An object's place under a remote.

use std::fmt;

/// Parts joined by `/`, below whatever prefix the remote was given. Stores take it as it is; `format` knows what the
/// parts mean.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPath(String);

impl ObjectPath {
    /// Joins parts. `None` where a part is empty, is `.` or `..`, or holds what some store would not keep as it is
    /// (anything but `A-Z a-z 0-9 . _ -`).
    pub fn join<'a>(parts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut path = String::new();
        for part in parts {
            let plain = part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
            if part.is_empty() || part == "." || part == ".." || !plain {
                return None;
            }
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
        }
        (!path.is_empty()).then_some(Self(path))
    }

    /// Reads a path that a store listed.
    pub fn parse(text: &str) -> Option<Self> {
        Self::join(text.split('/'))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its parts.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
