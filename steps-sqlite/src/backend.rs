use std::sync::Arc;

use async_trait::async_trait;
use steps_core::{Backend, ConnectOptions, Description, Durability, Result, StepsStore};

use crate::{SqliteOptions, SqliteStore, Synchronous};

/// Connects `sqlite:PATH` to a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct SqliteBackend;

#[async_trait]
impl Backend for SqliteBackend {
    fn schemes(&self) -> &'static [&'static str] {
        &["sqlite"]
    }

    fn urls_hold_secrets(&self) -> bool {
        false
    }

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
