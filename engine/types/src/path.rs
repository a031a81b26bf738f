//! An object's place under a remote.

use crate::VolumeName;
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
            let plain = part.chars().all(is_plain);
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

    /// A path in a volume's folder. Total: what some store would not keep as it is becomes `_`.
    pub fn below(volume: &VolumeName, rest: &str) -> Self {
        let mut path = volume.as_str().to_owned();
        for part in rest.split('/') {
            path.push('/');
            if part.is_empty() || part == "." || part == ".." {
                path.push('_');
            }
            if part == "." || part == ".." {
                continue;
            }
            path.extend(part.chars().map(|c| if is_plain(c) { c } else { '_' }));
        }
        Self(path)
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

const fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_a_volume_is_one_that_parses() {
        let volume: VolumeName = "app.db".parse().unwrap();
        for (rest, path) in [
            ("log/00ff", "app.db/log/00ff"),
            ("head", "app.db/head"),
            ("probe/../x", "app.db/probe/_/x"),
            ("probe//a b", "app.db/probe/_/a_b"),
            ("", "app.db/_"),
        ] {
            let below = ObjectPath::below(&volume, rest);
            assert_eq!(below.as_str(), path);
            assert_eq!(ObjectPath::parse(path), Some(below));
        }
    }
}
