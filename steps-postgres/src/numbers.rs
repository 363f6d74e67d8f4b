//! Numbers that builds were seen to have.
//!
//! PostgreSQL finds the greatest number of a build by an index, but reads all entries of the build on the page where that
//! ends: hundreds of a long one. From a number near the end on, it reads what is left. Whatever is remembered, what is
//! found is right: where a build has no such number any more, it is looked for from 0 on.

use std::collections::HashMap;

use steps_core::{BuildId, StepNumber};

/// How many builds are remembered.
const BUILDS: usize = 1024;

/// The number of the last add to each of some builds.
#[derive(Debug, Default)]
pub(crate) struct Numbers(HashMap<BuildId, StepNumber>);

impl Numbers {
    /// A number that the build had, or 0.
    pub(crate) fn of(&self, build: BuildId) -> i64 {
        self.0.get(&build).map_or(0, |number| i64::from(number.get()))
    }

    pub(crate) fn remember(&mut self, build: BuildId, number: StepNumber) {
        if self.0.len() >= BUILDS && !self.0.contains_key(&build) {
            self.0.clear();
        }
        self.0.insert(build, number);
    }
}

#[cfg(test)]
mod tests {
    use steps_core::InputError;

    use super::*;

    #[test]
    fn the_last_number_of_a_bounded_number_of_builds_is_remembered() -> Result<(), InputError> {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.of(BuildId::new(1)?), 0);
        for id in 1..=3 * BUILDS as i64 {
            let build = BuildId::new(id)?;
            numbers.remember(build, StepNumber::new(7));
            numbers.remember(build, StepNumber::new(8));
            assert_eq!(numbers.of(build), 8);
            assert!(numbers.0.len() <= BUILDS);
        }
        assert_eq!(numbers.of(BuildId::new(2 * BUILDS as i64 + 1)?), 8);
        Ok(())
    }
}
