//! What never changes in an object store, kept: on disk for all processes of a replica what its log is told by, in memory the small ranges
//! that are asked for again and again. So one process asks, and the others read what it was told.
//!
//! Nothing is believed because it lies here: records are verified as one chain, and frames by their sums, wherever they come from.

use async_trait::async_trait;
use bytes::Bytes;
use littoral_format as format;
use littoral_format::keys::ObjectKey;
use littoral_ports::{Remote, RemoteError, passes_on};
use littoral_types::limits::{SHELF_BYTES_MAX, SHELF_RANGE_MAX, SHELF_RANGES_MAX};
use littoral_types::{BodyPlace, ByteSpan, ObjectPath};
use std::collections::{HashMap, VecDeque};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A remote with a shelf before it.
#[derive(Debug)]
pub(super) struct Shelf {
    inner: Arc<dyn Remote>,
    dir: Mutex<PathBuf>,
    ranges: Mutex<Ranges>,
}

#[derive(Debug, Default)]
struct Ranges {
    bytes: usize,
    by_place: HashMap<(ObjectPath, u64, u64), Bytes>,
    /// Oldest first.
    order: VecDeque<(ObjectPath, u64, u64)>,
}

impl Ranges {
    fn put(&mut self, place: (ObjectPath, u64, u64), bytes: &Bytes) {
        if self.by_place.insert(place.clone(), bytes.clone()).is_some() {
            return;
        }
        self.bytes += bytes.len();
        self.order.push_back(place);
        while self.bytes > SHELF_RANGES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.bytes -= self.by_place.remove(&oldest).map_or(0, |gone| gone.len());
        }
    }
}

/// Whether an object is the same for ever, and one that a log is told by.
fn is_kept(path: &ObjectPath) -> bool {
    matches!(ObjectKey::parse(path), Some((_, ObjectKey::Record(_) | ObjectKey::Snapshot(_) | ObjectKey::Blob(_))))
}

/// Whether these bytes are what the object's name says. What came damaged is not kept: whoever asks again is told better.
fn is_whole(path: &ObjectPath, bytes: &[u8]) -> bool {
    match ObjectKey::parse(path) {
        Some((_, ObjectKey::Blob(name))) => format::hash::blob(bytes) == name.hash,
        Some((_, ObjectKey::Snapshot(_))) => format::snapshot::decode(bytes).is_ok(),
        Some((_, ObjectKey::Record(_))) => match format::record::open(bytes).map(|record| record.body) {
            Ok(BodyPlace::Inline { .. }) => format::record::decode(bytes, None).is_ok(),
            Ok(BodyPlace::Blob(_)) => true,
            Err(_) => false,
        },
        _ => false,
    }
}

impl Shelf {
    pub(super) fn new(inner: Arc<dyn Remote>, dir: PathBuf) -> Self {
        Self { inner, dir: Mutex::new(dir), ranges: Mutex::default() }
    }

    fn dir(&self) -> PathBuf {
        self.dir.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its folder has another name now.
    pub(super) fn moved(&self, dir: PathBuf) {
        *self.dir.lock().unwrap_or_else(PoisonError::into_inner) = dir;
    }

    fn place(&self, path: &ObjectPath) -> PathBuf {
        self.dir().join(path.as_str().replace('/', "_"))
    }

    /// Keeps an object for the others, unless the disk has no room: then they ask for it themselves.
    pub(super) fn put_there(&self, path: &ObjectPath, bytes: &Bytes) {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let place = self.place(path);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let fresh = place.with_extension(format!("{}-{number}.tmp", std::process::id()));
        let done = std::fs::write(&fresh, bytes).and_then(|()| std::fs::rename(&fresh, &place));
        if let Err(error) = done {
            let _ = std::fs::remove_file(&fresh);
            tracing::debug!(%path, %error, "not kept for other processes");
        }
    }

    /// Whether it lies here.
    pub(super) fn has(&self, path: &ObjectPath) -> bool {
        self.place(path).exists()
    }

    /// What lay here is not what it should be: it is asked for again.
    pub(super) fn forget(&self, path: &ObjectPath) {
        let _ = std::fs::remove_file(self.place(path));
        self.forget_ranges();
    }

    /// Something that came was damaged: nothing of it is relied on.
    pub(super) fn forget_ranges(&self) {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        *ranges = Ranges::default();
    }

    /// Gives up all but the newest objects, when they take too much room; `needs` names those that must stay.
    pub(super) fn tidy(&self, needs: &dyn Fn(&str) -> bool) {
        let Ok(entries) = std::fs::read_dir(self.dir()) else { return };
        let mut files: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let found = entry.metadata().ok()?;
                Some((found.modified().ok()?, found.len(), entry.path()))
            })
            .collect();
        let mut bytes: u64 = files.iter().map(|(_, len, _)| len).sum();
        if bytes <= SHELF_BYTES_MAX {
            return;
        }
        files.sort();
        for (_, len, path) in files {
            if bytes <= SHELF_BYTES_MAX / 2 {
                break;
            }
            let is_needed = path.file_name().and_then(|name| name.to_str()).is_some_and(needs);
            if !is_needed && std::fs::remove_file(&path).is_ok() {
                bytes -= len;
            }
        }
    }
}

/// The name under which an object lies on a shelf.
pub(super) fn name(path: &ObjectPath) -> String {
    path.as_str().replace('/', "_")
}

fn read_range(path: &Path, span: ByteSpan) -> Option<Bytes> {
    let file = std::fs::File::open(path).ok()?;
    let mut bytes = vec![0; usize::try_from(span.len).ok()?];
    file.read_exact_at(&mut bytes, span.offset).ok()?;
    Some(bytes.into())
}

#[async_trait]
impl Remote for Shelf {
    passes_on!(inner: get_suffix, size, put, put_new, upload, list, delete, url, copies);

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        if !is_kept(path) {
            return self.inner.get(path).await;
        }
        if let Ok(bytes) = std::fs::read(self.place(path)) {
            return Ok(bytes.into());
        }
        let bytes = self.inner.get(path).await?;
        if is_whole(path, &bytes) {
            self.put_there(path, &bytes);
        }
        Ok(bytes)
    }

    async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
        if let Some(bytes) = read_range(&self.place(path), span) {
            return Ok(bytes);
        }
        if span.len > SHELF_RANGE_MAX || !is_kept(path) {
            return self.inner.get_range(path, span).await;
        }
        let place = (path.clone(), span.offset, span.len);
        let known = self.ranges.lock().unwrap_or_else(PoisonError::into_inner).by_place.get(&place).cloned();
        if let Some(bytes) = known {
            return Ok(bytes);
        }
        let bytes = self.inner.get_range(path, span).await?;
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner).put(place, &bytes);
        Ok(bytes)
    }

    /// What lay here may be what was wrong: it is let go, and the first time that is reason enough to ask again.
    fn distrust(&self, path: &ObjectPath, wrong_before: usize) -> bool {
        self.forget(path);
        self.inner.distrust(path, wrong_before) || wrong_before == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_format::keys;
    use littoral_ports::MemoryRemote;
    use littoral_types::Seq;

    #[tokio::test]
    async fn what_lay_there_and_was_wrong_is_let_go_and_asked_for_once_more_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let inner = Arc::new(MemoryRemote::new("shelf"));
        let shelf = Shelf::new(inner.clone(), dir.path().to_owned());
        let path = keys::record(&"app.db".parse().unwrap(), Seq(3));
        let span = ByteSpan { offset: 0, len: 5 };
        inner.put(&path, "wrong".into()).await.unwrap();
        assert_eq!(shelf.get_range(&path, span).await.unwrap(), "wrong");
        inner.put(&path, "right".into()).await.unwrap();
        assert_eq!(shelf.get_range(&path, span).await.unwrap(), "wrong", "it lies on the shelf");
        assert!(shelf.distrust(&path, 0));
        assert_eq!(shelf.get_range(&path, span).await.unwrap(), "right");
        assert!(!shelf.distrust(&path, 1), "nobody else has it");
    }
}
