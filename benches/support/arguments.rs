use std::path::PathBuf;

use clap::Args;

use super::places::{Backend, or_all};

/// What every bench of stores takes.
#[derive(Args)]
pub struct Common {
    /// The backends to measure; without any, all
    backends: Vec<Backend>,
    /// Measure for a moment only, to see that it works
    #[arg(long)]
    pub quick: bool,
    /// Write the figures into this file too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
}

impl Common {
    /// The backends that were asked for, or all.
    pub fn backends(&self) -> &[Backend] {
        or_all(&self.backends)
    }
}
