//! Maps the errors of PostgreSQL and its driver to the kinds of the contract.

use std::{borrow::Cow, fmt, io};

use sqlx::postgres::{PgDatabaseError, PgSeverity};
use steps_batch::BatchError;
use steps_core::{Call, Error, ErrorKind, Operation};

use crate::BACKEND;

const UNREACHABLE: &str = "the server cannot be reached; check that it runs, and its host and port";

/// An error in the options.
pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Error {
    BatchError::new(ErrorKind::Config, message).into_error(Call::on_store(Operation::Connect), BACKEND)
}

/// Maps the error of a statement, which ended its transaction.
///
/// The server rolls back the transaction of a failed statement, so nothing was applied. After a lost connection that is
/// unknown.
pub(crate) fn statement_error(error: sqlx::Error) -> BatchError {
    match database_error(&error) {
        Some(database) if is_from_pooler(database) => connection_lost(),
        Some(database) => from_code(database.code()),
        None => from_driver(&error),
    }
    .with_source(error)
}

/// Maps an error after the end of a statement: that of the commit.
pub(crate) fn commit_error(error: sqlx::Error) -> BatchError {
    // A refused commit has the severity ERROR. A server that shuts down may send FATAL just after a commit.
    match database_error(&error) {
        Some(database) if database.severity() == PgSeverity::Error => statement_error(error),
        _ => connection_lost().with_source(error),
    }
}

/// Maps an error of connecting. No request was sent yet, so nothing was applied.
pub(crate) fn connect_error(error: sqlx::Error) -> BatchError {
    let batch_error = match (&error, database_error(&error).map(PgDatabaseError::code)) {
        (_, Some("28000" | "28P01")) => {
            BatchError::new(ErrorKind::Config, "the server refused the user; check user, password and sslmode")
        }
        (_, Some("3D000")) => BatchError::new(ErrorKind::Config, "the server has no such database; create it first"),
        _ if database_error(&error).is_some_and(is_from_pooler) => from_pooler(database_error(&error)),
        (_, Some(code)) => from_code(code),
        (sqlx::Error::Tls(_), _) if cfg!(not(feature = "tls")) => {
            BatchError::new(ErrorKind::Config, "encrypted connections were not compiled in; enable the feature `tls`")
        }
        (error, _) if is_tls_error(error) => {
            let message = "no encrypted connection could be made; check sslmode, the host's name and the certificates";
            BatchError::new(ErrorKind::Config, message)
        }
        (sqlx::Error::Configuration(_), _) => {
            BatchError::new(ErrorKind::Config, "the driver cannot use these options; check the parameters of the URL")
        }
        _ => BatchError::transient(UNREACHABLE),
    };
    batch_error.with_may_have_applied(false).with_source(error)
}

/// Whether an encrypted connection failed. The driver reports errors of its TLS library as I/O errors.
fn is_tls_error(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(io) => io.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// Maps an error of the first connection. A server that is starting is transient. A server that does not exist is not:
/// the URL may have a mistake, which the user should learn of at once.
pub(crate) fn initial_connect_error(error: sqlx::Error) -> BatchError {
    match &error {
        sqlx::Error::Io(io) if io.kind() == io::ErrorKind::NotFound => {
            let message = "a file is missing: the server's socket, or a certificate named in the URL";
            BatchError::new(ErrorKind::Unavailable, message).with_source(error)
        }
        sqlx::Error::Io(io) if io.kind() != io::ErrorKind::UnexpectedEof && !is_tls_error(&error) => {
            BatchError::new(ErrorKind::Unavailable, UNREACHABLE).with_source(error)
        }
        _ => connect_error(error),
    }
}

/// Maps an error of creating or migrating the schema.
pub(crate) fn migration_error(error: sqlx::Error) -> BatchError {
    match database_error(&error).map(PgDatabaseError::code) {
        // Duplicate schema, table, function, object
        Some("42P06" | "42P07" | "42723" | "42710") => {
            let message = "the schema has tables or functions of another program; choose another schema";
            BatchError::new(ErrorKind::Config, message).with_source(error)
        }
        // No schema to create the table in
        Some("3F000") => {
            let message = "the user lacks a right on the schema; grant USAGE and CREATE";
            BatchError::new(ErrorKind::ReadOnly, message).with_source(error)
        }
        // Reserved name
        Some("42939") => {
            let message = "names of schemas that begin with pg_ are reserved; choose another";
            BatchError::new(ErrorKind::Config, message).with_source(error)
        }
        _ => statement_error(error),
    }
}

/// The error of a stored step that cannot be decoded.
pub(crate) fn undecodable_step(id: i64, error: impl fmt::Display) -> BatchError {
    BatchError::new(ErrorKind::Corrupt, format!("step {id} cannot be read back: {error}"))
}

/// Whether the connection can be used after this error.
pub(crate) fn keeps_connection(error: &sqlx::Error) -> bool {
    database_error(error).is_some_and(|database| database.severity() == PgSeverity::Error)
}

/// The error of a connection that ended, or timed out, after a request was sent.
pub(crate) fn connection_lost() -> BatchError {
    BatchError::new(ErrorKind::Unavailable, "the connection to the server was lost").with_may_have_applied(true)
}

/// Whether PgBouncer closed the connection, for example because the server crashed or cannot be reached. It uses the
/// code of a protocol violation for that, as it does for a parameter that it does not know. If PostgreSQL reports this
/// code, for example for a statement that another session prepared, the severity is ERROR.
fn is_from_pooler(database: &PgDatabaseError) -> bool {
    database.code() == "08P01"
        && database.severity() == PgSeverity::Fatal
        && !database.message().contains("startup parameter")
}

/// A refusal of PgBouncer. An unknown user or database does not go away; a server that cannot be reached may.
fn from_pooler(error: Option<&PgDatabaseError>) -> BatchError {
    if error.is_some_and(|error| error.message().starts_with("no such ")) {
        BatchError::new(ErrorKind::Config, "the pooler knows no such user or database; check the URL")
    } else {
        BatchError::transient("the pooler closed the connection; check that the server behind it runs")
    }
}

fn database_error(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// Maps a code of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn from_code(code: &str) -> BatchError {
    use ErrorKind::{CapacityExceeded, Config, Corrupt, ReadOnly, Unavailable};
    match code {
        // Serialization failure, deadlock
        "40001" | "40P01" => BatchError::transient("another transaction changed the same steps at the same time"),
        // Lock not available
        "55P03" => BatchError::transient("another transaction holds the lock; end it, and try again"),
        // Unique violation: another program inserted a number or a name without the build's lock
        "23505" => BatchError::transient("another program wrote to the tables of this store"),
        // Shutdown, crash, not accepting connections, too many connections
        "57P01" | "57P02" | "57P03" => BatchError::transient("the server is starting or stopping"),
        "53300" => {
            BatchError::transient("the server has no connection left; raise max_connections, or use fewer connections")
        }
        "57014" => BatchError::new(Unavailable, "the server canceled the statement"),
        "53100" => BatchError::new(CapacityExceeded, "the server's disk is full; free some space"),
        "53200" => BatchError::new(CapacityExceeded, "the server is out of memory"),
        "25006" => BatchError::new(ReadOnly, "the server is a read-only replica, or the session is read-only"),
        "42501" => BatchError::new(ReadOnly, "the user lacks a right on the schema; grant it"),
        // A prepared statement that is missing or exists already; a setting that a pooler does not know
        "26000" | "42P05" | "08P01" => BatchError::new(
            Config,
            "a pooler between the store and the server shares sessions; write pooler=transaction in the URL",
        ),
        // Undefined schema, table, column, function; and data_corrupted, index_corrupted
        "3F000" | "42P01" | "42703" | "42883" | "XX001" | "XX002" => BatchError::new(
            Corrupt,
            "the schema was changed or damaged; restore it from a backup or, if a pooler shares sessions, write \
             pooler=transaction in the URL",
        ),
        _ if code.starts_with("53") || code.starts_with("54") => {
            BatchError::new(CapacityExceeded, "a limit of the server is reached")
        }
        _ if code.starts_with("08") => connection_lost(),
        _ => BatchError::new(Unavailable, "the server refused the statement"),
    }
}

fn from_driver(error: &sqlx::Error) -> BatchError {
    match error {
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
            BatchError::new(ErrorKind::Corrupt, "a stored value cannot be decoded")
        }
        _ => connection_lost(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_postgresql_have_kinds() {
        use ErrorKind::{CapacityExceeded, Config, Corrupt, ReadOnly, Unavailable};
        let transient = ["40001", "40P01", "55P03", "23505", "57P01", "57P02", "57P03", "53300"];
        let kinds = [
            (Unavailable, &transient[..]),
            (Unavailable, &["57014", "08006", "22023"]),
            (CapacityExceeded, &["53100", "53200", "53400", "54000"]),
            (Corrupt, &["3F000", "42P01", "42703", "42883", "XX001", "XX002"]),
            (ReadOnly, &["25006", "42501"]),
            (Config, &["26000", "42P05", "08P01"]),
        ];
        for (kind, codes) in kinds {
            for code in codes {
                let error = from_code(code);
                assert_eq!((error.kind(), error.is_transient()), (kind, transient.contains(code)), "{code}");
            }
        }
        // The same kind, but another remedy.
        assert!(from_code("53100").to_string().contains("disk"));
        assert!(from_code("53200").to_string().contains("memory"));
    }
}
