use std::path::PathBuf;

use clap::Args;

use super::locations::{Backend, or_all};

/// The arguments of every bench of stores.
#[derive(Args)]
pub struct Common {
    /// The backends to measure [default: all]
    backends: Vec<Backend>,
    /// Measure for a moment only, as a test of the bench
    #[arg(long)]
    pub quick: bool,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

impl Common {
    /// The given backends, or all.
    pub fn backends(&self) -> &[Backend] {
        or_all(&self.backends)
    }
}
