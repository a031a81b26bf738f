//! Segments' records as an opening reads them, kept: the frames that travel in them are at hand then, and cost no request.

use async_trait::async_trait;
use bytes::Bytes;
use littoral_format as format;
use littoral_format::keys::ObjectKey;
use littoral_ports::{BlobBody, ObjectMeta, Remote, RemoteError};
use littoral_types::limits::LAZY_RECORDS_BYTES_MAX;
use littoral_types::{ByteSpan, ObjectPath, RecordKind};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A remote that remembers the segments' records that were read whole, up to a bound. A record never changes; one that is pruned since is of the
/// state that was opened all the same. Everything else is asked of the remote behind it.
#[derive(Debug)]
pub(super) struct Kept {
    inner: Arc<dyn Remote>,
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    bytes: usize,
    by_path: HashMap<ObjectPath, Bytes>,
}

impl Kept {
    pub(super) fn new(inner: Arc<dyn Remote>) -> Self {
        Self { inner, records: Mutex::default() }
    }

    fn keep(&self, path: &ObjectPath, object: &Bytes) {
        if !matches!(ObjectKey::parse(path), Some((_, ObjectKey::Record(_)))) {
            return;
        }
        if !format::record::open(object).is_ok_and(|record| record.kind == RecordKind::Segment) {
            return;
        }
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.bytes + object.len() <= LAZY_RECORDS_BYTES_MAX && !records.by_path.contains_key(path) {
            records.bytes += object.len();
            records.by_path.insert(path.clone(), object.clone());
        }
    }

    fn kept(&self, path: &ObjectPath, span: ByteSpan) -> Option<Bytes> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let object = records.by_path.get(path)?;
        let (start, end) = (usize::try_from(span.offset).ok()?, usize::try_from(span.end()?).ok()?);
        (start <= end && end <= object.len()).then(|| object.slice(start..end))
    }
}

#[async_trait]
impl Remote for Kept {
    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        let object = self.inner.get(path).await?;
        self.keep(path, &object);
        Ok(object)
    }

    async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
        match self.kept(path, span) {
            Some(bytes) => Ok(bytes),
            None => self.inner.get_range(path, span).await,
        }
    }

    async fn get_suffix(&self, path: &ObjectPath, len: u64) -> Result<(Bytes, u64), RemoteError> {
        self.inner.get_suffix(path, len).await
    }

    async fn size(&self, path: &ObjectPath) -> Result<u64, RemoteError> {
        self.inner.size(path).await
    }

    async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.inner.put(path, bytes).await
    }

    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.inner.put_new(path, bytes).await
    }

    async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
        self.inner.upload(path, body).await
    }

    async fn list(&self, folder: &str, after: Option<&ObjectPath>, max: usize) -> Result<Vec<ObjectMeta>, RemoteError> {
        self.inner.list(folder, after, max).await
    }

    async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
        self.inner.delete(paths).await
    }

    fn url(&self) -> String {
        self.inner.url()
    }

    fn distrust(&self, path: &ObjectPath, wrong_before: usize) -> bool {
        self.inner.distrust(path, wrong_before)
    }

    fn copies(&self) -> Vec<Arc<dyn Remote>> {
        self.inner.copies()
    }
}
