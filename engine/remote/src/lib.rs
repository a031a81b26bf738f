//! Object stores behind one port: a folder, memory, S3 through `object_store`, MinIO through `minio`.
//!
//! What this room promises:
//! 1. Every store keeps every promise of [`littoral_ports::Remote`]; one suite checks them all, S3 on a real server.
//! 2. A write whose answer was lost is [`Unknown`](littoral_ports::RemoteError::Unknown), and stays it through all retries (rule P5).
//! 3. Requests have timeouts, retries are few and spread by chance; time and chance are components.
//! 4. No secret enters a URL, an error, a log or a `Debug`: they come from the environment or the AWS files alone.
//! 5. What a folder holds is on the disk when the write returns, its folders included (rule P15).
//!
//! What may never enter: what a page, a record or a manifest is; the order in which things are published.
//! Read next: `open.rs`, then `patient.rs`, then `s3.rs` beside `directory.rs`.

pub mod counting;
mod credentials;
mod directory;
mod disk;
mod failure;
pub mod faulty;
#[cfg(feature = "minio")]
mod minio;
mod open;
mod patient;
mod probe;
mod raw;
mod s3;
mod scanned;
mod settings;
mod url;

pub use counting::{Counting, Exchange, Op, OpTotals, Totals};
pub use directory::{Directory, directory_url};
pub use faulty::{Fault, Faulty};
pub use open::{open, open_in, spell};
pub use probe::{PROBE_RACES, probe};
pub use scanned::Scanned;
pub use settings::{Addressing, Environment, RemoteSettings, Tuning};
