//! Environment of a case: the store, more handles on it, fresh builds and the clock.

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

/// Creates the environments of a case.
#[derive(Clone)]
pub(crate) struct CaseSetup {
    pub(crate) suite: Arc<Suite>,
    pub(crate) context: CaseContext,
    /// Shared by all environments of the case, so that the failure of a hung case can show the calls.
    pub(crate) log: Arc<CallLog>,
    /// Locks the clock, if several scenarios use one store.
    clock_lock: Arc<Mutex<()>>,
}

impl CaseSetup {
    pub(crate) fn new(suite: Arc<Suite>, name: &str) -> Self {
        let context = CaseContext::new(name, Arc::clone(&suite.builds), suite.config.seed);
        Self { suite, context, log: Arc::default(), clock_lock: Arc::default() }
    }

    /// The same setup with its own log, for a scenario that shares the environment with others.
    pub(crate) fn with_own_log(&self) -> Self {
        Self { log: Arc::default(), ..self.clone() }
    }

    /// Whether the store claims this feature.
    pub(crate) fn claims(&self, feature: Feature) -> bool {
        self.suite.profile.claims(feature)
    }

    /// Creates an environment with a store from the factory.
    pub(crate) async fn env(&self) -> CaseResult<TestEnv> {
        let created = catch_panic(self.suite.factory.create(&self.context)).await;
        let created = created.unwrap_or_else(|panic| Err(panic.into()));
        let Fixture { store, capabilities, guard } =
            created.map_err(|error| no_store("creating the store", &*error))?;
        self.log.clear();
        let mut env = TestEnv { setup: self.clone(), store: None, peers: 0, processes: 0, capabilities, _guard: guard };
        env.store = Some(env.handle(store, "store"));
        Ok(env)
    }
}

/// The store of a case, with the operations that a case needs besides calls.
pub(crate) struct TestEnv {
    setup: CaseSetup,
    /// `None` while the store is reopened. The environment holds no other handle, so that this one can be dropped.
    store: Option<Handle>,
    peers: usize,
    processes: usize,
    capabilities: Capabilities,
    /// The last field, since it must be dropped after the handle.
    _guard: Option<Box<dyn Any + Send>>,
}

/// End of a handle before a reopen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Closed,
    Dropped,
}

impl TestEnv {
    /// The same store with the log of another setup and without capabilities, for a scenario that shares the
    /// environment with others.
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
        self.store.as_ref().expect("a case ends if its store cannot be reopened")
    }

    /// A build without steps.
    pub(crate) fn build(&self) -> BuildId {
        self.setup.context.fresh_build()
    }

    /// A build without steps whose id is among the largest that the store accepts.
    pub(crate) fn large_build(&self) -> BuildId {
        self.setup.context.fresh_large_build()
    }

    /// The largest build id, if the store declares one.
    pub(crate) fn greatest_build_id(&self) -> Option<BuildId> {
        self.setup.suite.profile.greatest_build_id()
    }

    /// Whether the fixture supports the feature.
    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.capabilities.has(feature)
    }

    /// Sets the clock of all handles.
    pub(crate) fn set_clock(&self, now: Timestamp) {
        self.setup.log.begin("clock", Action::SetClock(now));
        self.setup.context.clock().set(now);
    }

    /// Sets the clock. Other scenarios on the same store cannot set it until the guard is dropped.
    pub(crate) async fn lock_clock(&self, now: Timestamp) -> OwnedMutexGuard<()> {
        let guard = Arc::clone(&self.setup.clock_lock).lock_owned().await;
        self.set_clock(now);
        guard
    }

    /// The time of the clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.setup.context.clock().now()
    }

    /// A handle in another process. The clock of that process stays at the current time of the clock.
    pub(crate) async fn process(&mut self) -> CaseResult<Handle> {
        Ok(self.process_to_kill().await?.1)
    }

    /// As [`process`](Self::process), with access to the process.
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

    /// A handle with this time-out through a proxy that injects faults. Opening is retried until `open_timeout`.
    pub(crate) async fn proxied(&self, timeout: Duration, open_timeout: Duration) -> CaseResult<(Proxy, Handle)> {
        let Faults { server, connect } = self.capabilities.faults.as_ref().ok_or_else(|| missing(Feature::Faults))?;
        let proxy = Proxy::start(server.as_str()).await;
        let proxy = proxy.map_err(|error| no_store(format_args!("starting a proxy for {server}"), &error))?;
        let start = Instant::now();
        let store = loop {
            let connected = catch_panic(async { connect(proxy.address(), timeout).await }).await;
            match connected.unwrap_or_else(|panic| Err(panic.into())) {
                Ok(store) => break store,
                // The time-out of the case may be short for a busy machine.
                Err(_) if start.elapsed() < open_timeout => sleep(Duration::from_millis(50)).await,
                Err(error) => return Err(no_store("opening the store through a proxy", &*error)),
            }
        };
        self.setup.log.begin("proxied", Action::Opened("the same store through a proxy"));
        Ok((proxy, self.handle(store, "proxied")))
    }

    /// Another handle on the store.
    pub(crate) async fn peer(&mut self) -> CaseResult<Handle> {
        const NAMES: [&str; 4] = ["peer", "peer_2", "peer_3", "peer_4"];
        let store = connected(Feature::Peers, self.capabilities.peer.as_ref()).await?;
        let name = NAMES[self.peers.min(NAMES.len() - 1)];
        self.peers += 1;
        self.setup.log.begin(name, Action::Opened("one more handle on the same store"));
        Ok(self.handle(store, name))
    }

    /// Closes or drops the handle and opens the store again. The case must have dropped its peers.
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

    /// The final result of a case: adds the calls to a failure.
    pub(crate) fn conclude(&self, result: CaseResult) -> CaseResult {
        let log = &self.setup.log;
        // A call that panicked or did not end overrides the result of the case.
        let result = log.fatal().map_or(result, Err);
        result.map_err(|failure| match failure {
            // The log of a concurrent history has neither times nor a meaningful order.
            Failure { history: Some(_), .. } => failure,
            _ => Failure { calls: failure.calls.or_else(|| log.code()), ..failure },
        })
    }

    /// As [`conclude`](Self::conclude), at the end of the case. Also closes the store, and ignores errors of the close,
    /// which the cases of D7 check.
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
        .map_err(|error| no_store(format_args!("opening the store for the feature {feature}"), &*error))
}

/// The failure of a feature that the profile claims and the fixture lacks.
pub(crate) fn missing(feature: Feature) -> Failure {
    let method = match feature {
        Feature::Reopen => "with_reopen",
        Feature::Peers => "with_peer",
        Feature::Processes => "with_token",
        Feature::Faults => "with_faults",
    };
    Failure::new(format_args!("the feature {feature}, which the profile claims"))
        .expected(format!("a fixture with `{method}`, or a profile with `Profile::without` and the reason"))
        .got("a fixture without it")
}

fn no_store(what: impl std::fmt::Display, error: &(dyn std::error::Error + Send + Sync + 'static)) -> Failure {
    Failure::new(what).expected("a store").got(with_sources(error))
}

/// An error with its sources.
fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
