//! Replays recorded scenarios concurrently, on a few worker threads.

use std::{
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    runtime,
    sync::{Mutex, mpsc},
    task::{JoinSet, LocalSet},
    time::timeout,
};

use crate::{
    Failure, Progress,
    handle::catch_panic,
    harness::Suite,
    recorded::{Disagreement, Mismatch, Reason, Scenario},
    test_env::{CaseSetup, TestEnv},
};

/// Number of worker threads. Each has its own store, or its own handle on a shared one.
const WORKERS: usize = 2;

/// Number of scenarios that a worker runs concurrently. They mostly wait for a disk or a server, and a store can batch
/// the concurrent calls of one handle.
const SCENARIOS_PER_WORKER: usize = 32;

/// Scenarios with their line numbers, and the state that the workers share.
pub(crate) struct ReplayPool {
    suite: Arc<Suite>,
    scenarios: Vec<(usize, Scenario)>,
    /// Index of the next scenario to run.
    next: AtomicUsize,
    /// Failure of the factory. Once set, the remaining scenarios fail with it without calling the factory again.
    env_failure: OnceLock<Failure>,
}

/// Index of a finished scenario, with its result.
type Finished = (usize, Option<Disagreement>);

/// The environment of one worker, once it exists. It is not `Send`.
type EnvSlot = Rc<Mutex<Option<Rc<TestEnv>>>>;

impl ReplayPool {
    pub(crate) fn new(suite: Suite, scenarios: Vec<(usize, Scenario)>) -> Arc<Self> {
        Arc::new(Self { suite: Arc::new(suite), scenarios, next: AtomicUsize::new(0), env_failure: OnceLock::new() })
    }

    /// Runs all scenarios and returns the disagreements in the order of the scenarios.
    pub(crate) async fn run(self: Arc<Self>, mut watch: impl FnMut(Progress<'_>)) -> Vec<Disagreement> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut logs = Vec::new();
        for _ in 0..WORKERS.min(self.scenarios.len()) {
            let pool = Arc::clone(&self);
            let sender = sender.clone();
            let setup = CaseSetup::new(Arc::clone(&self.suite), "recorded");
            let setups: Vec<_> = (0..SCENARIOS_PER_WORKER).map(|_| setup.with_own_log()).collect();
            logs.extend(setups.iter().map(|setup| Arc::clone(&setup.log)));
            // A thread that fails to spawn finishes no scenario; unfinished scenarios are reported below.
            let _ = thread::Builder::new().name("replay".into()).spawn(move || pool.worker(setups, &sender));
        }
        drop(sender);
        let total = self.scenarios.len();
        let mut results: Vec<Option<Option<Disagreement>>> = vec![None; total];
        let limit = self.suite.config.case_timeout;
        let calls = || logs.iter().map(|log| log.begun()).sum::<u64>();
        let mut begun = 0;
        for done in 1.. {
            let next = loop {
                match timeout(limit, receiver.recv()).await {
                    Ok(next) => break next,
                    // Scenarios may be long and stores slow: as long as there are new calls, nothing hangs.
                    Err(_) if calls() > begun => begun = calls(),
                    // A thread that a store blocks cannot be ended, so it is left running.
                    Err(_) => break None,
                }
            };
            let Some((index, disagreement)) = next else { break };
            watch(Progress { done, total, name: &self.scenarios[index].1.name(), failed: disagreement.is_some() });
            results[index] = Some(disagreement);
        }
        let reason = || self.env_failure.get().cloned().unwrap_or_else(|| Failure::no_answer(limit));
        let unfinished = |index| Some(self.disagreement(index, Mismatch::error(reason())));
        (0..).zip(results).filter_map(|(index, result)| result.unwrap_or_else(|| unfinished(index))).collect()
    }

    /// Runs scenarios on this thread until none is left.
    fn worker(self: Arc<Self>, setups: Vec<CaseSetup>, finished: &mpsc::UnboundedSender<Finished>) {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                self.env_failure.get_or_init(|| Failure::new("starting a runtime").got(error.to_string()));
                return;
            }
        };
        LocalSet::new().block_on(&runtime, async {
            let slot = EnvSlot::default();
            let mut tasks = JoinSet::new();
            for setup in setups {
                tasks.spawn_local(Arc::clone(&self).run_scenarios(setup, Rc::clone(&slot), finished.clone()));
            }
            while tasks.join_next().await.is_some() {}
            if let Some(env) = slot.lock().await.take().and_then(Rc::into_inner) {
                let _ = env.end(Ok(())).await;
            }
        });
        runtime.shutdown_background();
    }

    /// Runs one scenario after the other, in an environment that the tasks of the worker share.
    async fn run_scenarios(
        self: Arc<Self>,
        setup: CaseSetup,
        slot: EnvSlot,
        finished: mpsc::UnboundedSender<Finished>,
    ) {
        while let index = self.next.fetch_add(1, Ordering::Relaxed)
            && let Some((_, scenario)) = self.scenarios.get(index)
        {
            let mismatch = self.run_scenario(&setup, &slot, scenario).await.err();
            if finished.send((index, mismatch.map(|mismatch| self.disagreement(index, mismatch)))).is_err() {
                break;
            }
        }
    }

    /// Returns the environment of the worker. Creates it if the slot is empty.
    async fn env(&self, setup: &CaseSetup, slot: &EnvSlot) -> Result<Rc<TestEnv>, Mismatch> {
        let mut slot = slot.lock().await;
        if let Some(env) = &*slot {
            return Ok(Rc::clone(env));
        }
        if let Some(failure) = self.env_failure.get() {
            return Err(Mismatch::error(failure.clone()));
        }
        match setup.env().await {
            Ok(env) => Ok(Rc::clone(slot.insert(Rc::new(env)))),
            Err(failure) => Err(Mismatch::error(self.env_failure.get_or_init(|| failure).clone())),
        }
    }

    async fn run_scenario(&self, setup: &CaseSetup, slot: &EnvSlot, scenario: &Scenario) -> Result<(), Mismatch> {
        let env = self.env(setup, slot).await?;
        let shared = env.shared(setup);
        setup.log.clear();
        let panicked = |panic| Err(Mismatch::error(Failure::new(format_args!("a panic: {panic}"))));
        let result = catch_panic(scenario.run(&shared)).await.unwrap_or_else(panicked);
        let Err(mut mismatch) = result else { return Ok(()) };
        if let Err(failure) = shared.conclude(Err(*mismatch.failure.clone())) {
            mismatch.failure = Box::new(failure);
        }
        if setup.log.fatal().is_some() {
            // After a panic or a hang the worker needs a new store.
            setup.log.reset();
            slot.lock().await.take_if(|current| Rc::ptr_eq(current, &env));
            mismatch.reason = Reason::Error;
        }
        Err(mismatch)
    }

    fn disagreement(&self, index: usize, mismatch: Mismatch) -> Disagreement {
        let (line, scenario) = &self.scenarios[index];
        mismatch.of(scenario.name(), *line)
    }
}
