use std::{fmt, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{Clock, Description, OpenMode, Result, StepsStore};

/// A kind of store that is selected by the scheme of a URL.
///
/// Each backend crate exports one, for the `Connector` of the crate `steps`. The store of a backend can also be opened
/// directly, without this trait.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync {
    /// The URL schemes of this backend, such as `sqlite` for `sqlite:steps.db`.
    fn schemes(&self) -> &'static [&'static str];

    /// Connects to the store with this URL, which includes the scheme. The options override the URL.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for an invalid URL, and the errors of connecting. No message contains a
    /// password.
    async fn connect(&self, url: &str, options: &ConnectOptions) -> Result<Arc<dyn StepsStore>>;

    /// Describes the store with this URL.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    async fn describe(&self, url: &str, options: &ConnectOptions) -> Result<Description>;

    /// Whether the data outlives the handle that opened the store. It is lost otherwise, as in a store in memory.
    fn is_persistent(&self) -> bool {
        true
    }

    /// Makes the URL independent of the current directory, which is `directory`.
    ///
    /// Only a URL with a relative path depends on the directory. The default returns the URL unchanged.
    fn absolute_url(&self, url: &str, directory: &Path) -> String {
        let _ = directory;
        url.to_owned()
    }

    /// Whether a valid URL of this backend may contain a secret, such as a password, so that it must not be shown
    /// completely.
    fn urls_hold_secrets(&self) -> bool {
        true
    }

    /// The URL without its secrets, for messages. The default keeps only the scheme, since the rest may contain a
    /// password.
    fn redacted_url(&self, url: &str) -> String {
        match url.split_once(':') {
            Some((scheme, _)) => format!("{scheme}:…"),
            None => "…".to_owned(),
        }
    }
}

/// The options of a connection that all backends share. An option that is set overrides the URL.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// The clock of the store (L4). The default is the system clock.
    pub clock: Option<Arc<dyn Clock>>,
    /// The time-out of a call, including its time in a queue (D4). The default is 10 s.
    pub timeout: Option<Duration>,
    /// The durability of acknowledged writes (D1). The default is the one in the URL, or else [`Durability::Full`].
    pub durability: Option<Durability>,
    /// A name that separates the store's data from other data on the same server: the schema in PostgreSQL, the key
    /// prefix in Redis. The default is the one in the URL. A store that does not share a server ignores it.
    pub namespace: Option<String>,
    /// The mode for a URL without one. The default is [`OpenMode::Create`]. A store without modes ignores it.
    pub default_mode: Option<OpenMode>,
}

impl ConnectOptions {
    /// Creates options with the defaults.
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

    /// Sets the time-out of a call, including its time in a queue (D4).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the durability of acknowledged writes (D1).
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Sets the name that separates the store's data from other data on the same server.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Sets the mode for a URL without one.
    #[must_use]
    pub fn with_default_mode(mut self, mode: OpenMode) -> Self {
        self.default_mode = Some(mode);
        self
    }
}

/// The failures that an acknowledged write survives (D1). A store in memory rejects both values.
///
/// The enum is exhaustive on purpose: a backend that does not handle a durability must not compile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// A crash of the process or the machine. SQLite uses `synchronous=FULL`, PostgreSQL `synchronous_commit=on`. In
    /// Redis this depends on the settings of the server, and connecting fails if they are weaker.
    Full,
    /// A crash of the process. A crash of the machine, or of the server if there is one, may lose the last writes.
    /// SQLite uses `synchronous=NORMAL`, PostgreSQL `synchronous_commit=off`. In Redis this depends on the settings of
    /// the server.
    Process,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, Error, ManualClock, Operation, Timestamp};

    /// A backend with the default methods.
    #[derive(Debug)]
    struct Minimal;

    #[async_trait]
    impl Backend for Minimal {
        fn schemes(&self) -> &'static [&'static str] {
            &["minimal"]
        }

        async fn connect(&self, _: &str, _: &ConnectOptions) -> Result<Arc<dyn StepsStore>> {
            Err(Error::closed(Call::on_store(Operation::Connect)))
        }

        async fn describe(&self, _: &str, _: &ConnectOptions) -> Result<Description> {
            Ok(Description::new("minimal", "nowhere", "none"))
        }
    }

    #[test]
    fn a_backend_is_persistent_and_its_urls_are_secret_by_default() {
        assert!(Minimal.is_persistent());
        assert!(Minimal.urls_hold_secrets());
        assert_eq!(Minimal.absolute_url("minimal:a/b", Path::new("/srv")), "minimal:a/b");
    }

    #[test]
    fn a_url_is_shown_as_its_scheme_by_default() {
        for (url, shown) in [
            ("minimal://user:secret@host/a?password=secret", "minimal:…"),
            ("minimal:", "minimal:…"),
            ("secret", "…"),
            ("", "…"),
        ] {
            assert_eq!(Minimal.redacted_url(url), shown, "{url}");
        }
    }

    #[test]
    fn each_option_is_unset_by_default_and_can_be_set() {
        let options = ConnectOptions::new();
        assert!(options.clock.is_none() && options.timeout.is_none() && options.durability.is_none());
        assert!(options.namespace.is_none() && options.default_mode.is_none());

        let options = options
            .with_clock(Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH)))
            .with_timeout(Duration::from_secs(3))
            .with_durability(Durability::Process)
            .with_namespace("ci")
            .with_default_mode(OpenMode::ReadOnly);
        assert_eq!(options.clock.map(|clock| clock.now()), Some(Timestamp::UNIX_EPOCH));
        assert_eq!(options.timeout, Some(Duration::from_secs(3)));
        assert_eq!(options.durability, Some(Durability::Process));
        assert_eq!(options.namespace.as_deref(), Some("ci"));
        assert_eq!(options.default_mode, Some(OpenMode::ReadOnly));
    }
}
