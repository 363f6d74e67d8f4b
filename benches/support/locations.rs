//! The locations of the measured stores: private files and servers, removed afterwards.

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

/// The given backends, or all.
pub fn or_all(backends: &[Backend]) -> &[Backend] {
    if backends.is_empty() { Backend::value_variants() } else { backends }
}

/// The location of one store and of its floor.
pub struct Location {
    /// The URL of the store. A cluster has a second URL, of one server to compare it with.
    pub urls: Vec<String>,
    /// The durability of an acknowledged write, the same for the store and its floor.
    pub durability: &'static str,
    /// The folder or the server. The drop removes it.
    _resource: Box<dyn Any>,
}

impl Location {
    pub fn new(backend: Backend) -> Self {
        match backend {
            Backend::Memory => Self::single("memory:".to_owned(), "nothing is written", ()),
            Backend::Sqlite => {
                let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the database");
                let url = format!("sqlite:{}", folder.path().join("store.db").display());
                Self::single(url, "WAL, synchronous=FULL: a commit waits for the disk", folder)
            }
            Backend::Postgres => {
                const DURABILITY: &str = "fsync=on, synchronous_commit=on: a commit waits for the disk";
                let options = PostgresOptions::default().with_setting("fsync", "on");
                let server = options.start().expect("PostgreSQL starts");
                Self::single(server.url(), DURABILITY, server)
            }
            Backend::Redis => {
                let server = durable_redis().start().expect("Redis starts");
                Self::single(server.url(), REDIS_DURABILITY, server)
            }
            Backend::RedisCluster => {
                // As redundant as the one server: neither has a replica.
                let cluster = durable_redis().start_cluster_without_replicas().expect("a Redis Cluster starts");
                let server = durable_redis().start().expect("Redis starts");
                let urls = vec![cluster.url(), server.url()];
                Self { urls, durability: REDIS_DURABILITY, _resource: Box::new((cluster, server)) }
            }
        }
    }

    fn single(url: String, durability: &'static str, resource: impl Any) -> Self {
        Self { urls: vec![url], durability, _resource: Box::new(resource) }
    }

    /// The URL of the store.
    pub fn url(&self) -> &str {
        &self.urls[0]
    }
}

const REDIS_DURABILITY: &str = "appendonly=yes, appendfsync=always: an answer waits for the disk; no replicas";

fn durable_redis() -> RedisOptions {
    RedisOptions::default().with_setting("appendonly", "yes").with_setting("appendfsync", "always")
}

/// A file in the folder of the store's file.
pub fn sibling_file(url: &str, name: &str) -> PathBuf {
    Path::new(url.trim_start_matches("sqlite:")).with_file_name(name)
}
