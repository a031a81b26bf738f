//! From a URL to a remote: the one table of schemes.

use crate::credentials::Chain;
use crate::directory::Directory;
use crate::patient::Patient;
use crate::s3::{S3, Site};
use crate::settings::{Environment, RemoteSettings};
use crate::url::{self, Place};
use littoral_ports::{Clock, Entropy, MemoryRemote, Remote, RemoteError};
use littoral_types::ObjectPath;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The remote that a URL names: `s3://bucket/prefix`, `minio://host:9000/bucket/prefix`, `minio+https://host/bucket/prefix`,
/// `file:///folder`, or `mem://name` (in this process alone, for tests). Nothing is asked of it yet.
pub fn open(
    url: &str,
    settings: &RemoteSettings,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Arc<dyn Remote>, RemoteError> {
    open_in(url, settings, &Environment::of_process(), clock, entropy)
}

/// [`open`] with an environment that is not the process's: for tests of several identities in one process.
pub fn open_in(
    url: &str,
    settings: &RemoteSettings,
    env: &Environment,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Arc<dyn Remote>, RemoteError> {
    match url::parse(url)? {
        Place::Directory { root } => Ok(Arc::new(Directory::new(&root, clock, entropy))),
        Place::Memory { name } => Ok(memory(&name)),
        Place::S3 { bucket, prefix } => {
            let (chain, hints) = Chain::resolve(env, settings.region.as_deref().or(env.get("AWS_REGION")))?;
            let site = Site::find(&bucket, settings, env, &hints)?;
            let raw = S3::new(&bucket, &site, Arc::new(chain), settings.tuning.request_timeout_ms)?;
            let url = spelled(&format!("s3://{bucket}"), prefix.as_ref());
            Ok(Arc::new(Patient::new(raw, &bucket, prefix, url, settings.tuning, clock, entropy)))
        }
        #[cfg(feature = "minio")]
        Place::Minio { tls, host, bucket, prefix } => {
            let region = settings.region.as_deref().or(env.get("AWS_REGION"));
            let (chain, hints) = Chain::resolve(env, region)?;
            let region = region.map(str::to_owned).or(hints.region);
            let stalled_ms = settings.tuning.request_timeout_ms;
            let raw = crate::minio::Minio::new(tls, &host, &bucket, region.as_deref(), Arc::new(chain), stalled_ms)?;
            let scheme = if tls { "minio+https" } else { "minio" };
            let url = spelled(&format!("{scheme}://{host}/{bucket}"), prefix.as_ref());
            Ok(Arc::new(Patient::new(raw, &bucket, prefix, url, settings.tuning, clock, entropy)))
        }
        #[cfg(not(feature = "minio"))]
        Place::Minio { host, bucket, .. } => Err(RemoteError::Settings(format!(
            "this littoral was built without the feature minio; s3://{bucket} with endpoint=http://{host} speaks to MinIO too"
        ))),
    }
}

/// How a remote spells its own URL, or why a text is none. Asks for no credentials, and touches nothing.
pub fn spell(url: &str) -> Result<String, RemoteError> {
    Ok(match url::parse(url)? {
        Place::Directory { root } => url::of_directory(&root).unwrap_or_else(|| url.to_owned()),
        Place::Memory { name } => format!("mem://{name}"),
        Place::S3 { bucket, prefix } => spelled(&format!("s3://{bucket}"), prefix.as_ref()),
        Place::Minio { tls, host, bucket, prefix } => {
            let scheme = if tls { "minio+https" } else { "minio" };
            spelled(&format!("{scheme}://{host}/{bucket}"), prefix.as_ref())
        }
    })
}

fn spelled(base: &str, prefix: Option<&ObjectPath>) -> String {
    match prefix {
        Some(prefix) => format!("{base}/{prefix}"),
        None => base.to_owned(),
    }
}

/// Stores in memory live as long as the process, so that what one handle wrote another reads.
fn memory(name: &str) -> Arc<MemoryRemote> {
    static STORES: Mutex<BTreeMap<String, Arc<MemoryRemote>>> = Mutex::new(BTreeMap::new());
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(stores.entry(name.to_owned()).or_insert_with(|| Arc::new(MemoryRemote::new(name))))
}
