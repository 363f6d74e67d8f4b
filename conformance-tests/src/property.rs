//! Property tests with shrinking.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::{
    failure::{CaseResult, Failure},
    handle::catch_panic,
    test_env::{CaseSetup, TestEnv},
};

/// Time limit for shrinking.
const SHRINK_TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum number of smaller lists that shrinking tries.
const MAX_SHRINK_ATTEMPTS: usize = 5_000;

/// Runs the test with random lists of actions, as many as the configuration says.
///
/// The lists share a store, and each uses its own builds. A list that fails is run again and shrunk, on a new store
/// each time.
pub(crate) async fn check<T: Clone + Debug>(
    setup: &CaseSetup,
    lists: impl Strategy<Value = Vec<T>>,
    test: impl AsyncFn(&mut TestEnv, Vec<T>) -> CaseResult,
) -> CaseResult {
    let mut runner = runner(setup.context.seed());
    let mut env = setup.env().await?;
    for _ in 0..setup.suite.config.cases {
        let mut list = lists.new_tree(&mut runner).map_err(|reason| Failure::new(reason.message()))?;
        setup.log.clear();
        if let Err(mut first) = attempt(&mut env, &test, list.current()).await {
            // A failure of the close adds no information.
            let _ = env.end(Ok(())).await;
            let mut shrinking = Shrinking { setup, test, start: Instant::now(), attempts: 0, smallest: None };
            if !shrinking.fails(list.current()).await {
                first
                    .what
                    .push_str("\n(it passes on a new store: the failure may depend on earlier histories in the store)");
                return Err(first);
            }
            shrinking.simplify(&mut list).await;
            shrinking.remove_elements().await;
            return Err(shrinking.smallest.map_or(first, |(_, failure)| failure));
        }
    }
    env.end(Ok(())).await
}

async fn attempt<T>(env: &mut TestEnv, test: &impl AsyncFn(&mut TestEnv, T) -> CaseResult, value: T) -> CaseResult {
    let result = catch_panic(test(env, value))
        .await
        .unwrap_or_else(|panic| Err(Failure::new("the case").expected("an end").got(format!("a panic: {panic}"))));
    env.conclude(result)
}

/// Search for the smallest list that fails.
struct Shrinking<'a, T, F> {
    setup: &'a CaseSetup,
    test: F,
    start: Instant,
    attempts: usize,
    /// The last list that failed, with its failure.
    smallest: Option<(Vec<T>, Failure)>,
}

impl<T: Clone + Debug, F: AsyncFn(&mut TestEnv, Vec<T>) -> CaseResult> Shrinking<'_, T, F> {
    /// Whether the list fails on a new store. Returns `false` if the store cannot be created or a limit is reached.
    async fn fails(&mut self, list: Vec<T>) -> bool {
        self.attempts += 1;
        if self.is_over() {
            return false;
        }
        self.setup.log.reset();
        let Ok(mut env) = self.setup.env().await else { return false };
        let result = attempt(&mut env, &self.test, list.clone()).await;
        match env.end(result).await {
            Ok(()) => false,
            Err(failure) => {
                self.smallest = Some((list, failure));
                true
            }
        }
    }

    fn is_over(&self) -> bool {
        self.attempts > MAX_SHRINK_ATTEMPTS || self.start.elapsed() > SHRINK_TIMEOUT
    }

    /// Shrinks with proptest: first fewer elements, then simpler ones.
    async fn simplify(&mut self, list: &mut impl ValueTree<Value = Vec<T>>) {
        let mut goes_on = list.simplify();
        while goes_on && !self.is_over() {
            goes_on = if self.fails(list.current()).await { list.simplify() } else { list.complicate() };
        }
    }

    /// Removes elements one by one. After simplification, more of them can be removed than before.
    async fn remove_elements(&mut self) {
        let mut index = self.smallest.as_ref().map_or(0, |(list, _)| list.len());
        while index > 0 && !self.is_over() {
            index -= 1;
            let Some((list, _)) = &self.smallest else { return };
            let mut shorter = list.clone();
            shorter.remove(index);
            self.fails(shorter).await;
        }
    }
}

/// A runner whose values depend only on the seed, and that writes no files.
fn runner(seed: u64) -> TestRunner {
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    for (n, bytes) in (0..).zip(bytes.chunks_mut(8)) {
        bytes.copy_from_slice(&seed.wrapping_add(n).to_le_bytes());
    }
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}
