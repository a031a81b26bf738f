//! Where a remote is, as a URL says it.

use littoral_ports::RemoteError;
use littoral_types::ObjectPath;
use std::path::{Path, PathBuf};

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `s3://bucket/prefix`; the endpoint is a setting.
    S3 { bucket: String, prefix: Option<ObjectPath> },
    /// `minio://host:port/bucket/prefix`, in the clear or over TLS.
    Minio { tls: bool, host: String, bucket: String, prefix: Option<ObjectPath> },
    /// `file:///folder`.
    Directory { root: PathBuf },
    /// `mem://name`: in this process alone.
    Memory { name: String },
}

const EXAMPLES: &str =
    "s3://bucket/prefix, minio://host:9000/bucket/prefix, minio+https://host/bucket/prefix or file:///folder";

fn wrong(why: impl std::fmt::Display) -> RemoteError {
    RemoteError::Settings(format!("remote URL: {why}"))
}

/// Reads a URL. Errors name what is wrong and show a right one; they repeat nothing of the URL that could be a secret.
pub(crate) fn parse(url: &str) -> Result<Place, RemoteError> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(wrong(format!("no scheme; write {EXAMPLES}")));
    };
    if scheme == "file" {
        return directory(rest);
    }
    let known = ["s3", "minio", "minio+https", "mem"];
    if !known.contains(&scheme) {
        // A scheme is a word; anything else may be a secret pasted into the wrong place.
        let word =
            !scheme.is_empty() && scheme.len() <= 16 && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+');
        let named =
            if word { format!("the scheme {scheme}:// is not known") } else { "the scheme is not known".to_owned() };
        return Err(wrong(format!("{named}; write {EXAMPLES}")));
    }
    if rest.contains('@') {
        return Err(wrong(
            "credentials do not belong in a URL; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or use ~/.aws/credentials",
        ));
    }
    if rest.contains('?') || rest.contains('#') {
        return Err(wrong(
            "nothing may follow a ? or #; endpoint=, region= and addressing= are settings of their own, \
             credentials come from the environment or ~/.aws/credentials",
        ));
    }
    let mut parts = rest.trim_end_matches('/').splitn(2, '/');
    let first = parts.next().unwrap_or_default();
    let beyond = parts.next().unwrap_or_default();
    match scheme {
        "s3" => {
            let bucket = bucket(first, "s3://bucket/prefix")?;
            Ok(Place::S3 { bucket, prefix: prefix(beyond, "s3://bucket/prefix")? })
        }
        "mem" => {
            let plain = ObjectPath::join([first]).filter(|_| beyond.is_empty());
            let name = plain.ok_or_else(|| wrong("a store in memory has one plain name, as in mem://test"))?;
            Ok(Place::Memory { name: name.as_str().to_owned() })
        }
        _ => {
            let tls = scheme == "minio+https";
            let example = if tls { "minio+https://host/bucket/prefix" } else { "minio://host:9000/bucket/prefix" };
            let host = host(first, example)?;
            let (name, beyond) = beyond.split_once('/').unwrap_or((beyond, ""));
            let bucket = bucket(name, example)?;
            Ok(Place::Minio { tls, host, bucket, prefix: prefix(beyond, example)? })
        }
    }
}

fn bucket(name: &str, example: &str) -> Result<String, RemoteError> {
    if name.is_empty() {
        return Err(wrong(format!("no bucket; write {example}")));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let fits = (3..=63).contains(&name.len()) && name.bytes().all(plain) && !name.contains("..");
    if !fits || !name.as_bytes()[0].is_ascii_alphanumeric() {
        return Err(wrong(format!("a bucket has 3 to 63 letters, digits, dots and dashes; write {example}")));
    }
    Ok(name.to_owned())
}

fn prefix(text: &str, example: &str) -> Result<Option<ObjectPath>, RemoteError> {
    if text.is_empty() {
        return Ok(None);
    }
    let plain = "letters, digits, '.', '_' and '-', separated by single slashes";
    ObjectPath::parse(text).map(Some).ok_or_else(|| wrong(format!("a prefix is made of {plain}; write {example}")))
}

fn host(text: &str, example: &str) -> Result<String, RemoteError> {
    let bad = || wrong(format!("no valid host; write {example}"));
    let (name, port) = match text.rsplit_once(':') {
        // The colons of a bare IPv6 address are inside brackets.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'[' | b']' | b':' | b'_');
    if name.is_empty() || !name.bytes().all(plain) || (name.contains(':') && !name.starts_with('[')) {
        return Err(bad());
    }
    if let Some(port) = port {
        port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(bad)?;
    }
    Ok(text.to_owned())
}

fn directory(rest: &str) -> Result<Place, RemoteError> {
    let path = rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(wrong("a folder is named from the root, with three slashes, as in file:///var/lib/littoral"));
    }
    let path =
        decode(path).ok_or_else(|| wrong("a % is followed by two hexadecimal digits, as in file:///my%20folder"))?;
    let root: PathBuf = Path::new(&path).components().collect();
    if path.contains('\0') || root.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(wrong("a folder's name has no .. in it, as in file:///var/lib/littoral"));
    }
    if root.parent().is_none() {
        return Err(wrong("the root folder itself is no remote; name a folder, as in file:///var/lib/littoral"));
    }
    Ok(Place::Directory { root })
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// A folder's URL; [`parse`] reads it back. `None` for a path that is not text or does not begin at the root.
pub(crate) fn of_directory(root: &Path) -> Option<String> {
    let text = root.to_str().filter(|text| text.starts_with('/'))?;
    let mut url = "file://".to_owned();
    for c in text.chars() {
        if c.is_ascii_control() || matches!(c, '%' | '?' | '#' | ' ') {
            url.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            url.push(c);
        }
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        match parse(url) {
            Err(RemoteError::Settings(why)) => why,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn urls_say_where() {
        let prefix = |text| ObjectPath::parse(text);
        assert_eq!(parse("s3://bucket").unwrap(), Place::S3 { bucket: "bucket".into(), prefix: None });
        assert_eq!(parse("s3://bucket/").unwrap(), Place::S3 { bucket: "bucket".into(), prefix: None });
        let deep = Place::S3 { bucket: "my.bucket-1".into(), prefix: prefix("a/b_c") };
        assert_eq!(parse("s3://my.bucket-1/a/b_c/").unwrap(), deep);
        let minio = |tls, host: &str, at| Place::Minio { tls, host: host.into(), bucket: "bucket".into(), prefix: at };
        assert_eq!(parse("minio://localhost:9000/bucket").unwrap(), minio(false, "localhost:9000", None));
        assert_eq!(parse("minio+https://min.io/bucket/x/y").unwrap(), minio(true, "min.io", prefix("x/y")));
        assert_eq!(parse("minio://[::1]:9000/bucket").unwrap(), minio(false, "[::1]:9000", None));
        let folder = |root: &str| Place::Directory { root: root.into() };
        assert_eq!(parse("file:///var/lib/x/").unwrap(), folder("/var/lib/x"));
        assert_eq!(parse("file://localhost/var").unwrap(), folder("/var"));
        assert_eq!(parse("file:///my%20folder/a b%25").unwrap(), folder("/my folder/a b%"));
        assert_eq!(parse("mem://test").unwrap(), Place::Memory { name: "test".into() });
    }

    #[test]
    fn a_wrong_url_is_told_what_is_wrong_and_shown_a_right_one() {
        for (url, word) in [
            ("/var/lib", "no scheme"),
            ("", "no scheme"),
            ("gs://bucket", "gs:// is not known"),
            ("https://bucket", "https:// is not known"),
            ("s3://", "no bucket"),
            ("s3:///prefix", "no bucket"),
            ("s3://b/x", "3 to 63"),
            ("s3://-bucket", "3 to 63"),
            ("s3://buc ket", "3 to 63"),
            ("s3://bucket/a//b", "single slashes"),
            ("s3://bucket/a/../b", "prefix"),
            ("s3://bucket/ä", "prefix"),
            ("minio://host:9000", "no bucket"),
            ("minio://host:port/bucket", "no valid host"),
            ("minio://:9000/bucket", "no valid host"),
            ("minio+https:///bucket", "no valid host"),
            ("file://relative/path", "three slashes"),
            ("file://./path", "three slashes"),
            ("file:///", "name a folder"),
            ("file:///a/../b", "no .."),
            ("file:///a%2", "two hexadecimal digits"),
            ("mem://a/b", "one plain name"),
        ] {
            let why = refused(url);
            assert!(why.contains(word), "{url}: {why}");
            assert!(why.contains("://") || why.contains("addressing="), "{url}: no example in {why}");
        }
    }

    #[test]
    fn secrets_in_a_url_are_refused_and_not_repeated() {
        for url in [
            "s3://AKIAKEY:SECRETVALUE@bucket/prefix",
            "minio://AKIAKEY:SECRETVALUE@host:9000/bucket",
            "s3://bucket/prefix?secret_access_key=SECRETVALUE",
            "s3://bucket?X-Amz-Signature=SECRETVALUE",
            "s3://bucket#SECRETVALUE",
            "SECRETVALUE+and/more://bucket",
        ] {
            let why = refused(url);
            assert!(!why.contains("SECRETVALUE") && !why.contains("AKIAKEY"), "{why}");
        }
    }

    #[test]
    fn a_folders_url_reads_back_as_the_folder() {
        for root in ["/var/lib", "/my folder/100%/#1?", "/ü/日本"] {
            let url = of_directory(Path::new(root)).unwrap();
            assert_eq!(parse(&url).unwrap(), Place::Directory { root: root.into() }, "{url}");
        }
        assert_eq!(of_directory(Path::new("relative")), None);
    }
}
