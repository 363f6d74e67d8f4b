//! Random calls of concurrent callers on one build.

use std::sync::{Arc, Mutex, PoisonError};

use steps_core::{
    BuildId, Dispatch, ErrorKind, FinishStep, Results, StartStep, StateString, StepId, StepSelector, StepsStore,
    Timestamp,
};
use tokio::{runtime, sync::Barrier, task::JoinSet};

use crate::{
    cases::values::{keyed, named, new_step, numbered, time_number, url},
    failure::{CaseResult, Failure},
    handle::Handle,
    linear::{History, Recorded, Recorder},
    rng::Rng,
    test_env::TestEnv,
};

/// The number of callers, and the number of calls of each caller.
const CALLERS: usize = 8;
const CALLS: usize = 20;

/// A random workload on one build.
pub(super) struct Workload {
    build: BuildId,
    now: Timestamp,
    seed: u64,
    /// Ids returned by any add so far.
    steps: Mutex<Vec<StepId>>,
    recorder: Arc<Recorder>,
    calls: usize,
    /// Whether calls may fail with `Unavailable`, because their connection is cut.
    may_fail: bool,
}

impl Workload {
    /// Creates a workload on a fresh build.
    pub(super) fn new(env: &TestEnv, seed: u64, round: u64) -> Self {
        Self {
            build: env.build(),
            now: env.now(),
            seed: seed.wrapping_add(round),
            steps: Mutex::default(),
            recorder: Recorder::new(),
            calls: CALLS,
            may_fail: false,
        }
    }

    /// Accepts calls that fail with `Unavailable`: their callers continue.
    pub(super) fn that_may_fail(self) -> Self {
        Self { may_fail: true, ..self }
    }

    /// Runs the callers, each on one of the handles, and returns the history of their calls.
    pub(super) async fn run(self, handles: &[Handle], on_threads: bool) -> CaseResult<History> {
        let workload = Arc::new(self);
        // Two steps exist from the beginning, so that every call has a target.
        let first = workload.recorder.caller("first", &handles[0]);
        for name in ["a", "b"] {
            let added = first.add_step(new_step(workload.build, name, name)?).await?;
            workload.steps().push(added.id);
        }
        let mut callers = JoinSet::new();
        let start = Arc::new(Barrier::new(CALLERS));
        for number in 0..CALLERS {
            let handle = &handles[number % handles.len()];
            let caller = workload.recorder.caller(format!("{number} on {}", handle.0.name()), handle);
            let workload = Arc::clone(&workload);
            let start = Arc::clone(&start);
            let work = async move {
                start.wait().await;
                workload.call(&caller, number).await
            };
            if on_threads {
                let runtime = runtime::Handle::current();
                callers.spawn_blocking(move || runtime.block_on(work));
            } else {
                callers.spawn(work);
            }
        }
        while let Some(ended) = callers.join_next().await {
            ended.map_err(|error| Failure::new("a task of the case").got(error.to_string()))??;
        }
        for handle in handles {
            let last = workload.recorder.caller(format!("last on {}", handle.0.name()), handle);
            workload.verify(last.get_steps(workload.build).await)?;
        }
        Ok(workload.recorder.history(workload.build, workload.now))
    }

    fn steps(&self) -> std::sync::MutexGuard<'_, Vec<StepId>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the calls of one caller. Each write has a unique value, so that reads can tell writes apart.
    async fn call(&self, caller: &Dispatch<Recorded>, number: usize) -> CaseResult {
        let mut rng = Rng::new(self.seed, number as u64);
        for turn in 0..self.calls {
            let own = number * 1_000 + turn;
            let state = format!("s{number}.{turn}");
            let at = time_number(i64::try_from(own).expect("a small number"));
            let step = {
                let steps = self.steps();
                // Prefers the first two steps, so that calls conflict.
                if rng.percent(70) { steps[rng.below(2)] } else { *rng.of(&steps) }
            };
            match rng.below(100) {
                0..18 => self.add(caller.add_step(new_step(self.build, *rng.of(&["a", "a_1", "b"]), state)?).await)?,
                18..24 => {
                    let mut new = keyed(self.build, *rng.of(&["a", "k"]), format!("key-{}", rng.below(4)))?;
                    new.state_string = StateString::new(state)?;
                    self.add(caller.add_step(new).await)?;
                }
                24..42 => {
                    let shared = rng.percent(40);
                    let url = if shared { url("all", rng.below(3).to_string()) } else { url("own", state) };
                    self.verify(caller.add_url(step, url?).await)?;
                }
                42..50 => self.verify(caller.set_step_state_string(step, StateString::new(state)?).await)?,
                50..55 => {
                    let start = StartStep::new(at).with_locks_acquired(rng.percent(50));
                    self.verify(caller.start_step(step, start).await)?;
                }
                55..58 => self.verify(caller.set_step_locks_acquired_at(step, at).await)?,
                58..65 => {
                    let results = Results::new(i32::try_from(own).expect("a small number"));
                    let finish = FinishStep::new(results).with_hidden(rng.percent(30));
                    self.verify(caller.finish_step(step, finish).await)?;
                }
                65..82 => self.verify(caller.get_steps(self.build).await)?,
                82..90 => self.verify(caller.get_step(step.into()).await)?,
                90..95 => {
                    let selector = numbered(self.build, rng.below(30));
                    self.verify(caller.get_step(selector).await)?;
                }
                _ => {
                    let selector: StepSelector = named(self.build, *rng.of(&["a", "a_1", "a_2", "b_1", "k"]))?;
                    self.verify(caller.get_step(selector).await)?;
                }
            }
        }
        Ok(())
    }

    fn add(&self, answer: steps_core::Result<steps_core::AddedStep>) -> CaseResult {
        if let Ok(added) = &answer {
            self.steps().push(added.id);
        }
        self.verify(answer)
    }

    fn verify<T>(&self, answer: steps_core::Result<T>) -> CaseResult {
        match answer {
            Err(error) if self.may_fail && error.kind() == ErrorKind::Unavailable => Ok(()),
            answer => Ok(answer.map(drop)?),
        }
    }
}
