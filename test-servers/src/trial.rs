use std::error::Error;

use libtest_mimic::{Failed, Trial};

/// What a test gives: an error says what went wrong.
pub type TestResult<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A test on a runtime of its own.
pub fn trial<F>(name: &str, test: fn() -> F) -> Trial
where
    F: Future<Output = TestResult> + 'static,
{
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(test()).map_err(|error| Failed::from(error.to_string()))
    })
}
