//! What only this store has: a server, which may go away, hang or be in any state, and processes that share it.
//!
//! The tests run this program again as a child, with a job for it in the environment.

mod children;
mod databases;
mod faults;
mod pooled;
mod processes;
mod tls;
mod waiting;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use steps_postgres::{PostgresOptions, PostgresStore};

fn main() -> ExitCode {
    if let Some(code) = children::run_job().or_else(pooled::run_child) {
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

/// What a test gives: an error says what went wrong.
type TestResult = Result<(), Box<dyn std::error::Error>>;

/// A test on a runtime of its own.
fn trial<F>(name: &str, test: fn() -> F) -> Trial
where
    F: Future<Output = TestResult> + 'static,
{
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(test()).map_err(|error| Failed::from(error.to_string()))
    })
}

async fn connect(url: &str) -> steps_core::Result<PostgresStore> {
    PostgresStore::connect(PostgresOptions::from_url(url)?).await
}
