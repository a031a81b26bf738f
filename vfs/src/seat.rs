//! Which named session a connection is (rule P10): its own as long as it writes, a name alone where it only reads.

use crate::database::Database;
use littoral_engine::LocalError;
use littoral_engine::sessions::HeldSession;
use littoral_types::SessionName;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A connection's place. It goes with the connection, and the session is free again then.
#[derive(Debug, Default)]
pub(crate) struct Seat(Mutex<Option<Sits>>);

#[derive(Debug)]
enum Sits {
    /// Nobody else has it.
    Held(HeldSession),
    /// Nothing is written here: whoever looks at the past, or at a replica, keeps nobody from going on.
    Looks(SessionName),
}

impl Seat {
    /// Which session it is; `None` for a connection that named none.
    pub(crate) fn name(&self) -> Option<SessionName> {
        match &*self.sits() {
            Some(Sits::Held(held)) => Some(held.name().clone()),
            Some(Sits::Looks(name)) => Some(name.clone()),
            None => None,
        }
    }

    /// Becomes that session, or says who is.
    pub(crate) fn take(&self, database: &Database, name: &SessionName) -> Result<(), LocalError> {
        if self.name().as_ref() == Some(name) {
            return Ok(());
        }
        let held = HeldSession::take(&database.sessions(), name)?;
        // The one before is given back when the new one is there.
        *self.sits() = Some(Sits::Held(held));
        Ok(())
    }

    /// Becomes that session to read of it.
    pub(crate) fn look(&self, name: SessionName) {
        *self.sits() = Some(Sits::Looks(name));
    }

    /// Is none any more.
    pub(crate) fn leave(&self) {
        *self.sits() = None;
    }

    fn sits(&self) -> MutexGuard<'_, Option<Sits>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
