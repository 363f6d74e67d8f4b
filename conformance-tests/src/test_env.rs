//! What a case works with: a store, more handles on it, builds of its own, the clock.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use steps_core::{BuildId, Clock, Dispatch, StepsStore, Timestamp};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::{sleep, timeout},
};

use crate::{
    CaseContext, Clause, Feature, Fixture,
    calls::{Action, CallLog},
    factory::{Capabilities, Connect, Faults},
    failure::{CaseResult, Failure},
    handle::{Handle, LoggedStore, catch_panic},
    harness::Suite,
    process::{Handshake, Process},
    proxy::Proxy,
};

/// What a case makes its stages from.
#[derive(Clone)]
pub(crate) struct CaseSetup {
    pub(crate) suite: Arc<Suite>,
    pub(crate) context: CaseContext,
    /// Shared by all stages of the case, so that a case that hangs can still be shown.
    pub(crate) log: Arc<CallLog>,
    /// Whose turn it is with the clock, where several use one store.
    clock: Arc<Mutex<()>>,
}

impl CaseSetup {
    pub(crate) fn new(suite: Arc<Suite>, name: &str) -> Self {
        let context = CaseContext::new(name, Arc::clone(&suite.builds), suite.config.seed);
        Self { suite, context, log: Arc::default(), clock: Arc::default() }
    }

    /// The same for one more who uses the stores, with a log of its own.
    pub(crate) fn with_own_log(&self) -> Self {
        Self { log: Arc::default(), ..self.clone() }
    }

    /// Whether the store claims this feature.
    pub(crate) fn claims(&self, feature: Feature) -> bool {
        self.suite.profile.claims(feature)
    }

    /// A store from the factory, with nothing called on it yet.
    pub(crate) async fn env(&self) -> CaseResult<TestEnv> {
        let made = catch_panic(self.suite.factory.create(&self.context)).await;
        let Fixture { store, capabilities, guard } =
            made.unwrap_or_else(|panic| Err(panic.into())).map_err(|error| not_made("making the store", &*error))?;
        self.log.clear();
        let mut env = TestEnv { setup: self.clone(), store: None, peers: 0, processes: 0, capabilities, _guard: guard };
        env.store = Some(env.handle(store, "store"));
        Ok(env)
    }
}

/// A store for a case, and what the case may do with it.
pub(crate) struct TestEnv {
    setup: CaseSetup,
    /// None while it is reopened. The stage holds nothing else of the store, so that it can be dropped.
    store: Option<Handle>,
    peers: usize,
    processes: usize,
    capabilities: Capabilities,
    /// Last, so that it is dropped after the handle.
    _guard: Option<Box<dyn Any + Send>>,
}

/// How a handle ends before the store is reopened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Closed,
    Dropped,
}

impl TestEnv {
    /// This store as one more uses it at the same time: with a log of its own, and nothing else on offer.
    pub(crate) fn shared(&self, setup: &CaseSetup) -> Self {
        let store = self.store.as_ref().map(|handle| Dispatch(handle.0.with_log(Arc::clone(&setup.log))));
        Self {
            setup: setup.clone(),
            store,
            peers: 0,
            processes: 0,
            capabilities: Capabilities::default(),
            _guard: None,
        }
    }

    /// The handle on the store.
    pub(crate) fn store(&self) -> &Handle {
        self.store.as_ref().expect("a case whose store could not be reopened has ended")
    }

    /// A build that nobody has added to.
    pub(crate) fn build(&self) -> BuildId {
        self.setup.context.fresh_build()
    }

    /// A build that nobody has added to, among the greatest that the store takes.
    pub(crate) fn large_build(&self) -> BuildId {
        self.setup.context.fresh_great_build()
    }

    /// The greatest build id, where the store declares one.
    pub(crate) fn greatest_build_id(&self) -> Option<BuildId> {
        self.setup.suite.profile.greatest_build_id()
    }

    /// Whether the fixture has what this feature needs.
    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.capabilities.has(feature)
    }

    /// Sets the clock that all handles take the time from.
    pub(crate) fn set_clock(&self, now: Timestamp) {
        self.setup.log.begin("clock", Action::SetClock(now));
        self.setup.context.clock().set(now);
    }

    /// Sets the clock, and keeps others who share the store from setting it until the guard is dropped.
    pub(crate) async fn set_clock_in_turn(&self, now: Timestamp) -> OwnedMutexGuard<()> {
        let turn = Arc::clone(&self.setup.clock).lock_owned().await;
        self.set_clock(now);
        turn
    }

    /// What the clock says.
    pub(crate) fn now(&self) -> Timestamp {
        self.setup.context.clock().now()
    }

    /// A handle on the store in a process of its own, whose clock stays where it is now.
    pub(crate) async fn process(&mut self) -> CaseResult<Handle> {
        Ok(self.process_to_kill().await?.1)
    }

    /// As [`process`](Self::process), with the process itself.
    pub(crate) async fn process_to_kill(&mut self) -> CaseResult<(Arc<Dispatch<Process>>, Handle)> {
        const NAMES: [&str; 3] = ["process", "process_2", "process_3"];
        let token = self.capabilities.token.clone().ok_or_else(|| missing(Feature::Processes))?;
        let context = &self.setup.context;
        let handshake =
            Handshake { case: context.name().to_owned(), seed: self.setup.suite.config.seed, token, now: self.now() };
        let process = Arc::new(Process::start(&handshake).await?);
        let name = NAMES[self.processes.min(NAMES.len() - 1)];
        self.processes += 1;
        self.setup.log.begin(name, Action::Opened("the same store in another process"));
        Ok((Arc::clone(&process), self.handle(process, name)))
    }

    /// A handle through a proxy that fails on cue, with this time-out. It may take a few attempts, but no longer than
    /// this.
    pub(crate) async fn proxied(&self, timeout: Duration, patience: Duration) -> CaseResult<(Proxy, Handle)> {
        let Faults { server, connect } = self.capabilities.faults.as_ref().ok_or_else(|| missing(Feature::Faults))?;
        let proxy = Proxy::start(server.as_str()).await;
        let proxy = proxy.map_err(|error| not_made(format_args!("a proxy before {server}"), &error))?;
        let start = Instant::now();
        let store = loop {
            let connected = catch_panic(async { connect(proxy.address(), timeout).await }).await;
            match connected.unwrap_or_else(|panic| Err(panic.into())) {
                Ok(store) => break store,
                // With a time-out that is short for a busy machine.
                Err(_) if start.elapsed() < patience => sleep(Duration::from_millis(50)).await,
                Err(error) => return Err(not_made("opening the store through a proxy", &*error)),
            }
        };
        self.setup.log.begin("proxied", Action::Opened("the same store through a proxy"));
        Ok((proxy, self.handle(store, "proxied")))
    }

    /// One more handle on the store: the first is called `peer`.
    pub(crate) async fn peer(&mut self) -> CaseResult<Handle> {
        const NAMES: [&str; 4] = ["peer", "peer_2", "peer_3", "peer_4"];
        let store = connected(Feature::Peers, self.capabilities.peer.as_ref()).await?;
        let name = NAMES[self.peers.min(NAMES.len() - 1)];
        self.peers += 1;
        self.setup.log.begin(name, Action::Opened("one more handle on the same store"));
        Ok(self.handle(store, name))
    }

    /// Ends the handle and opens the store again. What peers there are must be gone.
    pub(crate) async fn reopen(&mut self, ending: Ending) -> CaseResult {
        if let (Some(store), Ending::Closed) = (&self.store, ending) {
            store.close().await.map_err(|error| Failure::from(error).or_clause(Some(Clause::D7)))?;
        }
        self.store = None;
        self.peers = 0;
        let store = connected(Feature::Reopen, self.capabilities.reopen.as_ref()).await?;
        self.setup.log.begin(
            "store",
            Action::Opened(match ending {
                Ending::Closed => "opened again",
                Ending::Dropped => "dropped without closing it, and opened again",
            }),
        );
        self.store = Some(self.handle(store, "store"));
        Ok(())
    }

    /// What the case came to, with the calls that led there.
    pub(crate) fn conclude(&self, result: CaseResult) -> CaseResult {
        let log = &self.setup.log;
        // A call that panicked or did not end decides the case, whatever the case made of it.
        let result = log.fatal().map_or(result, Err);
        result.map_err(|failure| match failure {
            // Of calls at once, the log knows neither the times nor the order.
            Failure { history: Some(_), .. } => failure,
            _ => Failure { calls: failure.calls.or_else(|| log.code()), ..failure },
        })
    }

    /// As [`conclude`](Self::conclude), at the end of the case. The store is closed for politeness: how well,
    /// the cases of D7 judge.
    pub(crate) async fn end(self, result: CaseResult) -> CaseResult {
        let result = self.conclude(result);
        if let Some(store) = &self.store {
            let _ = timeout(Duration::from_secs(1), catch_panic(store.0.unlogged().close())).await;
        }
        result
    }

    fn handle(&self, store: Arc<dyn StepsStore>, name: &'static str) -> Handle {
        Dispatch(LoggedStore::new(store, name, Arc::clone(&self.setup.log), self.setup.suite.config.call_timeout))
    }
}

async fn connected(feature: Feature, connect: Option<&Connect>) -> CaseResult<Arc<dyn StepsStore>> {
    let connect = connect.ok_or_else(|| missing(feature))?;
    let connected = catch_panic(async { connect().await }).await;
    connected
        .unwrap_or_else(|panic| Err(panic.into()))
        .map_err(|error| not_made(format_args!("opening the store for the feature {feature}"), &*error))
}

/// The profile claims a feature that the fixture does not have.
pub(crate) fn missing(feature: Feature) -> Failure {
    let method = match feature {
        Feature::Reopen => "with_reopen",
        Feature::Peers => "with_peer",
        Feature::Processes => "with_token",
        Feature::Faults => "with_faults",
    };
    Failure::new(format_args!("the feature {feature}, which the profile claims"))
        .expected(format!("a fixture that has `{method}`, or `Profile::without`, with the reason"))
        .got("a fixture without it")
}

fn not_made(what: impl std::fmt::Display, error: &(dyn std::error::Error + Send + Sync + 'static)) -> Failure {
    Failure::new(what).expected("a store").got(in_full(error))
}

/// An error with what is behind it.
fn in_full(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
