use clap::CommandFactory;

use crate::{
    cli::{Cli, Completions},
    command_error::CommandError,
    output,
};

pub(super) fn completions(completions: &Completions) -> Result<(), CommandError> {
    // clap_complete panics on a write error, and writing to a vector never fails.
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Cli::command(), "steps", &mut script);
    output::data(&String::from_utf8_lossy(&script))
}
