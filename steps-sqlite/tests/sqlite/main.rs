//! Tests for this store only: its file in any state, and processes that share it or die.
//!
//! Some tests run this program again as a child process. The environment names the child's job.

mod children;
mod creation;
mod files;
mod moved;
mod processes;
mod waiting;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use steps_sqlite::{SqliteOptions, SqliteStore};

fn main() -> ExitCode {
    if let Some(code) = children::run_job()
        .or_else(|| test_servers::children::run_job(|path| SqliteStore::connect(SqliteOptions::new(path))))
    {
        return code;
    }
    let mut trials = files::trials();
    trials.extend(creation::trials());
    trials.extend(moved::trials());
    trials.extend(processes::trials());
    trials.extend(waiting::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
