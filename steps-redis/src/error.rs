//! The errors of this store: what Redis says, as the contract's kinds.

use std::{borrow::Cow, error::Error as StdError, io, sync::Arc, time::Duration};

use redis::{RedisError, ServerError};
use steps_batch::BatchError;
use steps_core::{Call, Error, ErrorKind, InputError, Operation};

use crate::BACKEND;

pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Error {
    BatchError::new(ErrorKind::Config, message).into_error(Call::on_store(Operation::Connect), BACKEND)
}

/// What is stored is not what this program stores.
pub(crate) fn corrupt(message: impl Into<Cow<'static, str>>) -> BatchError {
    BatchError::new(ErrorKind::Corrupt, message)
}

/// A stored value that no type of `steps-core` can hold.
pub(crate) fn unreadable(error: &InputError) -> BatchError {
    corrupt(format!("a record cannot be read back: {error}"))
}

/// An answer that this program cannot have asked for.
pub(crate) fn unexpected_answer() -> BatchError {
    BatchError::unreadable("the server's answer is not one of this store's scripts")
}

/// The time is up.
pub(crate) fn timed_out(timeout: Duration, may_have_applied: bool, obstacle: Option<BatchError>) -> BatchError {
    let failure = BatchError::new(ErrorKind::Unavailable, format!("no answer within {timeout:?}"))
        .with_may_have_applied(may_have_applied);
    match obstacle {
        Some(obstacle) => failure.with_source(obstacle),
        None => failure,
    }
}

/// The time is up, and too few replicas had what was written.
pub(crate) fn too_few_replicas(had: i64, wanted: u8, timeout: Duration) -> BatchError {
    let message = format!(
        "{had} of the {wanted} replicas that a write waits for had it within {timeout:?}; see that they run and keep up, \
         or wait for fewer"
    );
    BatchError::new(ErrorKind::Unavailable, message).with_may_have_applied(true)
}

/// The connection ended after something was sent: nobody knows whether it was applied.
pub(crate) fn lost(error: RedisError) -> BatchError {
    BatchError::new(ErrorKind::Unavailable, "the connection to the server was lost")
        .with_may_have_applied(true)
        .with_source(error)
}

/// Another node has taken over while a call waited for one to take it, or to answer it.
pub(crate) fn taken_over() -> BatchError {
    BatchError::transient("the node did not answer, and another one has taken over from it")
}

/// What an error of connecting means: nothing was sent yet.
pub(crate) fn connecting(error: RedisError) -> BatchError {
    let failure = match error.kind() {
        redis::ErrorKind::AuthenticationFailed => {
            BatchError::new(ErrorKind::Config, "the server does not let this user in; check user and password")
        }
        redis::ErrorKind::RESP3NotSupported => {
            BatchError::new(ErrorKind::Config, "the server is older than Redis 7; use a newer one")
        }
        redis::ErrorKind::InvalidClientConfig => {
            BatchError::new(ErrorKind::Config, "the driver cannot use these options; check what the URL names")
        }
        redis::ErrorKind::Server(_) | redis::ErrorKind::Extension => match error.clone().try_into() {
            Ok(answer) => from_server(&answer),
            // The driver's own words for what it was told when it chose the database.
            Err(_) => BatchError::new(ErrorKind::Config, "the server has no such database; use another, or none"),
        },
        _ if is_refused_encryption(&error) => BatchError::new(
            ErrorKind::Config,
            "no encrypted connection could be made; check host, port and certificates",
        ),
        _ => unreachable_server(),
    };
    failure.with_source(error)
}

/// What an error of the first connection means. A server that starts is waited for; one that is not there may
/// be a mistake, which its author should hear of at once.
pub(crate) fn at_first_sight(error: RedisError) -> BatchError {
    if error.is_io_error() && !error.is_timeout() && !is_refused_encryption(&error) {
        let message = "the server cannot be reached; check that it runs, and its host and port";
        return BatchError::new(ErrorKind::Unavailable, message).with_source(error);
    }
    connecting(error)
}

/// Whether the certificates do not fit, or one end encrypts and the other does not.
fn is_refused_encryption(error: &RedisError) -> bool {
    // The driver shares what is behind its errors.
    let shared = error.source().and_then(|cause| cause.downcast_ref::<Arc<dyn StdError + Send + Sync>>());
    let cause = shared.and_then(|cause| cause.downcast_ref::<io::Error>());
    error.kind() == redis::ErrorKind::Client || cause.is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData)
}

fn unreachable_server() -> BatchError {
    BatchError::transient("the server cannot be reached; check that it runs, and its host and port")
}

pub(crate) fn in_a_cluster() -> BatchError {
    BatchError::new(ErrorKind::Config, "the server is part of a cluster; write redis-cluster:// in the URL")
}

/// What an error means that the server answered with: a script is not carried out, or checks all before it writes, so
/// nothing was applied.
pub(crate) fn from_server(error: &ServerError) -> BatchError {
    use ErrorKind::{CapacityExceeded, Config, Corrupt, ReadOnly, Unavailable};
    let details = error.details().unwrap_or_default();
    let failure = match error.code() {
        "CORRUPT" => BatchError::new(Corrupt, format!("what is stored is not what this program stores: {details}")),
        "WRONGTYPE" => {
            BatchError::new(Corrupt, "a key of the build is of another type; find out who else writes there")
        }
        "OOM" => BatchError::new(CapacityExceeded, "the server is out of memory; raise maxmemory, or make room"),
        // It tells what the system said: ENOSPC.
        "MISCONF" if details.contains("No space left") => {
            BatchError::new(CapacityExceeded, "the server's disk is full; make room")
        }
        "MISCONF" => BatchError::new(Unavailable, "the server takes no writes while it cannot save them to its disk"),
        "READONLY" => BatchError::new(ReadOnly, "the server is a read-only replica; use its primary"),
        "NOPERM" => BatchError::new(ReadOnly, "the user lacks a right; see docs/redis.md for what to grant"),
        "NOAUTH" | "WRONGPASS" => {
            BatchError::new(Config, "the server does not let this user in; check user and password")
        }
        "DENIED" => {
            BatchError::new(Config, "the server takes connections from its own machine alone; see protected-mode")
        }
        "LOADING" => BatchError::transient("the server is starting"),
        "BUSY" => BatchError::transient("the server is busy with a script of somebody else"),
        "TRYAGAIN" => BatchError::transient("the build is moving to another node of the cluster"),
        "CLUSTERDOWN" | "MASTERDOWN" => BatchError::transient("the cluster, or the build's part of it, is down"),
        "NOREPLICAS" => BatchError::transient("the server has fewer replicas than it needs to take writes"),
        "MOVED" | "ASK" => in_a_cluster(),
        // What a script says whose user may not do what it does.
        _ if details.contains("can't run this command") => {
            BatchError::new(ReadOnly, "the user lacks a right; see docs/redis.md for what to grant")
        }
        _ if details.contains("max number of clients") => {
            BatchError::transient("the server has no connection left; raise maxclients")
        }
        _ => BatchError::new(Unavailable, "the server refused the command"),
    };
    failure.with_source(RedisError::from(error.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(answer: &str) -> ErrorKind {
        let value = redis::parse_redis_value(format!("-{answer}\r\n").as_bytes()).unwrap();
        let redis::Value::ServerError(error) = value else { panic!("{value:?}") };
        let error = from_server(&error).into_error(Call::on_store(Operation::Connect), BACKEND);
        assert!(!error.may_have_applied(), "{answer}");
        error.kind()
    }

    #[test]
    fn what_keeps_from_connecting_has_the_kinds_of_the_table() {
        for (kind, expected) in [
            (io::ErrorKind::ConnectionRefused, ErrorKind::Unavailable),
            (io::ErrorKind::UnexpectedEof, ErrorKind::Unavailable),
            // A certificate that nobody vouches for.
            (io::ErrorKind::InvalidData, ErrorKind::Config),
        ] {
            for failure in [connecting, at_first_sight] {
                let failure = failure(io::Error::from(kind).into());
                let error = failure.into_error(Call::on_store(Operation::Connect), BACKEND);
                assert_eq!(error.kind(), expected, "{error}");
            }
        }
    }

    #[test]
    fn what_the_server_says_has_the_kinds_of_the_table() {
        for (answer, expected) in [
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
            assert_eq!(kind(answer), expected, "{answer}");
        }
    }
}
