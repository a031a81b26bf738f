//! An object store in memory: what the engine's tests and the simulator talk to, and what `mem://` names.

use crate::clock::Clock;
use crate::remote::{BlobBody, ObjectMeta, Remote, RemoteError};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use crc64fast_nvme::Digest;
use littoral_types::{ByteSpan, ObjectPath};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keeps every promise of [`Remote`] except that of surviving the process. It never fails of itself: failure is what
/// wrappers are for.
pub struct MemoryRemote {
    name: String,
    clock: Option<Arc<dyn Clock>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, (Bytes, u64)>,
    writes: u64,
}

impl MemoryRemote {
    /// An empty store whose URL is `mem://NAME`. Its objects' times count writes, so that a run can be repeated exactly.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), clock: None, state: Mutex::default() }
    }

    /// An empty store that dates its objects by a clock.
    pub fn with_clock(name: &str, clock: Arc<dyn Clock>) -> Self {
        Self { name: name.to_owned(), clock: Some(clock), state: Mutex::default() }
    }

    /// Everything it holds, ascending: for tests that compare two stores, or that damage one.
    pub fn objects(&self) -> Vec<(ObjectPath, Bytes)> {
        let state = self.lock();
        state.objects.iter().filter_map(|(path, (bytes, _))| Some((ObjectPath::parse(path)?, bytes.clone()))).collect()
    }

    /// Replaces or adds an object behind everybody's back, as a failing disk or a foreign tool would.
    pub fn tamper(&self, path: &ObjectPath, bytes: Bytes) {
        self.write(path, bytes);
    }

    // A panic elsewhere leaves the map whole: every change to it is one insert or remove.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, path: &ObjectPath, bytes: Bytes) {
        let wall_ms = self.clock.as_ref().map(|clock| clock.wall_ms());
        let mut state = self.lock();
        state.writes += 1;
        let modified_ms = wall_ms.unwrap_or(state.writes);
        state.objects.insert(path.as_str().to_owned(), (bytes, modified_ms));
    }

    fn read(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        let state = self.lock();
        match state.objects.get(path.as_str()) {
            Some((bytes, _)) => Ok(bytes.clone()),
            None => Err(RemoteError::Missing { path: path.to_string() }),
        }
    }
}

impl fmt::Debug for MemoryRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryRemote({})", self.name)
    }
}

#[async_trait]
impl Remote for MemoryRemote {
    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        self.read(path)
    }

    async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
        let whole = self.read(path)?;
        let beyond = || RemoteError::beyond_the_end(path, span, whole.len() as u64);
        let end = span.end().filter(|end| *end <= whole.len() as u64).ok_or_else(beyond)?;
        // Both fit: they lie within a slice.
        Ok(whole.slice(span.offset as usize..end as usize))
    }

    async fn get_suffix(&self, path: &ObjectPath, len: u64) -> Result<(Bytes, u64), RemoteError> {
        let whole = self.read(path)?;
        let from = (whole.len() as u64).saturating_sub(len) as usize;
        Ok((whole.slice(from..), whole.len() as u64))
    }

    async fn size(&self, path: &ObjectPath) -> Result<u64, RemoteError> {
        Ok(self.read(path)?.len() as u64)
    }

    async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.write(path, bytes);
        Ok(())
    }

    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        let wall_ms = self.clock.as_ref().map(|clock| clock.wall_ms());
        let mut state = self.lock();
        if state.objects.contains_key(path.as_str()) {
            return Err(RemoteError::Exists { path: path.clone() });
        }
        state.writes += 1;
        let modified_ms = wall_ms.unwrap_or(state.writes);
        state.objects.insert(path.as_str().to_owned(), (bytes, modified_ms));
        Ok(())
    }

    async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
        let unreadable = |error: io::Error| RemoteError::unreadable(path, &error);
        // In steps, as the stores that have to send it do.
        const STEP: u64 = 1 << 20;
        let mut whole = BytesMut::new();
        let mut digest = Digest::new();
        while (whole.len() as u64) < body.len() {
            let offset = whole.len() as u64;
            let span = ByteSpan { offset, len: STEP.min(body.len() - offset) };
            let bytes = body.read(span).map_err(unreadable)?;
            if bytes.len() as u64 != span.len {
                return Err(unreadable(io::ErrorKind::UnexpectedEof.into()));
            }
            digest.write(&bytes);
            whole.extend_from_slice(&bytes);
        }
        if digest.sum64() != body.crc64() {
            return Err(RemoteError::changed_before_upload(path));
        }
        self.write(path, whole.freeze());
        Ok(())
    }

    async fn list(&self, folder: &str, after: Option<&ObjectPath>, max: usize) -> Result<Vec<ObjectMeta>, RemoteError> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let state = self.lock();
        let from = match after {
            Some(after) if after.as_str() >= prefix.as_str() => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix.as_str()),
        };
        let listed = state.objects.range::<str, _>((from, Bound::Unbounded));
        Ok(listed
            .take_while(|(path, _)| path.starts_with(&prefix))
            .filter_map(|(path, (bytes, modified_ms))| {
                let len = bytes.len() as u64;
                Some(ObjectMeta { path: ObjectPath::parse(path)?, len, modified_ms: *modified_ms })
            })
            .take(max)
            .collect())
    }

    async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
        let mut state = self.lock();
        for path in paths {
            state.objects.remove(path.as_str());
        }
        Ok(())
    }

    fn url(&self) -> String {
        format!("mem://{}", self.name)
    }

    fn distrust(&self, _path: &ObjectPath, _wrong_before: usize) -> bool {
        false
    }

    fn copies(&self) -> Vec<Arc<dyn Remote>> {
        Vec::new()
    }
}

/// Bytes in memory as a body to upload.
#[derive(Clone, PartialEq, Eq)]
pub struct MemoryBody {
    bytes: Bytes,
    crc64: u64,
}

impl MemoryBody {
    /// These bytes and their CRC64-NVME.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let mut digest = Digest::new();
        digest.write(&bytes);
        let crc64 = digest.sum64();
        Self { bytes, crc64 }
    }

    /// These bytes, said to have this CRC64-NVME: a body that changed after it was summed.
    pub fn claiming(bytes: impl Into<Bytes>, crc64: u64) -> Self {
        Self { bytes: bytes.into(), crc64 }
    }
}

impl fmt::Debug for MemoryBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryBody({} bytes)", self.bytes.len())
    }
}

impl BlobBody for MemoryBody {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn crc64(&self) -> u64 {
        self.crc64
    }

    fn read(&self, span: ByteSpan) -> io::Result<Bytes> {
        match span.end() {
            Some(end) if end <= self.len() => Ok(self.bytes.slice(span.offset as usize..end as usize)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
