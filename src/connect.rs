use std::{collections::BTreeMap, sync::Arc};

use steps_core::{Backend, Call, ConnectOptions, Description, Error, ErrorKind, Operation, Result, StepsStore};

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
        let connector = Self { backends: BTreeMap::new(), options: ConnectOptions::new() };
        builtin::backends().into_iter().fold(connector, Self::add)
    }

    /// Connects with these options from now on.
    #[must_use]
    pub fn with_options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }

    /// Knows another backend, under each of its schemes. It replaces a backend with the same scheme.
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

    /// The backend of a URL's scheme.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for a URL without a scheme, and for a scheme without a backend.
    pub fn backend(&self, url: &str) -> Result<&dyn Backend> {
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

fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, message).with_call(Call::on_store(Operation::Connect))
}
