//! Tests beyond the suite: a server that stops, hangs or has an unexpected state, and processes that share it.
//!
//! Some tests run this program again as a child process, with its job in the environment.

mod databases;
mod faults;
mod pooled;
mod processes;
mod tls;
mod waiting;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use steps_postgres::{PostgresOptions, PostgresStore};
use test_servers::children;

fn main() -> ExitCode {
    if let Some(code) = children::run_job(async |url| connect(&url).await).or_else(pooled::run_child) {
        return code;
    }
    let mut trials = databases::trials();
    trials.extend(faults::trials());
    trials.extend(pooled::trials());
    trials.extend(processes::trials());
    trials.extend(tls::trials());
    trials.extend(waiting::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

async fn connect(url: &str) -> steps_core::Result<PostgresStore> {
    PostgresStore::connect(PostgresOptions::from_url(url)?).await
}
