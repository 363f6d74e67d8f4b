use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::BatchError;

/// Repeats an attempt while its error is [transient](BatchError::is_transient), with `delay` between the attempts,
/// until the next one would begin at `deadline` or later. For connecting: a server may be starting, and another
/// process may hold a lock.
///
/// # Errors
/// The error of the last attempt.
pub async fn retry_until<T, F>(
    deadline: Instant,
    delay: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, BatchError>
where
    F: Future<Output = Result<T, BatchError>>,
{
    loop {
        match attempt().await {
            Err(error) if error.is_transient() => {
                let next_attempt = Instant::now() + delay;
                if next_attempt >= deadline {
                    return Err(error);
                }
                sleep_until(next_attempt).await;
            }
            outcome => return outcome,
        }
    }
}
