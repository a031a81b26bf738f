//! What a user may say about a remote besides its URL, and what the machine says.

use littoral_types::limits;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// How a bucket is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// The bucket in the path: `https://host/bucket/key`.
    Path,
    /// The bucket in the host's name: `https://bucket.host/key`.
    Virtual,
}

impl FromStr for Addressing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "path" => Ok(Addressing::Path),
            "virtual" => Ok(Addressing::Virtual),
            _ => Err(format!("addressing={text}: write addressing=path or addressing=virtual")),
        }
    }
}

/// What a user may say about a remote besides its URL. What is not said is taken from the environment, then by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteSettings {
    /// Where the S3 service is, as `https://host` or `http://host:port`; by default `AWS_ENDPOINT_URL_S3`,
    /// `AWS_ENDPOINT_URL`, the AWS profile's, then AWS itself.
    pub endpoint: Option<String>,
    /// The bucket's region; by default `AWS_REGION`, `AWS_DEFAULT_REGION`, the AWS profile's, then `us-east-1`.
    pub region: Option<String>,
    /// How the bucket is addressed; by default in the host's name on AWS, in the path elsewhere.
    pub addressing: Option<Addressing>,
    /// Times and sizes.
    pub tuning: Tuning,
}

/// Times and sizes that tests make small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Tries of one request, the first included.
    pub tries_max: u32,
    /// First pause between tries; it doubles, with full jitter.
    pub retry_pause_ms: u64,
    /// Longest pause between tries.
    pub retry_pause_ms_max: u64,
    /// One request with a small answer.
    pub request_timeout_ms: u64,
    /// One request that moves up to a part's worth of bytes.
    pub transfer_timeout_ms: u64,
    /// Part size of a multipart upload. S3 takes no less than 5 MiB.
    pub part_bytes: u64,
    /// An object of more bytes than this is uploaded in parts.
    pub single_put_max: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            tries_max: limits::TRIES_MAX,
            retry_pause_ms: limits::RETRY_PAUSE_MS,
            retry_pause_ms_max: limits::RETRY_PAUSE_MS_MAX,
            request_timeout_ms: limits::REQUEST_TIMEOUT_MS,
            transfer_timeout_ms: limits::TRANSFER_TIMEOUT_MS,
            part_bytes: limits::PART_BYTES,
            single_put_max: limits::SINGLE_PUT_MAX,
        }
    }
}

/// The environment variables that a remote may look at: the process's, or a test's own.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's, as they are now: those of AWS and `HOME`, nothing else.
    pub fn of_process() -> Self {
        let ours = |name: &str| name.starts_with("AWS_") || name == "HOME" || name == "USERPROFILE";
        let texts =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self(texts.filter(|(name, _)| ours(name)).collect())
    }

    /// These and no others.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// A variable that is set to something.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All variables, for a library that reads its own.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Environment {
    // Names only: values are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
