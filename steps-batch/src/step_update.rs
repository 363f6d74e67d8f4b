use steps_core::{FinishStep, Results, StartStep, StateString, Timestamp};

/// New values of a step's columns. A column whose value is `None` stays as it is.
///
/// The struct is exhaustive on purpose: a backend that does not write a column must not compile.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StepUpdate {
    /// When the step started.
    pub started_at: Option<Timestamp>,
    /// When the step had all its locks.
    pub locks_acquired_at: Option<Timestamp>,
    /// The text that tells users the step's state.
    pub state_string: Option<StateString>,
    /// When the step ended.
    pub complete_at: Option<Timestamp>,
    /// How the step ended.
    pub results: Option<Results>,
    /// Whether user interfaces hide the step.
    pub hidden: Option<bool>,
}

impl StepUpdate {
    /// The step starts, perhaps with all its locks (L2).
    #[must_use]
    pub fn start(start: StartStep) -> Self {
        let locks_acquired_at = start.locks_acquired.then_some(start.started_at);
        Self { started_at: Some(start.started_at), locks_acquired_at, ..Self::default() }
    }

    /// The step has all its locks since this time (L3).
    #[must_use]
    pub fn locks_acquired(at: Timestamp) -> Self {
        Self { locks_acquired_at: Some(at), ..Self::default() }
    }

    /// The step has another state string (L3).
    #[must_use]
    pub fn state(state_string: StateString) -> Self {
        Self { state_string: Some(state_string), ..Self::default() }
    }

    /// The step ends, at this time (L4).
    #[must_use]
    pub fn finish(finish: FinishStep, now: Timestamp) -> Self {
        let FinishStep { results, hidden, .. } = finish;
        Self { complete_at: Some(now), results: Some(results), hidden: Some(hidden), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_leaves_the_columns_that_it_does_not_name() {
        let now = Timestamp::UNIX_EPOCH;
        let start = StartStep::new(now);
        assert_eq!(StepUpdate::start(start), StepUpdate { started_at: Some(now), ..StepUpdate::default() });
        let with_locks = StepUpdate { started_at: Some(now), locks_acquired_at: Some(now), ..StepUpdate::default() };
        assert_eq!(StepUpdate::start(start.with_locks_acquired(true)), with_locks);
        let locks = StepUpdate { locks_acquired_at: Some(now), ..StepUpdate::default() };
        assert_eq!(StepUpdate::locks_acquired(now), locks);
        let text = StateString::new("running").unwrap();
        let state = StepUpdate { state_string: Some(text.clone()), ..StepUpdate::default() };
        assert_eq!(StepUpdate::state(text), state);
        let finish = FinishStep::new(Results::FAILURE).with_hidden(true);
        let ended = StepUpdate {
            complete_at: Some(now),
            results: Some(Results::FAILURE),
            hidden: Some(true),
            ..StepUpdate::default()
        };
        assert_eq!(StepUpdate::finish(finish, now), ended);
    }
}
