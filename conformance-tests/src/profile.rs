use std::{collections::BTreeMap, fmt};

use steps_core::BuildId;

/// The number of steps per build that every store must support (I4).
const MIN_STEPS_PER_BUILD: u64 = 1_048_576;

/// The optional features, the limits and the known failures of a store.
///
/// The default claims every feature and has no limits ([`strict`](Self::strict)). Each opt-out has a reason, which the
/// report shows with every skipped case. A skipped case never counts as passed.
///
/// ```
/// use conformance_tests::{Feature, Profile};
///
/// let profile = Profile::strict()
///     .without(Feature::Processes, "the file is locked by one process")
///     .with_known_failure("text::urls_come_back_as_given", "issue 17: the driver drops U+FFFE");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Profile {
    opt_outs: BTreeMap<Feature, String>,
    known_failures: BTreeMap<String, String>,
    greatest_build_id: Option<BuildId>,
    steps_a_build: Option<u64>,
}

/// A feature that not every store supports. A [`Profile`] claims each feature that it does not opt out of.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Feature {
    /// Data that outlives the handle: [`Fixture::with_reopen`](crate::Fixture::with_reopen).
    Reopen,
    /// Several handles on one store at the same time: [`Fixture::with_peer`](crate::Fixture::with_peer).
    Peers,
    /// Several processes on one store: [`Fixture::with_token`](crate::Fixture::with_token) and
    /// [`StoreFactory::open`](crate::StoreFactory::open).
    Processes,
    /// A connection to a server, in which the suite can inject faults:
    /// [`Fixture::with_faults`](crate::Fixture::with_faults).
    Faults,
}

impl Feature {
    /// All features.
    pub const ALL: &[Self] = &[Self::Reopen, Self::Peers, Self::Processes, Self::Faults];
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reopen => "reopen",
            Self::Peers => "peers",
            Self::Processes => "processes",
            Self::Faults => "faults",
        })
    }
}

impl Profile {
    /// Every feature, no limits, no known failures.
    #[must_use]
    pub fn strict() -> Self {
        Self::default()
    }

    /// Opts out of a feature, with the reason.
    ///
    /// Cases that need the feature are reported as ignored, with the reason. A feature that the profile claims and the
    /// fixture lacks is a failure.
    #[must_use]
    pub fn without(mut self, feature: Feature, reason: impl Into<String>) -> Self {
        self.opt_outs.insert(feature, reason.into());
        self
    }

    /// Declares that a case fails, with the reason. The case still runs. It is reported as ignored if it fails, and as
    /// a failure if it passes, so that the declaration does not outlive its reason.
    #[must_use]
    pub fn with_known_failure(mut self, case: impl Into<String>, reason: impl Into<String>) -> Self {
        self.known_failures.insert(case.into(), reason.into());
        self
    }

    /// Declares the largest build id that the store accepts (I4). The suite uses no larger ones, except in cases that
    /// expect a refusal.
    #[must_use]
    pub const fn with_greatest_build_id(mut self, id: BuildId) -> Self {
        self.greatest_build_id = Some(id);
        self
    }

    /// Declares the maximum number of steps of a build (I4), at least 1,048,576.
    #[must_use]
    pub const fn with_steps_a_build(mut self, steps: u64) -> Self {
        self.steps_a_build = Some(steps);
        self
    }

    /// The reason for the opt-out of the feature, if the store opts out.
    #[must_use]
    pub fn opt_out(&self, feature: Feature) -> Option<&str> {
        self.opt_outs.get(&feature).map(String::as_str)
    }

    /// Whether the store claims this feature.
    #[must_use]
    pub fn claims(&self, feature: Feature) -> bool {
        self.opt_out(feature).is_none()
    }

    /// The reason why the case fails, if it is a known failure.
    #[must_use]
    pub fn known_failure(&self, case: &str) -> Option<&str> {
        self.known_failures.get(case).map(String::as_str)
    }

    /// The declared largest build id.
    #[must_use]
    pub const fn greatest_build_id(&self) -> Option<BuildId> {
        self.greatest_build_id
    }

    /// The declared maximum number of steps of a build.
    #[must_use]
    pub const fn steps_a_build(&self) -> Option<u64> {
        self.steps_a_build
    }

    /// Mistakes in the profile itself, in words.
    pub(crate) fn mistakes(&self, is_case: impl Fn(&str) -> bool) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (feature, reason) in &self.opt_outs {
            if reason.trim().is_empty() {
                mistakes.push(format!("the opt-out of {feature} has no reason"));
            }
        }
        for (case, reason) in &self.known_failures {
            if reason.trim().is_empty() {
                mistakes.push(format!("the known failure {case} has no reason"));
            }
            if !is_case(case) {
                mistakes.push(format!("the known failure {case} is not a case of the suite"));
            }
        }
        if let Some(steps) = self.steps_a_build.filter(|steps| *steps < MIN_STEPS_PER_BUILD) {
            mistakes.push(format!("it declares {steps} steps per build, but the minimum is {MIN_STEPS_PER_BUILD}"));
        }
        mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strict_profile_claims_everything_and_has_no_mistakes() {
        let profile = Profile::strict();
        assert!(Feature::ALL.iter().all(|feature| profile.claims(*feature)));
        assert!(profile.mistakes(|_| true).is_empty());
    }

    #[test]
    fn mistakes_are_found() {
        let profile = Profile::strict()
            .without(Feature::Peers, " ")
            .with_known_failure("no_such::case", "issue 1")
            .with_steps_a_build(1_000);
        assert_eq!(
            profile.mistakes(|_| false),
            [
                "the opt-out of peers has no reason",
                "the known failure no_such::case is not a case of the suite",
                "it declares 1000 steps per build, but the minimum is 1048576",
            ]
        );
    }
}
