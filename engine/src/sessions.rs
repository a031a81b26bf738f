//! Named sessions, for doors: who holds which, and where their table is.

pub use littoral_local::sessions::{HeldSession, holders};
pub use littoral_plan::participant::Participant;
pub use littoral_plan::phase::Phase;
pub use littoral_plan::sessions::{Root, TABLE, Walked, sessions};
