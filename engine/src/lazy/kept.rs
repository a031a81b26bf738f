//! Segments' records as an opening reads them, kept: the frames that travel in them are at hand then, and cost no request.

use async_trait::async_trait;
use bytes::Bytes;
use littoral_format as format;
use littoral_format::keys::ObjectKey;
use littoral_ports::{Remote, RemoteError, passes_on};
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
    passes_on!(inner: get_suffix, size, put, put_new, upload, list, delete, url, distrust, copies);

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
}
