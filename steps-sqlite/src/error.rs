//! The errors of this store: what SQLite says, as the contract's kinds.

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc};

use sqlx::migrate::MigrateError;
use steps_core::{Call, Error, ErrorKind, Operation};

use crate::BACKEND;

pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Error {
    Failure::new(ErrorKind::Config, message).into_error(Call::on_store(Operation::Connect))
}

/// An answer of a committed write that cannot be read: the write is there all the same.
pub(crate) fn unreadable(message: impl Into<Cow<'static, str>>) -> Failure {
    Failure::new(ErrorKind::Corrupt, message).with_may_have_applied(true)
}

/// What went wrong, before it is known which calls it concerns: one failed batch fails many.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    kind: ErrorKind,
    message: Cow<'static, str>,
    may_have_applied: bool,
    is_busy: bool,
    source: Option<Arc<sqlx::Error>>,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), may_have_applied: false, is_busy: false, source: None }
    }

    /// Another connection has the lock: nothing was done.
    pub(crate) fn busy() -> Self {
        let message = "another connection holds the lock of the file; end what keeps it, and try again";
        Self { is_busy: true, ..Self::new(ErrorKind::Unavailable, message) }
    }

    pub(crate) fn with_may_have_applied(mut self, may_have_applied: bool) -> Self {
        self.may_have_applied = may_have_applied;
        self
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind, message: &'static str) -> Self {
        self.kind = kind;
        self.message = message.into();
        self
    }

    /// SQLite's primary result code, if it was SQLite that failed.
    pub(crate) fn code(&self) -> Option<i32> {
        self.source.as_deref().and_then(primary_code)
    }

    /// Whether it is certain that nothing was applied.
    pub(crate) fn is_certain(&self) -> bool {
        !self.may_have_applied
    }

    /// Whether another connection has the lock: nothing was done, and it helps to wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy
    }

    pub(crate) fn into_error(self, call: Call) -> Error {
        let error = if self.kind == ErrorKind::NotFound {
            Error::not_found(call)
        } else {
            Error::new(self.kind, self.message).with_call(call).with_may_have_applied(self.may_have_applied)
        };
        let error = error.with_backend(BACKEND);
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let mut failure = match primary_code(&error) {
            Some(code) => from_code(code),
            None => from_driver(&error),
        };
        failure.source = Some(Arc::new(error));
        failure
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(ErrorKind::Corrupt, format!("what is stored cannot be read back: {error}"))
    }
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            error => {
                Self::new(ErrorKind::Config, format!("the schema of the file is not one of this program: {error}"))
            }
        }
    }
}

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
        5 | 6 => Failure::busy(),
        // PERM, READONLY, AUTH
        3 | 8 | 23 => Failure::new(ReadOnly, "the file cannot be written to; check its mode and permissions"),
        // NOMEM
        7 => Failure::new(CapacityExceeded, "SQLite is out of memory"),
        // FULL
        13 => Failure::new(CapacityExceeded, "the disk is full; make room"),
        // TOOBIG
        18 => Failure::new(CapacityExceeded, "a value is larger than SQLite holds"),
        // CANTOPEN
        14 => Failure::new(Unavailable, "the file cannot be opened"),
        // IOERR
        10 => Failure::new(Unavailable, "reading or writing the file failed").with_may_have_applied(true),
        // INTERRUPT, PROTOCOL
        9 | 15 => Failure::new(Unavailable, "SQLite gave up"),
        // Among them CORRUPT and NOTADB, and ERROR: tables that are not as this program made them.
        _ => Failure::new(Corrupt, "the file is damaged; restore it from a backup"),
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
