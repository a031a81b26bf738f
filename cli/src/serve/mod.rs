//! HTTP for who watches: metrics, health, how databases stand, and a few things that an administrator may do.
//!
//! What this room promises:
//! 1. To be asked costs the object store nothing but for `/status`, and that at most one look in a few seconds, however many ask.
//! 2. Nothing is changed by a request that was not understood whole, nor by one without the token. Each administrator's call is logged,
//!    done or refused.
//! 3. Who sends or reads slowly, much, or never keeps nobody from anything: connections, headers, bodies and times are bounded.
//! 4. What is done is done by the verb of its name: this room knows HTTP and nothing of checkpoints.
//! 5. No answer holds a secret: none is known here but the token, and that is only compared.
//!
//! Read next: `routes.rs` (what can be asked), `metrics.rs` (what is measured), `gate.rs` (who may), `listen.rs` (bounds).

mod answer;
mod gate;
mod listen;
pub mod look;
pub mod metrics;
pub mod openapi;
pub mod routes;

pub use gate::Token;
pub use listen::{Running, start};

use crate::door::Door;
use look::Watched;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Where it answers where nobody says otherwise.
pub const LISTEN: &str = "127.0.0.1:9464";

/// What `/status` said of a database, with or without its terms, and when.
type Statuses = BTreeMap<(PathBuf, bool), (Instant, Result<Value, answer::Answer>)>;

/// What is served, and to whom.
pub struct Server {
    door: Door,
    watched: Watched,
    token: Option<Token>,
    address: SocketAddr,
    /// What `/status` said last of each database.
    told: Mutex<Statuses>,
    /// Databases of which a checkpoint is made from here.
    busy: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Server {
    /// Serves these databases.
    pub fn new(door: Door, watched: Watched, token: Option<Token>, address: SocketAddr) -> Self {
        Self { door, watched, token, address, told: Mutex::default(), busy: Arc::default() }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}
