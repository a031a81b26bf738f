//! What is said of a database before it is opened, by those whose driver passes no URI: from then on every opening of that file in this
//! process is as though its URI had these parameters too.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A parameter's name and its value.
type Parameters = Vec<(String, String)>;

static SAID: Mutex<BTreeMap<PathBuf, Parameters>> = Mutex::new(BTreeMap::new());

/// Says one thing of a database, instead of what was said under that name before; nothing takes that back.
pub(crate) fn say(path: &Path, name: &str, value: Option<&str>) -> io::Result<()> {
    let path = as_opened(path)?;
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let parameters = said.entry(path.clone()).or_default();
    parameters.retain(|(known, _)| known != name);
    if let Some(value) = value {
        parameters.push((name.to_owned(), value.to_owned()));
    }
    if parameters.is_empty() {
        said.remove(&path);
    }
    Ok(())
}

/// What was said of the database that is opened under this name, without what its URI says itself.
pub(crate) fn add(path: &Path, parameters: &mut Parameters) {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.is_empty() {
        return;
    }
    // Some SQLites leave links in the name.
    let path = as_opened(path);
    for (name, value) in path.ok().and_then(|path| said.get(&path)).into_iter().flatten() {
        if parameters.iter().all(|(known, _)| known != name) {
            parameters.push((name.clone(), value.clone()));
        }
    }
}

/// A path without links in it. The file itself need not be there yet.
fn as_opened(path: &Path) -> io::Result<PathBuf> {
    if let Ok(found) = path.canonicalize() {
        return Ok(found);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file"));
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    Ok(folder.canonicalize()?.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_of_a_file_holds_by_whatever_name_it_was_said_and_the_uri_beats_it() {
        let folder = std::env::temp_dir().join(format!("littoral-beforehand-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let real = folder.canonicalize().unwrap();
        let (link, there, not_there) = (real.join("link"), real.join("there.db"), real.join("not-there.db"));
        std::fs::write(&there, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let told = |path: &Path, uri: &[(&str, &str)]| {
            let mut found: Parameters = uri.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            add(path, &mut found);
            found.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        for path in [&there, &not_there] {
            let other = link.join(path.file_name().unwrap());
            say(&other, "remote", Some("file:///a")).unwrap();
            say(&other, "volume", Some("v")).unwrap();
            say(path, "remote", Some("file:///b")).unwrap();
            assert_eq!(told(path, &[]), "volume=v remote=file:///b");
            assert_eq!(told(path, &[("volume", "w")]), "volume=w remote=file:///b");
            assert_eq!(told(&link.join(path.file_name().unwrap()), &[]), "volume=v remote=file:///b");
            assert_eq!(told(&real.join("another.db"), &[]), "");
            say(path, "remote", None).unwrap();
            say(&other, "volume", None).unwrap();
            assert_eq!(told(path, &[]), "");
        }
        assert!(say(&real.join("no-folder/a.db"), "volume", Some("v")).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
