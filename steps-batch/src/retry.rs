use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::BatchError;

/// Repeats an attempt while its error is [transient](BatchError::is_transient), with a pause of `delay` between the
/// attempts, until the next one would begin at `deadline` or later.
///
/// It is for connecting: a server may be starting, and another process may hold a lock.
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
                let retry_at = Instant::now() + delay;
                if retry_at >= deadline {
                    return Err(error);
                }
                sleep_until(retry_at).await;
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use steps_core::ErrorKind;

    use super::*;

    const DELAY: Duration = Duration::from_millis(30);

    /// Makes attempts within 100 ms; returns the outcome, the number of attempts, and the time that they took.
    async fn attempts(
        attempt: impl Fn(usize) -> Result<usize, BatchError>,
    ) -> (Result<usize, BatchError>, usize, Duration) {
        let start = Instant::now();
        let count = Cell::new(0);
        let outcome = retry_until(start + Duration::from_millis(100), DELAY, || {
            count.set(count.get() + 1);
            std::future::ready(attempt(count.get()))
        });
        (outcome.await, count.get(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_transient_error_is_retried_after_a_pause() {
        let third = |count| if count < 3 { Err(BatchError::transient("starting")) } else { Ok(count) };
        let (outcome, count, elapsed) = attempts(third).await;
        assert_eq!((outcome.unwrap(), count, elapsed), (3, 3, 2 * DELAY));
    }

    #[tokio::test(start_paused = true)]
    async fn no_attempt_begins_at_the_deadline_or_later() {
        let (outcome, count, elapsed) = attempts(|count| Err(BatchError::transient(format!("attempt {count}")))).await;
        assert_eq!((outcome.unwrap_err().to_string().as_str(), count, elapsed), ("attempt 4", 4, 3 * DELAY));
    }

    #[tokio::test(start_paused = true)]
    async fn another_error_is_not_retried() {
        let (outcome, count, elapsed) = attempts(|_| Err(BatchError::new(ErrorKind::Config, "another file"))).await;
        assert_eq!((outcome.unwrap_err().kind(), count, elapsed), (ErrorKind::Config, 1, Duration::ZERO));
    }
}
