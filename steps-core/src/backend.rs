use std::{fmt, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{Clock, Description, OpenMode, Result, StepsStore};

/// A kind of store that is chosen by URL.
///
/// Each backend crate exports one. A store can be used without: it lets the `Connector` of the crate `steps` connect
/// to the store too.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync {
    /// The schemes of its URLs, such as `sqlite` for `sqlite:steps.db`.
    fn schemes(&self) -> &'static [&'static str];

    /// Connects to the store with this URL, scheme included. The options win over the URL.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for a URL that is no URL of this backend, and those of connecting. No
    /// message shows a password.
    async fn connect(&self, url: &str, options: &ConnectOptions) -> Result<Arc<dyn StepsStore>>;

    /// Asks the store with this URL about itself.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    async fn describe(&self, url: &str, options: &ConnectOptions) -> Result<Description>;

    /// Whether a store outlives the handle that opened it, so that another one finds its steps.
    fn is_persistent(&self) -> bool {
        true
    }

    /// The URL of the same store for a process in another folder; `folder` is the current one.
    ///
    /// Only a URL with a relative path depends on the folder; others stay as they are.
    fn absolute_url(&self, url: &str, folder: &Path) -> String {
        let _ = folder;
        url.to_owned()
    }

    /// Whether a valid URL of this backend may hold a secret, such as a password, and must not be shown whole.
    fn urls_hold_secrets(&self) -> bool {
        true
    }

    /// What of a URL may be shown: by default its scheme alone, since the rest may hold a password.
    fn redacted_url(&self, url: &str) -> String {
        let scheme = url.split(':').next().unwrap_or_default();
        format!("{scheme}:…")
    }
}

/// How to connect, whatever the backend. What is set here wins over the URL.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// The clock of the store (L4); by default that of the machine.
    pub clock: Option<Arc<dyn Clock>>,
    /// How long a call may take, queueing included (D4); by default 10 s.
    pub timeout: Option<Duration>,
    /// What an answered write survives (D1); by default as the URL says, and otherwise [`Durability::Full`].
    pub durability: Option<Durability>,
    /// A name that keeps the store's data apart from other data on the same server, such as the schema in PostgreSQL
    /// or the prefix of the keys in Redis; by default as the URL says. A store that shares nothing ignores it.
    pub namespace: Option<String>,
    /// The mode of a store whose URL says none; by default [`OpenMode::Create`]. A store without modes ignores it.
    pub default_mode: Option<OpenMode>,
}

impl ConnectOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the clock of the store (L4).
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Sets how long a call may take, queueing included (D4).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets what an answered write survives at least (D1).
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Sets the name that keeps the store's data apart on a shared server.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Sets the mode of a store whose URL says none.
    #[must_use]
    pub fn with_default_mode(mut self, mode: OpenMode) -> Self {
        self.default_mode = Some(mode);
        self
    }
}

/// What a write that was answered with `Ok` survives (D1). A store in memory survives nothing, and refuses both.
///
/// The enum is exhaustive on purpose: a backend that does not handle a durability must not compile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// The death of the process and of the machine: SQLite's `synchronous=FULL`, PostgreSQL's
    /// `synchronous_commit=on`. In Redis the settings of the server decide, and connecting fails if they are weaker.
    Full,
    /// The death of the process. The death of the machine, or of a server if there is one, may lose the last writes:
    /// SQLite's `synchronous=NORMAL`, PostgreSQL's `synchronous_commit=off`. In Redis the settings of the server
    /// decide.
    Process,
}
