//! `steps`: records the steps of a build from the command line, and shows them.

mod child;
mod cli;
mod command_error;
mod commands;
mod connect;
mod exit;
mod group_probe;
mod job_control;
#[cfg(feature = "conformance")]
mod live_store;
mod output;
mod recorder;
mod signals;
mod store_url;

use std::process::ExitCode;

use crate::{cli::Cli, command_error::CommandError};

fn main() -> ExitCode {
    if group_probe::is_probe() {
        return group_probe::serve();
    }
    signals::catch_file_size_signal();
    let cli = Cli::from_arguments();
    // One thread is enough for one command, and starts faster than a pool.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return CommandError::System(error).report(),
    };
    let result = runtime.block_on(commands::execute(cli));
    // The program does not wait for a store that hangs: a call without an answer promises nothing.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.apply(),
        Err(error) => error.report(),
    }
}
