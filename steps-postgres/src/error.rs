//! The errors of this store: what PostgreSQL says, as the contract's kinds.

use std::{borrow::Cow, fmt, io};

use sqlx::postgres::{PgDatabaseError, PgSeverity};
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

/// What the driver's error means that ended a transaction.
///
/// A statement that fails takes back its transaction, so nothing was applied. When the connection fails, nobody
/// knows.
pub(crate) fn failure(error: sqlx::Error) -> BatchError {
    match of_database(&error) {
        Some(database) => from_code(database.code()),
        None => from_driver(&error),
    }
    .with_source(error)
}

/// What an error means that came after the statement itself was done.
pub(crate) fn after_statement(error: sqlx::Error) -> BatchError {
    // A refused commit is an ERROR. A server that shuts down may do so just after a commit.
    match of_database(&error) {
        Some(database) if database.severity() == PgSeverity::Error => failure(error),
        _ => lost().with_source(error),
    }
}

/// What an error of connecting means: nothing was sent yet.
pub(crate) fn connecting(error: sqlx::Error) -> BatchError {
    let failure = match (&error, of_database(&error).map(PgDatabaseError::code)) {
        (_, Some("28000" | "28P01")) => {
            BatchError::new(ErrorKind::Config, "the server does not let this user in; check user, password and sslmode")
        }
        (_, Some("3D000")) => BatchError::new(ErrorKind::Config, "the server has no such database; make it first"),
        (_, Some(code)) => from_code(code),
        (sqlx::Error::Tls(_), _) if cfg!(not(feature = "tls")) => {
            BatchError::new(ErrorKind::Config, "encrypted connections were not compiled in; enable the feature `tls`")
        }
        (error, _) if is_of_encryption(error) => {
            let message = "no encrypted connection could be made; check sslmode, the host's name and the certificates";
            BatchError::new(ErrorKind::Config, message)
        }
        (sqlx::Error::Configuration(_), _) => {
            BatchError::new(ErrorKind::Config, "the driver cannot use these options; check what the URL names")
        }
        _ => BatchError::transient("the server cannot be reached; check that it runs, and its host and port"),
    };
    failure.with_may_have_applied(false).with_source(error)
}

/// Whether the two sides do not agree on an encrypted connection. The driver passes on what its TLS says as I/O.
fn is_of_encryption(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(io) => io.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// What an error of the first connection means. A server that starts is waited for; one that is not there may
/// be a mistake, which its author should hear of at once.
pub(crate) fn at_first_sight(error: sqlx::Error) -> BatchError {
    match &error {
        sqlx::Error::Io(io) if io.kind() == io::ErrorKind::NotFound => {
            let message = "a file is missing: the server's socket, or a certificate that the URL names";
            BatchError::new(ErrorKind::Unavailable, message).with_source(error)
        }
        sqlx::Error::Io(io) if io.kind() != io::ErrorKind::UnexpectedEof && !is_of_encryption(&error) => {
            let message = "the server cannot be reached; check that it runs, and its host and port";
            BatchError::new(ErrorKind::Unavailable, message).with_source(error)
        }
        _ => connecting(error),
    }
}

/// What an error of making the schema means.
pub(crate) fn migration(error: sqlx::Error) -> BatchError {
    match of_database(&error).map(PgDatabaseError::code) {
        // Duplicate schema, table, function, object
        Some("42P06" | "42P07" | "42723" | "42710") => {
            let message = "the schema has tables or functions of another program; choose another schema";
            BatchError::new(ErrorKind::Config, message).with_source(error)
        }
        // No schema to make it in
        Some("3F000") => {
            let message = "the user lacks a right on the schema; grant USAGE and CREATE";
            BatchError::new(ErrorKind::ReadOnly, message).with_source(error)
        }
        // Reserved name
        Some("42939") => {
            let message = "the server keeps names of schemas that begin with pg_ for itself; choose another";
            BatchError::new(ErrorKind::Config, message).with_source(error)
        }
        _ => failure(error),
    }
}

/// A stored step that no [`Step`](steps_core::Step) can be made of.
pub(crate) fn unreadable_step(id: i64, error: impl fmt::Display) -> BatchError {
    BatchError::new(ErrorKind::Corrupt, format!("step {id} cannot be read back: {error}"))
}

/// Whether the connection can be used further.
pub(crate) fn leaves_connection(error: &sqlx::Error) -> bool {
    of_database(error).is_some_and(|database| database.severity() == PgSeverity::Error)
}

/// The connection ended, or the server did not answer, after something was sent.
pub(crate) fn lost() -> BatchError {
    BatchError::new(ErrorKind::Unavailable, "the connection to the server was lost").with_may_have_applied(true)
}

/// Somebody else has the lock.
pub(crate) fn locked() -> BatchError {
    BatchError::transient("somebody else holds the lock; end what keeps it, and try again")
}

fn of_database(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// By the codes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn from_code(code: &str) -> BatchError {
    use ErrorKind::{CapacityExceeded, Config, Corrupt, ReadOnly, Unavailable};
    match code {
        // Serialization failure, deadlock
        "40001" | "40P01" => BatchError::transient("others changed the same steps at the same time"),
        "55P03" => locked(),
        // A number or name that somebody gave by hand, without the build's lock
        "23505" => BatchError::transient("somebody else wrote to the tables of this store"),
        // Shutdown, crash, not accepting connections yet or any more, too many connections
        "57P01" | "57P02" | "57P03" => BatchError::transient("the server is starting or stopping"),
        "53300" => {
            BatchError::transient("the server has no connection left; raise max_connections, or use fewer lanes")
        }
        "57014" => BatchError::new(Unavailable, "the server gave up the statement"),
        "53100" => BatchError::new(CapacityExceeded, "the server's disk is full; make room"),
        "53200" => BatchError::new(CapacityExceeded, "the server is out of memory"),
        "25006" => BatchError::new(ReadOnly, "the server is a read-only replica, or the session is read-only"),
        "42501" => BatchError::new(ReadOnly, "the user lacks a right on the schema; grant it"),
        // A prepared statement that is not there, or is already; a setting that a pooler does not know
        "26000" | "42P05" | "08P01" => BatchError::new(
            Config,
            "something between the store and the server changes sessions; write pooler=transaction in the URL",
        ),
        // Undefined schema, table, column, function; and data_corrupted, index_corrupted
        "3F000" | "42P01" | "42703" | "42883" | "XX001" | "XX002" => BatchError::new(
            Corrupt,
            "the schema is not as this program made it; restore it from a backup or, where a pooler changes \
                 sessions, write pooler=transaction in the URL",
        ),
        _ if code.starts_with("53") || code.starts_with("54") => {
            BatchError::new(CapacityExceeded, "a limit of the server is reached")
        }
        _ if code.starts_with("08") => lost(),
        _ => BatchError::new(Unavailable, "the server refused the statement"),
    }
}

fn from_driver(error: &sqlx::Error) -> BatchError {
    match error {
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
            BatchError::new(ErrorKind::Corrupt, "what is stored cannot be read")
        }
        _ => lost(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_postgresql_have_kinds() {
        use ErrorKind::{CapacityExceeded, Config, Corrupt, ReadOnly, Unavailable};
        let busy = ["40001", "40P01", "55P03", "23505", "57P01", "57P02", "57P03", "53300"];
        let kinds = [
            (Unavailable, &busy[..]),
            (Unavailable, &["57014", "08006", "22023"]),
            (CapacityExceeded, &["53100", "53200", "53400", "54000"]),
            (Corrupt, &["3F000", "42P01", "42703", "42883", "XX001", "XX002"]),
            (ReadOnly, &["25006", "42501"]),
            (Config, &["26000", "42P05", "08P01"]),
        ];
        for (kind, codes) in kinds {
            for code in codes {
                let failure = from_code(code);
                assert_eq!((failure.kind(), failure.is_transient()), (kind, busy.contains(code)), "{code}");
            }
        }
        // What to do about it is not the same.
        assert!(from_code("53100").to_string().contains("disk"));
        assert!(from_code("53200").to_string().contains("memory"));
    }
}
