//! Runs the cases. Each has its own thread and runtime, so that a panic or a hang affects no other case.

use std::{
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Completion, Trial};
use tokio::{runtime, sync::oneshot};

use crate::{
    Config, Failure, Profile, StoreFactory,
    cases::{self, Body, Case, Needs},
    context::FreshBuilds,
    failure::CaseResult,
    handle::message,
    process::child,
    report::{CaseReport, Outcome, Progress, Report},
    test_env::CaseSetup,
};

/// Time limit for the runtime of a case to end the tasks of the store.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the suite as a test program. `tests/conformance.rs` of a backend calls it in `main`, with `harness = false` in
/// `Cargo.toml`.
///
/// It accepts the arguments of `cargo test`: filters, `--exact`, `--skip`, `--list`, `--test-threads` and so on.
/// Environment variables set the seed and the number of random cases ([`Config::from_env`]).
///
/// ```no_run
/// # use conformance_tests::{BoxError, CaseContext, Fixture, StoreFactory};
/// # struct MyFactory;
/// # #[async_trait::async_trait]
/// # impl StoreFactory for MyFactory {
/// #     fn name(&self) -> &str { "mine" }
/// #     async fn create(&self, _: &CaseContext) -> Result<Fixture, BoxError> { Err("".into()) }
/// # }
/// fn main() -> std::process::ExitCode {
///     conformance_tests::main(MyFactory)
/// }
/// ```
pub fn main(factory: impl StoreFactory) -> ExitCode {
    if let Some(code) = child(&factory) {
        return code;
    }
    let arguments = Arguments::from_args();
    match Config::from_env() {
        Ok(config) => libtest_mimic::run(&arguments, trials(factory, config)).exit_code(),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// The cases as trials of libtest-mimic, to run together with other trials.
///
/// Cases that the profile of the store opts out of are reported as ignored, with the reason, and not as passed.
#[must_use]
pub fn trials(factory: impl StoreFactory, config: Config) -> Vec<Trial> {
    let suite = Arc::new(Suite::new(factory, config));
    let trial = |case: Case| {
        let suite = Arc::clone(&suite);
        Trial::ignorable_test(case.name.clone(), move || {
            let report = suite.run(&case);
            match &report.outcome {
                Outcome::Passed => Ok(Completion::Completed),
                Outcome::Failed { .. } => Err(report.into()),
                Outcome::Skipped { reason } => Ok(Completion::ignored_with(reason)),
                Outcome::KnownFailure { reason, .. } => {
                    Ok(Completion::ignored_with(format!("known failure: {reason}")))
                }
            }
        })
    };
    suite.cases().into_iter().map(trial).collect()
}

/// Runs the suite and returns a report.
///
/// It needs no runtime and never panics: a panic in the store or the suite is a failure of its case.
pub async fn run(factory: impl StoreFactory, config: Config) -> Report {
    run_watched(factory, config, |_| {}).await
}

/// As [`run`], and calls `watch` at the end of each case, on the thread of the case.
pub async fn run_watched(
    factory: impl StoreFactory,
    config: Config,
    watch: impl Fn(Progress<'_>) + Send + Sync + 'static,
) -> Report {
    let suite = Arc::new(Suite::new(factory, config));
    let (sender, receiver) = oneshot::channel();
    let runner = Arc::clone(&suite);
    thread::spawn(move || sender.send(runner.run_all(watch)));
    let cases = receiver.await.unwrap_or_default();
    Report { store: suite.factory.name().to_owned(), seed: suite.config.seed, cases }
}

/// The factory of a store with the configuration of the run.
pub(crate) struct Suite {
    pub(crate) factory: Box<dyn StoreFactory>,
    pub(crate) config: Config,
    pub(crate) profile: Profile,
    pub(crate) builds: Arc<FreshBuilds>,
}

impl Suite {
    pub(crate) fn new(factory: impl StoreFactory, mut config: Config) -> Self {
        // The field is public, and a property without cases would pass.
        config.cases = config.cases.max(1);
        let profile = factory.profile();
        let builds = Arc::new(FreshBuilds::new(&profile));
        Self { factory: Box::new(factory), config, profile, builds }
    }

    fn cases(&self) -> Vec<Case> {
        cases::all().into_iter().filter(|case| self.config.selects(&case.name)).collect()
    }

    fn run_all(self: &Arc<Self>, watch: impl Fn(Progress<'_>) + Sync) -> Vec<CaseReport> {
        let cases = self.cases();
        let next = AtomicUsize::new(0);
        let reports = Mutex::new(Vec::with_capacity(cases.len()));
        let work = || {
            while let index = next.fetch_add(1, Ordering::Relaxed)
                && let Some(case) = cases.get(index)
            {
                let report = self.run(case);
                let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
                let failed = matches!(report.outcome, Outcome::Failed { .. });
                watch(Progress { done: reports.len() + 1, total: cases.len(), name: &report.name, failed });
                reports.push((index, report));
            }
        };
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, NonZeroUsize::get) {
                scope.spawn(work);
            }
        });
        let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
        reports.sort_by_key(|(index, _)| *index);
        reports.into_iter().map(|(_, report)| report).collect()
    }

    fn run(self: &Arc<Self>, case: &Case) -> CaseReport {
        let start = Instant::now();
        let outcome = match self.reason_to_skip(case) {
            Some(reason) => Outcome::Skipped { reason },
            None => self.outcome(case, self.run_in_thread(case)),
        };
        CaseReport {
            name: case.name.clone(),
            clauses: case.clauses.clone(),
            outcome,
            duration: start.elapsed(),
            replay: self.config.replay(&case.name),
        }
    }

    fn reason_to_skip(&self, case: &Case) -> Option<String> {
        match case.needs? {
            Needs::Feature(feature) => {
                self.profile.opt_out(feature).map(|reason| format!("without {feature}: {reason}"))
            }
            Needs::GreatestBuildId => {
                self.profile.greatest_build_id().is_none().then(|| "the store declares no greatest build id".into())
            }
        }
    }

    fn outcome(&self, case: &Case, result: CaseResult) -> Outcome {
        let boxed = |failure: Failure| Box::new(failure.or_clause(case.clauses.first().copied()));
        match (result, self.profile.known_failure(&case.name)) {
            (Ok(()), None) => Outcome::Passed,
            (Err(failure), None) => Outcome::Failed { failure: boxed(failure) },
            (Err(failure), Some(reason)) => {
                Outcome::KnownFailure { reason: reason.to_owned(), failure: boxed(failure) }
            }
            (Ok(()), Some(reason)) => {
                let failure = Failure::new("a case that the profile declares as a known failure")
                    .expected(format!("a failure, because of: {reason}"))
                    .got("it passes: take it out of the profile");
                Outcome::Failed { failure: boxed(failure) }
            }
        }
    }

    /// Runs the case in its own thread. Waits until it ends or has made no call within the time limit.
    fn run_in_thread(self: &Arc<Self>, case: &Case) -> CaseResult {
        let setup = CaseSetup::new(Arc::clone(self), &case.name);
        let (sender, receiver) = mpsc::channel();
        let log = Arc::clone(&setup.log);
        let body = case.body.clone();
        let limit = self.config.case_timeout;
        let work = move || {
            let result = catch_unwind(AssertUnwindSafe(|| in_runtime(setup, body)));
            let _ = sender.send(result.unwrap_or_else(|panic| {
                Err(Failure::new("the case").expected("an end").got(format!("a panic: {}", message(&*panic))))
            }));
        };
        let started = thread::Builder::new().name(case.name.clone()).spawn(work);
        if let Err(error) = started {
            return Err(Failure::new("starting a thread for the case").got(error.to_string()));
        }
        let mut begun = log.begun();
        loop {
            match receiver.recv_timeout(limit) {
                Ok(result) => return result,
                // The case is slow but makes calls.
                Err(mpsc::RecvTimeoutError::Timeout) if log.begun() > begun => begun = log.begun(),
                Err(_) => break,
            }
        }
        // A thread cannot be killed, so it is left running.
        let mut failure = Failure::no_answer(limit);
        failure.what = "the case as a whole".into();
        failure.calls = log.code();
        Err(failure)
    }
}

fn in_runtime(setup: CaseSetup, body: Body) -> CaseResult {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new("starting a runtime for the case").got(error.to_string()))?;
    let result = runtime.block_on(async {
        match body {
            Body::Example(example) => {
                let mut env = setup.env().await?;
                let result = example(&mut env).await;
                env.end(result).await
            }
            Body::Property(property) => property(&setup).await,
            Body::Scenario(scenario) => {
                let env = setup.env().await?;
                let result = scenario.replay(&env).await;
                env.end(result).await
            }
        }
    });
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result
}
