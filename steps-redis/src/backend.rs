use std::sync::Arc;

use async_trait::async_trait;
use steps_core::{Backend, ConnectOptions, Description, Durability, Result, StepsStore};

use crate::{DurabilityCheck, RedisOptions, RedisStore};

/// Connects `redis://…` and `rediss://…` to a server, `redis-cluster://…` and `rediss-cluster://…` to a cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedisBackend;

#[async_trait]
impl Backend for RedisBackend {
    fn schemes(&self) -> &'static [&'static str] {
        &["redis", "rediss", "redis-cluster", "rediss-cluster"]
    }

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

fn options(url: &str, connect: &ConnectOptions) -> Result<RedisOptions> {
    let mut options = RedisOptions::from_url(url)?;
    if let Some(clock) = &connect.clock {
        options = options.with_clock(Arc::clone(clock));
    }
    if let Some(timeout) = connect.timeout {
        options = options.with_timeout(timeout);
    }
    if let Some(durability) = connect.durability {
        options = options.with_durability_check(match durability {
            Durability::Full => DurabilityCheck::Require,
            Durability::Process => DurabilityCheck::Warn,
        });
    }
    if let Some(namespace) = &connect.namespace {
        options = options.with_prefix(namespace)?;
    }
    Ok(options)
}
