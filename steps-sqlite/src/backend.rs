use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use steps_core::{Backend, ConnectOptions, Description, Durability, OpenMode, Result, StepsStore};

use crate::{BACKEND, SqliteOptions, SqliteStore, Synchronous, url::SqliteUrl};

/// Connects `sqlite:PATH` to a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct SqliteBackend;

#[async_trait]
impl Backend for SqliteBackend {
    fn schemes(&self) -> &'static [&'static str] {
        &[BACKEND]
    }

    fn urls_hold_secrets(&self) -> bool {
        false
    }

    async fn connect(&self, url: &str, connect: &ConnectOptions) -> Result<Arc<dyn StepsStore>> {
        Ok(Arc::new(SqliteStore::connect(options(url, connect)?).await?))
    }

    async fn describe(&self, url: &str, connect: &ConnectOptions) -> Result<Description> {
        let store = SqliteStore::connect(options(url, connect)?).await?;
        let description = store.describe().await?;
        store.close().await?;
        Ok(description)
    }

    fn absolute_url(&self, url: &str, folder: &Path) -> String {
        SqliteUrl::split(url).and_then(|url| url.absolute(folder)).unwrap_or_else(|| url.to_owned())
    }

    /// The path, without the parameters.
    fn redacted_url(&self, url: &str) -> String {
        let path = SqliteUrl::split(url).map_or("…", |url| url.path);
        format!("{BACKEND}:{path}")
    }
}

fn options(url: &str, connect: &ConnectOptions) -> Result<SqliteOptions> {
    let default_mode = connect.default_mode.unwrap_or(OpenMode::Create);
    let mut options = SqliteOptions::from_url_with_default_mode(url, default_mode)?;
    if let Some(clock) = &connect.clock {
        options = options.with_clock(Arc::clone(clock));
    }
    if let Some(timeout) = connect.timeout {
        options = options.with_timeout(timeout);
    }
    if let Some(durability) = connect.durability {
        options = options.with_synchronous(match durability {
            Durability::Full => Synchronous::Full,
            Durability::Process => Synchronous::Normal,
        });
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absolute(url: &str, folder: &Path) -> String {
        SqliteBackend.absolute_url(url, folder)
    }

    #[test]
    fn a_relative_path_becomes_absolute_and_everything_else_stays() {
        for (given, expected) in [
            ("sqlite:steps.db", "sqlite:///a%25b%3F/steps.db"),
            (
                "sqlite://x/steps.db?synchronous=normal&mode=rw",
                "sqlite:///a%25b%3F/x/steps.db?synchronous=normal&mode=rw",
            ),
            ("sqlite:%41 b.db", "sqlite:///a%25b%3F/%41 b.db"),
            ("sqlite:steps.db?", "sqlite:///a%25b%3F/steps.db?"),
            ("sqlite:///steps.db?mode=ro", "sqlite:///steps.db?mode=ro"),
            ("sqlite:/steps.db", "sqlite:/steps.db"),
            ("sqlite:%2Fsteps.db", "sqlite:%2Fsteps.db"),
            ("sqlite:%2fsteps.db", "sqlite:%2fsteps.db"),
            ("sqlite:", "sqlite:"),
            ("steps.db", "steps.db"),
        ] {
            assert_eq!(absolute(given, Path::new("/a%b?")), expected);
        }
        assert_eq!(absolute("sqlite:steps.db", Path::new("/")), "sqlite:///steps.db");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_is_not_utf_8_is_encoded() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

        let folder = Path::new(OsStr::from_bytes(b"/\xff"));
        assert_eq!(absolute("sqlite:steps.db", folder), "sqlite:///%FF/steps.db");
    }

    #[test]
    fn a_url_is_shown_without_its_parameters() {
        assert_eq!(SqliteBackend.redacted_url("sqlite://a/steps.db?key=secret"), "sqlite:a/steps.db");
        assert_eq!(SqliteBackend.redacted_url("sqlite:/steps.db"), "sqlite:/steps.db");
        assert_eq!(SqliteBackend.redacted_url("secret"), "sqlite:…");
    }

    #[test]
    fn the_default_mode_counts_only_where_the_url_has_none() {
        let connect = ConnectOptions::new().with_default_mode(OpenMode::ReadOnly);
        for (url, connect, mode) in [
            ("sqlite:steps.db", &connect, OpenMode::ReadOnly),
            ("sqlite:steps.db?synchronous=full", &connect, OpenMode::ReadOnly),
            ("sqlite:steps.db?mode=rwc", &connect, OpenMode::Create),
            ("sqlite:steps.db?synchronous=full&mode=rw", &connect, OpenMode::ReadWrite),
            ("sqlite:steps.db", &ConnectOptions::new(), OpenMode::Create),
        ] {
            assert_eq!(options(url, connect).unwrap().mode, mode, "{url}");
        }
    }
}
