//! Where keys come from: the environment, the AWS files, then what a machine in a cloud is given. Never a URL.
//!
//! The order is that of every AWS tool: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and `AWS_SESSION_TOKEN`); the profile
//! `AWS_PROFILE` (or `default`) of `~/.aws/credentials` and `~/.aws/config`; a web identity; a container's role; the
//! instance's role. The last three are `object_store`'s.

use crate::settings::Environment;
use async_trait::async_trait;
use littoral_ports::RemoteError;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider};
use object_store::{ClientOptions, CredentialProvider, RetryConfig};
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Time for a cloud's own metadata service, which is next door or not there at all.
const METADATA_CONNECT: Duration = Duration::from_secs(1);
const METADATA_ANSWER: Duration = Duration::from_secs(5);

/// What a profile says besides its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProfileHints {
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
}

/// The chain, resolved to the link that holds.
pub(crate) struct Chain {
    link: Link,
}

enum Link {
    Fixed(Arc<AwsCredential>),
    Files(Files),
    Given { provider: AwsCredentialProvider, tried: String },
    None { tried: String },
}

impl Chain {
    /// Finds the first link that says anything. A link that says half of it is an error, not passed over.
    pub(crate) fn resolve(env: &Environment, region: Option<&str>) -> Result<(Self, ProfileHints), RemoteError> {
        let files = Files::of(env);
        let (profile, hints) = match &files {
            Some(files) => files.load()?,
            None => (None, ProfileHints::default()),
        };
        let fixed = match (env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY")) {
            (Some(key_id), Some(secret)) => {
                let token = env.get("AWS_SESSION_TOKEN").map(str::to_owned);
                Some(AwsCredential { key_id: key_id.to_owned(), secret_key: secret.to_owned(), token })
            }
            (Some(_), None) => return Err(half("AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not")),
            (None, Some(_)) => return Err(half("AWS_SECRET_ACCESS_KEY is set, AWS_ACCESS_KEY_ID is not")),
            (None, None) => None,
        };
        if let Some(fixed) = fixed {
            return Ok((Self { link: Link::Fixed(Arc::new(fixed)) }, hints));
        }
        let mut tried = "AWS_ACCESS_KEY_ID is not set".to_owned();
        if let Some(files) = files {
            if profile.is_some() {
                return Ok((Self { link: Link::Files(files) }, hints));
            }
            tried.push_str(&format!(", no keys in profile {} of {}", files.profile, files.credentials.display()));
        }
        let region = region.or(hints.region.as_deref());
        Ok((Self { link: given(env, region, tried)? }, hints))
    }

    /// Credentials for the next request.
    pub(crate) async fn get(&self) -> Result<Arc<AwsCredential>, NoCredentials> {
        match &self.link {
            Link::Fixed(keys) => Ok(Arc::clone(keys)),
            Link::Files(files) => match files.load() {
                Ok((Some(keys), _)) => Ok(keys),
                Ok((None, _)) => Err(NoCredentials::new(&format!("profile {} holds no keys any more", files.profile))),
                Err(error) => Err(NoCredentials::new(&error.to_string())),
            },
            Link::Given { provider, tried } => {
                provider.get_credential().await.map_err(|_| NoCredentials::new(&format!("{tried}, which gave none")))
            }
            Link::None { tried } => Err(NoCredentials::new(tried)),
        }
    }

    /// Where the keys come from, and how to change them: for whoever is told that the store does not take them any more.
    pub(crate) fn whose(&self) -> String {
        match &self.link {
            Link::Fixed(_) => "these keys are of this process's environment (AWS_ACCESS_KEY_ID), which nobody can change from outside: \
                 start it anew with others, or keep them in ~/.aws/credentials, which is read again whenever it changes"
                .to_owned(),
            Link::Files(files) => {
                let (profile, path) = (&files.profile, files.credentials.display());
                format!("these keys are those of profile {profile} in {path}: write others there, and they are used from then on")
            }
            Link::Given { tried, .. } => format!("these keys are given to this machine ({tried}), and others are asked for in time"),
            Link::None { tried } => format!("there are no keys: {tried}"),
        }
    }

    /// Takes every secret known out of a text that others wrote.
    pub(crate) fn scrub(&self, text: String) -> String {
        let keys = match &self.link {
            Link::Fixed(keys) => vec![Arc::clone(keys)],
            Link::Files(files) => files.seen(),
            Link::Given { .. } | Link::None { .. } => Vec::new(),
        };
        keys.iter()
            .flat_map(|keys| [Some(&keys.key_id), Some(&keys.secret_key), keys.token.as_ref()])
            .flatten()
            .filter(|secret| secret.len() >= 4)
            .fold(text, |text, secret| text.replace(secret, "***"))
    }

    /// Tells two chains apart without telling what they hold.
    #[cfg_attr(not(feature = "minio"), allow(dead_code))]
    pub(crate) fn identity(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        match &self.link {
            Link::Fixed(keys) => (0u8, &keys.key_id, &keys.secret_key, &keys.token).hash(&mut hasher),
            Link::Files(files) => (1u8, &files.credentials, &files.config, &files.profile).hash(&mut hasher),
            Link::Given { tried, .. } => (2u8, tried).hash(&mut hasher),
            Link::None { .. } => 3u8.hash(&mut hasher),
        }
        hasher.finish()
    }
}

impl fmt::Debug for Chain {
    // The link's name, never what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.link {
            Link::Fixed(_) => "Chain(environment)",
            Link::Files(_) => "Chain(files)",
            Link::Given { .. } => "Chain(given)",
            Link::None { .. } => "Chain(none)",
        })
    }
}

/// No link of the chain gave keys: why, without secrets.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no credentials: {0}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE and ~/.aws/credentials")]
pub(crate) struct NoCredentials(String);

impl NoCredentials {
    fn new(why: &str) -> Self {
        Self(why.to_owned())
    }
}

#[async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.get().await.map_err(|error| {
            crate::raw::note_no_credentials(&error.to_string());
            object_store::Error::Unauthenticated { path: String::new(), source: Box::new(error) }
        })
    }
}

fn half(what: &str) -> RemoteError {
    RemoteError::Settings(format!("credentials: {what}; set both or neither"))
}

/// What a machine in a cloud is given.
fn given(env: &Environment, region: Option<&str>, mut tried: String) -> Result<Link, RemoteError> {
    let web = env.get("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() && env.get("AWS_ROLE_ARN").is_some();
    let container = env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").is_some()
        || env.get("AWS_CONTAINER_CREDENTIALS_FULL_URI").is_some();
    if web {
        tried.push_str(", a web identity is");
    } else if container {
        tried.push_str(", a container's role is");
    } else if env.get("AWS_EC2_METADATA_DISABLED").is_some_and(|disabled| disabled.eq_ignore_ascii_case("true")) {
        tried.push_str(", the instance's metadata is switched off");
        return Ok(Link::None { tried });
    } else {
        tried.push_str(", left was the instance's metadata service");
    }
    let options = ClientOptions::new().with_connect_timeout(METADATA_CONNECT).with_timeout(METADATA_ANSWER);
    // The bucket is never asked for: only the builder's provider is wanted.
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name("none")
        .with_region(region.unwrap_or("us-east-1"))
        .with_client_options(options)
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
    for (name, value) in env.pairs() {
        use AmazonS3ConfigKey as Key;
        let Ok(key) = name.to_ascii_lowercase().parse::<Key>() else { continue };
        let of_a_cloud = matches!(
            key,
            Key::WebIdentityTokenFile
                | Key::RoleArn
                | Key::RoleSessionName
                | Key::StsEndpoint
                | Key::ContainerCredentialsRelativeUri
                | Key::ContainerCredentialsFullUri
                | Key::ContainerAuthorizationTokenFile
                | Key::MetadataEndpoint
                | Key::ImdsV1Fallback
        );
        if of_a_cloud {
            builder = builder.with_config(key, value);
        }
    }
    let store = builder.build().map_err(|error| RemoteError::Settings(format!("credentials: {error}")))?;
    Ok(Link::Given { provider: Arc::clone(store.credentials()), tried })
}

/// The two AWS files, read again when they change: tools refresh session tokens there.
struct Files {
    credentials: PathBuf,
    config: PathBuf,
    profile: String,
    /// Whether the profile was asked for by name, so that its absence is an error.
    named: bool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    stamps: Option<[Option<Stamp>; 2]>,
    keys: Option<Arc<AwsCredential>>,
    /// Those before: a request that was signed with them may still be under way, and its answer speak of them.
    before: Option<Arc<AwsCredential>>,
    hints: ProfileHints,
}

/// When it was written, how long it is, and which file: one key is as long as the next, and a file that takes its place may be older.
type Stamp = (SystemTime, u64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), inode(&meta)))
}

#[cfg(unix)]
fn inode(meta: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(meta)
}

#[cfg(not(unix))]
fn inode(_: &std::fs::Metadata) -> u64 {
    0
}

impl Files {
    fn of(env: &Environment) -> Option<Self> {
        let home = env.get("HOME").or_else(|| env.get("USERPROFILE")).map(PathBuf::from);
        let file = |name: &str, usual: &str| {
            env.get(name).map(PathBuf::from).or_else(|| home.as_ref().map(|home| home.join(".aws").join(usual)))
        };
        let credentials = file("AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
        let config = file("AWS_CONFIG_FILE", "config")?;
        let named = env.get("AWS_PROFILE");
        let profile = named.unwrap_or("default").to_owned();
        Some(Self { credentials, config, profile, named: named.is_some(), seen: Mutex::default() })
    }

    fn seen(&self) -> Vec<Arc<AwsCredential>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.keys.iter().chain(&seen.before).cloned().collect()
    }

    fn load(&self) -> Result<(Option<Arc<AwsCredential>>, ProfileHints), RemoteError> {
        let stamps = [stamp(&self.credentials), stamp(&self.config)];
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.stamps != Some(stamps) {
            let (keys, hints) = self.read()?;
            let before = seen.keys.take().or_else(|| seen.before.take());
            *seen = Seen { stamps: Some(stamps), keys: keys.map(Arc::new), before, hints };
        }
        Ok((seen.keys.clone(), seen.hints.clone()))
    }

    fn read(&self) -> Result<(Option<AwsCredential>, ProfileHints), RemoteError> {
        let mut profile = BTreeMap::new();
        let mut found = false;
        // The credentials file wins where both speak.
        let section_of_config =
            if self.profile == "default" { "default".to_owned() } else { format!("profile {}", self.profile) };
        for (path, section) in [(&self.config, &section_of_config), (&self.credentials, &self.profile)] {
            let text = match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(RemoteError::Settings(format!(
                        "credentials: {} cannot be read: {error}",
                        path.display()
                    )));
                }
            };
            if let Some(section) = sections(&text).remove(section) {
                found = true;
                profile.extend(section);
            }
        }
        let name = &self.profile;
        if !found && self.named {
            let (credentials, config) = (self.credentials.display(), self.config.display());
            let why = format!("credentials: no profile {name} (AWS_PROFILE) in {credentials} or {config}");
            return Err(RemoteError::Settings(why));
        }
        let hints = ProfileHints { region: profile.remove("region"), endpoint: profile.remove("endpoint_url") };
        let token = profile.remove("aws_session_token");
        match (profile.remove("aws_access_key_id"), profile.remove("aws_secret_access_key")) {
            (Some(key_id), Some(secret_key)) => Ok((Some(AwsCredential { key_id, secret_key, token }), hints)),
            (Some(_), None) => Err(half(&format!("profile {name} has aws_access_key_id and no aws_secret_access_key"))),
            (None, Some(_)) => Err(half(&format!("profile {name} has aws_secret_access_key and no aws_access_key_id"))),
            (None, None) => {
                let foreign = ["sso_session", "sso_start_url", "credential_process", "role_arn", "login_session"];
                match foreign.into_iter().find(|key| self.named && profile.contains_key(*key)) {
                    Some(key) => Err(RemoteError::Settings(format!(
                        "credentials: profile {name} uses {key}, which littoral does not speak; \
                         run: eval \"$(aws configure export-credentials --profile {name} --format env)\""
                    ))),
                    None => Ok((None, hints)),
                }
            }
        }
    }
}

/// Sections of an AWS file, by name. Indented lines belong to a setting of their own and say nothing here.
fn sections(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) || line.starts_with([' ', '\t']) {
            continue;
        }
        if let Some(header) = trimmed.strip_prefix('[') {
            let name = header.split(']').next().unwrap_or_default();
            let words: Vec<&str> = name.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
            let name = words.join(" ");
            sections.entry(name.clone()).or_default();
            current = Some(name);
        } else if let (Some(section), Some((key, value))) = (&current, trimmed.split_once('=')) {
            let value = value.trim();
            let end =
                [" #", " ;", "\t#", "\t;"].iter().filter_map(|mark| value.find(mark)).min().unwrap_or(value.len());
            let value = value[..end].trim_end();
            if !value.is_empty() {
                sections.entry(section.clone()).or_default().insert(key.trim().to_ascii_lowercase(), value.to_owned());
            }
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(chain: &Chain) -> (String, String, Option<String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let keys = runtime.block_on(chain.get()).unwrap();
        (keys.key_id.clone(), keys.secret_key.clone(), keys.token.clone())
    }

    fn home() -> (tempfile::TempDir, Environment) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let env = with(home.path(), &[]);
        (home, env)
    }

    fn with(home: &Path, more: &[(&str, &str)]) -> Environment {
        let mut pairs = vec![("HOME", home.to_str().unwrap()), ("AWS_EC2_METADATA_DISABLED", "true")];
        pairs.extend(more);
        Environment::from_pairs(pairs)
    }

    #[test]
    fn the_environment_comes_first_then_the_named_profile() {
        let (home, env) = home();
        let credentials = "# comment\n[default]\naws_access_key_id = DEFAULTID\naws_secret_access_key=default/secret+==\n\
            [work]\naws_access_key_id=WORKID # mine\naws_secret_access_key=worksecret\naws_session_token = tok=en\n";
        std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        let config = "[default]\nregion = eu-north-1\ns3 =\n  max_concurrent_requests = 3\n  region = nowhere\n\
            [profile work]\nregion=eu-west-3\nendpoint_url = https://s3.example\n";
        std::fs::write(home.path().join(".aws/config"), config).unwrap();

        let (chain, hints) = Chain::resolve(&env, None).unwrap();
        assert_eq!(keys(&chain), ("DEFAULTID".into(), "default/secret+==".into(), None));
        assert_eq!(hints.region.as_deref(), Some("eu-north-1"));
        let (chain, hints) = Chain::resolve(&with(home.path(), &[("AWS_PROFILE", "work")]), None).unwrap();
        assert_eq!(keys(&chain), ("WORKID".into(), "worksecret".into(), Some("tok=en".into())));
        assert_eq!(hints.endpoint.as_deref(), Some("https://s3.example"));
        let env = with(home.path(), &[("AWS_ACCESS_KEY_ID", "ENVID"), ("AWS_SECRET_ACCESS_KEY", "envsecret")]);
        let (chain, hints) = Chain::resolve(&env, None).unwrap();
        assert_eq!(keys(&chain), ("ENVID".into(), "envsecret".into(), None));
        assert_eq!(hints.region.as_deref(), Some("eu-north-1"));
    }

    #[test]
    fn keys_that_a_tool_writes_anew_are_read_anew() {
        let (home, env) = home();
        let file = home.path().join(".aws/credentials");
        std::fs::write(&file, "[default]\naws_access_key_id=FIRST\naws_secret_access_key=s\n").unwrap();
        let (chain, _) = Chain::resolve(&env, None).unwrap();
        assert_eq!(keys(&chain).0, "FIRST");
        std::fs::write(&file, "[default]\naws_access_key_id=SECOND!\naws_secret_access_key=s\n").unwrap();
        assert_eq!(keys(&chain).0, "SECOND!");
        // Written beforehand and moved into place, with the same age and the same length.
        let next = home.path().join(".aws/next");
        std::fs::write(&next, "[default]\naws_access_key_id=THIRD!!\naws_secret_access_key=s\n").unwrap();
        let age = std::fs::metadata(&file).unwrap().modified().unwrap();
        std::fs::File::options().write(true).open(&next).unwrap().set_modified(age).unwrap();
        std::fs::rename(&next, &file).unwrap();
        assert_eq!(keys(&chain).0, "THIRD!!");
        // An answer to a request that was signed with the keys before.
        assert_eq!(chain.scrub("SECOND! THIRD!!".to_owned()), "*** ***");
        // Half written, and then whole: an error in between, and never half a pair.
        std::fs::write(&file, "[default]\naws_access_key_id=FOURTH\n").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert!(runtime.block_on(chain.get()).unwrap_err().to_string().contains("aws_secret_access_key"));
        std::fs::write(&file, "[default]\naws_access_key_id=FOURTH\naws_secret_access_key=s\n").unwrap();
        assert_eq!(keys(&chain).0, "FOURTH");
        assert!(chain.whose().contains("profile default"), "{}", chain.whose());
    }

    #[test]
    fn half_a_pair_a_missing_profile_and_foreign_ways_are_named() {
        let (home, _) = home();
        let told = |more: &[(&str, &str)]| match Chain::resolve(&with(home.path(), more), None) {
            Err(RemoteError::Settings(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(told(&[("AWS_ACCESS_KEY_ID", "X")]).contains("AWS_SECRET_ACCESS_KEY is not"));
        assert!(told(&[("AWS_SECRET_ACCESS_KEY", "X")]).contains("AWS_ACCESS_KEY_ID is not"));
        assert!(told(&[("AWS_PROFILE", "gone")]).contains("no profile gone"));
        std::fs::write(home.path().join(".aws/config"), "[profile sso]\nsso_session=x\n").unwrap();
        assert!(told(&[("AWS_PROFILE", "sso")]).contains("sso_session"));
    }

    #[test]
    fn no_credentials_is_said_with_what_was_tried() {
        let (_home, env) = home();
        let (chain, _) = Chain::resolve(&env, None).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let why = runtime.block_on(chain.get()).unwrap_err().to_string();
        for word in ["AWS_ACCESS_KEY_ID is not set", "profile default", "switched off"] {
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        let pairs = [
            ("AWS_ACCESS_KEY_ID", "AKIAVISIBLE"),
            ("AWS_SECRET_ACCESS_KEY", "very-secret"),
            ("AWS_SESSION_TOKEN", "token-secret"),
        ];
        let env = Environment::from_pairs(pairs);
        let (chain, _) = Chain::resolve(&env, None).unwrap();
        let shown = format!("{chain:?} {env:?} {}", chain.scrub("AKIAVISIBLE very-secret token-secret".into()));
        for (_, secret) in pairs {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
