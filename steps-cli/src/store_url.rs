#[cfg(feature = "conformance")]
use std::ffi::OsStr;
use std::path::Path;

use steps::{Backend, Connector, Result};

#[cfg(feature = "conformance")]
use crate::child;

/// The store if no other is given: a SQLite file in the current folder.
pub(crate) const DEFAULT: &str = "sqlite://steps.db";

/// The URL of the store, as given on the command line or in the environment.
///
/// It may hold a password, so it is passed to the store and to the commands that `steps` runs, and never shown.
#[derive(Clone)]
pub(crate) struct StoreUrl(String);

impl StoreUrl {
    /// The given URL, otherwise [`DEFAULT`].
    pub(crate) fn given_or_default(given: Option<String>) -> Self {
        Self(given.filter(|url| !url.is_empty()).unwrap_or_else(|| DEFAULT.to_owned()))
    }

    /// The URL.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL of the same store for a process in another folder; `folder` is the current one.
    ///
    /// A URL without a backend stays as it is: connecting fails in every folder.
    pub(crate) fn absolute(&self, folder: &Path) -> Self {
        match self.on_backend(|backend| backend.absolute_url(&self.0, folder)) {
            Ok(url) => Self(url),
            Err(_) => self.clone(),
        }
    }

    /// The part of the URL that may be shown.
    pub(crate) fn redacted(&self) -> String {
        self.on_backend(|backend| backend.redacted_url(&self.0)).unwrap_or_else(|_| "at this URL".to_owned())
    }

    /// The argument for a shell command that may be shown: `URL` stands for a URL that may hold a secret.
    #[cfg(feature = "conformance")]
    pub(crate) fn shell_argument(&self) -> String {
        match self.on_backend(|backend| backend.urls_hold_secrets()) {
            Ok(false) => child::quoted(OsStr::new(&self.0)),
            Ok(true) | Err(_) => "URL".to_owned(),
        }
    }

    /// Whether the store outlives the handle that opened it.
    #[cfg(feature = "conformance")]
    pub(crate) fn is_persistent(&self) -> Result<bool> {
        self.on_backend(|backend| backend.is_persistent())
    }

    fn on_backend<T>(&self, call: impl FnOnce(&dyn Backend) -> T) -> Result<T> {
        Connector::builtin().backend(&self.0).map(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(url: &str) -> StoreUrl {
        StoreUrl(url.to_owned())
    }

    #[test]
    fn the_default_is_a_file_in_the_current_folder() {
        for nothing in [None, Some(String::new())] {
            assert_eq!(StoreUrl::given_or_default(nothing).as_str(), "sqlite://steps.db");
        }
    }

    #[test]
    fn only_a_url_with_a_relative_path_depends_on_the_folder() {
        let absolute = |given: &str| url(given).absolute(Path::new("/a%b?")).as_str().to_owned();
        for unchanged in ["memory:", "postgres://ci:secret@host/steps", "redis://host", "nonsense:a/b", "steps.db"] {
            assert_eq!(absolute(unchanged), unchanged);
        }
        if cfg!(feature = "sqlite") {
            assert_eq!(absolute("sqlite:x/steps.db?mode=rw"), "sqlite:///a%25b%3F/x/steps.db?mode=rw");
        }
    }

    #[cfg(feature = "conformance")]
    #[test]
    fn a_shell_command_shows_the_url_of_a_file_and_of_no_server() {
        assert_eq!(url("memory:").shell_argument(), "memory:");
        for hidden in ["postgres://ci:secret@host/steps", "redis://:secret@host", "nonsense:secret", "secret"] {
            assert_eq!(url(hidden).shell_argument(), "URL");
        }
        if cfg!(feature = "sqlite") {
            let file = "sqlite://it's/steps.db?mode=rw&synchronous=normal";
            let quoted = r"'sqlite://it'\''s/steps.db?mode=rw&synchronous=normal'";
            assert_eq!(url(file).shell_argument(), quoted);
        }
    }

    #[test]
    fn no_secret_is_shown() {
        for given in [
            "sqlite:a/steps.db?key=secret",
            "postgres://ci:sec@ret?@host/steps?password=secret",
            "redis://:secret@host",
            "secret:5432",
            "secret@host:5432",
            "secret",
        ] {
            assert!(!url(given).redacted().contains("sec"), "{given}");
        }
        if cfg!(feature = "sqlite") {
            assert_eq!(url("sqlite:a/steps.db?key=secret").redacted(), "sqlite:a/steps.db");
        }
    }
}
