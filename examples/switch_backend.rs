//! Chooses the store by its URL.
//!
//! `cargo run --example switch_backend -- memory:` or `-- sqlite:steps.db`

use std::env;

use steps::{Results, StepsStore, StepsStoreExt};

#[tokio::main]
async fn main() -> steps::Result<()> {
    let url = env::args().nth(1).unwrap_or_else(|| "memory:".to_owned());
    let store = steps::connect(&url).await?;
    record(&*store).await?;
    store.close().await
}

/// Uses the trait only, so that it works with every backend.
async fn record(store: &dyn StepsStore) -> steps::Result<()> {
    let step = store.add(7, "test", "running").await?;
    store.finish(step.id, Results::SUCCESS).await?;
    println!("build 7 has {} steps; the last is {}", store.steps(7).await?.len(), step.name);
    Ok(())
}
