//! The errors of this store: what SQLite says, as the contract's kinds.

use std::{borrow::Cow, fs::File, io, path::Path};

use sqlx::migrate::MigrateError;
use steps_batch::BatchError;
use steps_core::{Call, Error, ErrorKind, Operation};

use crate::BACKEND;

pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Error {
    connect(BatchError::new(ErrorKind::Config, message))
}

/// What connecting gives.
pub(crate) fn connect(failure: BatchError) -> Error {
    failure.into_error(Call::on_store(Operation::Connect), BACKEND)
}

/// What the driver's error means.
pub(crate) fn failure(error: sqlx::Error) -> BatchError {
    match primary_code(&error) {
        Some(code) => from_code(code),
        None => from_driver(&error),
    }
    .with_source(error)
}

/// What an error means of opening the file again: nothing was asked of it yet.
pub(crate) fn opening(error: sqlx::Error) -> BatchError {
    failure(error).with_may_have_applied(false)
}

/// What an error of the first look at a file means: more than after a successful one.
pub(crate) fn at_first_sight(error: sqlx::Error, path: &Path) -> BatchError {
    match primary_code(&error) {
        Some(CANTOPEN | READONLY) => cannot_open(path).with_source(error),
        Some(NOTADB) => {
            let message = "the file is not a SQLite database; choose another file";
            BatchError::new(ErrorKind::Config, message).with_source(error)
        }
        _ => failure(error),
    }
}

/// Why SQLite cannot open a file, which it does not say.
fn cannot_open(path: &Path) -> BatchError {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    let config = |message: &'static str| BatchError::new(ErrorKind::Config, message);
    match File::open(path).map_err(|error| error.kind()) {
        Ok(_) => BatchError::new(
            ErrorKind::ReadOnly,
            "the file cannot be opened; even to read it, SQLite makes files beside it, so its folder must allow that: \
             ask for the right, or copy it to another folder",
        ),
        Err(PermissionDenied) => {
            BatchError::new(ErrorKind::ReadOnly, "the right to open the file is missing; ask for it")
        }
        Err(NotFound) if path.is_symlink() => config("the file is a link to where nothing is, and nothing can be made"),
        // It could not be made.
        Err(NotFound) => BatchError::new(ErrorKind::ReadOnly, "the right to make the file is missing; ask for it"),
        Err(NotADirectory) => config("the file is not in a folder, but in a file"),
        Err(_) => BatchError::new(ErrorKind::Unavailable, "the file cannot be opened now"),
    }
}

/// What an error of a migration means.
pub(crate) fn migration(error: MigrateError) -> BatchError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failure(error),
        error => {
            BatchError::new(ErrorKind::Config, "the schema of the file is not one of this program").with_source(error)
        }
    }
}

/// Rows that cannot be read.
pub(crate) fn unreadable(error: serde_json::Error) -> BatchError {
    BatchError::new(ErrorKind::Corrupt, "what is stored cannot be read back").with_source(error)
}

const READONLY: i32 = 8;
const CANTOPEN: i32 = 14;
const NOTADB: i32 = 26;

/// SQLite's primary result code, if the error is SQLite's.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// By the primary result codes of <https://sqlite.org/rescode.html>.
///
/// A statement or transaction that fails is rolled back, so nothing was applied; but after a failed
/// write or fsync nobody knows what is in the file.
fn from_code(code: i32) -> BatchError {
    use ErrorKind::{CapacityExceeded, Corrupt, ReadOnly, Unavailable};
    match code {
        // BUSY, LOCKED
        5 | 6 => {
            BatchError::transient("another connection holds the lock of the file; end what keeps it, and try again")
        }
        // PERM, AUTH
        3 | READONLY | 23 => BatchError::new(ReadOnly, "the file cannot be written to; check its mode and permissions"),
        // NOMEM
        7 => BatchError::new(CapacityExceeded, "SQLite is out of memory"),
        // FULL
        13 => BatchError::new(CapacityExceeded, "the disk is full; make room"),
        // TOOBIG
        18 => BatchError::new(CapacityExceeded, "a value is larger than SQLite holds"),
        CANTOPEN => BatchError::new(Unavailable, "the file cannot be opened"),
        // IOERR
        10 => BatchError::new(Unavailable, "reading or writing the file failed").with_may_have_applied(true),
        // INTERRUPT, PROTOCOL
        9 | 15 => BatchError::new(Unavailable, "SQLite gave up"),
        // CORRUPT, NOTADB
        11 | NOTADB => BatchError::new(Corrupt, "the file is damaged; restore it from a backup"),
        // ERROR and the rest: tables that are not as this program made them.
        _ => BatchError::new(Corrupt, "the file does not hold what this program keeps there"),
    }
}

fn from_driver(error: &sqlx::Error) -> BatchError {
    match error {
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
            BatchError::new(ErrorKind::Corrupt, "what is stored cannot be read")
        }
        _ => BatchError::new(ErrorKind::Unavailable, "the connection to the file was lost").with_may_have_applied(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_sqlite_have_kinds() {
        use ErrorKind::{CapacityExceeded, Corrupt, ReadOnly, Unavailable};
        let kinds = [
            (Unavailable, &[5, 6, 9, 10, CANTOPEN, 15][..]),
            (ReadOnly, &[3, READONLY, 23]),
            (CapacityExceeded, &[7, 13, 18]),
            (Corrupt, &[1, 11, 20, NOTADB]),
        ];
        for (kind, codes) in kinds {
            for code in codes {
                let failure = from_code(*code);
                assert_eq!((failure.kind(), failure.is_transient()), (kind, [5, 6].contains(code)), "{code}");
                // Only after a write or an fsync that failed nobody knows what is in the file.
                assert_eq!(!failure.may_have_applied(), *code != 10, "{code}");
            }
        }
    }
}
