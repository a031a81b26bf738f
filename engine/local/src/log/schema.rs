//! The columns of a log whose records are rows of a table. A log that says none takes any bytes.

use super::error::LogError;
use crate::durable::replace;
use crate::error::{LocalError, on};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const FORMAT: u64 = 1;
const SCHEMA: &str = "table.toml";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u64,
    columns: Vec<String>,
}

#[derive(Deserialize)]
struct Format {
    format: u64,
}

fn file(log: &Path) -> PathBuf {
    log.join(SCHEMA)
}

/// The columns of a log's rows, as SQL declares them. `None`: it is no table's.
pub fn columns(log: &Path) -> Result<Option<Vec<String>>, LogError> {
    let path = file(log);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(on("read", &path)(error).into()),
    };
    let corrupt = |error: toml::de::Error| LocalError::Corrupt { path: path.clone(), detail: error.to_string() };
    let Format { format } = toml::from_str(&text).map_err(corrupt)?;
    if format > FORMAT {
        return Err(LocalError::Newer { path, what: "log's table", found: format, known: FORMAT }.into());
    }
    let document: Document = toml::from_str(&text).map_err(corrupt)?;
    Ok(Some(document.columns))
}

/// Says them.
pub fn keep_columns(log: &Path, columns: &[String]) -> Result<(), LogError> {
    let path = file(log);
    let text = toml::to_string(&Document { format: FORMAT, columns: columns.to_vec() })
        .map_err(|error| LocalError::Misuse { path: path.clone(), detail: format!("cannot be spelled: {error}") })?;
    Ok(replace(&path, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_table_says_of_its_columns_is_pinned() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(columns(folder.path()).unwrap(), None);
        let said = ["ts INTEGER".to_owned(), "\"a b\" TEXT".to_owned()];
        keep_columns(folder.path(), &said).unwrap();
        let text = std::fs::read_to_string(file(folder.path())).unwrap();
        assert_eq!(text, "format = 1\ncolumns = [\"ts INTEGER\", '\"a b\" TEXT']\n");
        assert_eq!(columns(folder.path()).unwrap().unwrap(), said);
        std::fs::write(file(folder.path()), "format = 2\nmore = 1\n").unwrap();
        assert!(columns(folder.path()).unwrap_err().is_newer());
    }
}
