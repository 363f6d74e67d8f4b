use std::sync::Arc;

use async_trait::async_trait;
use steps_core::{Backend, ConnectOptions, Description, Durability, Result, StepsStore};

use crate::{PostgresOptions, PostgresStore, SynchronousCommit};

/// Connects `postgres://…` and `postgresql://…` to a database.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresBackend;

#[async_trait]
impl Backend for PostgresBackend {
    fn schemes(&self) -> &'static [&'static str] {
        &["postgres", "postgresql"]
    }

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
    if let Some(mode) = connect.default_mode {
        options = options.with_default_mode(mode);
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use steps_core::OpenMode;

    use super::*;

    #[test]
    fn the_mode_of_the_url_wins_over_the_default_one() {
        for (url, expected) in [
            ("postgres://db/ci", OpenMode::ReadOnly),
            ("postgres://db/ci?mode=rw", OpenMode::ReadWrite),
            ("postgres://db/ci?mode=rwc", OpenMode::Create),
        ] {
            let connect = ConnectOptions::new().with_default_mode(OpenMode::ReadOnly);
            assert_eq!(options(url, &connect).unwrap().mode(), expected, "{url}");
        }
        assert_eq!(options("postgres://db/ci", &ConnectOptions::new()).unwrap().mode(), OpenMode::Create);
    }
}
