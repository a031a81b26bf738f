//! S3 and what speaks like it, through `object_store`, one attempt at a time.
//!
//! `object_store` signs, sends and parses. Its retries are off, so that ours are the only ones and know what was tried; its
//! errors are not asked (it calls a 409 and a 412 the same): the transport writes down what the store answered.

use crate::credentials::{Chain, ProfileHints};
use crate::failure::{Failure, code_and_message, of_s3, short};
use crate::raw::{Fetched, Headed, Listed, Page, RawRemote, Run, Seen, note, witnessed};
use crate::settings::{Addressing, Environment, RemoteSettings};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_ports::RemoteError;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredentialProvider, Checksum, S3ConditionalPut};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    ClientOptions, GetOptions, GetRange, HeaderMap, HeaderValue, ObjectStore, PutMode, PutOptions, PutPayload,
    RetryConfig,
};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// S3 closes idle connections after some twenty seconds; a request that meets such a close has an unknown outcome.
const POOL_IDLE: Duration = Duration::from_secs(15);
/// Idle connections kept for a burst of parallel requests.
const POOL_SIZE: usize = 64;
const CRC64_HEADER: &str = "x-amz-checksum-crc64nvme";
const CHECKSUM_MODE: &str = "x-amz-checksum-mode";
const RETRY_AFTER_HEADER: &str = "retry-after";
const REGION_HEADER: &str = "x-amz-bucket-region";
const DEFAULT_REGION: &str = "us-east-1";

/// Where the service is and how a bucket is spelled there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) region: String,
    /// `None`: AWS itself. With the bucket in the host's name where `virtual_hosted`.
    pub(crate) endpoint: Option<String>,
    pub(crate) virtual_hosted: bool,
}

impl Site {
    pub(crate) fn find(
        bucket: &str,
        settings: &RemoteSettings,
        env: &Environment,
        hints: &ProfileHints,
    ) -> Result<Self, RemoteError> {
        let said = |setting: &Option<String>| setting.clone().filter(|text| !text.is_empty());
        let variable = |name| env.get(name).map(str::to_owned);
        let region = said(&settings.region)
            .or_else(|| variable("AWS_REGION"))
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .or_else(|| hints.region.clone())
            .unwrap_or_else(|| DEFAULT_REGION.to_owned());
        if !region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(RemoteError::Settings("region= is a plain word, as in region=eu-central-1".to_owned()));
        }
        let endpoint = said(&settings.endpoint)
            .or_else(|| variable("AWS_ENDPOINT_URL_S3"))
            .or_else(|| variable("AWS_ENDPOINT_URL"))
            .or_else(|| hints.endpoint.clone());
        let Some(endpoint) = endpoint else {
            // A dot in the bucket's name does not fit under the certificate for the host's name.
            let virtual_hosted = settings.addressing.map_or(!bucket.contains('.'), |way| way == Addressing::Virtual);
            return Ok(Self { region, endpoint: None, virtual_hosted });
        };
        let wrong = |why| {
            RemoteError::Settings(format!("endpoint= {why}, as in https://s3.example.com or http://localhost:9000"))
        };
        let (scheme, host) = endpoint.split_once("://").ok_or_else(|| wrong("begins with https:// or http://"))?;
        let host = host.trim_end_matches('/');
        if scheme != "http" && scheme != "https" {
            return Err(wrong("begins with https:// or http://"));
        }
        if host.contains('@') {
            return Err(wrong("holds no credentials"));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:/[]".contains(&b);
        if host.is_empty() || host.starts_with(['/', ':']) || !host.bytes().all(plain) {
            return Err(wrong("names a host"));
        }
        let name = host.split(['/', ':']).next().unwrap_or_default();
        let of_aws = name.ends_with(".amazonaws.com") || name.ends_with(".amazonaws.com.cn");
        let virtual_hosted = match settings.addressing {
            Some(way) => way == Addressing::Virtual,
            None => of_aws && !bucket.contains('.'),
        };
        let endpoint = if virtual_hosted && !name.starts_with(&format!("{bucket}.")) {
            format!("{scheme}://{bucket}.{host}")
        } else {
            format!("{scheme}://{host}")
        };
        Ok(Self { region, endpoint: Some(endpoint), virtual_hosted })
    }
}

/// One bucket.
pub(crate) struct S3 {
    store: AmazonS3,
    /// The same, asking for checksums with every answer: for looking at what parts became.
    checked: AmazonS3,
    chain: Arc<Chain>,
}

impl S3 {
    pub(crate) fn new(bucket: &str, site: &Site, chain: Arc<Chain>, stalled_ms: u64) -> Result<Self, RemoteError> {
        let options = ClientOptions::new()
            .with_allow_http(true)
            .with_timeout_disabled()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_pool_idle_timeout(POOL_IDLE)
            .with_pool_max_idle_per_host(POOL_SIZE);
        let told = |error: object_store::Error| {
            RemoteError::Settings(chain.scrub(format!("{bucket}: {}", short(&error.to_string()))))
        };
        // The read timeout runs from a request's first byte on: an upload would have to be done in it.
        let stalled = Duration::from_millis(stalled_ms);
        let connect = |options: &ClientOptions| ReqwestConnector::default().connect(options).map_err(told);
        let connector = Shared(Attentive {
            reading: connect(&options.clone().with_read_timeout(stalled))?,
            writing: connect(&options)?,
        });
        let build = |options: ClientOptions| {
            let mut builder = AmazonS3Builder::new()
                .with_bucket_name(bucket)
                .with_region(&site.region)
                .with_virtual_hosted_style_request(site.virtual_hosted)
                .with_credentials(Arc::clone(&chain) as AwsCredentialProvider)
                .with_client_options(options)
                .with_http_connector(connector.clone())
                .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
                .with_checksum_algorithm(Checksum::CRC64NVME)
                .with_conditional_put(S3ConditionalPut::ETagMatch)
                .with_disable_bulk_delete(true);
            if let Some(endpoint) = &site.endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            builder.build().map_err(told)
        };
        let mut headers = HeaderMap::new();
        headers.insert(CHECKSUM_MODE, HeaderValue::from_static("ENABLED"));
        let store = build(options.clone())?;
        let checked = build(options.with_default_headers(headers))?;
        Ok(Self { store, checked, chain })
    }
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store)
    }
}

/// Runs one request; a failure is what the wire said, not what the library made of it.
async fn once<T>(request: impl Future<Output = object_store::Result<T>>) -> Result<(T, Seen), Failure> {
    let (answer, seen) = witnessed(request).await;
    match answer {
        Ok(answer) => Ok((answer, seen)),
        Err(error) => Err(of_s3(&seen, &chain_of(&error))),
    }
}

/// An error and its causes on one line.
fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    short(&text)
}

fn place(key: &str) -> Result<Path, Failure> {
    Path::parse(key).map_err(|error| Failure::Settings(short(&error.to_string())))
}

#[async_trait]
impl RawRemote for S3 {
    async fn get(&self, key: &str, run: Run) -> Result<Fetched, Failure> {
        let place = place(key)?;
        let range = match run {
            Run::Whole => None,
            Run::Span(span) => Some(GetRange::Bounded(span.offset..span.end().ok_or(Failure::OutOfRange)?)),
            Run::Suffix(len) => Some(GetRange::Suffix(len)),
        };
        let wanted = GetOptions { range, ..GetOptions::default() };
        let fetch = async {
            let answer = self.store.get_opts(&place, wanted).await?;
            let whole = answer.meta.size;
            Ok(Fetched { bytes: answer.bytes().await?, whole })
        };
        Ok(once(fetch).await?.0)
    }

    async fn head(&self, key: &str) -> Result<Headed, Failure> {
        let place = place(key)?;
        let wanted = GetOptions { head: true, ..GetOptions::default() };
        let (answer, seen) = once(self.checked.get_opts(&place, wanted)).await?;
        Ok(Headed { len: answer.meta.size, crc64: seen.crc64 })
    }

    async fn put(&self, key: &str, bytes: Bytes, _: u64, new: bool) -> Result<(), Failure> {
        // The library sums the bytes itself and sends the sum along; the caller has compared its own already.
        let place = place(key)?;
        let mode = if new { PutMode::Create } else { PutMode::Overwrite };
        once(self.store.put_opts(&place, PutPayload::from_bytes(bytes), PutOptions::from(mode))).await?;
        Ok(())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, next: Option<&str>, max: usize) -> Result<Page, Failure> {
        let wanted = PaginatedListOptions {
            offset: after.map(str::to_owned),
            max_keys: Some(max),
            page_token: next.map(str::to_owned),
            ..PaginatedListOptions::default()
        };
        let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
        let (answer, _) = once(self.store.list_paginated(prefix, wanted)).await?;
        let listed = |object: object_store::ObjectMeta| Listed {
            key: object.location.to_string(),
            len: object.size,
            modified_ms: u64::try_from(object.last_modified.timestamp_millis()).unwrap_or_default(),
        };
        Ok(Page { objects: answer.result.objects.into_iter().map(listed).collect(), next: answer.page_token })
    }

    async fn delete(&self, key: &str) -> Result<(), Failure> {
        let place = place(key)?;
        let one = stream::iter([Ok(place)]).boxed();
        once(async { self.store.delete_stream(one).try_for_each(|_| async { Ok(()) }).await }).await?;
        Ok(())
    }

    async fn begin_parts(&self, key: &str) -> Result<String, Failure> {
        let place = place(key)?;
        Ok(once(self.store.create_multipart(&place)).await?.0)
    }

    async fn put_part(&self, key: &str, upload: &str, number: usize, bytes: Bytes, _: u64) -> Result<String, Failure> {
        let place = place(key)?;
        let upload = upload.to_owned();
        let sent = self.store.put_part(&place, &upload, number, PutPayload::from_bytes(bytes));
        Ok(once(sent).await?.0.content_id)
    }

    async fn complete_parts(&self, key: &str, upload: &str, parts: &[String]) -> Result<(), Failure> {
        let place = place(key)?;
        let upload = upload.to_owned();
        let parts = parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        once(self.store.complete_multipart(&place, &upload, parts)).await?;
        Ok(())
    }

    async fn abort_parts(&self, key: &str, upload: &str) -> Result<(), Failure> {
        let place = place(key)?;
        let upload = upload.to_owned();
        once(self.store.abort_multipart(&place, &upload)).await?;
        Ok(())
    }

    fn scrub(&self, text: String) -> String {
        self.chain.scrub(text)
    }

    fn whose_keys(&self) -> String {
        self.chain.whose()
    }
}

/// A transport that writes down what it sees.
#[derive(Clone, Debug)]
struct Attentive {
    /// Notices a body that stalls.
    reading: HttpClient,
    writing: HttpClient,
}

#[async_trait]
impl HttpService for Attentive {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        note(|seen| seen.started = true);
        let reads = matches!(request.method().as_str(), "GET" | "HEAD");
        let client = if reads { &self.reading } else { &self.writing };
        let answer = match client.execute(request).await {
            Ok(answer) => answer,
            Err(error) => {
                let why = chain_of(&error);
                note(|seen| match error.kind() {
                    HttpErrorKind::Connect => seen.not_sent = Some(why),
                    _ => seen.broken = Some(why),
                });
                return Err(error);
            }
        };
        let header = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
        let status = answer.status();
        note(|seen| {
            seen.status = Some(status.as_u16());
            seen.region = header(REGION_HEADER);
            seen.retry_after = header(RETRY_AFTER_HEADER);
            // A sum of sums, as some stores make for parts, says nothing of the whole.
            seen.crc64 = header(CRC64_HEADER).filter(|sum| !sum.contains('-'));
        });
        if status.is_success() {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        // A body that breaks off leaves the status, which says enough.
        let document = body.bytes().await.unwrap_or_default();
        let (code, message) = code_and_message(&document);
        note(|seen| {
            seen.code = code;
            seen.message = message;
        });
        Ok(HttpResponse::from_parts(parts, document.into()))
    }
}

/// Hands out one transport, with its connections, to both stores.
#[derive(Clone, Debug)]
struct Shared(Attentive);

impl HttpConnector for Shared {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(
        bucket: &str,
        settings: RemoteSettings,
        env: &[(&str, &str)],
        profile: (&str, &str),
    ) -> Result<Site, String> {
        let hint = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let hints = ProfileHints { region: hint(profile.0), endpoint: hint(profile.1) };
        Site::find(bucket, &settings, &Environment::from_pairs(env.iter().copied()), &hints)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn endpoint_and_region_come_from_the_settings_then_the_environment_then_the_profile() {
        let both = [
            ("AWS_ENDPOINT_URL_S3", "http://s3.env"),
            ("AWS_ENDPOINT_URL", "http://any.env"),
            ("AWS_REGION", "env-1"),
            ("AWS_DEFAULT_REGION", "env-2"),
        ];
        let profile = ("profile-1", "http://profile");
        let set =
            RemoteSettings { endpoint: Some("http://set/".into()), region: Some("set-1".into()), ..Default::default() };
        let found = site("bucket", set, &both, profile).unwrap();
        assert_eq!((found.endpoint.as_deref(), found.region.as_str()), (Some("http://set"), "set-1"));
        let found = site("bucket", RemoteSettings::default(), &both, profile).unwrap();
        assert_eq!((found.endpoint.as_deref(), found.region.as_str()), (Some("http://s3.env"), "env-1"));
        let found = site("bucket", RemoteSettings::default(), &both[1..2], profile).unwrap();
        assert_eq!((found.endpoint.as_deref(), found.region.as_str()), (Some("http://any.env"), "profile-1"));
        let found = site("bucket", RemoteSettings::default(), &both[3..], profile).unwrap();
        assert_eq!((found.endpoint.as_deref(), found.region.as_str()), (Some("http://profile"), "env-2"));
        let found = site("bucket", RemoteSettings::default(), &[], ("", "")).unwrap();
        assert_eq!(found, Site { region: "us-east-1".into(), endpoint: None, virtual_hosted: true });
    }

    #[test]
    fn buckets_are_in_the_path_except_on_aws_or_as_chosen() {
        let at = |bucket: &str, endpoint: &str, addressing| {
            let endpoint = Some(endpoint.to_owned()).filter(|text| !text.is_empty());
            let found =
                site(bucket, RemoteSettings { endpoint, addressing, ..Default::default() }, &[], ("", "")).unwrap();
            (found.endpoint.unwrap_or_default(), found.virtual_hosted)
        };
        assert_eq!(at("bucket", "http://localhost:9000", None), ("http://localhost:9000".into(), false));
        let virtually = at("bucket", "http://localhost:9000", Some(Addressing::Virtual));
        assert_eq!(virtually, ("http://bucket.localhost:9000".into(), true));
        let aws = "https://s3.eu-west-1.amazonaws.com";
        assert_eq!(at("bucket", aws, None), ("https://bucket.s3.eu-west-1.amazonaws.com".into(), true));
        assert_eq!(at("bucket", aws, Some(Addressing::Path)), (aws.into(), false));
        assert_eq!(at("my.bucket", "", None), (String::new(), false));
        assert_eq!(at("bucket", "", Some(Addressing::Path)), (String::new(), false));
    }

    #[test]
    fn a_wrong_endpoint_is_refused_without_repeating_it() {
        for (endpoint, word) in [
            ("localhost:9000", "begins with"),
            ("ftp://host", "begins with"),
            ("https://user:SECRET@host", "no credentials"),
            ("https://", "names a host"),
            ("https://host?key=SECRET", "names a host"),
        ] {
            let set = RemoteSettings { endpoint: Some(endpoint.into()), ..Default::default() };
            let why = site("bucket", set, &[], ("", "")).unwrap_err();
            assert!(why.contains(word) && !why.contains("SECRET"), "{endpoint}: {why}");
        }
    }
}
