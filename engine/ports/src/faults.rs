//! Named places where a test may make the process die.

use std::fmt;

/// The process is to die here. Production never sees one; a test's harness turns it into a drop of everything or a SIGKILL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("crashed at {0} as a test asked")]
pub struct Crash(pub &'static str);

/// Asked at each named step of a protocol.
pub trait Faults: Send + Sync + fmt::Debug {
    /// `Err` when the process is to die here.
    fn reach(&self, point: &'static str) -> Result<(), Crash>;

    /// Whether a part of a checkpoint is to be left out, so that a test sees it missed. Production leaves out nothing.
    fn leaves_out(&self, _part: &'static str) -> bool {
        false
    }
}

/// Nothing ever dies: what production uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFaults;

impl Faults for NoFaults {
    fn reach(&self, _: &'static str) -> Result<(), Crash> {
        Ok(())
    }
}
