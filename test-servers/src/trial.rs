use std::error::Error;

use libtest_mimic::{Failed, Trial};

/// Result of a test.
pub type TestResult<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A test that runs on its own runtime.
pub fn trial<F>(name: &str, test: fn() -> F) -> Trial
where
    F: Future<Output = TestResult> + 'static,
{
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(test()).map_err(|error| Failed::from(error.to_string()))
    })
}
