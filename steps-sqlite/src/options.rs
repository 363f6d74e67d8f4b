use std::{path::PathBuf, sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use steps_batch::clamp_timeout;
use steps_core::{Clock, OpenMode, Result, SystemClock, UrlParameters};

use crate::{BACKEND, error::config_error, url::SqliteUrl};

/// The settings of a [`SqliteStore`](crate::SqliteStore).
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    pub(crate) path: PathBuf,
    pub(crate) mode: OpenMode,
    pub(crate) synchronous: Synchronous,
    pub(crate) timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The durability of an answered write: SQLite's `PRAGMA synchronous`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Synchronous {
    /// A write survives the death of the process and of the machine: `synchronous=full`, the default. All queued
    /// writes share one fsync.
    Full,
    /// A write survives the death of the process. The death of the machine may lose the last writes:
    /// `synchronous=normal`.
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

    /// The options in a URL: `sqlite:PATH` or `sqlite://PATH`, with the parameters `mode=rwc|rw|ro` and
    /// `synchronous=full|normal`. A path that begins with `/` is absolute; any other path is relative to the current
    /// folder.
    ///
    /// The path is percent-encoded. Only `?`, which ends the path, and `%` need a code.
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
        Self::from_url_with_default_mode(url, OpenMode::Create)
    }

    pub(crate) fn from_url_with_default_mode(url: &str, default_mode: OpenMode) -> Result<Self> {
        let SqliteUrl { path, parameters } =
            SqliteUrl::split(url).ok_or_else(|| config_error("a URL of SQLite begins with \"sqlite:\""))?;
        let path = decode_path(path)?;
        match path.as_os_str().as_encoded_bytes() {
            b"" => return Err(config_error("the URL names no file; write it as sqlite:PATH")),
            b":memory:" => return Err(config_error("a store in memory has the URL \"memory:\"")),
            _ => {}
        }
        let mut parameters = UrlParameters::parse(BACKEND, parameters.unwrap_or_default())?;
        let mode = parameters.take("mode", OpenMode::EXPECTED, |value| value.parse().ok())?;
        let synchronous = parameters.take("synchronous", "full or normal", |value| match value {
            "full" => Some(Synchronous::Full),
            "normal" => Some(Synchronous::Normal),
            _ => None,
        })?;
        parameters.finish()?;
        Ok(Self::new(path)
            .with_mode(mode.unwrap_or(default_mode))
            .with_synchronous(synchronous.unwrap_or(Synchronous::Full)))
    }

    /// Sets the mode; by default [`OpenMode::Create`].
    #[must_use]
    pub fn with_mode(mut self, mode: OpenMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the durability of writes (D1); by default [`Synchronous::Full`].
    #[must_use]
    pub fn with_synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Sets the time-out of a call, queueing included (D4); by default 10 s, at most a year.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = clamp_timeout(timeout);
        self
    }

    /// Sets the clock (L4); by default that of the machine.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

fn decode_path(path: &str) -> Result<PathBuf> {
    let bytes: Vec<u8> = percent_decode_str(path).collect();
    if bytes.contains(&0) {
        return Err(config_error("the path in the URL has a NUL character"));
    }
    path_of_bytes(bytes)
}

/// A path has any bytes on Unix, since the name of a folder need not be UTF-8.
#[cfg(unix)]
fn path_of_bytes(bytes: Vec<u8>) -> Result<PathBuf> {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};
    Ok(OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn path_of_bytes(bytes: Vec<u8>) -> Result<PathBuf> {
    String::from_utf8(bytes).map(PathBuf::from).map_err(|_| config_error("the path in the URL is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_path_and_parameters() {
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

    #[cfg(unix)]
    #[test]
    fn a_path_need_not_be_utf_8() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let options = SqliteOptions::from_url("sqlite:a%ff/steps.db").unwrap();
        assert_eq!(options.path.as_os_str(), OsStr::from_bytes(b"a\xff/steps.db"));
    }

    #[test]
    fn a_wrong_url_is_refused_and_no_value_is_shown() {
        for (url, message) in [
            ("sqlite:", "names no file"),
            ("sqlite::memory:", "\"memory:\""),
            ("sqlite:steps.db?mode", "invalid `mode` in the URL: expected rwc, rw or ro"),
            ("sqlite:steps.db?mode=secret", "invalid `mode` in the URL: expected rwc, rw or ro"),
            ("sqlite:steps.db?synchronous=secret", "invalid `synchronous` in the URL: expected full or normal"),
            (
                "sqlite:steps.db?pasword=secret",
                "unknown parameter \"pasword\" in the URL: expected mode or synchronous",
            ),
            ("sqlite://ci:42?secret=x@host/steps.db", "unknown parameter in the URL: expected mode or synchronous"),
            ("sqlite:%00", "NUL"),
            ("steps.db", "begins with"),
        ] {
            let error = SqliteOptions::from_url(url).unwrap_err();
            assert_eq!(error.kind(), steps_core::ErrorKind::Config, "{url}");
            assert!(error.to_string().contains(message) && !error.to_string().contains("secret"), "{url}: {error}");
        }
    }
}
