use std::{path::PathBuf, sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use steps_batch::clamp_timeout;
use steps_core::OpenMode;
use steps_core::{Clock, Result, SystemClock};

use crate::error;

/// Where a [`SqliteStore`](crate::SqliteStore) keeps its data, and how.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    pub(crate) path: PathBuf,
    pub(crate) mode: OpenMode,
    pub(crate) synchronous: Synchronous,
    pub(crate) timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What an answered write survives: SQLite's `PRAGMA synchronous`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Synchronous {
    /// The death of the process and of the machine: `synchronous=full`, the default. All waiting
    /// writes share one fsync.
    Full,
    /// The death of the process; that of the machine may take the last of them: `synchronous=normal`.
    Normal,
}

impl SqliteOptions {
    /// The defaults, for the file at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            mode: OpenMode::Create,
            synchronous: Synchronous::Full,
            timeout: Duration::from_secs(10),
            clock: Arc::new(SystemClock),
        }
    }

    /// The options that a URL names: `sqlite:PATH` or `sqlite://PATH`, where a path that begins with `/`
    /// is absolute and another is in the current folder; `?mode=rwc|rw|ro` and
    /// `?synchronous=full|normal`.
    ///
    /// The path is percent-encoded; `?` ends it and `%` begins a code, every other character may stand
    /// for itself.
    ///
    /// ```
    /// use steps_sqlite::SqliteOptions;
    ///
    /// SqliteOptions::from_url("sqlite:builds/steps.db")?;
    /// SqliteOptions::from_url("sqlite:///var/lib/ci/steps.db?mode=ro")?;
    /// assert!(SqliteOptions::from_url("sqlite:steps.db?color=red").is_err());
    /// # Ok::<(), steps_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Config`](steps_core::ErrorKind::Config) for any other URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let rest =
            url.strip_prefix("sqlite:").ok_or_else(|| error::config("a URL of SQLite begins with \"sqlite:\""))?;
        let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let path = decode(path.strip_prefix("//").unwrap_or(path))?;
        match path.as_str() {
            "" => return Err(error::config("the URL names no file; write it as sqlite:PATH")),
            ":memory:" => return Err(error::config("a store in memory has the URL \"memory:\"")),
            _ => {}
        }
        parameters.split('&').filter(|parameter| !parameter.is_empty()).try_fold(Self::new(path), Self::with_parameter)
    }

    fn with_parameter(self, parameter: &str) -> Result<Self> {
        let Some((name, value)) = parameter.split_once('=') else {
            return Err(error::config("the URL has a parameter without a value; use mode or synchronous"));
        };
        match (name, value) {
            ("mode", value) => value
                .parse()
                .map(|mode| self.with_mode(mode))
                .map_err(|_| error::config("invalid `mode` in the URL: expected rwc, rw or ro")),
            ("synchronous", "full") => Ok(self.with_synchronous(Synchronous::Full)),
            ("synchronous", "normal") => Ok(self.with_synchronous(Synchronous::Normal)),
            ("synchronous", _) => Err(error::config("the URL's synchronous is full or normal")),
            // The value may be a password that went to the wrong backend.
            _ => Err(error::config(format!("the URL's parameter {name:?} is unknown; use mode or synchronous"))),
        }
    }

    /// Says what may be done with the file: [`OpenMode::Create`] unless set.
    #[must_use]
    pub fn with_mode(mut self, mode: OpenMode) -> Self {
        self.mode = mode;
        self
    }

    /// Says what an answered write survives (D1).
    #[must_use]
    pub fn with_synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Lets no call take longer than this, queueing included (D4); 10 s unless set, a year at most.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = clamp_timeout(timeout);
        self
    }

    /// Takes the time from this clock (L4).
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

fn decode(path: &str) -> Result<String> {
    let path = percent_decode_str(path).decode_utf8().map_err(|_| error::config("the URL's path is not UTF-8"))?;
    if path.contains('\0') { Err(error::config("the URL's path has a NUL character")) } else { Ok(path.into_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_path_and_what_may_be_done_with_it() {
        for (url, path, mode, synchronous) in [
            ("sqlite:steps.db", "steps.db", OpenMode::Create, Synchronous::Full),
            ("sqlite://a/steps.db?mode=rwc&synchronous=full", "a/steps.db", OpenMode::Create, Synchronous::Full),
            (
                "sqlite:///a%20b/%3F.db?mode=rw&synchronous=normal",
                "/a b/?.db",
                OpenMode::ReadWrite,
                Synchronous::Normal,
            ),
            ("sqlite:steps.db?mode=ro", "steps.db", OpenMode::ReadOnly, Synchronous::Full),
        ] {
            let options = SqliteOptions::from_url(url).unwrap();
            assert_eq!(options.path, PathBuf::from(path), "{url}");
            assert_eq!((options.mode, options.synchronous), (mode, synchronous), "{url}");
        }
    }

    #[test]
    fn what_it_does_not_know_is_refused_and_no_value_shown() {
        for (url, said) in [
            ("sqlite:", "names no file"),
            ("sqlite::memory:", "\"memory:\""),
            ("sqlite:steps.db?mode", "without a value"),
            ("sqlite:steps.db?mode=secret", "rwc, rw or ro"),
            ("sqlite:steps.db?synchronous=secret", "full or normal"),
            ("sqlite:steps.db?pasword=secret", "\"pasword\" is unknown"),
            ("sqlite:%ff", "not UTF-8"),
            ("sqlite:%00", "NUL"),
            ("steps.db", "begins with"),
        ] {
            let error = SqliteOptions::from_url(url).unwrap_err();
            assert_eq!(error.kind(), steps_core::ErrorKind::Config, "{url}");
            assert!(error.to_string().contains(said) && !error.to_string().contains("secret"), "{url}: {error}");
        }
    }
}
