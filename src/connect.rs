use std::{collections::BTreeMap, sync::Arc};

use steps_core::{Backend, Call, ConnectOptions, Description, Error, ErrorKind, Operation, Result, StepsStore};

use crate::builtin;

/// Connects to the store at `url`, with the default options.
///
/// # Errors
/// [`Config`](ErrorKind::Config) if no backend that was compiled in has the scheme, and the errors of the backend's
/// [`connect`](Backend::connect). No message shows a password.
pub async fn connect(url: &str) -> Result<Arc<dyn StepsStore>> {
    Connector::builtin().connect(url).await
}

/// Connects to stores by URL, with the backends that were compiled in and those of the application.
///
/// There is no global registry: a backend of the application is known only to connectors that it was added to.
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
    /// A connector with the backends that were compiled in.
    #[must_use]
    pub fn builtin() -> Self {
        let connector = Self { backends: BTreeMap::new(), options: ConnectOptions::new() };
        builtin::backends().into_iter().fold(connector, Self::add)
    }

    /// Sets the options of all connections.
    #[must_use]
    pub fn with_options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }

    /// Adds a backend under each of its schemes. It replaces earlier backends with the same schemes.
    #[must_use]
    pub fn with_backend(self, backend: impl Backend + 'static) -> Self {
        self.add(Arc::new(backend))
    }

    fn add(mut self, backend: Arc<dyn Backend>) -> Self {
        for scheme in backend.schemes() {
            self.backends.insert((*scheme).to_owned(), Arc::clone(&backend));
        }
        self
    }

    /// The known schemes, sorted.
    pub fn schemes(&self) -> impl Iterator<Item = &str> {
        self.backends.keys().map(String::as_str)
    }

    /// Connects to the store at `url`.
    ///
    /// # Errors
    /// As [`connect`](fn@connect).
    pub async fn connect(&self, url: &str) -> Result<Arc<dyn StepsStore>> {
        self.backend(url)?.connect(url, &self.options).await
    }

    /// Describes the store at `url`: its format, and its guarantees with these options.
    ///
    /// # Errors
    /// As [`connect`](fn@connect).
    pub async fn describe(&self, url: &str) -> Result<Description> {
        self.backend(url)?.describe(url, &self.options).await
    }

    /// The backend for the scheme of `url`.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for a URL without a scheme, and for a scheme without a backend.
    pub fn backend(&self, url: &str) -> Result<&dyn Backend> {
        // No message shows more of the URL than a valid scheme: the rest may hold a password.
        let is_scheme = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let Some((scheme, _)) = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
            let known = self.known_schemes();
            return Err(config(format!("the URL of the store has no scheme; write SCHEME:…, where SCHEME is {known}")));
        };
        match (self.backends.get(scheme), builtin::feature(scheme)) {
            (Some(backend), _) => Ok(&**backend),
            (None, Some(feature)) => Err(config(format!(
                "the backend for the scheme {scheme:?} was not compiled in; enable the feature `{feature}` of `steps`"
            ))),
            (None, None) => {
                let known = self.known_schemes();
                Err(config(format!("unknown scheme {scheme:?} in the URL of the store; use {known}")))
            }
        }
    }

    fn known_schemes(&self) -> String {
        let schemes: Vec<_> = self.schemes().collect();
        match schemes.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => "that of a backend (none was compiled in)".to_owned(),
        }
    }
}

fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, message).with_call(Call::on_store(Operation::Connect))
}
