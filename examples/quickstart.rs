//! The life of a step: added, started, given a url, finished, read.
//!
//! `cargo run --example quickstart`

use steps::{Clock, Results, StepsStoreExt, SystemClock};

#[tokio::main]
async fn main() -> steps::Result<()> {
    let store = steps::connect("memory:").await?;

    let step = store.add(7, "compile", "waiting for a worker").await?;
    store.start_with_locks(step.id, SystemClock.now()).await?;
    store.state(step.id, "compiling 3 of 12").await?;
    store.add_named_url(step.id, "log", "https://ci.example.org/7/compile").await?;
    store.finish(step.id, Results::SUCCESS).await?;

    // A name that is taken gets the smallest free suffix.
    let again = store.add(7, "compile", "waiting for a worker").await?;
    assert_eq!(again.name, "compile_1");

    for step in store.steps(7).await? {
        let results = step.results.map_or("running".to_owned(), |results| results.to_string());
        println!("{} {}: {}, {results}", step.number, step.name, step.state_string);
    }
    Ok(())
}
