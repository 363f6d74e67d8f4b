use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use steps_core::{BuildId, ManualClock, Timestamp};

use crate::{Profile, config::random};

/// The context of a case, which the factory receives: a clock, fresh builds and a seed.
#[derive(Clone, Debug)]
pub struct CaseContext {
    name: String,
    clock: Arc<ManualClock>,
    builds: Arc<FreshBuilds>,
    seed: u64,
}

impl CaseContext {
    pub(crate) fn new(name: &str, builds: Arc<FreshBuilds>, seed: u64) -> Self {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        Self { name: name.to_owned(), clock: Arc::new(clock), builds, seed: mixed(seed, name) }
    }

    /// The name of the case, such as `add_step::collision_takes_smallest_suffix`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The clock for every handle on the store of the case. The case sets the clock and expects exactly that time in
    /// the steps that it finishes (L4).
    #[must_use]
    pub fn clock(&self) -> Arc<ManualClock> {
        Arc::clone(&self.clock)
    }

    /// A build without steps. It differs between calls, runs and processes.
    #[must_use]
    pub fn fresh_build(&self) -> BuildId {
        self.builds.next()
    }

    /// A fresh build whose id is among the largest that the store accepts.
    pub(crate) fn fresh_large_build(&self) -> BuildId {
        self.builds.next_large()
    }

    /// The seed of all randomness of the case. It is derived from the seed of the run and the name of the case.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }
}

/// Generator of builds without steps.
///
/// The ids count up from a random start. The start does not depend on the seed, so that a run with the same seed can be
/// repeated on the same store. It is in the upper half of the ids that the store accepts, since CI systems count builds
/// from 1. Two runs collide only if the distance of their starts is less than their number of builds: with 2^43 ids
/// that becomes likely only after thousands of runs, and with 2^63 never in practice.
pub(crate) struct FreshBuilds {
    max: u64,
    next: AtomicU64,
}

/// Number of largest ids that [`FreshBuilds::next_large`] draws from.
const LARGE: u64 = 1 << 32;

impl FreshBuilds {
    pub(crate) fn new(profile: &Profile) -> Self {
        let max = profile.greatest_build_id().map_or(i64::MAX, BuildId::get).unsigned_abs();
        let upper_half = max.div_ceil(2);
        Self { max, next: AtomicU64::new(max / 2 + random() % upper_half) }
    }

    fn next(&self) -> BuildId {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        build(1 + next % self.max)
    }

    fn next_large(&self) -> BuildId {
        build(self.max - random() % LARGE.min(self.max))
    }
}

impl fmt::Debug for FreshBuilds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshBuilds").finish_non_exhaustive()
    }
}

fn build(id: u64) -> BuildId {
    BuildId::try_from(id).expect("the id is between 1 and the maximum")
}

/// FNV-1a over the name, started with the seed, and a final mix. The result must not depend on machine or version.
fn mixed(seed: u64, name: &str) -> u64 {
    let hash = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut mixed = name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, hash);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn builds_stay_within_the_limit_and_do_not_repeat() {
        let max = BuildId::new(1_000).unwrap();
        let builds = FreshBuilds::new(&Profile::strict().with_greatest_build_id(max));
        let drawn: HashSet<_> = (0..1_000).map(|_| builds.next()).collect();
        assert_eq!(drawn.len(), 1_000);
        assert!(drawn.iter().all(|build| *build <= max));
        assert!((0..1_000).all(|_| builds.next_large() <= max));
    }

    #[test]
    fn each_case_has_its_own_seed_and_keeps_it() {
        assert_eq!(mixed(1, "a::b"), mixed(1, "a::b"));
        assert_ne!(mixed(1, "a::b"), mixed(1, "a::c"));
        assert_ne!(mixed(1, "a::b"), mixed(2, "a::b"));
    }
}
