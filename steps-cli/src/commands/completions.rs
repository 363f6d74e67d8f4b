use clap::CommandFactory;

use crate::{
    cli::{Cli, Completions},
    failure::Failure,
    output,
};

pub(super) fn completions(completions: &Completions) -> Result<(), Failure> {
    // clap_complete panics where it cannot write, which never happens to a vector.
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Cli::command(), "steps", &mut script);
    output::data(&String::from_utf8_lossy(&script))
}
