use std::{sync::Arc, time::Duration};

#[cfg(feature = "conformance")]
use steps::Clock;
use steps::{ConnectOptions, Connector, Description, ErrorKind, OpenMode, Result, StepsStore};

use crate::store_url::StoreUrl;

/// Opens the store to add to it, and creates it if it is missing.
pub(crate) async fn to_add(url: &StoreUrl) -> Result<Arc<dyn StepsStore>> {
    connector(ConnectOptions::new()).connect(url.as_str()).await
}

/// As [`to_add`], with a time-out for each call.
pub(crate) async fn to_add_within(timeout: Duration, url: &StoreUrl) -> Result<Arc<dyn StepsStore>> {
    connector(ConnectOptions::new().with_timeout(timeout)).connect(url.as_str()).await
}

/// As [`to_add`], with a clock.
#[cfg(feature = "conformance")]
pub(crate) async fn to_check(clock: Arc<dyn Clock>, url: &StoreUrl) -> Result<Arc<dyn StepsStore>> {
    connector(ConnectOptions::new().with_clock(clock)).connect(url.as_str()).await
}

/// Opens the store to change its steps. A missing store is an error.
pub(crate) async fn to_change(url: &StoreUrl) -> Result<Arc<dyn StepsStore>> {
    open(OpenMode::ReadWrite, url).await
}

/// Opens the store to read from it, which needs no right to write. A missing store is an error.
pub(crate) async fn to_read(url: &StoreUrl) -> Result<Arc<dyn StepsStore>> {
    match open(OpenMode::ReadWrite, url).await {
        Err(error) if error.kind() == ErrorKind::ReadOnly => open(OpenMode::ReadOnly, url).await,
        opened => opened,
    }
}

/// Asks the store about itself. A missing store is an error.
pub(crate) async fn describe(url: &StoreUrl) -> Result<Description> {
    let options = ConnectOptions::new().with_default_mode(OpenMode::ReadWrite);
    connector(options).describe(url.as_str()).await
}

/// Closes a store after reading and ignores an error: the data was read.
///
/// A close lets SQLite remove the files that it made beside the store's. Commands that only write do not wait for
/// that: an acknowledged write is durable without it.
pub(crate) async fn close_quietly(store: &dyn StepsStore) {
    let _ = store.close().await;
}

async fn open(mode: OpenMode, url: &StoreUrl) -> Result<Arc<dyn StepsStore>> {
    connector(ConnectOptions::new().with_default_mode(mode)).connect(url.as_str()).await
}

fn connector(options: ConnectOptions) -> Connector {
    Connector::builtin().with_options(options)
}
