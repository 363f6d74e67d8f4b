//! The errors of this store: maps errors of Redis and its driver to the kinds of the contract.

use std::{borrow::Cow, error::Error as StdError, io, sync::Arc, time::Duration};

use redis::{RedisError, ServerError};
use steps_batch::BatchError;
use steps_core::{Call, Error, ErrorKind, InputError, Operation};

use crate::BACKEND;

pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Error {
    BatchError::new(ErrorKind::Config, message).into_error(Call::on_store(Operation::Connect), BACKEND)
}

/// The stored data is not in the format of this store.
pub(crate) fn corrupt(message: impl Into<Cow<'static, str>>) -> BatchError {
    BatchError::new(ErrorKind::Corrupt, message)
}

/// A stored value that no type of `steps-core` can hold.
pub(crate) fn unreadable(error: &InputError) -> BatchError {
    corrupt(format!("a stored record is invalid: {error}"))
}

/// A reply that no script or command of this store returns.
pub(crate) fn unexpected_reply() -> BatchError {
    BatchError::unreadable("unexpected reply: no script or command of this store returns it")
}

/// The deadline has passed.
pub(crate) fn timed_out(timeout: Duration, may_have_applied: bool, last_error: Option<BatchError>) -> BatchError {
    let timed_out = BatchError::new(ErrorKind::Unavailable, format!("no answer within {timeout:?}"))
        .with_may_have_applied(may_have_applied);
    match last_error {
        Some(last_error) => timed_out.with_source(last_error),
        None => timed_out,
    }
}

/// The deadline has passed, and the write was applied but is on too few replicas.
pub(crate) fn too_few_replicas(acknowledged: i64, required: u8, timeout: Duration) -> BatchError {
    let message = format!(
        "{acknowledged} of the {required} replicas that a write waits for had it within {timeout:?}; check that they \
         run and keep up, or wait for fewer"
    );
    BatchError::new(ErrorKind::Unavailable, message).with_may_have_applied(true)
}

/// The connection ended after a command was sent, so its outcome is unknown.
pub(crate) fn connection_lost(error: RedisError) -> BatchError {
    BatchError::new(ErrorKind::Unavailable, "the connection to the server was lost")
        .with_may_have_applied(true)
        .with_source(error)
}

/// Another node was promoted while a call waited for this one.
pub(crate) fn taken_over() -> BatchError {
    BatchError::transient("the node did not reply, and another node has taken over its slots")
}

/// Maps an error of connecting: no command of a caller was sent yet.
pub(crate) fn connect_error(error: RedisError) -> BatchError {
    let mapped = match error.kind() {
        redis::ErrorKind::AuthenticationFailed => {
            BatchError::new(ErrorKind::Config, "the server refused the login; check user and password")
        }
        redis::ErrorKind::RESP3NotSupported => {
            BatchError::new(ErrorKind::Config, "the server is older than Redis 7; use a newer one")
        }
        redis::ErrorKind::InvalidClientConfig => {
            BatchError::new(ErrorKind::Config, "the driver rejects these options; check the URL")
        }
        redis::ErrorKind::Server(_) | redis::ErrorKind::Extension => match error.clone().try_into() {
            Ok(error) => server_error(&error),
            // When SELECT fails, the driver replaces the server's error by one of its own.
            Err(_) => BatchError::new(ErrorKind::Config, "the server has no such database; use another, or none"),
        },
        _ if is_tls_error(&error) => BatchError::new(
            ErrorKind::Config,
            "no encrypted connection could be made; check host, port and certificates",
        ),
        _ => BatchError::transient(UNREACHABLE),
    };
    mapped.with_source(error)
}

const UNREACHABLE: &str = "the server cannot be reached; check that it runs, and its host and port";

/// Maps an error of the first connection. A server that is starting is waited for. A server that cannot be reached
/// fails at once, since the URL may be wrong.
pub(crate) fn initial_connect_error(error: RedisError) -> BatchError {
    if error.is_io_error() && !error.is_timeout() && !is_tls_error(&error) {
        return BatchError::new(ErrorKind::Unavailable, UNREACHABLE).with_source(error);
    }
    connect_error(error)
}

/// Whether the certificate is invalid, or only one end encrypts.
fn is_tls_error(error: &RedisError) -> bool {
    // The driver wraps the source of its errors in an `Arc`.
    let shared = error.source().and_then(|cause| cause.downcast_ref::<Arc<dyn StdError + Send + Sync>>());
    let cause = shared.and_then(|cause| cause.downcast_ref::<io::Error>());
    error.kind() == redis::ErrorKind::Client || cause.is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData)
}

pub(crate) fn server_is_in_a_cluster() -> BatchError {
    BatchError::new(ErrorKind::Config, "the server is part of a cluster; write redis-cluster:// in the URL")
}

/// Maps an error that the server returned. Nothing was applied: the server rejected the script, or the script failed
/// in its checks, which precede its first write.
pub(crate) fn server_error(error: &ServerError) -> BatchError {
    use ErrorKind::{CapacityExceeded, Config, Corrupt, ReadOnly, Unavailable};
    let details = error.details().unwrap_or_default();
    let mapped = match error.code() {
        "CORRUPT" => BatchError::new(Corrupt, format!("the stored data is not in the format of this store: {details}")),
        "WRONGTYPE" => {
            BatchError::new(Corrupt, "a key of the build has another type; find out which program writes to it")
        }
        "OOM" => BatchError::new(CapacityExceeded, "the server is out of memory; raise maxmemory, or make room"),
        // The server adds the text of the system's error ENOSPC.
        "MISCONF" if details.contains("No space left") => {
            BatchError::new(CapacityExceeded, "the server's disk is full; make room")
        }
        "MISCONF" => BatchError::new(Unavailable, "the server takes no writes while it cannot save them to its disk"),
        "READONLY" => BatchError::new(ReadOnly, "the server is a read-only replica; use its primary"),
        "NOPERM" => BatchError::new(ReadOnly, MISSING_PERMISSION),
        "NOAUTH" | "WRONGPASS" => BatchError::new(Config, "the server refused the login; check user and password"),
        "DENIED" => BatchError::new(Config, "the server accepts local connections only; see protected-mode"),
        "LOADING" => BatchError::transient("the server is starting"),
        "BUSY" => BatchError::transient("the server is busy with a long script"),
        "TRYAGAIN" => BatchError::transient("the build is moving to another node of the cluster"),
        "CLUSTERDOWN" | "MASTERDOWN" => BatchError::transient("the cluster, or the build's part of it, is down"),
        "NOREPLICAS" => BatchError::transient("the server has fewer replicas than it needs to take writes"),
        "MOVED" | "ASK" => server_is_in_a_cluster(),
        // The error of a script with a command that the user may not run.
        _ if details.contains("can't run this command") => BatchError::new(ReadOnly, MISSING_PERMISSION),
        _ if details.contains("max number of clients") => {
            BatchError::transient("the server has no connection left; raise maxclients")
        }
        _ => BatchError::new(Unavailable, "the server refused the command"),
    };
    mapped.with_source(RedisError::from(error.clone()))
}

const MISSING_PERMISSION: &str = "the user lacks a permission; see docs/redis.md for the ones to grant";

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(reply: &str) -> ErrorKind {
        let value = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes()).unwrap();
        let redis::Value::ServerError(error) = value else { panic!("{value:?}") };
        let error = server_error(&error).into_error(Call::on_store(Operation::Connect), BACKEND);
        assert!(!error.may_have_applied(), "{reply}");
        error.kind()
    }

    #[test]
    fn errors_of_connecting_have_the_kinds_of_the_table() {
        for (kind, expected) in [
            (io::ErrorKind::ConnectionRefused, ErrorKind::Unavailable),
            (io::ErrorKind::UnexpectedEof, ErrorKind::Unavailable),
            // A certificate that is not trusted.
            (io::ErrorKind::InvalidData, ErrorKind::Config),
        ] {
            for map in [connect_error, initial_connect_error] {
                let error = map(io::Error::from(kind).into()).into_error(Call::on_store(Operation::Connect), BACKEND);
                assert_eq!(error.kind(), expected, "{error}");
            }
        }
    }

    #[test]
    fn errors_of_the_server_have_the_kinds_of_the_table() {
        for (reply, expected) in [
            ("CORRUPT the record of step 3 script: abc, on @user_script:16.", ErrorKind::Corrupt),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", ErrorKind::Corrupt),
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::CapacityExceeded),
            ("MISCONF Errors writing to the AOF file: No space left on device", ErrorKind::CapacityExceeded),
            ("MISCONF Redis is configured to save RDB snapshots, but it's", ErrorKind::Unavailable),
            ("READONLY You can't write against a read only replica.", ErrorKind::ReadOnly),
            ("NOPERM this user has no permissions to run the 'evalsha' command", ErrorKind::ReadOnly),
            ("ERR The user executing the script can't run this command or subcommand", ErrorKind::ReadOnly),
            ("NOAUTH Authentication required.", ErrorKind::Config),
            ("LOADING Redis is loading the dataset in memory", ErrorKind::Unavailable),
            ("CLUSTERDOWN The cluster is down", ErrorKind::Unavailable),
            ("MOVED 3999 127.0.0.1:6381", ErrorKind::Config),
            ("ERR something new", ErrorKind::Unavailable),
        ] {
            assert_eq!(kind(reply), expected, "{reply}");
        }
    }
}
