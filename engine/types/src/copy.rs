//! What says of a volume's folder that it is a copy, and of which volume.

use crate::{Seq, VolumeId};

/// Stands in the folder of a copy, from before its first byte on. Where it stands nobody writes but whoever copies, until it says that
/// the copy was promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyMark {
    /// Which volume it is a copy of.
    pub volume: VolumeId,
    /// Where that one is, for people and for whoever promotes: its remote's URL, which holds no secret.
    pub of: String,
    /// When the copy was begun, milliseconds since 1970.
    pub began_ms: u64,
    /// What it is by now.
    pub state: CopyState,
    /// Pins of the primary that are kept here as well, by their names.
    pub pins: Vec<String>,
}

/// What a copy is by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// A prefix of the primary's log.
    Follows,
    /// It is being filled at this record, because those before it are gone from the primary: until that is here nobody reads it.
    Fills(Seq),
    /// A volume of its own from here on. Nothing is copied to it any more.
    Promoted {
        /// When, milliseconds since 1970.
        at_ms: u64,
        /// Whether the primary's log says so, too: its writer is superseded.
        fenced: bool,
        /// Who did it, for people.
        by: String,
    },
}
