//! Where the stores that are measured keep their data: private files and servers, gone afterwards.

use std::{
    any::Any,
    fmt,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use test_servers::{PostgresOptions, RedisOptions};

/// A backend that can be measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Backend {
    Memory,
    Sqlite,
    Postgres,
    Redis,
    RedisCluster,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::RedisCluster => "redis-cluster",
        })
    }
}

/// The backends that were asked for, or all.
pub fn or_all(backends: &[Backend]) -> &[Backend] {
    if backends.is_empty() { Backend::value_variants() } else { backends }
}

/// A place for one store, and for its floor beside it.
pub struct Place {
    /// What the store is connected with; and for a cluster one server to compare it with.
    pub urls: Vec<String>,
    /// What an answered write survives here, on both sides.
    pub durability: &'static str,
    /// The folder or the server.
    _kept: Box<dyn Any>,
}

impl Place {
    pub fn new(backend: Backend) -> Self {
        match backend {
            Backend::Memory => Self::kept("memory:".to_owned(), "nothing is written", ()),
            Backend::Sqlite => {
                let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the database");
                let url = format!("sqlite:{}", folder.path().join("store.db").display());
                Self::kept(url, "WAL, synchronous=FULL: a commit waits for the disk", folder)
            }
            Backend::Postgres => {
                const DURABILITY: &str = "fsync=on, synchronous_commit=on: a commit waits for the disk";
                let server = PostgresOptions::default().with_setting("fsync", "on");
                let server = server.start().expect("PostgreSQL starts");
                Self::kept(server.url(), DURABILITY, server)
            }
            Backend::Redis => {
                let server = durable_redis().start().expect("Redis starts");
                Self::kept(server.url(), REDIS_DURABILITY, server)
            }
            Backend::RedisCluster => {
                // As redundant as the one server: neither has a replica.
                let cluster = durable_redis().start_cluster_without_replicas().expect("a Redis Cluster starts");
                let server = durable_redis().start().expect("Redis starts");
                let urls = vec![cluster.url(), server.url()];
                Self { urls, durability: REDIS_DURABILITY, _kept: Box::new((cluster, server)) }
            }
        }
    }

    fn kept(url: String, durability: &'static str, kept: impl Any) -> Self {
        Self { urls: vec![url], durability, _kept: Box::new(kept) }
    }

    /// What the store is connected with.
    pub fn url(&self) -> &str {
        &self.urls[0]
    }
}

const REDIS_DURABILITY: &str = "appendonly=yes, appendfsync=always: an answer waits for the disk; no replicas";

fn durable_redis() -> RedisOptions {
    RedisOptions::default().with_setting("appendonly", "yes").with_setting("appendfsync", "always")
}

/// The file of a SQLite floor, beside that of the store.
pub fn beside(url: &str, name: &str) -> PathBuf {
    Path::new(url.trim_start_matches("sqlite:")).with_file_name(name)
}
