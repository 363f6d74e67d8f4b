use crate::{BuildId, Results, StateString, StepId, StepName, StepNumber, StepUrl, Timestamp};

/// A step, as a store returns it.
///
/// The fields are those of Buildbot's `StepModel` (`buildbot.db.steps`). With the feature `serde`, a step is serialized
/// with Buildbot's field names, so the build is `buildid`. Times are RFC 3339 in UTC with microseconds, and results are
/// an integer. Deserializing applies the checks of the constructors.
///
/// Stores construct a step with [`Step::builder`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Step {
    /// The id of the step in the store (I1).
    pub id: StepId,
    /// The number of the step in its build (I2).
    pub number: StepNumber,
    /// The name of the step, unique in its build (N2, N3).
    pub name: StepName,
    /// The build of the step (I3).
    #[cfg_attr(feature = "serde", serde(rename = "buildid"))]
    pub build_id: BuildId,
    /// The time at which the step started (L2).
    pub started_at: Option<Timestamp>,
    /// The time at which the step had all its locks (L2, L3).
    pub locks_acquired_at: Option<Timestamp>,
    /// The time at which the step was finished (L4).
    pub complete_at: Option<Timestamp>,
    /// The state of the step in words (L3).
    pub state_string: StateString,
    /// The results of the step (L4).
    pub results: Option<Results>,
    /// The urls of the step, in the order in which they were added (U1).
    pub urls: Vec<StepUrl>,
    /// Whether user interfaces hide the step (L4).
    pub hidden: bool,
}

impl Step {
    /// Creates a builder for a step that was just added (L1). The methods of the builder set the other fields.
    ///
    /// ```
    /// use steps_core::{BuildId, Results, StateString, Step, StepId, StepName, StepNumber, Timestamp};
    ///
    /// let step = Step::builder(
    ///     StepId::new(42)?,
    ///     BuildId::new(7)?,
    ///     StepNumber::FIRST,
    ///     StepName::new("compile")?,
    ///     StateString::new("running")?,
    /// )
    /// .started_at(Some("2026-01-31T12:00:00Z".parse()?))
    /// .results(Some(Results::SUCCESS))
    /// .build();
    /// assert_eq!(step.name, "compile");
    /// assert_eq!(step.complete_at, None);
    /// # Ok::<(), steps_core::InputError>(())
    /// ```
    #[inline]
    pub const fn builder(
        id: StepId,
        build_id: BuildId,
        number: StepNumber,
        name: StepName,
        state_string: StateString,
    ) -> StepBuilder {
        StepBuilder(Self {
            id,
            number,
            name,
            build_id,
            started_at: None,
            locks_acquired_at: None,
            complete_at: None,
            state_string,
            results: None,
            urls: Vec::new(),
            hidden: false,
        })
    }
}

/// Builds a [`Step`], for stores.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct StepBuilder(Step);

impl StepBuilder {
    /// Sets the time of the start.
    #[inline]
    pub const fn started_at(mut self, at: Option<Timestamp>) -> Self {
        self.0.started_at = at;
        self
    }

    /// Sets the time of the locks.
    #[inline]
    pub const fn locks_acquired_at(mut self, at: Option<Timestamp>) -> Self {
        self.0.locks_acquired_at = at;
        self
    }

    /// Sets the time of the end.
    #[inline]
    pub const fn complete_at(mut self, at: Option<Timestamp>) -> Self {
        self.0.complete_at = at;
        self
    }

    /// Sets the results.
    #[inline]
    pub const fn results(mut self, results: Option<Results>) -> Self {
        self.0.results = results;
        self
    }

    /// Sets the urls, in the order in which they were added.
    #[inline]
    pub fn urls(mut self, urls: Vec<StepUrl>) -> Self {
        self.0.urls = urls;
        self
    }

    /// Sets whether the step is hidden.
    #[inline]
    pub const fn hidden(mut self, hidden: bool) -> Self {
        self.0.hidden = hidden;
        self
    }

    /// Returns the step.
    #[inline]
    #[must_use]
    pub fn build(self) -> Step {
        self.0
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;

    const JSON: &str = concat!(
        r#"{"id":42,"number":0,"name":"compile","buildid":7,"started_at":"2026-01-31T12:00:00.000001Z","#,
        r#""locks_acquired_at":null,"complete_at":null,"state_string":"ok","results":2,"#,
        r#""urls":[{"name":"log","url":"https://example.org/"}],"hidden":true}"#
    );

    #[test]
    fn a_step_is_serialized_with_buildbots_names() {
        let step: Step = serde_json::from_str(JSON).unwrap();
        assert_eq!(step.build_id, BuildId::new(7).unwrap());
        assert_eq!(step.results, Some(Results::FAILURE));
        assert_eq!(serde_json::to_string(&step).unwrap(), JSON);
    }

    #[test]
    fn deserializing_checks_the_values() {
        for (good, bad) in [
            (r#""id":42"#, r#""id":0"#),
            (r#""number":0"#, r#""number":-1"#),
            (r#""name":"compile""#, r#""name":"com\u0000pile""#),
            (r#""buildid":7"#, r#""buildid":-7"#),
            ("2026-01-31", "0000-01-31"),
            (r#""state_string":"ok""#, r#""state_string":"\u0000""#),
            (r#""results":2"#, r#""results":2147483648"#),
            (r#""name":"log""#, r#""name":"\u0000""#),
        ] {
            let json = JSON.replacen(good, bad, 1);
            assert_ne!(json, JSON, "{good}");
            assert!(serde_json::from_str::<Step>(&json).is_err(), "{bad}");
        }
    }
}
