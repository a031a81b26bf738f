//! MinIO through `minio`, one attempt at a time.
//!
//! What the library lacks is made good here and in [`Patient`](crate::patient::Patient). It has no timeouts, retries or
//! credential chain: those are ours. It turns a 409 without a body into "no such bucket", loses the status of other errors
//! and calls a 200 with an error document a success: a hook writes the status down, and what completes an upload is looked
//! at afterwards. It makes unescaped lists of keys to delete: keys are deleted one by one. Building a client takes a tenth
//! of a second: one is kept for each server, runtime and identity.

use crate::credentials::Chain;
use crate::failure::{Failure, code_and_message, of_s3, short};
use crate::raw::{Fetched, Headed, Listed, Page, RawRemote, Run, Seen, crc64_base64, note, witnessed};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{Extensions, HeaderMap, Method};
use littoral_ports::RemoteError;
use minio::s3::builders::{CompleteMultipartUpload, CreateMultipartUpload, ListObjects};
use minio::s3::client::hooks::RequestHooks;
use minio::s3::client::{ConnectionPoolConfig, MinioClient, MinioClientBuilder};
use minio::s3::creds::{Credentials, Provider};
use minio::s3::error::{Error, S3ServerError, ValidationErr};
use minio::s3::http::{BaseUrl, Url};
use minio::s3::multimap_ext::{Multimap, MultimapExt};
use minio::s3::response_traits::HasS3Fields;
use minio::s3::segmented_bytes::SegmentedBytes;
use minio::s3::types::{BucketName, ETag, ObjectKey, PartInfo, Region, S3Api, S3Request, ToStream, UploadId};
use minio::s3::utils::ChecksumAlgorithm;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

const DEFAULT_REGION: &str = "us-east-1";
const CRC64_HEADER: &str = "x-amz-checksum-crc64nvme";
/// Servers close idle connections; a request that meets such a close has an unknown outcome.
const POOL_IDLE: Duration = Duration::from_secs(15);
const POOL_SIZE: usize = 64;
/// Room made at once for an answer.
const BODY_ROOM: usize = 128 << 20;

/// One bucket.
pub(crate) struct Minio {
    shared: Arc<Shared>,
    bucket: BucketName,
    region: Region,
    /// A body of which nothing comes for so long has stalled.
    stalled: Duration,
}

/// A client and where it looks for keys.
struct Shared {
    client: MinioClient,
    held: Arc<Held>,
    chain: Arc<Chain>,
}

/// The keys of the moment: the library asks for them without waiting, the chain may have to wait.
#[derive(Default)]
struct Held(Mutex<Option<Credentials>>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

/// What the library holds of [`Held`].
#[derive(Debug)]
struct Holder(Arc<Held>);

impl Provider for Holder {
    fn fetch(&self) -> Credentials {
        let held = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Never empty: every request puts keys here before it is made.
        let none = || Credentials { access_key: String::new(), secret_key: String::new(), session_token: None };
        held.clone().unwrap_or_else(none)
    }
}

/// One server as one identity, on one runtime of one process: a pool of connections belongs to the runtime it was made on,
/// and a forked child has none.
type ClientKey = (String, u64, Option<String>, u32);

fn shared(base: &str, chain: Arc<Chain>) -> Result<Arc<Shared>, RemoteError> {
    static CLIENTS: Mutex<BTreeMap<ClientKey, Weak<Shared>>> = Mutex::new(BTreeMap::new());
    let runtime = tokio::runtime::Handle::try_current().ok().map(|handle| handle.id().to_string());
    let key = (base.to_owned(), chain.identity(), runtime, std::process::id());
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = clients.get(&key).and_then(Weak::upgrade) {
        return Ok(shared);
    }
    let told = |error: String| RemoteError::Settings(format!("{base}: {}", short(&error)));
    let url: BaseUrl = base.parse().map_err(|error: ValidationErr| told(error.to_string()))?;
    let held = Arc::<Held>::default();
    let pool = ConnectionPoolConfig::default().max_idle_per_host(POOL_SIZE).idle_timeout(POOL_IDLE);
    let client = MinioClientBuilder::new(url)
        .provider(Some(Holder(Arc::clone(&held))))
        .hook(Arc::new(Attentive))
        .connection_pool_config(pool)
        .build()
        .map_err(|error| told(error.to_string()))?;
    let shared = Arc::new(Shared { client, held, chain });
    clients.retain(|_, client| client.strong_count() > 0);
    clients.insert(key, Arc::downgrade(&shared));
    Ok(shared)
}

impl Minio {
    pub(crate) fn new(
        tls: bool,
        host: &str,
        bucket: &str,
        region: Option<&str>,
        chain: Arc<Chain>,
        stalled_ms: u64,
    ) -> Result<Self, RemoteError> {
        let base = format!("{}://{host}", if tls { "https" } else { "http" });
        let told = |error: ValidationErr| RemoteError::Settings(format!("{bucket}: {}", short(&error.to_string())));
        let bucket = BucketName::new(bucket).map_err(told)?;
        let region = Region::new(region.unwrap_or(DEFAULT_REGION)).map_err(told)?;
        Ok(Self { shared: shared(&base, chain)?, bucket, region, stalled: Duration::from_millis(stalled_ms) })
    }

    /// Runs one request with the keys of the moment; a failure is what the wire said, not what the library made of it.
    async fn once<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
        let keys = self.shared.chain.get().await.map_err(|error| Failure::Denied(error.to_string()))?;
        let keys = Credentials {
            access_key: keys.key_id.clone(),
            secret_key: keys.secret_key.clone(),
            session_token: keys.token.clone(),
        };
        *self.shared.held.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys);
        let (answer, mut seen) = witnessed(request).await;
        answer.map_err(|error| {
            complete(&mut seen, &error);
            of_s3(&seen, &words(&error))
        })
    }

    fn request(&self, method: Method, key: &str, query: Multimap, headers: Multimap) -> Result<S3Request, Failure> {
        self.request_with(method, key, query, headers, None)
    }

    fn request_with(
        &self,
        method: Method,
        key: &str,
        query: Multimap,
        headers: Multimap,
        body: Option<Bytes>,
    ) -> Result<S3Request, Failure> {
        Ok(S3Request::builder()
            .client(self.shared.client.clone())
            .method(method)
            .region(Some(self.region.clone()))
            .bucket(self.bucket.clone())
            .object(place(key)?)
            .query_params(query)
            .headers(headers)
            .body(body.map(|body| Arc::new(SegmentedBytes::from(body))))
            .build())
    }

    async fn body(&self, mut answer: reqwest::Response) -> Result<Bytes, Failure> {
        let len = answer.content_length().and_then(|len| usize::try_from(len).ok()).unwrap_or_default();
        // A length is the store's word; room for more than a large blob is made only as bytes come.
        let mut bytes = BytesMut::with_capacity(len.min(BODY_ROOM));
        loop {
            match tokio::time::timeout(self.stalled, answer.chunk()).await {
                Ok(Ok(Some(chunk))) => bytes.extend_from_slice(&chunk),
                Ok(Ok(None)) => return Ok(bytes.freeze()),
                Ok(Err(error)) => return Err(Failure::Lost(short(&error.without_url().to_string()))),
                Err(_) => return Err(Failure::Lost(format!("nothing more came for {:?}", self.stalled))),
            }
        }
    }

    async fn send(&self, mut request: S3Request) -> Result<reqwest::Response, Failure> {
        self.once(request.execute()).await
    }
}

impl fmt::Debug for Minio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Minio({})", self.bucket)
    }
}

fn place(key: &str) -> Result<ObjectKey, Failure> {
    ObjectKey::new(key).map_err(|error| Failure::Settings(short(&error.to_string())))
}

fn misread(what: &str) -> Failure {
    Failure::Lost(format!("an answer without {what}"))
}

/// The library's words, with the cause that it leaves out.
fn words(error: &Error) -> String {
    match error {
        Error::Validation(cause) => short(&cause.to_string()),
        error => short(&error.to_string()),
    }
}

/// Adds what only the library's error tells: the code and message of a document that the library has read.
fn complete(seen: &mut Seen, error: &Error) {
    if let Error::S3Server(S3ServerError::S3Error(answer)) = error {
        // Without a body the library makes a code up.
        if seen.code.take().is_some() {
            seen.code = Some(answer.code().to_string());
            seen.message = answer.message().clone();
        }
    } else {
        seen.code = None;
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    header(headers, name)?.parse().ok()
}

/// `bytes FIRST-LAST/WHOLE`: the first byte's place and the whole's size.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let text = header(headers, "content-range")?;
    let (run, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = run.split_once('-')?;
    Some((first.parse().ok()?, whole.parse().ok()?))
}

#[async_trait]
impl RawRemote for Minio {
    async fn get(&self, key: &str, run: Run) -> Result<Fetched, Failure> {
        let mut headers = Multimap::new();
        match run {
            Run::Whole => {}
            Run::Span(span) => {
                let last = span.end().and_then(|end| end.checked_sub(1)).ok_or(Failure::OutOfRange)?;
                headers.add("Range", format!("bytes={}-{last}", span.offset));
            }
            Run::Suffix(len) => headers.add("Range", format!("bytes=-{len}")),
        }
        let answer = self.send(self.request(Method::GET, key, Multimap::new(), headers)?).await?;
        let partial = answer.status().as_u16() == 206;
        let range = content_range(answer.headers());
        let bytes = self.body(answer).await?;
        if !partial {
            // All of it, asked for or not.
            let whole = bytes.len() as u64;
            let bytes = match run {
                Run::Whole => bytes,
                Run::Suffix(len) => bytes.slice(whole.saturating_sub(len) as usize..),
                Run::Span(span) => {
                    let end = span.end().filter(|end| *end <= whole).ok_or(Failure::OutOfRange)?;
                    bytes.slice(span.offset as usize..end as usize)
                }
            };
            return Ok(Fetched { bytes, whole });
        }
        let (first, whole) = range.ok_or_else(|| misread("a content range"))?;
        let due = match run {
            Run::Whole => 0,
            Run::Span(span) => span.offset,
            Run::Suffix(len) => whole.saturating_sub(len),
        };
        if first != due {
            return Err(misread("the range that was asked for"));
        }
        Ok(Fetched { bytes, whole })
    }

    async fn head(&self, key: &str) -> Result<Headed, Failure> {
        let mut headers = Multimap::new();
        headers.add("x-amz-checksum-mode", "ENABLED");
        let answer = self.send(self.request(Method::HEAD, key, Multimap::new(), headers)?).await?;
        let len = number(answer.headers(), "content-length").ok_or_else(|| misread("a length"))?;
        // A sum of sums, as some stores make for parts, says nothing of the whole.
        let crc64 = header(answer.headers(), CRC64_HEADER).filter(|sum| !sum.contains('-'));
        Ok(Headed { len, crc64 })
    }

    async fn put(&self, key: &str, bytes: Bytes, crc64: u64, new: bool) -> Result<(), Failure> {
        let mut headers = Multimap::new();
        headers.add(CRC64_HEADER, crc64_base64(crc64));
        if new {
            headers.add("If-None-Match", "*");
        }
        let answer = self.send(self.request_with(Method::PUT, key, Multimap::new(), headers, Some(bytes))?).await?;
        no_error_document(&self.body(answer).await?)
    }

    async fn list(&self, prefix: &str, after: Option<&str>, next: Option<&str>, max: usize) -> Result<Page, Failure> {
        let list = ListObjects::builder()
            .client(self.shared.client.clone())
            .region(Some(self.region.clone()))
            .bucket(self.bucket.clone())
            .recursive(true)
            .prefix(Some(prefix.to_owned()).filter(|prefix| !prefix.is_empty()))
            .start_after(after.map(str::to_owned))
            .continuation_token(next.map(str::to_owned))
            .max_keys(Some(u16::try_from(max).unwrap_or(1000)))
            .build();
        // The stream would go on by itself; its first answer is one request.
        let first = self.once(async { list.to_stream().await.next().await.transpose() }).await?;
        let answer = first.ok_or_else(|| misread("a listing"))?;
        let objects = answer.contents.into_iter().filter(|entry| !entry.is_prefix).map(|entry| Listed {
            key: entry.name,
            len: entry.size.unwrap_or_default(),
            modified_ms: entry
                .last_modified
                .and_then(|at| u64::try_from(at.timestamp_millis()).ok())
                .unwrap_or_default(),
        });
        let next = answer.next_continuation_token.filter(|_| answer.is_truncated);
        if answer.is_truncated && next.is_none() {
            return Err(misread("the token that a listing goes on with"));
        }
        Ok(Page { objects: objects.collect(), next })
    }

    async fn delete(&self, key: &str) -> Result<(), Failure> {
        self.send(self.request(Method::DELETE, key, Multimap::new(), Multimap::new())?).await?;
        Ok(())
    }

    async fn begin_parts(&self, key: &str) -> Result<String, Failure> {
        let begin = CreateMultipartUpload::builder()
            .client(self.shared.client.clone())
            .region(Some(self.region.clone()))
            .bucket(self.bucket.clone())
            .object(place(key)?)
            .checksum_algorithm(Some(ChecksumAlgorithm::CRC64NVME))
            .build();
        let answer = self.once(begin.send()).await?;
        let upload = answer.upload_id().await.map_err(|_| misread("an upload's name"))?;
        Some(upload.to_string()).filter(|upload| !upload.is_empty()).ok_or_else(|| misread("an upload's name"))
    }

    async fn put_part(
        &self,
        key: &str,
        upload: &str,
        number: usize,
        bytes: Bytes,
        crc64: u64,
    ) -> Result<String, Failure> {
        let mut query = Multimap::new();
        query.add("uploadId", upload);
        query.add("partNumber", (number + 1).to_string());
        let mut headers = Multimap::new();
        let sum = crc64_base64(crc64);
        headers.add(CRC64_HEADER, sum.as_str());
        let answer = self.send(self.request_with(Method::PUT, key, query, headers, Some(bytes))?).await?;
        let tag = header(answer.headers(), "etag").ok_or_else(|| misread("a part's tag"))?;
        // Only a store that says the sum back can put it to use.
        let kept = header(answer.headers(), CRC64_HEADER).is_some_and(|said| said == sum);
        Ok(format!("{} {}", tag.trim_matches('"'), if kept { sum.as_str() } else { "" }))
    }

    async fn complete_parts(&self, key: &str, upload: &str, parts: &[String]) -> Result<(), Failure> {
        let part = |(number, told): (usize, &String)| {
            let (tag, sum) = told.split_once(' ').unwrap_or((told, ""));
            let number =
                u16::try_from(number + 1).map_err(|_| Failure::Settings("more than 65535 parts".to_owned()))?;
            let etag = ETag::new(tag).map_err(|_| misread("a part's tag"))?;
            let checksum = Some((ChecksumAlgorithm::CRC64NVME, sum.to_owned())).filter(|(_, sum)| !sum.is_empty());
            Ok(PartInfo { number, etag, size: 0, checksum })
        };
        let complete = CompleteMultipartUpload::builder()
            .client(self.shared.client.clone())
            .region(Some(self.region.clone()))
            .bucket(self.bucket.clone())
            .object(place(key)?)
            .upload_id(UploadId::new(upload).map_err(|_| misread("an upload's name"))?)
            .parts(parts.iter().enumerate().map(part).collect::<Result<Vec<_>, Failure>>()?)
            .build();
        let answer = self.once(complete.send()).await?;
        no_error_document(answer.body())
    }

    async fn abort_parts(&self, key: &str, upload: &str) -> Result<(), Failure> {
        let mut query = Multimap::new();
        query.add("uploadId", upload);
        self.send(self.request(Method::DELETE, key, query, Multimap::new())?).await?;
        Ok(())
    }

    fn scrub(&self, text: String) -> String {
        self.shared.chain.scrub(text)
    }

    fn whose_keys(&self) -> String {
        self.shared.chain.whose()
    }
}

/// A 200 that carries an error document is a failure of which nobody knows what it left behind.
fn no_error_document(document: &[u8]) -> Result<(), Failure> {
    match code_and_message(document) {
        (None, None) => Ok(()),
        (code, message) => {
            let said = [code, message].into_iter().flatten().collect::<Vec<_>>().join(" ");
            Err(Failure::Lost(format!("success with an error inside: {said}")))
        }
    }
}

/// Writes down what the library's errors lose.
#[derive(Debug)]
struct Attentive;

#[async_trait]
impl RequestHooks for Attentive {
    fn name(&self) -> &'static str {
        "littoral"
    }

    async fn before_signing_mut(
        &self,
        _: &Method,
        _: &mut Url,
        _: &str,
        _: &mut Multimap,
        _: &Multimap,
        _: Option<&BucketName>,
        _: Option<&ObjectKey>,
        _: Option<&SegmentedBytes>,
        _: &mut Extensions,
    ) -> Result<(), Error> {
        note(|seen| seen.started = true);
        Ok(())
    }

    async fn after_execute(
        &self,
        method: &Method,
        _: &Url,
        _: &str,
        _: &Multimap,
        _: &Multimap,
        _: Option<&BucketName>,
        _: Option<&ObjectKey>,
        answer: &Result<reqwest::Response, reqwest::Error>,
        _: &mut Extensions,
    ) {
        note(|seen| match answer {
            Ok(answer) => {
                seen.status = Some(answer.status().as_u16());
                seen.region = header(answer.headers(), "x-amz-bucket-region");
                seen.retry_after = header(answer.headers(), "retry-after");
                // Whether there is a document to take a code from: an empty one stands for it.
                let document = *method != Method::HEAD && answer.content_length() != Some(0);
                seen.code = Some(String::new()).filter(|_| document && !answer.status().is_success());
            }
            Err(error) => {
                let why = cause(error);
                if error.is_connect() { seen.not_sent = Some(why) } else { seen.broken = Some(why) }
            }
        });
    }
}

/// The last cause says most.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    short(&last.to_string())
}
