use std::{sync::Arc, time::Duration};

#[cfg(feature = "conformance")]
use steps::Clock;
use steps::{ConnectOptions, Connector, ErrorKind, Result, StepsStore};

use crate::store_url::StoreUrl;

/// Opens the store to add to it: where it is a file that is missing, it is made.
pub(crate) async fn to_add(url: &StoreUrl) -> Result<Arc<dyn StepsStore>> {
    Connector::builtin().connect(url.as_str()).await
}

/// As [`to_add`], with a store that answers within `timeout`.
pub(crate) async fn to_add_within(timeout: Duration, url: &StoreUrl) -> Result<Arc<dyn StepsStore>> {
    let options = ConnectOptions::new().with_timeout(timeout);
    Connector::builtin().with_options(options).connect(url.as_str()).await
}

/// As [`to_add`], with a store that takes the time from this clock.
#[cfg(feature = "conformance")]
pub(crate) async fn to_check(clock: Arc<dyn Clock>, url: &StoreUrl) -> Result<Arc<dyn StepsStore>> {
    let options = ConnectOptions::new().with_clock(clock);
    Connector::builtin().with_options(options).connect(url.as_str()).await
}

/// Opens the store to change steps that it has.
pub(crate) async fn to_change(url: &StoreUrl) -> Result<Arc<dyn StepsStore>> {
    Connector::builtin().connect(url.without_creating().as_str()).await
}

/// Opens the store to read from it, which also who may not write to it can do.
pub(crate) async fn to_read(url: &StoreUrl) -> Result<Arc<dyn StepsStore>> {
    let connector = Connector::builtin();
    match connector.connect(url.without_creating().as_str()).await {
        Err(error) if error.kind() == ErrorKind::ReadOnly => connector.connect(url.read_only().as_str()).await,
        opened => opened,
    }
}

/// Closes a store that was read. SQLite then takes back the files that it made beside the store's; those who
/// write do not wait for that, since what they were answered is kept anyway.
pub(crate) async fn leave(store: &dyn StepsStore) {
    // What was read is read.
    let _ = store.close().await;
}
