//! What SQLite's codes mean to someone who reads a database.

use super::raw::Failure;
use libsql::ffi;
use littoral_ports::SourceError;
use std::io;
use std::path::Path;

/// Opening the file itself failed.
pub(super) fn opening(path: &Path, failure: &Failure) -> SourceError {
    match (failure.primary(), &failure.os) {
        (ffi::SQLITE_CANTOPEN, Some(os)) => unreadable(path, os),
        _ => reading(path, failure),
    }
}

/// The system refused the file.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> SourceError {
    let path = path.display();
    SourceError::Failed(match error.kind() {
        io::ErrorKind::NotFound => format!("{path}: no such file"),
        io::ErrorKind::PermissionDenied => format!("{path}: permission denied"),
        _ => format!("{path}: {error}"),
    })
}

/// The file is open, and something went wrong after that.
pub(super) fn reading(path: &Path, failure: &Failure) -> SourceError {
    let Failure { message, os, .. } = failure;
    let name = path.display();
    match failure.primary() {
        // The one code for "may not make the -wal" that does not begin with "cannot open".
        ffi::SQLITE_READONLY if failure.code == ffi::SQLITE_READONLY_DIRECTORY => no_sidecar(path, message),
        ffi::SQLITE_NOTADB => SourceError::NotADatabase(name.to_string()),
        ffi::SQLITE_CORRUPT => SourceError::Corrupt(format!("{name}: {message}")),
        // A protocol error is a race for the WAL's index that was lost too often.
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => SourceError::Busy(format!("{name}: {message}")),
        ffi::SQLITE_CANTOPEN => no_sidecar(path, message),
        ffi::SQLITE_READONLY => SourceError::Failed(format!(
            "{name}: a writer died in the middle, and what it left in {name}-journal or {name}-wal can only be settled by \
             someone who may write the database and its folder ({message})"
        )),
        _ => SourceError::Failed(match os {
            Some(os) => format!("{name}: {message}: {os}"),
            None => format!("{name}: {message}"),
        }),
    }
}

/// The files that a WAL database needs beside it are not there and cannot be made.
fn no_sidecar(path: &Path, message: &str) -> SourceError {
    let name = path.display();
    SourceError::Failed(format!(
        "{name}: SQLite cannot open or make the files it needs beside the database, {name}-wal and {name}-shm: a database in \
         WAL mode can only be read where its folder can be written. Make the folder writable, or copy the database together \
         with its -wal ({message})"
    ))
}
