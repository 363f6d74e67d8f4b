use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::Timestamp;

/// The source of `complete_at` in a store (L4).
///
/// Every store accepts a clock, so that tests can control the time. The default is [`SystemClock`].
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the current time.
    fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for &C {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only place that reads the system time")]
    fn now(&self) -> Timestamp {
        Timestamp::try_from(chrono::Utc::now()).unwrap_or(Timestamp::MAX)
    }
}

/// A clock that changes only when it is set, for tests.
///
/// ```
/// use std::time::Duration;
/// use steps_core::{Clock, ManualClock, Timestamp};
///
/// let clock = ManualClock::new("2026-01-31T12:00:00Z".parse()?);
/// clock.advance(Duration::from_secs(90));
/// assert_eq!(clock.now(), "2026-01-31T12:01:30Z".parse()?);
/// # Ok::<(), steps_core::InputError>(())
/// ```
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Creates a clock that is set to `now`.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.unix_micros()))
    }

    /// Sets the clock.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.unix_micros(), Ordering::SeqCst);
    }

    /// Advances the clock, at most to [`Timestamp::MAX`].
    pub fn advance(&self, by: Duration) {
        let later = |micros| Some(at(micros).saturating_add(by).unix_micros());
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        at(self.0.load(Ordering::SeqCst))
    }
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(micros).expect("the value comes from a timestamp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_returns_the_time_that_was_set() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
        clock.set(at(-7));
        assert_eq!(clock.now(), at(-7));
        clock.advance(Duration::from_micros(10));
        assert_eq!(Arc::new(&clock).now(), at(3));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Timestamp::MAX);
    }

    #[test]
    fn the_system_clock_advances() {
        let one = SystemClock.now();
        assert!(one > at(0) && one <= SystemClock.now());
    }
}
