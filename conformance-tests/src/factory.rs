use std::{
    any::Any, error::Error as StdError, fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration,
};

use async_trait::async_trait;
use steps_core::StepsStore;

use crate::{CaseContext, Feature, Profile};

/// An error of a factory, which could not create or open a store.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Creates the stores that the suite checks. A backend implements it for its tests.
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
///             .without(Feature::Reopen, "the data ends with the process")
///             .without(Feature::Peers, "all handles are clones of one `Arc`")
///             .without(Feature::Processes, "the data ends with the process")
///             .without(Feature::Faults, "there is no server")
///     }
///
///     async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
///         Ok(Fixture::new(MemoryStore::with_options(MemoryOptions::new().with_clock(case.clock()))))
///     }
/// }
/// ```
#[async_trait]
pub trait StoreFactory: Send + Sync + 'static {
    /// The name of the store for reports, such as `sqlite`.
    fn name(&self) -> &str;

    /// The missing features, limits and known failures of the store. The default has none.
    fn profile(&self) -> Profile {
        Profile::strict()
    }

    /// Creates a store for one case, with the [clock](CaseContext::clock) of the case.
    ///
    /// The store should be empty where that is cheap, but may also be shared and contain other steps: the suite adds
    /// only to its own builds, and deletes nothing. The suite calls this method on a runtime that lives as long as the
    /// case.
    ///
    /// # Errors
    /// When the store cannot be created. The case then fails. A missing server is a failure and not a skip, so the
    /// message should name the program to install or the variable to set.
    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError>;

    /// Opens a store that another process created. The suite starts its own program as a child, and the child passes
    /// the [token](Fixture::with_token) of the fixture to this method.
    ///
    /// A store that claims [`Feature::Processes`] must define it.
    ///
    /// # Errors
    /// When the store cannot be opened. The default implementation always fails and asks for a definition or an
    /// opt-out, so that a claim without support fails.
    async fn open(&self, token: &str, case: &CaseContext) -> Result<Fixture, BoxError> {
        let _ = (token, case);
        let name = self.name();
        Err(format!(
            "{name} claims the feature {}, so its factory must define `open`, or its profile must opt out of the feature",
            Feature::Processes
        )
        .into())
    }
}

/// Future of a case, which stays in one thread.
pub(crate) type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Opens another handle on the store.
pub(crate) type Connect = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn StepsStore>, BoxError>> + Send + Sync>;

/// Opens a handle whose connections go to this address, with this time-out.
type ConnectThrough =
    Box<dyn Fn(SocketAddr, Duration) -> BoxFuture<'static, Result<Arc<dyn StepsStore>, BoxError>> + Send + Sync>;

/// The server of a store, and the connection to it through a proxy.
pub(crate) struct Faults {
    pub(crate) server: String,
    pub(crate) connect: ConnectThrough,
}

/// A store for one case, with its optional capabilities.
#[must_use]
pub struct Fixture {
    pub(crate) store: Arc<dyn StepsStore>,
    pub(crate) capabilities: Capabilities,
    /// The last field, since it must be dropped after the store.
    pub(crate) guard: Option<Box<dyn Any + Send>>,
}

/// Optional capabilities of a fixture.
#[derive(Default)]
pub(crate) struct Capabilities {
    pub(crate) reopen: Option<Connect>,
    pub(crate) peer: Option<Connect>,
    pub(crate) token: Option<String>,
    pub(crate) faults: Option<Faults>,
}

impl Capabilities {
    /// Whether the fixture supports the feature.
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
    /// A fixture with this store and no capabilities.
    pub fn new(store: impl StepsStore + 'static) -> Self {
        Self { store: Arc::new(store), capabilities: Capabilities::default(), guard: None }
    }

    /// Holds a value that must outlive the store, such as a temporary folder or a server.
    pub fn with_guard(mut self, guard: impl Any + Send) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }

    /// Adds [`Feature::Reopen`]: `reopen` returns a new handle on the same data, after a restart of the parts that the
    /// backend can restart. The suite closes or drops the old handle before.
    ///
    /// The new handle must use the clock of the case, as the old one does.
    pub fn with_reopen<S, F>(mut self, reopen: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        S: StepsStore + 'static,
        F: Future<Output = Result<S, BoxError>> + Send + 'static,
    {
        self.capabilities.reopen = Some(connect(reopen));
        self
    }

    /// Adds [`Feature::Peers`]: `peer` returns another handle on the same store. It must be as independent of the first
    /// handle as one in another process.
    ///
    /// The new handle must use the clock of the case, as the first one does.
    pub fn with_peer<S, F>(mut self, peer: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        S: StepsStore + 'static,
        F: Future<Output = Result<S, BoxError>> + Send + 'static,
    {
        self.capabilities.peer = Some(connect(peer));
        self
    }

    /// Adds [`Feature::Processes`]: another process [opens](StoreFactory::open) the same store with `token`, such as a
    /// path or a URL.
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.capabilities.token = Some(token.into());
        self
    }

    /// Adds [`Feature::Faults`]. The suite starts a [proxy](crate::proxy) that injects faults in front of `server`, a
    /// host and port such as `127.0.0.1:5432`. `connect` returns another handle on the same store, whose connections go
    /// to the address of the proxy and whose calls have the given time-out (D4).
    ///
    /// The new handle must use the clock of the case, as the first one does. The first handle and peers must not go
    /// through the proxy: the suite reads the effects of failed calls through them.
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
