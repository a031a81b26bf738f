//! What is uploaded to the primary is kept for its copies: the same bytes that were staged, not read back.

use async_trait::async_trait;
use bytes::Bytes;
use littoral_format::keys::ObjectKey;
use littoral_local::Spool;
use littoral_ports::{BlobBody, Remote, RemoteError, passes_on};
use littoral_types::ObjectPath;
use std::fmt;
use std::sync::Arc;

/// The primary, for who writes it. What was answered with anything but success is not kept: whether it is there is not known.
pub struct Spooling {
    primary: Arc<dyn Remote>,
    spool: Spool,
    copies: Vec<Arc<dyn Remote>>,
}

impl Spooling {
    /// Keeps what goes to `primary` in `spool`, for `copies`.
    pub fn new(primary: Arc<dyn Remote>, spool: Spool, copies: Vec<Arc<dyn Remote>>) -> Self {
        Self { primary, spool, copies }
    }

    async fn kept(&self, path: &ObjectPath, keep: impl FnOnce(&Spool) -> Result<bool, littoral_local::LocalError>) {
        let travels = matches!(
            ObjectKey::parse(path),
            Some((_, ObjectKey::Record(_) | ObjectKey::Snapshot(_) | ObjectKey::Blob(_)))
        );
        if travels && let Err(error) = keep(&self.spool) {
            tracing::debug!(%error, %path, "is not kept for copies: they read it from the primary");
        }
    }
}

impl fmt::Debug for Spooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spooling({:?})", self.primary)
    }
}

#[async_trait]
impl Remote for Spooling {
    passes_on!(primary: get, get_range, get_suffix, size, put, list, delete, url, distrust);

    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.primary.put_new(path, bytes.clone()).await?;
        self.kept(path, |spool| spool.keep_bytes(path, &bytes)).await;
        Ok(())
    }

    async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
        self.primary.upload(path, body).await?;
        self.kept(path, |spool| spool.keep(path, body)).await;
        Ok(())
    }

    fn copies(&self) -> Vec<Arc<dyn Remote>> {
        self.copies.clone()
    }
}
