use std::{collections::BTreeMap, fmt};

use steps_core::BuildId;

/// The fewest steps that every store must have room for in a build (I4).
const FEWEST_STEPS_A_BUILD: u64 = 1_048_576;

/// What the suite expects of a store besides the clauses that hold for all: its optional features, its
/// limits, and what is known to fail.
///
/// A store that says nothing is held to everything ([`strict`](Self::strict)). Each opt-out has a reason,
/// which is shown with every case that it skips; what was skipped is never counted as passed.
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

/// What not every store can offer. A [`Profile`] claims each unless it says otherwise.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Feature {
    /// The data outlives the handle: [`Fixture::with_reopen`](crate::Fixture::with_reopen).
    Reopen,
    /// Several handles on one store at a time: [`Fixture::with_peer`](crate::Fixture::with_peer).
    Peers,
    /// Several processes on one store: [`Fixture::with_token`](crate::Fixture::with_token) and
    /// [`StoreFactory::open`](crate::StoreFactory::open).
    Processes,
    /// A connection to a server that can be made to fail on cue:
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

    /// Opts out of a feature, with the reason why the store cannot have it.
    ///
    /// The cases that need it are shown as ignored, with the reason. A feature that is claimed (not opted
    /// out of) and that the fixture lacks is a failure.
    #[must_use]
    pub fn without(mut self, feature: Feature, reason: impl Into<String>) -> Self {
        self.opt_outs.insert(feature, reason.into());
        self
    }

    /// Declares that this case fails, with the reason. It runs all the same: when it fails it is shown as
    /// ignored, and when it passes that is a failure, so that the entry does not outlive its reason.
    #[must_use]
    pub fn with_known_failure(mut self, case: impl Into<String>, reason: impl Into<String>) -> Self {
        self.known_failures.insert(case.into(), reason.into());
        self
    }

    /// Declares the greatest build id that the store takes (I4). The suite's builds stay within it, and
    /// one past it must be refused.
    #[must_use]
    pub const fn with_greatest_build_id(mut self, id: BuildId) -> Self {
        self.greatest_build_id = Some(id);
        self
    }

    /// Declares how many steps a build can have (I4), at least 1,048,576.
    #[must_use]
    pub const fn with_steps_a_build(mut self, steps: u64) -> Self {
        self.steps_a_build = Some(steps);
        self
    }

    /// Why the store does without this feature, if it does.
    #[must_use]
    pub fn opt_out(&self, feature: Feature) -> Option<&str> {
        self.opt_outs.get(&feature).map(String::as_str)
    }

    /// Whether the store claims this feature.
    #[must_use]
    pub fn claims(&self, feature: Feature) -> bool {
        self.opt_out(feature).is_none()
    }

    /// Why this case is known to fail, if it is.
    #[must_use]
    pub fn known_failure(&self, case: &str) -> Option<&str> {
        self.known_failures.get(case).map(String::as_str)
    }

    /// The greatest build id that the store declares.
    #[must_use]
    pub const fn greatest_build_id(&self) -> Option<BuildId> {
        self.greatest_build_id
    }

    /// How many steps a build can have, where the store declares it.
    #[must_use]
    pub const fn steps_a_build(&self) -> Option<u64> {
        self.steps_a_build
    }

    /// What is wrong with the profile itself, in words.
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
                mistakes.push(format!("the known failure {case} is no case of the suite"));
            }
        }
        if let Some(steps) = self.steps_a_build.filter(|steps| *steps < FEWEST_STEPS_A_BUILD) {
            mistakes
                .push(format!("it declares {steps} steps a build, where {FEWEST_STEPS_A_BUILD} is the fewest allowed"));
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
                "the known failure no_such::case is no case of the suite",
                "it declares 1000 steps a build, where 1048576 is the fewest allowed",
            ]
        );
    }
}
