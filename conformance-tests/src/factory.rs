use std::{
    any::Any, error::Error as StdError, fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration,
};

use async_trait::async_trait;
use steps_core::StepsStore;

use crate::{CaseContext, Feature, Profile};

/// An error of a factory: it could not make a store.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Makes the stores that the suite checks: what a backend's author writes.
///
/// ```
/// use async_trait::async_trait;
/// use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
/// use steps_memory::{MemoryOptions, MemoryStore};
///
/// struct Memory;
///
/// #[async_trait]
/// impl StoreFactory for Memory {
///     fn name(&self) -> &str {
///         "memory"
///     }
///
///     fn profile(&self) -> Profile {
///         Profile::strict()
///             .without(Feature::Reopen, "what it holds ends with the process")
///             .without(Feature::Peers, "all handles are clones of one `Arc`")
///             .without(Feature::Processes, "what it holds ends with the process")
///             .without(Feature::Faults, "nothing it does can fail")
///     }
///
///     async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
///         Ok(Fixture::new(MemoryStore::with_options(MemoryOptions::new().with_clock(case.clock()))))
///     }
/// }
/// ```
#[async_trait]
pub trait StoreFactory: Send + Sync + 'static {
    /// The store's name, such as `sqlite`, for reports.
    fn name(&self) -> &str;

    /// What the store does without, its limits and its known failures. Without a word it is held to everything.
    fn profile(&self) -> Profile {
        Profile::strict()
    }

    /// Makes a store for one case, with the [clock](CaseContext::clock) of the case.
    ///
    /// A fresh one where that is cheap. It may as well be one that others use, full of their steps: the
    /// suite adds to builds of its own alone, and deletes nothing. It is called on a runtime that lives
    /// as long as the case.
    ///
    /// # Errors
    /// When the store cannot be made. The case then fails: a missing server is a failure, not a skip, so
    /// the message should say what to install or to set.
    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError>;

    /// Opens the store that another process made: the suite runs itself again as a child and hands over the
    /// fixture's [token](Fixture::with_token).
    ///
    /// A store that claims [`Feature::Processes`] must have it.
    ///
    /// # Errors
    /// When the store cannot be opened. Without a definition of its own, always: it says to write one or to
    /// opt out of the feature, so that a claim that is not kept fails.
    async fn open(&self, token: &str, case: &CaseContext) -> Result<Fixture, BoxError> {
        let _ = (token, case);
        let name = self.name();
        Err(format!(
            "{name} claims the feature {}, so its factory must define `open`; or let the profile opt out of it",
            Feature::Processes
        )
        .into())
    }
}

/// What a case gives: it stays in its thread.
pub(crate) type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Gives one more handle.
pub(crate) type Connect = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn StepsStore>, BoxError>> + Send + Sync>;

/// Gives a handle whose connections go to this address, with this time-out.
type ConnectThrough =
    Box<dyn Fn(SocketAddr, Duration) -> BoxFuture<'static, Result<Arc<dyn StepsStore>, BoxError>> + Send + Sync>;

/// What it takes to stand between a store and its server.
pub(crate) struct Faults {
    pub(crate) server: String,
    pub(crate) connect: ConnectThrough,
}

/// A store for one case, with what the case may need besides.
#[must_use]
pub struct Fixture {
    pub(crate) store: Arc<dyn StepsStore>,
    pub(crate) capabilities: Capabilities,
    /// Last, so that it is dropped after the store.
    pub(crate) guard: Option<Box<dyn Any + Send>>,
}

/// What a fixture has besides its store.
#[derive(Default)]
pub(crate) struct Capabilities {
    pub(crate) reopen: Option<Connect>,
    pub(crate) peer: Option<Connect>,
    pub(crate) token: Option<String>,
    pub(crate) faults: Option<Faults>,
}

impl Capabilities {
    /// Whether it has what this feature needs.
    pub(crate) fn has(&self, feature: Feature) -> bool {
        match feature {
            Feature::Reopen => self.reopen.is_some(),
            Feature::Peers => self.peer.is_some(),
            Feature::Processes => self.token.is_some(),
            Feature::Faults => self.faults.is_some(),
        }
    }
}

impl Fixture {
    /// A fixture of this store, which has nothing else to offer yet.
    pub fn new(store: impl StepsStore + 'static) -> Self {
        Self { store: Arc::new(store), capabilities: Capabilities::default(), guard: None }
    }

    /// Keeps something alive for as long as the store is in use, such as a temporary folder or a server.
    pub fn with_guard(mut self, guard: impl Any + Send) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }

    /// Capabilities [`Feature::Reopen`]: `reopen` gives a new handle on the same data, after a restart of what
    /// the backend can restart. The suite has closed or dropped the handle before.
    ///
    /// The new handle takes the clock of the case, as the first one did.
    pub fn with_reopen<S, F>(mut self, reopen: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        S: StepsStore + 'static,
        F: Future<Output = Result<S, BoxError>> + Send + 'static,
    {
        self.capabilities.reopen = Some(connect(reopen));
        self
    }

    /// Capabilities [`Feature::Peers`]: `peer` gives one more handle on the same store, independent of the first
    /// one, as another process would have it.
    ///
    /// It takes the clock of the case, as the first one does.
    pub fn with_peer<S, F>(mut self, peer: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        S: StepsStore + 'static,
        F: Future<Output = Result<S, BoxError>> + Send + 'static,
    {
        self.capabilities.peer = Some(connect(peer));
        self
    }

    /// Capabilities [`Feature::Processes`]: with `token`, such as a path or a URL, another process
    /// [opens](StoreFactory::open) the same store.
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.capabilities.token = Some(token.into());
        self
    }

    /// Capabilities [`Feature::Faults`]: the suite puts a [proxy](crate::proxy) that fails on cue before `server`, the host and
    /// port such as `127.0.0.1:5432`, and `connect` gives one more handle on the same store, whose connections go to the
    /// proxy's address instead, and whose calls have this time-out (D4).
    ///
    /// It takes the clock of the case, as the first one does. The first handle and peers do not go through the proxy: what
    /// came of a call that failed is read through them.
    pub fn with_faults<S, F>(
        mut self,
        server: impl Into<String>,
        connect: impl Fn(SocketAddr, Duration) -> F + Send + Sync + 'static,
    ) -> Self
    where
        S: StepsStore + 'static,
        F: Future<Output = Result<S, BoxError>> + Send + 'static,
    {
        let connect = move |address, timeout| {
            let store = connect(address, timeout);
            Box::pin(async { Ok(Arc::new(store.await?) as Arc<dyn StepsStore>) }) as BoxFuture<'static, _>
        };
        self.capabilities.faults = Some(Faults { server: server.into(), connect: Box::new(connect) });
        self
    }
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture")
            .field("store", &self.store)
            .field("reopen", &self.capabilities.reopen.is_some())
            .field("peer", &self.capabilities.peer.is_some())
            .field("token", &self.capabilities.token)
            .field("faults", &self.capabilities.faults.is_some())
            .field("guard", &self.guard.is_some())
            .finish()
    }
}

fn connect<S, F>(connect: impl Fn() -> F + Send + Sync + 'static) -> Connect
where
    S: StepsStore + 'static,
    F: Future<Output = Result<S, BoxError>> + Send + 'static,
{
    Box::new(move || {
        let store = connect();
        Box::pin(async { Ok(Arc::new(store.await?) as Arc<dyn StepsStore>) })
    })
}
