//! Starts private servers for tests, benches and examples, from the programs that Debian's packages bring.
//!
//! A server lives in a folder for temporary files and listens on this machine alone. It is stopped and its
//! folder removed when its value is dropped, and also when this process dies in any other way: a watchdog
//! beside the server waits for the end of a pipe that only this process holds.
//!
//! And starts the processes that share a store in such tests: see [`children`]; and calls one whose server is gone: see
//! [`outages`].
//!
//! A missing program is an error that names the package to install, and no reason to skip a test.

#[cfg(feature = "certificates")]
mod certificates;
pub mod children;
pub mod outages;
mod pgbouncer;
mod postgres;
mod process;
mod redis;
mod redis_cluster;
mod shared;
mod shared_redis;
mod trial;
mod watchdog;

#[cfg(feature = "certificates")]
pub use certificates::Authority;
pub use pgbouncer::PgBouncer;
pub use postgres::{Postgres, PostgresOptions};
pub use redis::{Redis, RedisOptions};
pub use redis_cluster::RedisCluster;
pub use shared::{POSTGRES_URL, Schema, shared_postgres};
pub use shared_redis::{
    KeyPrefix, REDIS_CLUSTER_URL, REDIS_URL, shared_redis, shared_redis_cluster, shared_replicated_redis,
    shared_replicated_redis_cluster,
};
pub use trial::{TestResult, trial};
