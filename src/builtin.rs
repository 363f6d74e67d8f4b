//! The backends that come with this crate: a scheme each.

use std::sync::Arc;

use crate::Backend;

/// The feature that brings the backend of a scheme, compiled in or not.
pub(crate) fn feature(scheme: &str) -> Option<&'static str> {
    match scheme {
        "memory" => Some("memory"),
        "postgres" | "postgresql" => Some("postgres"),
        "redis" | "rediss" | "redis-cluster" | "rediss-cluster" => Some("redis"),
        "sqlite" => Some("sqlite"),
        _ => None,
    }
}

/// The backends that were compiled in, by scheme.
pub(crate) fn backends() -> Vec<(&'static str, Arc<dyn Backend>)> {
    vec![
        #[cfg(feature = "memory")]
        ("memory", Arc::new(memory::Memory)),
        #[cfg(feature = "postgres")]
        ("postgres", Arc::new(postgres::Postgres)),
        #[cfg(feature = "postgres")]
        ("postgresql", Arc::new(postgres::Postgres)),
        #[cfg(feature = "redis")]
        ("redis", Arc::new(redis::Redis)),
        #[cfg(feature = "redis")]
        ("redis-cluster", Arc::new(redis::Redis)),
        #[cfg(feature = "redis")]
        ("rediss", Arc::new(redis::Redis)),
        #[cfg(feature = "redis")]
        ("rediss-cluster", Arc::new(redis::Redis)),
        #[cfg(feature = "sqlite")]
        ("sqlite", Arc::new(sqlite::Sqlite)),
    ]
}

#[cfg(feature = "memory")]
mod memory {
    use std::sync::Arc;

    use async_trait::async_trait;
    use steps_core::{Call, Description, Error, ErrorKind, Operation, Result, StepsStore};
    use steps_memory::{MemoryOptions, MemoryStore};

    use crate::{Backend, ConnectOptions};

    #[derive(Debug)]
    pub(super) struct Memory;

    fn open(url: &str, connect: &ConnectOptions) -> Result<MemoryStore> {
        let mut options = MemoryOptions::from_url(url)?;
        if connect.durability.is_some() {
            let message = "a store in memory survives nothing; ask for no durability, or use a durable store";
            return Err(Error::new(ErrorKind::Config, message).with_call(Call::on_store(Operation::Connect)));
        }
        if let Some(clock) = &connect.clock {
            options = options.with_clock(Arc::clone(clock));
        }
        Ok(MemoryStore::with_options(options))
    }

    #[async_trait]
    impl Backend for Memory {
        async fn connect(&self, url: &str, options: &ConnectOptions) -> Result<Arc<dyn StepsStore>> {
            Ok(Arc::new(open(url, options)?))
        }

        async fn describe(&self, url: &str, options: &ConnectOptions) -> Result<Description> {
            open(url, options)?.describe().await
        }
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::sync::Arc;

    use async_trait::async_trait;
    use steps_core::{Description, Result, StepsStore};
    use steps_postgres::{PostgresOptions, PostgresStore, SynchronousCommit};

    use crate::{Backend, ConnectOptions, Durability};

    #[derive(Debug)]
    pub(super) struct Postgres;

    fn options(url: &str, connect: &ConnectOptions) -> Result<PostgresOptions> {
        let mut options = PostgresOptions::from_url(url)?;
        if let Some(clock) = &connect.clock {
            options = options.with_clock(Arc::clone(clock));
        }
        if let Some(timeout) = connect.timeout {
            options = options.with_timeout(timeout);
        }
        if let Some(durability) = connect.durability {
            options = options.with_synchronous_commit(match durability {
                Durability::Full => SynchronousCommit::On,
                Durability::Process => SynchronousCommit::Off,
            });
        }
        if let Some(namespace) = &connect.namespace {
            options = options.with_schema(namespace)?;
        }
        Ok(options)
    }

    #[async_trait]
    impl Backend for Postgres {
        async fn connect(&self, url: &str, connect: &ConnectOptions) -> Result<Arc<dyn StepsStore>> {
            Ok(Arc::new(PostgresStore::connect(options(url, connect)?).await?))
        }

        async fn describe(&self, url: &str, connect: &ConnectOptions) -> Result<Description> {
            let store = PostgresStore::connect(options(url, connect)?).await?;
            let description = store.describe().await?;
            store.close().await?;
            Ok(description)
        }
    }
}

#[cfg(feature = "redis")]
mod redis {
    use std::sync::Arc;

    use async_trait::async_trait;
    use steps_core::{Description, Result, StepsStore};
    use steps_redis::{Durability as Kept, RedisOptions, RedisStore};

    use crate::{Backend, ConnectOptions, Durability};

    #[derive(Debug)]
    pub(super) struct Redis;

    fn options(url: &str, connect: &ConnectOptions) -> Result<RedisOptions> {
        let mut options = RedisOptions::from_url(url)?;
        if let Some(clock) = &connect.clock {
            options = options.with_clock(Arc::clone(clock));
        }
        if let Some(timeout) = connect.timeout {
            options = options.with_timeout(timeout);
        }
        if let Some(durability) = connect.durability {
            options = options.with_durability(match durability {
                Durability::Full => Kept::Required,
                Durability::Process => Kept::Server,
            });
        }
        if let Some(namespace) = &connect.namespace {
            options = options.with_prefix(namespace)?;
        }
        Ok(options)
    }

    #[async_trait]
    impl Backend for Redis {
        async fn connect(&self, url: &str, connect: &ConnectOptions) -> Result<Arc<dyn StepsStore>> {
            Ok(Arc::new(RedisStore::connect(options(url, connect)?).await?))
        }

        async fn describe(&self, url: &str, connect: &ConnectOptions) -> Result<Description> {
            let store = RedisStore::connect(options(url, connect)?).await?;
            let description = store.describe().await?;
            store.close().await?;
            Ok(description)
        }
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::sync::Arc;

    use async_trait::async_trait;
    use steps_core::{Description, Result, StepsStore};
    use steps_sqlite::{SqliteOptions, SqliteStore, Synchronous};

    use crate::{Backend, ConnectOptions, Durability};

    #[derive(Debug)]
    pub(super) struct Sqlite;

    fn options(url: &str, connect: &ConnectOptions) -> Result<SqliteOptions> {
        let mut options = SqliteOptions::from_url(url)?;
        if let Some(clock) = &connect.clock {
            options = options.with_clock(Arc::clone(clock));
        }
        if let Some(timeout) = connect.timeout {
            options = options.with_timeout(timeout);
        }
        if let Some(durability) = connect.durability {
            options = options.with_synchronous(match durability {
                Durability::Full => Synchronous::Full,
                Durability::Process => Synchronous::Normal,
            });
        }
        Ok(options)
    }

    #[async_trait]
    impl Backend for Sqlite {
        async fn connect(&self, url: &str, connect: &ConnectOptions) -> Result<Arc<dyn StepsStore>> {
            Ok(Arc::new(SqliteStore::connect(options(url, connect)?).await?))
        }

        async fn describe(&self, url: &str, connect: &ConnectOptions) -> Result<Description> {
            let store = SqliteStore::connect(options(url, connect)?).await?;
            let description = store.describe().await?;
            store.close().await?;
            Ok(description)
        }
    }
}
