use std::fmt;

use steps::{Step, Timestamp};

const MILLISECOND: u64 = 1_000;
const SECOND: u64 = 1_000 * MILLISECOND;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A duration with a short display form: `340ms`, `12.3s`, `1m 02s`, `3h 07m`.
///
/// It is negative if the end is before the start, which a store allows and clocks of several machines cause. No step
/// took a negative time, so that is shown as `0ms?`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Duration(i64);

impl Duration {
    fn between(start: Timestamp, end: Timestamp) -> Self {
        Self(end.unix_micros() - start.unix_micros())
    }
}

/// The duration of a step; of a running step up to `now`. `None` for a step that was not started.
pub(crate) fn of_step(step: &Step, now: Timestamp) -> Option<Duration> {
    step.started_at.map(|started_at| Duration::between(started_at, step.complete_at.unwrap_or(now)))
}

/// The time that a step waited for its locks; of a waiting step up to `now`. `None` for a step that was not
/// started, or that ended without its locks.
pub(crate) fn of_waiting(step: &Step, now: Timestamp) -> Option<Duration> {
    let waiting = || step.complete_at.is_none().then_some(now);
    let acquired_at = step.locks_acquired_at.or_else(waiting);
    Some(Duration::between(step.started_at?, acquired_at?))
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(micros) = u64::try_from(self.0) else { return f.pad("0ms?") };
        f.pad(&match micros {
            ..SECOND => format!("{}ms", micros / MILLISECOND),
            SECOND..MINUTE => format!("{}.{}s", micros / SECOND, micros % SECOND / (100 * MILLISECOND)),
            MINUTE..HOUR => format!("{}m {:02}s", micros / MINUTE, micros % MINUTE / SECOND),
            HOUR..DAY => format!("{}h {:02}m", micros / HOUR, micros % HOUR / MINUTE),
            _ => format!("{}d {:02}h", micros / DAY, micros % DAY / HOUR),
        })
    }
}

#[cfg(test)]
mod tests {
    use steps::{BuildId, StateString, StepBuilder, StepId, StepName, StepNumber};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_micros(second * 1_000_000).unwrap()
    }

    fn step() -> StepBuilder {
        let id = StepId::new(1).unwrap();
        let build_id = BuildId::new(1).unwrap();
        Step::builder(id, build_id, StepNumber::FIRST, StepName::new("a").unwrap(), StateString::default())
    }

    #[test]
    fn a_duration_is_shown_in_its_largest_units() {
        for (micros, expected) in [
            (0, "0ms"),
            (999_999, "999ms"),
            (1_000_000, "1.0s"),
            (59_999_999, "59.9s"),
            (62_000_000, "1m 02s"),
            (3_599_999_999, "59m 59s"),
            (3_600_000_000, "1h 00m"),
            (86_399_999_999, "23h 59m"),
            (90_000_000_000, "1d 01h"),
            (-1, "0ms?"),
            (-1_500_000, "0ms?"),
        ] {
            assert_eq!(Duration(micros).to_string(), expected);
        }
        let longest = Duration::between(Timestamp::MIN, Timestamp::MAX);
        assert_eq!(longest.to_string(), "3652058d 23h");
    }

    #[test]
    fn the_duration_of_a_running_step_ends_now() {
        let shown = |step: Step| of_step(&step, at(100)).map(|duration| duration.to_string());
        assert_eq!(shown(step().build()), None);
        assert_eq!(shown(step().complete_at(Some(at(20))).build()), None);
        assert_eq!(shown(step().started_at(Some(at(10))).build()).as_deref(), Some("1m 30s"));
        let done = step().started_at(Some(at(10))).complete_at(Some(at(20))).build();
        assert_eq!(shown(done).as_deref(), Some("10.0s"));
    }

    #[test]
    fn a_step_waits_until_it_has_its_locks_and_shows_no_wait_if_it_ended_without() {
        let shown = |step: Step| of_waiting(&step, at(100)).map(|duration| duration.to_string());
        let started = || step().started_at(Some(at(10)));
        assert_eq!(shown(step().locks_acquired_at(Some(at(10))).build()), None);
        assert_eq!(shown(started().build()).as_deref(), Some("1m 30s"));
        assert_eq!(shown(started().locks_acquired_at(Some(at(12))).build()).as_deref(), Some("2.0s"));
        assert_eq!(shown(started().complete_at(Some(at(20))).build()), None);
    }
}
