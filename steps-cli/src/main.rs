//! `steps`: records the steps of a build from the command line, and shows them.

mod child;
mod cli;
mod commands;
mod connect;
mod failure;
#[cfg(feature = "conformance")]
mod live;
mod output;
mod recorder;
mod signals;
mod store_url;

use std::process::ExitCode;

use clap::Parser;

use crate::{cli::Cli, failure::Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One thread is enough for one command at a time, and starts at once.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::System(error).report(),
    };
    let end = runtime.block_on(commands::execute(cli));
    // A store that hangs must not keep the program: what it was not answered for was not promised.
    runtime.shutdown_background();
    end.unwrap_or_else(|failure| failure.report())
}
