use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use steps_core::{Call, Clock, Description, Error, ErrorKind, Operation, Result, StepsStore};

use crate::builtin;

/// Connects to the store that `url` names, with the defaults.
///
/// # Errors
/// [`Config`](ErrorKind::Config) for a URL that no compiled backend takes, and what the backend's own
/// connect gives. No message shows a password.
pub async fn connect(url: &str) -> Result<Arc<dyn StepsStore>> {
    Connector::builtin().connect(url).await
}

/// Connects to stores by their URLs: those compiled in, and an application's own.
///
/// There is no global state: each connector is what was made of it.
///
/// ```
/// use std::time::Duration;
/// use steps::{ConnectOptions, Connector};
///
/// # #[cfg(feature = "memory")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> steps::Result<()> {
/// let options = ConnectOptions::new().with_timeout(Duration::from_secs(2));
/// let store = Connector::builtin().with_options(options).connect("memory:").await?;
/// # let _ = store;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct Connector {
    backends: BTreeMap<String, Arc<dyn Backend>>,
    options: ConnectOptions,
}

impl Connector {
    /// Knows the backends that were compiled in.
    #[must_use]
    pub fn builtin() -> Self {
        builtin::backends()
            .into_iter()
            .fold(Self { backends: BTreeMap::new(), options: ConnectOptions::new() }, |connector, (scheme, backend)| {
                connector.with_backend(scheme, backend)
            })
    }

    /// Connects with these options from now on.
    #[must_use]
    pub fn with_options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }

    /// Knows a backend under a scheme too, such as `etcd` for the URLs that begin with `etcd:`. One
    /// that was known under it is replaced.
    #[must_use]
    pub fn with_scheme(self, scheme: impl Into<String>, backend: impl Backend + 'static) -> Self {
        self.with_backend(scheme, Arc::new(backend))
    }

    fn with_backend(mut self, scheme: impl Into<String>, backend: Arc<dyn Backend>) -> Self {
        self.backends.insert(scheme.into(), backend);
        self
    }

    /// The schemes that it knows, in order.
    pub fn schemes(&self) -> impl Iterator<Item = &str> {
        self.backends.keys().map(String::as_str)
    }

    /// Connects to the store that `url` names.
    ///
    /// # Errors
    /// As [`connect`](fn@connect).
    pub async fn connect(&self, url: &str) -> Result<Arc<dyn StepsStore>> {
        self.backend(url)?.connect(url, &self.options).await
    }

    /// Asks the store that `url` names about itself: whether it can be reached, its format, and what
    /// it promises with these settings.
    ///
    /// # Errors
    /// As [`connect`](fn@connect).
    pub async fn describe(&self, url: &str) -> Result<Description> {
        self.backend(url)?.describe(url, &self.options).await
    }

    fn backend(&self, url: &str) -> Result<&dyn Backend> {
        // The rest of the URL may hold a password, so no message shows it; nor what is no scheme at all.
        let is_scheme = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let Some((scheme, _)) = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
            let known = self.known_schemes();
            return Err(config(format!("the store's URL has no scheme; write SCHEME:…, where SCHEME is {known}")));
        };
        match (self.backends.get(scheme), builtin::feature(scheme)) {
            (Some(backend), _) => Ok(&**backend),
            (None, Some(feature)) => Err(config(format!(
                "stores with the scheme {scheme:?} were not compiled in; enable the feature `{feature}` of `steps`"
            ))),
            (None, None) => {
                let known = self.known_schemes();
                Err(config(format!("the scheme {scheme:?} of the store's URL is unknown; use {known}")))
            }
        }
    }

    fn known_schemes(&self) -> String {
        let schemes: Vec<_> = self.schemes().collect();
        match schemes.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => "one of a backend that was compiled in (there is none)".to_owned(),
        }
    }
}

/// What a [`Connector`] calls for the URLs of a scheme.
///
/// A store needs none to be used; it lets [`Connector::with_scheme`] know the store too.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync {
    /// Connects to the store that `url`, scheme included, names. The options win over the URL.
    async fn connect(&self, url: &str, options: &ConnectOptions) -> Result<Arc<dyn StepsStore>>;

    /// Asks the store that `url` names about itself.
    async fn describe(&self, url: &str, options: &ConnectOptions) -> Result<Description>;
}

/// How to connect, whatever the backend. What is set here wins over the URL.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Where the store takes the time from; unless set, from the machine.
    pub clock: Option<Arc<dyn Clock>>,
    /// How long a call may take, queueing included (D4); unless set, 10 s.
    pub timeout: Option<Duration>,
    /// What an answered write survives (D1); unless set, as the URL says, and otherwise
    /// [`Durability::Full`].
    pub durability: Option<Durability>,
    /// What keeps the store's data apart from other data on the same server, such as the schema in PostgreSQL
    /// or the prefix of the keys in Redis;
    /// unless set, as the URL says. A store that has its place to itself ignores it.
    pub namespace: Option<String>,
}

impl ConnectOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the time from this clock (L4).
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Lets no call take longer than this, queueing included (D4).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Asks for writes that survive at least this (D1).
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Keeps the store's data apart under this name, where it shares a server.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }
}

/// What a write that was answered with `Ok` survives (D1). A store in memory survives nothing, and refuses both.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Durability {
    /// The death of the process and of the machine: SQLite's `synchronous=FULL`, PostgreSQL's
    /// `synchronous_commit=on`. Redis has it in its own settings, and is refused where those do not keep it.
    Full,
    /// The death of the process; that of the machine, and of a server if there is one, may take the last of
    /// them: SQLite's `synchronous=NORMAL`, PostgreSQL's `synchronous_commit=off`. In Redis, what its settings keep.
    Process,
}

fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, message).with_call(Call::on_store(Operation::Connect))
}
