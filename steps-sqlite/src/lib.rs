//! A [`StepsStore`] in a SQLite file.
mod error;
mod options;
pub use options::{Mode, SqliteOptions, Synchronous};
