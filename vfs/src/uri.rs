//! A database's name as SQLite takes it: `file:…?vfs=littoral&…`, every byte that could mean something spelled out.

use littoral_engine::settings::Key;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Spells a path and settings. The answer is ASCII, whatever the path's bytes are; `None` where one holds a zero, which no
/// name of SQLite's can.
pub fn spell(path: &Path, settings: &[(Key, OsString)]) -> Option<String> {
    let mut uri = String::from("file:");
    // Two slashes would name a host: a path that begins at the root gets an empty one.
    if path.is_absolute() {
        uri.push_str("//");
    }
    escape(&mut uri, path.as_os_str(), b"/")?;
    uri.push_str("?vfs=littoral");
    // What follows is only read: nobody has to say both.
    if settings.iter().any(|(key, value)| matches!(key, Key::Follow | Key::Cold) && value == "on") {
        uri.push_str("&mode=ro");
    }
    for (key, value) in settings {
        uri.push('&');
        uri.push_str(key.name());
        uri.push('=');
        escape(&mut uri, value, b"/:")?;
    }
    Some(uri)
}

fn escape(uri: &mut String, text: &OsStr, plain: &[u8]) -> Option<()> {
    for byte in text.as_bytes() {
        match byte {
            0 => return None,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(*byte)),
            _ if plain.contains(byte) => uri.push(char::from(*byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &[u8], settings: &[(Key, &str)]) -> Option<String> {
        let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, OsString::from(value))).collect();
        spell(Path::new(OsStr::from_bytes(path)), &settings)
    }

    #[test]
    fn a_path_keeps_its_place() {
        assert_eq!(of(b"app.db", &[]).unwrap(), "file:app.db?vfs=littoral");
        assert_eq!(of(b"data/app.db", &[]).unwrap(), "file:data/app.db?vfs=littoral");
        assert_eq!(of(b"/srv/app.db", &[]).unwrap(), "file:///srv/app.db?vfs=littoral");
        assert_eq!(of(b"//srv/app.db", &[]).unwrap(), "file:////srv/app.db?vfs=littoral");
        assert_eq!(of(b"app.db", &[(Key::Follow, "on")]).unwrap(), "file:app.db?vfs=littoral&mode=ro&follow=on");
        assert_eq!(of(b"app.db", &[(Key::Cold, "on")]).unwrap(), "file:app.db?vfs=littoral&mode=ro&cold=on");
        assert_eq!(of(b"app.db", &[(Key::Follow, "off")]).unwrap(), "file:app.db?vfs=littoral&follow=off");
    }

    #[test]
    fn whatever_could_mean_something_is_spelled_out() {
        assert_eq!(
            of("a?b#c%d&e=f g+hü.db".as_bytes(), &[(Key::Remote, "s3://b/p?x&y=z"), (Key::Volume, "v")]).unwrap(),
            "file:a%3Fb%23c%25d%26e%3Df%20g%2Bh%C3%BC.db?vfs=littoral&remote=s3://b/p%3Fx%26y%3Dz&volume=v"
        );
        assert_eq!(of(b"\xff.db", &[]).unwrap(), "file:%FF.db?vfs=littoral");
    }

    #[test]
    fn a_zero_ends_no_name_unseen() {
        assert_eq!(of(b"a\0b", &[]), None);
        assert_eq!(of(b"a", &[(Key::Volume, "v\0w")]), None);
    }
}
