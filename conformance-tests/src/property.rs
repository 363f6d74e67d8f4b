//! Properties: many random values, and of one that fails the smallest that still does.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::{
    failure::{Checked, Failure},
    handle::caught,
    stage::{Setup, Stage},
};

/// How long shrinking may take, and how many smaller values it may try.
const SHRINKING: Duration = Duration::from_secs(15);
const ATTEMPTS: usize = 5_000;

/// Checks as many values as the configuration asks for.
///
/// They share a store, as histories in builds of their own do in life. A value that fails is tried again, and made smaller, on
/// a new store each time.
pub(crate) async fn check<T: Debug>(
    setup: &Setup,
    values: impl Strategy<Value = T>,
    test: impl AsyncFn(&mut Stage, T) -> Checked,
) -> Checked {
    let mut runner = runner(setup.context.seed());
    let mut stage = setup.stage().await?;
    for _ in 0..setup.suite.config.cases {
        let mut value = values.new_tree(&mut runner).map_err(|reason| Failure::new(reason.message()))?;
        setup.log.clear();
        if let Err(failure) = attempt(&mut stage, &test, value.current()).await {
            stage.end(Ok(())).await.ok();
            return Err(smallest(setup, &test, &mut value, failure).await);
        }
    }
    stage.end(Ok(())).await
}

async fn attempt<T>(stage: &mut Stage, test: &impl AsyncFn(&mut Stage, T) -> Checked, value: T) -> Checked {
    let result = caught(test(stage, value))
        .await
        .unwrap_or_else(|panic| Err(Failure::new("the case").expected("an end").got(format!("a panic: {panic}"))));
    stage.judged(result)
}

/// The failure of the smallest value that fails.
async fn smallest<V: ValueTree>(
    setup: &Setup,
    test: &impl AsyncFn(&mut Stage, V::Value) -> Checked,
    value: &mut V,
    first: Failure,
) -> Failure {
    let start = Instant::now();
    let mut smallest = None;
    for _ in 0..ATTEMPTS {
        setup.log.reset();
        let result = match setup.stage().await {
            Ok(mut stage) => {
                let result = attempt(&mut stage, test, value.current()).await;
                stage.end(result).await
            }
            // Without a store nothing more can be found out.
            Err(_) => break,
        };
        let can_shrink = match result {
            Err(failure) => {
                smallest = Some(failure);
                value.simplify()
            }
            Ok(()) if smallest.is_none() => {
                let mut first = first;
                first.what.push_str(
                    "\n(it did not fail again on a new store: what earlier histories left in the store may matter)",
                );
                return first;
            }
            Ok(()) => value.complicate(),
        };
        if !can_shrink || start.elapsed() > SHRINKING {
            break;
        }
    }
    smallest.unwrap_or(first)
}

/// Values that follow from the seed alone, and no files.
fn runner(seed: u64) -> TestRunner {
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    for (n, bytes) in (0..).zip(bytes.chunks_mut(8)) {
        bytes.copy_from_slice(&seed.wrapping_add(n).to_le_bytes());
    }
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}
