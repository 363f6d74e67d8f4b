//! Plays recorded scenarios, several at a time.

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

/// How many threads play, each on a store, or a handle, of its own.
const PLAYERS: usize = 2;

/// How many scenarios each of them plays at a time. What they mostly do is wait for a disk or a server, and a store
/// may have many calls of one handle wait together.
const AT_ONCE: usize = 32;

/// Scenarios with the numbers of their lines, and what those who play them share.
pub(crate) struct Play {
    suite: Arc<Suite>,
    scenarios: Vec<(usize, Scenario)>,
    next: AtomicUsize,
    /// Why no store can be made any more: the scenarios that are left need not wait for that again.
    not_made: OnceLock<Failure>,
}

type Ended = (usize, Option<Disagreement>);

/// The stage of one player, once it is made.
type InTestEnv = Rc<Mutex<Option<Rc<TestEnv>>>>;

impl Play {
    pub(crate) fn new(suite: Suite, scenarios: Vec<(usize, Scenario)>) -> Arc<Self> {
        Arc::new(Self { suite: Arc::new(suite), scenarios, next: AtomicUsize::new(0), not_made: OnceLock::new() })
    }

    /// Plays them all, and gives the disagreements in the order of the scenarios.
    pub(crate) async fn run(self: Arc<Self>, mut watch: impl FnMut(Progress<'_>)) -> Vec<Disagreement> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut logs = Vec::new();
        for _ in 0..PLAYERS.min(self.scenarios.len()) {
            let (play, sender) = (Arc::clone(&self), sender.clone());
            let setup = CaseSetup::new(Arc::clone(&self.suite), "recorded");
            let setups: Vec<_> = (0..AT_ONCE).map(|_| setup.with_own_log()).collect();
            logs.extend(setups.iter().map(|setup| Arc::clone(&setup.log)));
            // One that cannot be started has ended none, and is missed below.
            let _ = thread::Builder::new().name("player".into()).spawn(move || play.perform(setups, &sender));
        }
        drop(sender);
        let total = self.scenarios.len();
        let mut ended: Vec<Option<Option<Disagreement>>> = vec![None; total];
        let limit = self.suite.config.case_timeout;
        let (calls, mut begun) = (|| logs.iter().map(|log| log.begun()).sum::<u64>(), 0);
        for done in 1.. {
            let next = loop {
                match timeout(limit, receiver.recv()).await {
                    Ok(next) => break next,
                    // A scenario may be long, and a store far away.
                    Err(_) if calls() > begun => begun = calls(),
                    // A thread that a store blocks is left behind: nothing can end it.
                    Err(_) => break None,
                }
            };
            let Some((place, disagreement)) = next else { break };
            watch(Progress { done, total, name: &self.scenarios[place].1.name(), failed: disagreement.is_some() });
            ended[place] = Some(disagreement);
        }
        let reason = || self.not_made.get().cloned().unwrap_or_else(|| Failure::no_answer(limit));
        let missed = |place| Some(self.disagreement(place, Mismatch::error(reason())));
        (0..).zip(ended).filter_map(|(place, ended)| ended.unwrap_or_else(|| missed(place))).collect()
    }

    fn perform(self: Arc<Self>, setups: Vec<CaseSetup>, ended: &mpsc::UnboundedSender<Ended>) {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                self.not_made.get_or_init(|| Failure::new("starting a runtime").got(error.to_string()));
                return;
            }
        };
        LocalSet::new().block_on(&runtime, async {
            let env = InTestEnv::default();
            let mut parts = JoinSet::new();
            for setup in setups {
                parts.spawn_local(Arc::clone(&self).part(setup, Rc::clone(&env), ended.clone()));
            }
            while parts.join_next().await.is_some() {}
            if let Some(env) = env.lock().await.take().and_then(Rc::into_inner) {
                let _ = env.end(Ok(())).await;
            }
        });
        runtime.shutdown_background();
    }

    /// Plays one scenario after the other on a stage that others play on at the same time.
    async fn part(self: Arc<Self>, setup: CaseSetup, env: InTestEnv, ended: mpsc::UnboundedSender<Ended>) {
        while let place = self.next.fetch_add(1, Ordering::Relaxed)
            && let Some((_, scenario)) = self.scenarios.get(place)
        {
            let disagreement = self.play(&setup, &env, scenario).await.err();
            if ended.send((place, disagreement.map(|parting| self.disagreement(place, parting)))).is_err() {
                break;
            }
        }
    }

    /// The stage, which is made where there is none.
    async fn enter(&self, setup: &CaseSetup, env: &InTestEnv) -> Result<Rc<TestEnv>, Mismatch> {
        let mut env = env.lock().await;
        if let Some(env) = &*env {
            return Ok(Rc::clone(env));
        }
        if let Some(failure) = self.not_made.get() {
            return Err(Mismatch::error(failure.clone()));
        }
        let made = setup.env().await;
        let made = made.map_err(|failure| Mismatch::error(self.not_made.get_or_init(|| failure).clone()))?;
        Ok(Rc::clone(env.insert(Rc::new(made))))
    }

    async fn play(&self, setup: &CaseSetup, env: &InTestEnv, scenario: &Scenario) -> Result<(), Mismatch> {
        let entered = self.enter(setup, env).await?;
        let on = entered.shared(setup);
        setup.log.clear();
        let played = catch_panic(scenario.play(&on)).await;
        let panicked = |panic| Err(Mismatch::error(Failure::new(format_args!("a panic: {panic}"))));
        let Err(mut parting) = played.unwrap_or_else(panicked) else { return Ok(()) };
        if let Err(failure) = on.judged(Err(*parting.failure.clone())) {
            parting.failure = Box::new(failure);
        }
        if setup.log.fatal().is_some() {
            // A store that panicked or hung is made anew.
            setup.log.reset();
            env.lock().await.take_if(|env| Rc::ptr_eq(env, &entered));
            parting.reason = Reason::Error;
        }
        Err(parting)
    }

    fn disagreement(&self, place: usize, parting: Mismatch) -> Disagreement {
        let (line, scenario) = &self.scenarios[place];
        parting.of(scenario.name(), *line)
    }
}
