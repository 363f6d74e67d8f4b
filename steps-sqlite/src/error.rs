//! Errors of SQLite and of its driver, as kinds of the contract.

use std::borrow::Cow;

use sqlx::migrate::MigrateError;
use steps_batch::BatchError;
use steps_core::{Call, Error, ErrorKind, Operation};

use crate::{
    BACKEND,
    file::{StoreFile, blocking},
};

pub(crate) fn config_error(message: impl Into<Cow<'static, str>>) -> Error {
    connect_error(BatchError::new(ErrorKind::Config, message))
}

/// The error of a call to connect.
pub(crate) fn connect_error(error: BatchError) -> Error {
    error.into_error(Call::on_store(Operation::Connect), BACKEND)
}

/// The error of a statement.
pub(crate) fn statement_error(error: sqlx::Error) -> BatchError {
    match primary_code(&error) {
        Some(code) => from_code(code),
        None => from_driver(&error),
    }
    .with_source(error)
}

/// The error of opening the file again: nothing was applied, since no request was sent.
pub(crate) fn reconnect_error(error: sqlx::Error) -> BatchError {
    statement_error(error).with_may_have_applied(false)
}

/// The error of opening the file for the first time. Some codes mean more then: the file was never opened before.
pub(crate) async fn initial_connect_error(error: sqlx::Error, file: &StoreFile) -> BatchError {
    match primary_code(&error) {
        Some(CANTOPEN | READONLY) => {
            let file = file.clone();
            match blocking(move || Ok(file.cannot_open())).await {
                Ok(reason) | Err(reason) => reason.with_source(error),
            }
        }
        Some(NOTADB) => not_a_database().with_source(error),
        _ => statement_error(error),
    }
}

pub(crate) fn not_a_database() -> BatchError {
    BatchError::new(ErrorKind::Config, "the file is not a SQLite database; choose another file")
}

pub(crate) fn is_not_a_database(error: &sqlx::Error) -> bool {
    primary_code(error) == Some(NOTADB)
}

/// The error of a migration.
pub(crate) fn migration_error(error: MigrateError) -> BatchError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => statement_error(error),
        error => BatchError::new(ErrorKind::Config, "unknown schema version or foreign migrations").with_source(error),
    }
}

/// The error of JSON that cannot be encoded or decoded.
pub(crate) fn json_error(error: serde_json::Error) -> BatchError {
    BatchError::new(ErrorKind::Corrupt, "the stored data cannot be decoded").with_source(error)
}

const READONLY: i32 = 8;
const CANTOPEN: i32 = 14;
const NOTADB: i32 = 26;

/// SQLite's primary result code, if the error is SQLite's.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// The error with a primary result code, as listed in <https://sqlite.org/rescode.html>.
///
/// A failed statement or transaction is rolled back, so nothing was applied. Only after a failed write or fsync the
/// content of the file is unknown.
fn from_code(code: i32) -> BatchError {
    use ErrorKind::{CapacityExceeded, Corrupt, ReadOnly, Unavailable};
    match code {
        // BUSY, LOCKED
        5 | 6 => {
            BatchError::transient("another connection holds the lock of the file; end its transaction, and try again")
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
        // ERROR and the rest: the tables differ from the schema.
        _ => BatchError::new(Corrupt, "the tables in the file are not as this program made them"),
    }
}

fn from_driver(error: &sqlx::Error) -> BatchError {
    match error {
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
            BatchError::new(ErrorKind::Corrupt, "the stored data cannot be decoded")
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
                let error = from_code(*code);
                assert_eq!((error.kind(), error.is_transient()), (kind, [5, 6].contains(code)), "{code}");
                // After IOERR, a failed write or fsync, the content of the file is unknown.
                assert_eq!(error.may_have_applied(), *code == 10, "{code}");
            }
        }
    }
}
