//! Patience with a network: timeouts, few tries, and honesty about what is not known.
//!
//! What it promises over any [`RawRemote`]:
//! 1. Every attempt ends in time, and there are at most [`Tuning::tries_max`] of them, with full jitter between (so that a
//!    thousand clients that failed together do not come back together). A store that says when to come again is waited for,
//!    up to a bound.
//! 2. A `put_new` of which one attempt may have landed never says `Exists` afterwards: what is there may be ours. It says
//!    `Unknown`, and the caller reads the name back. S3's 409 is no answer at all and is tried again (rule P5).
//! 3. A blob is what its maker summed: checked while it is read, again by the store, and by its size (and sum, where the
//!    store tells one) after the parts were put together.
//! 4. Secrets that a store echoes are taken out of what it said.

use crate::counting::{Op, counted};
use crate::failure::Failure;
use crate::raw::{Fetched, Headed, RawRemote, Run, crc64_base64};
use crate::settings::Tuning;
use async_trait::async_trait;
use bytes::Bytes;
use crc64fast_nvme::Digest;
use futures::future::{Either, select};
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_ports::{BlobBody, Clock, Entropy, ObjectMeta, Remote, RemoteError};
use littoral_types::limits::{
    LIST_STEP, RETRY_AFTER_MS_MAX, SINGLE_PUT_MAX, TRANSFER_BYTES_PER_SECOND_MIN, TRANSFERS_IN_FLIGHT,
};
use littoral_types::{ByteSpan, ObjectPath};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

/// Parts in flight of one blob: with the blobs in flight themselves, memory stays at a few hundred megabytes at worst.
const PARTS_IN_FLIGHT: usize = 4;
/// How often a multipart upload is begun anew after the store forgot it.
const UPLOADS_MAX: u32 = 3;
/// Up to so many bytes an exchange is a small one.
const SMALL_BYTES: u64 = 1 << 20;
/// S3 takes so many parts and no more; parts grow rather than be more.
const PARTS_MAX: u64 = 10_000;

/// A raw store made patient: see the module.
pub(crate) struct Patient<R> {
    raw: R,
    prefix: Option<ObjectPath>,
    /// What errors call the store: its bucket.
    bucket: String,
    url: String,
    tuning: Tuning,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// Why it stopped trying.
struct GaveUp {
    failure: Failure,
    tries: u32,
    /// The first attempt that may have landed: why its answer was lost.
    lost: Option<String>,
}

impl<R: RawRemote> Patient<R> {
    pub(crate) fn new(
        raw: R,
        bucket: &str,
        prefix: Option<ObjectPath>,
        url: String,
        tuning: Tuning,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self { raw, prefix, bucket: bucket.to_owned(), url, tuning, clock, entropy }
    }

    fn key(&self, path: &str) -> String {
        match &self.prefix {
            Some(prefix) => format!("{prefix}/{path}"),
            None => path.to_owned(),
        }
    }

    fn patience_ms(&self, bytes: u64) -> u64 {
        // What is not known beforehand is no larger than this in one request.
        let at_worst = bytes.min(SINGLE_PUT_MAX) * 1000 / TRANSFER_BYTES_PER_SECOND_MIN;
        match bytes <= SMALL_BYTES {
            true => self.tuning.request_timeout_ms,
            false => self.tuning.transfer_timeout_ms.max(at_worst),
        }
    }

    /// Tries until it works, cannot work, or was tried enough.
    async fn attempt<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        timeout_ms: u64,
        mut one: impl FnMut() -> F,
    ) -> Result<T, GaveUp> {
        let mut tries = 0;
        let mut lost = None;
        loop {
            tries += 1;
            let (failure, after_ms) = match select(pin!(one()), self.clock.sleep_ms(timeout_ms)).await {
                Either::Left((Ok(answer), _)) => return Ok(answer),
                Either::Left((Err(failure), _)) => failure.and_when(),
                Either::Right(_) => (Failure::Lost(format!("no answer within {timeout_ms} ms")), None),
            };
            if failure.may_have_landed() && lost.is_none() {
                lost = Some(failure.detail());
            }
            if !failure.passes() || tries >= self.tuning.tries_max {
                return Err(GaveUp { failure, tries, lost });
            }
            let doubled = self.tuning.retry_pause_ms.saturating_mul(1 << (tries - 1).min(20));
            let longest = doubled.min(self.tuning.retry_pause_ms_max);
            tracing::debug!(tries, failure = %self.raw.scrub(failure.detail()), "trying again");
            let asked = after_ms.unwrap_or_default().min(RETRY_AFTER_MS_MAX);
            self.clock.sleep_ms(asked + self.entropy.below(longest + 1)).await;
        }
    }

    /// What the caller of anything but a `put_new` is told.
    fn told(&self, what: &str, gave_up: GaveUp) -> RemoteError {
        let GaveUp { failure, tries, .. } = gave_up;
        let what = what.to_owned();
        let detail = self.raw.scrub(failure.detail());
        match failure {
            Failure::NotSent(_) | Failure::Lost(_) | Failure::Conflict(_) | Failure::Later { .. } => {
                RemoteError::Unavailable { what, tries, detail }
            }
            Failure::Throttled(_) | Failure::Overloaded(_) => RemoteError::Throttled { what, tries, detail },
            Failure::Keys(_) => {
                RemoteError::Denied { what: self.named(&what), detail: format!("{detail}; {}", self.raw.whose_keys()) }
            }
            Failure::Damaged(_) => RemoteError::Corrupt { path: what, detail },
            Failure::OutOfRange => RemoteError::Corrupt { path: what, detail },
            Failure::Missing => RemoteError::Missing { path: what },
            Failure::NoBucket => RemoteError::NoBucket { what: self.bucket.clone() },
            Failure::Denied(_) | Failure::NotImplemented(_) => RemoteError::Denied { what: self.named(&what), detail },
            Failure::Full(_) => RemoteError::Full { what: self.named(&what), detail },
            Failure::Settings(_) => RemoteError::Settings(format!("{}: {detail}", self.bucket)),
            // Only writes under a condition and parts are answered so.
            Failure::Taken | Failure::NoUpload => RemoteError::Unavailable { what, tries, detail },
        }
    }

    fn named(&self, what: &str) -> String {
        if what.is_empty() { self.bucket.clone() } else { format!("{}/{}", self.bucket, self.key(what)) }
    }

    async fn fetch(&self, path: &ObjectPath, run: Run) -> Result<Fetched, GaveUp> {
        let key = self.key(path.as_str());
        let expected = match run {
            Run::Whole => u64::MAX,
            Run::Span(span) => span.len,
            Run::Suffix(len) => len,
        };
        self.attempt(self.patience_ms(expected), || {
            counted(Op::Get, 0, self.fetch_once(&key, run), |fetched| fetched.bytes.len() as u64)
        })
        .await
    }

    async fn fetch_once(&self, key: &str, run: Run) -> Result<Fetched, Failure> {
        let fetched = self.raw.get(key, run).await?;
        let whole = fetched.whole;
        let right = match run {
            Run::Whole => whole,
            Run::Span(span) if span.end().is_none_or(|end| end > whole) => return Err(Failure::OutOfRange),
            Run::Span(span) => span.len,
            Run::Suffix(len) => len.min(whole),
        };
        if fetched.bytes.len() as u64 != right {
            return Err(Failure::Lost(format!("{} bytes came where {right} were due", fetched.bytes.len())));
        }
        Ok(fetched)
    }

    async fn head(&self, path: &ObjectPath) -> Result<Headed, GaveUp> {
        let key = self.key(path.as_str());
        self.attempt(self.tuning.request_timeout_ms, || counted(Op::Head, 0, self.raw.head(&key), |_| 0)).await
    }

    async fn put_in_one(&self, path: &ObjectPath, bytes: Bytes, crc64: u64, op: Op) -> Result<(), GaveUp> {
        let key = self.key(path.as_str());
        let len = bytes.len() as u64;
        self.attempt(self.patience_ms(len), || {
            counted(op, len, self.raw.put(&key, bytes.clone(), crc64, op == Op::PutNew), |()| 0)
        })
        .await
    }

    async fn upload_in_parts(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
        let told = |gave_up| self.told(path.as_str(), gave_up);
        let key = self.key(path.as_str());
        for begun in 1.. {
            let upload = self
                .attempt(self.tuning.request_timeout_ms, || {
                    counted(Op::Multipart, 0, self.raw.begin_parts(&key), |_| 0)
                })
                .await
                .map_err(told)?;
            let done = self.send_parts(path, &key, &upload, body).await;
            let done = match done {
                Ok(()) => return Ok(()),
                Err(done) => done,
            };
            // Parts that stay are paid for. That the abort fails changes nothing of what the caller is told.
            let aborted = counted(Op::Multipart, 0, self.raw.abort_parts(&key, &upload), |()| 0);
            let _ = select(pin!(aborted), self.clock.sleep_ms(self.tuning.request_timeout_ms)).await;
            match done {
                PartsError::Forgotten if begun < UPLOADS_MAX => tracing::debug!(%path, "the store forgot an upload"),
                PartsError::Forgotten => {
                    let detail = "the store forgets multipart uploads before they are complete".to_owned();
                    return Err(RemoteError::Unavailable { what: path.to_string(), tries: begun, detail });
                }
                PartsError::Told(error) => return Err(error),
            }
        }
        // The loop ends by returning: it begins at most UPLOADS_MAX uploads.
        Ok(())
    }

    async fn send_parts(
        &self,
        path: &ObjectPath,
        key: &str,
        upload: &str,
        body: &dyn BlobBody,
    ) -> Result<(), PartsError> {
        let told = |gave_up: GaveUp| match gave_up.failure {
            Failure::NoUpload => PartsError::Forgotten,
            _ => PartsError::Told(self.told(path.as_str(), gave_up)),
        };
        let len = body.len();
        let part_bytes = self.tuning.part_bytes.max(1).max(len.div_ceil(PARTS_MAX));
        let mut digest = Digest::new();
        let mut reading = BodyReader { path, body, part_bytes, digest: &mut digest };
        let parts: Vec<String> = stream::iter(0..len.div_ceil(part_bytes) as usize)
            .map(|number| {
                let read = reading.part(number as u64);
                async move {
                    let (bytes, crc64) = read.map_err(PartsError::Told)?;
                    let len = bytes.len() as u64;
                    self.attempt(self.tuning.transfer_timeout_ms, || {
                        counted(Op::Part, len, self.raw.put_part(key, upload, number, bytes.clone(), crc64), |_| 0)
                    })
                    .await
                    .map_err(told)
                }
            })
            .buffered(PARTS_IN_FLIGHT)
            .try_collect()
            .await?;
        // Before anything becomes visible: the whole is what its maker summed.
        if digest.sum64() != body.crc64() {
            return Err(PartsError::Told(RemoteError::changed_before_upload(path)));
        }
        let completed = self
            .attempt(self.tuning.transfer_timeout_ms, || {
                counted(Op::Multipart, 0, self.raw.complete_parts(key, upload, &parts), |()| 0)
            })
            .await;
        let completed = match completed {
            // The answer was lost and the object may be whole: looking settles it.
            Err(gave_up) if gave_up.lost.is_none() => return Err(told(gave_up)),
            completed => completed,
        };
        match (self.head(path).await, completed) {
            (Ok(headed), completed) => {
                let whole = headed.len == len && headed.crc64.is_none_or(|crc64| crc64 == crc64_base64(body.crc64()));
                match (whole, completed) {
                    (true, _) => Ok(()),
                    (false, Err(gave_up)) => Err(told(gave_up)),
                    (false, Ok(())) => {
                        let detail =
                            format!("{len} bytes were uploaded in parts, the store put together {}", headed.len);
                        Err(PartsError::Told(RemoteError::Corrupt { path: path.to_string(), detail }))
                    }
                }
            }
            (Err(_), Err(gave_up)) | (Err(gave_up), Ok(())) => Err(told(gave_up)),
        }
    }
}

enum PartsError {
    /// The store does not know the upload any more: begin anew.
    Forgotten,
    Told(RemoteError),
}

/// Reads a body part by part, in order, and sums it on the way.
struct BodyReader<'a> {
    path: &'a ObjectPath,
    body: &'a dyn BlobBody,
    part_bytes: u64,
    digest: &'a mut Digest,
}

impl BodyReader<'_> {
    fn part(&mut self, number: u64) -> Result<(Bytes, u64), RemoteError> {
        let offset = number * self.part_bytes;
        let bytes = read_exactly(self.path, self.body, offset, self.part_bytes.min(self.body.len() - offset))?;
        self.digest.write(&bytes);
        let crc64 = crc64(&bytes);
        Ok((bytes, crc64))
    }
}

fn read_exactly(path: &ObjectPath, body: &dyn BlobBody, offset: u64, len: u64) -> Result<Bytes, RemoteError> {
    let bytes = body.read(ByteSpan { offset, len }).map_err(|error| RemoteError::unreadable(path, &error))?;
    if bytes.len() as u64 != len {
        return Err(RemoteError::unreadable(path, &std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(bytes)
}

fn crc64(bytes: &[u8]) -> u64 {
    let mut digest = Digest::new();
    digest.write(bytes);
    digest.sum64()
}

#[async_trait]
impl<R: RawRemote> Remote for Patient<R> {
    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        let fetched = self.fetch(path, Run::Whole).await;
        fetched.map(|fetched| fetched.bytes).map_err(|gave_up| self.told(path.as_str(), gave_up))
    }

    async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
        if span.len == 0 || span.end().is_none() {
            // No request can ask for no bytes; whether they are within the object is still to be said.
            let whole = self.size(path).await?;
            let within = span.end().is_some_and(|end| end <= whole);
            return if within { Ok(Bytes::new()) } else { Err(RemoteError::beyond_the_end(path, span, whole)) };
        }
        match self.fetch(path, Run::Span(span)).await {
            Ok(fetched) => Ok(fetched.bytes),
            Err(GaveUp { failure: Failure::OutOfRange, .. }) => {
                Err(RemoteError::beyond_the_end(path, span, self.size(path).await?))
            }
            Err(gave_up) => Err(self.told(path.as_str(), gave_up)),
        }
    }

    async fn get_suffix(&self, path: &ObjectPath, len: u64) -> Result<(Bytes, u64), RemoteError> {
        if len == 0 {
            return Ok((Bytes::new(), self.size(path).await?));
        }
        match self.fetch(path, Run::Suffix(len)).await {
            Ok(fetched) => Ok((fetched.bytes, fetched.whole)),
            // An empty object has no last byte; S3 calls that out of range.
            Err(GaveUp { failure: Failure::OutOfRange, .. }) => match self.size(path).await? {
                0 => Ok((Bytes::new(), 0)),
                whole => {
                    let detail = format!("its last {len} bytes were refused, it has {whole}");
                    Err(RemoteError::Corrupt { path: path.to_string(), detail })
                }
            },
            Err(gave_up) => Err(self.told(path.as_str(), gave_up)),
        }
    }

    async fn size(&self, path: &ObjectPath) -> Result<u64, RemoteError> {
        let headed = self.head(path).await;
        headed.map(|headed| headed.len).map_err(|gave_up| self.told(path.as_str(), gave_up))
    }

    async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        let crc64 = crc64(&bytes);
        self.put_in_one(path, bytes, crc64, Op::Put).await.map_err(|gave_up| self.told(path.as_str(), gave_up))
    }

    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        let crc64 = crc64(&bytes);
        let Err(gave_up) = self.put_in_one(path, bytes, crc64, Op::PutNew).await else { return Ok(()) };
        if let Some(lost) = gave_up.lost {
            // One attempt may have landed. Whatever came after it (a 412 above all) may speak of our own object.
            let last = match gave_up.failure {
                Failure::Lost(_) | Failure::Overloaded(_) => String::new(),
                failure => format!(", then {}", failure.detail()),
            };
            let detail = self.raw.scrub(format!("{lost}{last}, {} tries", gave_up.tries));
            return Err(RemoteError::Unknown { path: path.clone(), detail });
        }
        match gave_up.failure {
            Failure::Taken => Err(RemoteError::Exists { path: path.clone() }),
            Failure::NotImplemented(detail) => {
                Err(RemoteError::NotFencing { what: self.url.clone(), detail: self.raw.scrub(detail) })
            }
            _ => Err(self.told(path.as_str(), gave_up)),
        }
    }

    async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
        if body.len() > self.tuning.single_put_max {
            return self.upload_in_parts(path, body).await;
        }
        let bytes = read_exactly(path, body, 0, body.len())?;
        if crc64(&bytes) != body.crc64() {
            return Err(RemoteError::changed_before_upload(path));
        }
        let done = self.put_in_one(path, bytes, body.crc64(), Op::Upload).await;
        done.map_err(|gave_up| self.told(path.as_str(), gave_up))
    }

    async fn list(&self, folder: &str, after: Option<&ObjectPath>, max: usize) -> Result<Vec<ObjectMeta>, RemoteError> {
        let prefix = match (folder, &self.prefix) {
            ("", None) => String::new(),
            ("", Some(prefix)) => format!("{prefix}/"),
            (folder, _) => format!("{}/", self.key(folder)),
        };
        let above = self.prefix.as_ref().map(|prefix| prefix.as_str().len() + 1).unwrap_or_default();
        let after = after.map(|after| self.key(after.as_str()));
        let mut listed: Vec<ObjectMeta> = Vec::new();
        let mut next = None;
        while listed.len() < max {
            let step = (max - listed.len()).min(LIST_STEP);
            let page = self
                .attempt(self.tuning.request_timeout_ms, || {
                    counted(Op::List, 0, self.raw.list(&prefix, after.as_deref(), next.as_deref(), step), |_| 0)
                })
                .await
                .map_err(|gave_up| self.told(folder, gave_up))?;
            for object in page.objects {
                // A store's word is not taken for what belongs to the folder and comes after `after`, in either order.
                let later = |after: &String| object.key > *after || object.key.split('/').gt(after.split('/'));
                let ours = object.key.starts_with(&prefix) && after.as_ref().is_none_or(later);
                if let Some(path) = object.key.get(above..).filter(|_| ours).and_then(ObjectPath::parse) {
                    listed.push(ObjectMeta { path, len: object.len, modified_ms: object.modified_ms });
                }
            }
            if page.next.is_none() {
                break;
            }
            if page.next == next {
                let detail = "its listing goes round in circles".to_owned();
                return Err(RemoteError::Unavailable { what: self.named(folder), tries: 1, detail });
            }
            next = page.next;
        }
        listed.truncate(max);
        Ok(listed)
    }

    async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
        // One by one: every store knows how, and none has to parse a list of keys.
        stream::iter(paths.to_vec())
            .map(|path: ObjectPath| async move {
                let key = self.key(path.as_str());
                let deleted = self
                    .attempt(self.tuning.request_timeout_ms, || counted(Op::Delete, 0, self.raw.delete(&key), |()| 0));
                match deleted.await {
                    Ok(()) | Err(GaveUp { failure: Failure::Missing, .. }) => Ok(()),
                    Err(gave_up) => Err(self.told(path.as_str(), gave_up)),
                }
            })
            .buffer_unordered(TRANSFERS_IN_FLIGHT)
            .try_collect()
            .await
    }

    fn url(&self) -> String {
        self.url.clone()
    }

    fn distrust(&self, _path: &ObjectPath, _wrong_before: usize) -> bool {
        false
    }

    fn copies(&self) -> Vec<Arc<dyn Remote>> {
        Vec::new()
    }
}

impl<R: RawRemote> fmt::Debug for Patient<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.url)
    }
}
