use std::time::Duration;

/// How long a worker should wait for a lock before it fails with a
/// [transient](crate::BatchError::transient) error: an eighth of the time-out, at most 250 ms.
///
/// It is short, since the requests of other callers wait behind the batch.
#[must_use]
pub fn lock_timeout(timeout: Duration) -> Duration {
    (timeout / 8).min(Duration::from_millis(250))
}

/// Limits a time-out to a year, so that it can be added to any time.
#[must_use]
pub fn clamp_timeout(timeout: Duration) -> Duration {
    timeout.min(Duration::from_secs(365 * 24 * 60 * 60))
}

/// The pause between a failed attempt and the next one.
pub(crate) fn retry_delay(timeout: Duration) -> Duration {
    lock_timeout(timeout) / 5
}

/// The longest time that an attempt is expected to take when it fails on a lock: the lock's time-out, and as much again
/// for the rest of the work.
pub(crate) fn longest_failed_attempt(timeout: Duration) -> Duration {
    2 * lock_timeout(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_a_year_at_most() {
        assert_eq!(clamp_timeout(Duration::MAX), Duration::from_secs(31_536_000));
        assert_eq!(clamp_timeout(Duration::from_secs(10)), Duration::from_secs(10));
    }

    #[test]
    fn a_lock_timeout_leaves_time_for_several_attempts() {
        assert_eq!(lock_timeout(Duration::from_secs(10)), Duration::from_millis(250));
        assert_eq!(lock_timeout(Duration::from_millis(800)), Duration::from_millis(100));
    }
}
