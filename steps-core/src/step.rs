use crate::{BuildId, Results, StateString, StepId, StepName, StepNumber, StepUrl, Timestamp};

/// A step as a store gives it.
///
/// It has the fields of Buildbot's `StepModel` (`buildbot.db.steps`). With the feature `serde` it is
/// written and read under exactly its names, the build as `buildid`, times as RFC 3339 in UTC with
/// microseconds, results as a number; what is read is checked as the constructors check it.
///
/// A store makes one with [`Step::builder`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Step {
    /// Its id in the store (I1).
    pub id: StepId,
    /// Its number in the build (I2).
    pub number: StepNumber,
    /// Its name, unique in the build (N2, N3).
    pub name: StepName,
    /// The build that it is a step of (I3).
    #[cfg_attr(feature = "serde", serde(rename = "buildid"))]
    pub build_id: BuildId,
    /// When it started (L2).
    pub started_at: Option<Timestamp>,
    /// When it had all its locks (L2, L3).
    pub locks_acquired_at: Option<Timestamp>,
    /// When it was finished (L4).
    pub complete_at: Option<Timestamp>,
    /// What it is doing, or did, in words (L3).
    pub state_string: StateString,
    /// How it ended (L4).
    pub results: Option<Results>,
    /// Its urls, in the order in which they were added (U1).
    pub urls: Vec<StepUrl>,
    /// Whether it is hidden from those who look at the build (L4).
    pub hidden: bool,
}

impl Step {
    /// A step as it is right after it was added (L1), to which the builder adds what came later.
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

/// Makes a [`Step`]: for stores.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until `build`"]
pub struct StepBuilder(Step);

impl StepBuilder {
    /// Sets when it started.
    #[inline]
    pub const fn started_at(mut self, at: Option<Timestamp>) -> Self {
        self.0.started_at = at;
        self
    }

    /// Sets when it had all its locks.
    #[inline]
    pub const fn locks_acquired_at(mut self, at: Option<Timestamp>) -> Self {
        self.0.locks_acquired_at = at;
        self
    }

    /// Sets when it was finished.
    #[inline]
    pub const fn complete_at(mut self, at: Option<Timestamp>) -> Self {
        self.0.complete_at = at;
        self
    }

    /// Sets how it ended.
    #[inline]
    pub const fn results(mut self, results: Option<Results>) -> Self {
        self.0.results = results;
        self
    }

    /// Sets its urls, in the order in which they were added.
    #[inline]
    pub fn urls(mut self, urls: Vec<StepUrl>) -> Self {
        self.0.urls = urls;
        self
    }

    /// Sets whether it is hidden.
    #[inline]
    pub const fn hidden(mut self, hidden: bool) -> Self {
        self.0.hidden = hidden;
        self
    }

    /// The step.
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
    fn it_is_written_under_buildbots_names_and_reads_back() {
        let step: Step = serde_json::from_str(JSON).unwrap();
        assert_eq!(step.build_id, BuildId::new(7).unwrap());
        assert_eq!(step.results, Some(Results::FAILURE));
        assert_eq!(serde_json::to_string(&step).unwrap(), JSON);
    }

    #[test]
    fn what_is_read_is_checked_as_the_constructors_check_it() {
        for (good, bad) in [
            (r#""id":42"#, r#""id":0"#),
            (r#""number":0"#, r#""number":-1"#),
            (r#""name":"compile""#, r#""name":"com pile""#),
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
