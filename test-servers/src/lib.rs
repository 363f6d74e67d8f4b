//! Starts private servers for tests, benches and examples, from the programs of Debian's packages.
//!
//! A server has a temporary folder and listens on a loopback address. Dropping its value stops the server and removes
//! the folder. This also happens when the process dies: a watchdog process waits for the end of a pipe that only this
//! process holds.
//!
//! [`children`] starts processes that share a store. [`outages`] calls a store whose server is down.
//!
//! A missing program is an error that names the package to install. Tests are not skipped for it.

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
