//! Tests of this store's own: servers that stop, hang, fill up or fail over, keys that other programs write to, and
//! processes that share a store.
//!
//! The tests run this program again as a child, with a job in its environment.

mod cluster;
mod corrupt;
mod faults;
mod formats;
mod processes;
mod replicas;
mod states;
#[cfg(feature = "tls")]
mod tls;

use std::{process::ExitCode, time::Duration};

use libtest_mimic::Arguments;
use steps_redis::{RedisOptions, RedisStore};
use test_servers::children;

/// The time-out of an [`impatient`] store.
const TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if let Some(code) = children::run_job(async |url| connect(&url).await) {
        return code;
    }
    let mut trials = cluster::trials();
    trials.extend(corrupt::trials());
    trials.extend(faults::trials());
    trials.extend(formats::trials());
    trials.extend(processes::trials());
    trials.extend(replicas::trials());
    trials.extend(states::trials());
    #[cfg(feature = "tls")]
    trials.extend(tls::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

async fn connect(url: &str) -> steps_core::Result<RedisStore> {
    RedisStore::connect(RedisOptions::from_url(url)?).await
}

async fn impatient(url: &str) -> steps_core::Result<RedisStore> {
    RedisStore::connect(RedisOptions::from_url(url)?.with_timeout(TIMEOUT)).await
}
