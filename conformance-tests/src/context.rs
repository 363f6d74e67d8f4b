use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use steps_core::{BuildId, ManualClock, Timestamp};

use crate::{Profile, config::random};

/// What a case gives to the factory and has for itself: a clock, builds of its own, a seed.
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

    /// The case's name, such as `add_step::collision_takes_smallest_suffix`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The clock that every handle on the case's store takes the time from: the case sets it, and expects
    /// to find exactly that time in what it finishes (L4).
    #[must_use]
    pub fn clock(&self) -> Arc<ManualClock> {
        Arc::clone(&self.clock)
    }

    /// A build that nobody has added to: another one at each call, in each run and in each process.
    #[must_use]
    pub fn fresh_build(&self) -> BuildId {
        self.builds.next()
    }

    /// A fresh build among the greatest ids that the store takes.
    pub(crate) fn fresh_great_build(&self) -> BuildId {
        self.builds.next_great()
    }

    /// What all randomness of this case comes from: it follows from the seed of the run and the case's name.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }
}

/// Builds that nobody has added to.
///
/// They count up from a place that is drawn anew for each run, whatever its seed: a run can be repeated on the
/// same store. The place is in the upper half of what the store takes, since people count their builds from 1. Two
/// runs meet only when their places are as near to each other as they have builds, so a store that takes
/// 2^43 builds sees thousands of runs before that is likely, and others for ever.
pub(crate) struct FreshBuilds {
    greatest: u64,
    next: AtomicU64,
}

/// How many of the greatest ids [`FreshBuilds::next_great`] draws from.
const GREAT: u64 = 1 << 32;

impl FreshBuilds {
    pub(crate) fn new(profile: &Profile) -> Self {
        let greatest = profile.greatest_build_id().map_or(i64::MAX, BuildId::get).unsigned_abs();
        let upper_half = greatest.div_ceil(2);
        Self { greatest, next: AtomicU64::new(greatest / 2 + random() % upper_half) }
    }

    fn next(&self) -> BuildId {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        build(1 + next % self.greatest)
    }

    fn next_great(&self) -> BuildId {
        build(self.greatest - random() % GREAT.min(self.greatest))
    }
}

impl fmt::Debug for FreshBuilds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshBuilds").finish_non_exhaustive()
    }
}

fn build(id: u64) -> BuildId {
    BuildId::try_from(id).expect("it is between 1 and the greatest")
}

/// FNV-1a over the name, from the seed on, and mixed: the same on every machine and in every version.
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
        let greatest = BuildId::new(1_000).unwrap();
        let builds = FreshBuilds::new(&Profile::strict().with_greatest_build_id(greatest));
        let drawn: HashSet<_> = (0..1_000).map(|_| builds.next()).collect();
        assert_eq!(drawn.len(), 1_000);
        assert!(drawn.iter().all(|build| *build <= greatest));
        assert!((0..1_000).all(|_| builds.next_great() <= greatest));
    }

    #[test]
    fn each_case_has_its_own_seed_and_keeps_it() {
        assert_eq!(mixed(1, "a::b"), mixed(1, "a::b"));
        assert_ne!(mixed(1, "a::b"), mixed(1, "a::c"));
        assert_ne!(mixed(1, "a::b"), mixed(2, "a::b"));
    }
}
