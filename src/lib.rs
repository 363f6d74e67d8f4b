//! A store for the steps of a build: one trait, [`StepsStore`], and several backends.
//!
//! Within a build, each step has a unique 0-based number and a unique name; a name that is taken gets the smallest
//! free suffix. A step has a state string, times, results, urls and a hidden flag. The contract follows
//! Buildbot's `master.db.steps`.
//!
//! ```
//! use steps::{Results, StepsStoreExt};
//!
//! # #[cfg(feature = "memory")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> steps::Result<()> {
//! let store = steps::connect("memory:").await?; // or "sqlite:steps.db"
//! store.add(7, "test", "running").await?;
//! let again = store.add(7, "test", "running").await?;
//! assert_eq!(again.name, "test_1");
//!
//! store.add_named_url(again.id, "log", "https://ci.example.org/7/test_1").await?;
//! store.finish(again.id, Results::SUCCESS).await?;
//! assert_eq!(store.steps(7).await?.len(), 2);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "memory"))]
//! # fn main() {}
//! ```
//!
//! # Choosing a backend
//!
//! A feature compiles a backend in, and a URL selects it:
//!
//! | feature | URL | store |
//! |---|---|---|
//! | `memory` (default) | `memory:` | in this process; each connect creates a new store |
//! | `sqlite` (default) | `sqlite:PATH`, `sqlite:///PATH` | a file: see `SqliteOptions::from_url` |
//! | `postgres` | `postgres://USER:PASSWORD@HOST/DATABASE` | a PostgreSQL server: see `PostgresOptions::from_url` |
//! | `redis` | `redis://USER:PASSWORD@HOST/DATABASE`, `redis-cluster://USER:PASSWORD@HOST,HOST` | a Redis server or cluster: see `RedisOptions::from_url` |
//! | `tls` | | encrypted connections to servers |
//! | `full` | | all of them, and `serde` |
//!
//! [`connect`] takes only a URL; a [`Connector`] also takes [`ConnectOptions`] and backends of the application.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod builtin;
mod connect;

pub use connect::{Connector, connect};
pub use steps_core::*;

/// The store in memory.
#[cfg(feature = "memory")]
pub use steps_memory as memory;

/// The store in PostgreSQL.
#[cfg(feature = "postgres")]
pub use steps_postgres as postgres;

/// The store in Redis, on one server or on a cluster.
#[cfg(feature = "redis")]
pub use steps_redis as redis;

/// The store in a SQLite file.
#[cfg(feature = "sqlite")]
pub use steps_sqlite as sqlite;

/// Compiles the examples of the README.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../README.md")]
struct Readme;
