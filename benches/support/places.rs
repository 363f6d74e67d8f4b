//! Where the stores that are measured keep their data: private files and servers, gone afterwards.

use std::{
    any::Any,
    fmt,
    path::{Path, PathBuf},
};

use clap::ValueEnum;

/// A backend that can be measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Backend {
    Memory,
    Sqlite,
    Postgres,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        })
    }
}

/// The backends that were asked for, or all.
pub fn or_all(backends: &[Backend]) -> &[Backend] {
    if backends.is_empty() { Backend::value_variants() } else { backends }
}

/// A place for one store, and for its floor beside it.
pub struct Place {
    /// What the store is connected with.
    pub url: String,
    /// What an answered write survives here, on both sides.
    pub durability: &'static str,
    /// The folder or the server.
    _kept: Box<dyn Any>,
}

impl Place {
    pub fn new(backend: Backend) -> Self {
        match backend {
            Backend::Memory => Self::kept("memory:".to_owned(), "nothing is written", ()),
            Backend::Sqlite => {
                let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the database");
                let url = format!("sqlite:{}", folder.path().join("store.db").display());
                Self::kept(url, "WAL, synchronous=FULL: a commit waits for the disk", folder)
            }
            Backend::Postgres => {
                const DURABILITY: &str = "fsync=on, synchronous_commit=on: a commit waits for the disk";
                let server = test_servers::PostgresOptions::default().with_setting("fsync", "on");
                let server = server.start().expect("PostgreSQL starts");
                Self::kept(server.url(), DURABILITY, server)
            }
        }
    }

    fn kept(url: String, durability: &'static str, kept: impl Any) -> Self {
        Self { url, durability, _kept: Box::new(kept) }
    }
}

/// The file of a SQLite floor, beside that of the store.
pub fn beside(url: &str, name: &str) -> PathBuf {
    Path::new(url.trim_start_matches("sqlite:")).with_file_name(name)
}
