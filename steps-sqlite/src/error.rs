//! The errors of this store: what SQLite says, as the contract's kinds.

use std::{borrow::Cow, fs::File, io, path::Path};

use sqlx::migrate::MigrateError;
use steps_core::{Call, Error, ErrorKind, Operation};
use steps_lane::Failure;

use crate::BACKEND;

pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Error {
    connect(Failure::new(ErrorKind::Config, message))
}

/// What connecting gives.
pub(crate) fn connect(failure: Failure) -> Error {
    failure.into_error(Call::on_store(Operation::Connect), BACKEND)
}

/// What the driver's error means.
pub(crate) fn failure(error: sqlx::Error) -> Failure {
    match primary_code(&error) {
        Some(code) => from_code(code),
        None => from_driver(&error),
    }
    .with_source(error)
}

/// What an error means of opening the file again: nothing was asked of it yet.
pub(crate) fn opening(error: sqlx::Error) -> Failure {
    failure(error).with_may_have_applied(false)
}

/// What an error of the first look at a file means: more than after a successful one.
pub(crate) fn at_first_sight(error: sqlx::Error, path: &Path) -> Failure {
    match primary_code(&error) {
        Some(CANTOPEN | READONLY) => cannot_open(path).with_source(error),
        Some(NOTADB) => {
            let message = "the file is not a SQLite database; choose another file";
            Failure::new(ErrorKind::Config, message).with_source(error)
        }
        _ => failure(error),
    }
}

/// Why SQLite cannot open a file, which it does not say.
fn cannot_open(path: &Path) -> Failure {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    let config = |message: &'static str| Failure::new(ErrorKind::Config, message);
    match File::open(path).map_err(|error| error.kind()) {
        Ok(_) => Failure::new(
            ErrorKind::ReadOnly,
            "the file cannot be opened; even to read it, SQLite makes files beside it, so its folder must allow that: \
             ask for the right, or copy it to another folder",
        ),
        Err(PermissionDenied) => Failure::new(ErrorKind::ReadOnly, "the right to open the file is missing; ask for it"),
        Err(NotFound) if path.is_symlink() => config("the file is a link to where nothing is, and nothing can be made"),
        // It could not be made.
        Err(NotFound) => Failure::new(ErrorKind::ReadOnly, "the right to make the file is missing; ask for it"),
        Err(NotADirectory) => config("the file is not in a folder, but in a file"),
        Err(_) => Failure::new(ErrorKind::Unavailable, "the file cannot be opened now"),
    }
}

/// What an error of a migration means.
pub(crate) fn migration(error: MigrateError) -> Failure {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failure(error),
        error => {
            Failure::new(ErrorKind::Config, "the schema of the file is not one of this program").with_source(error)
        }
    }
}

/// Rows that cannot be read.
pub(crate) fn unreadable(error: serde_json::Error) -> Failure {
    Failure::new(ErrorKind::Corrupt, "what is stored cannot be read back").with_source(error)
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
fn from_code(code: i32) -> Failure {
    use ErrorKind::{CapacityExceeded, Corrupt, ReadOnly, Unavailable};
    match code {
        // BUSY, LOCKED
        5 | 6 => Failure::busy("another connection holds the lock of the file; end what keeps it, and try again"),
        // PERM, AUTH
        3 | READONLY | 23 => Failure::new(ReadOnly, "the file cannot be written to; check its mode and permissions"),
        // NOMEM
        7 => Failure::new(CapacityExceeded, "SQLite is out of memory"),
        // FULL
        13 => Failure::new(CapacityExceeded, "the disk is full; make room"),
        // TOOBIG
        18 => Failure::new(CapacityExceeded, "a value is larger than SQLite holds"),
        CANTOPEN => Failure::new(Unavailable, "the file cannot be opened"),
        // IOERR
        10 => Failure::new(Unavailable, "reading or writing the file failed").with_may_have_applied(true),
        // INTERRUPT, PROTOCOL
        9 | 15 => Failure::new(Unavailable, "SQLite gave up"),
        // CORRUPT, NOTADB
        11 | NOTADB => Failure::new(Corrupt, "the file is damaged; restore it from a backup"),
        // ERROR and the rest: tables that are not as this program made them.
        _ => Failure::new(Corrupt, "the file does not hold what this program keeps there"),
    }
}

fn from_driver(error: &sqlx::Error) -> Failure {
    match error {
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
            Failure::new(ErrorKind::Corrupt, "what is stored cannot be read")
        }
        _ => Failure::new(ErrorKind::Unavailable, "the connection to the file was lost").with_may_have_applied(true),
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
                assert_eq!((failure.kind(), failure.is_busy()), (kind, [5, 6].contains(code)), "{code}");
                // Only after a write or an fsync that failed nobody knows what is in the file.
                assert_eq!(failure.is_certain(), *code != 10, "{code}");
            }
        }
    }
}
