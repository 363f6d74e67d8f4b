//! The name of a new step if the requested name is taken (clauses N2 and N3).
//!
//! A free name is used unchanged. Otherwise the name is the requested name followed by `_k`, for the smallest k ≥ 1
//! that makes it free. The requested name is truncated so that the whole has at most 50 code points. Buildbot has
//! this rule in `StepsConnectorComponent.addStep`.
//!
//! ```
//! use std::collections::HashSet;
//! use steps_core::{StepName, naming};
//!
//! let taken = HashSet::from(["compile", "compile_2"]);
//! let name = StepName::new("compile")?;
//! assert_eq!(naming::free_name(&name, |name| taken.contains(name)), "compile_1");
//! # Ok::<(), steps_core::InputError>(())
//! ```

use std::{collections::HashMap, num::NonZeroU64, ops::Range};

use crate::{StepName, limits};

/// Returns the name for a step that requests `requested`, in a build whose names are those for which `is_taken` is
/// true.
///
/// The search tries every candidate from `_1` on. With [`SuffixHints`], a store finds the same name at a cost that does
/// not grow with the number of collisions (N5).
#[must_use]
pub fn free_name(requested: &StepName, is_taken: impl FnMut(&str) -> bool) -> StepName {
    SuffixHints::default().free_name(requested, is_taken)
}

/// Returns `requested`, truncated if necessary, with the suffix `_k`.
///
/// ```
/// use steps_core::{StepName, naming};
///
/// let name = StepName::new("é".repeat(50))?;
/// let k = 10.try_into()?;
/// assert_eq!(naming::with_suffix(&name, k), format!("{}_10", "é".repeat(47)).as_str());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn with_suffix(requested: &StepName, k: NonZeroU64) -> StepName {
    candidate(truncated_prefix(requested, k.ilog10() + 1), k.get())
}

/// Returns the prefix of `requested` before a suffix with this many digits: its first `50 - len("_k")` code points, or
/// all of it if it is shorter.
#[must_use]
pub fn truncated_prefix(requested: &StepName, digits: u32) -> &str {
    let keep = limits::NAME_CODE_POINTS.saturating_sub(1 + digits as usize);
    let name = requested.as_str();
    if name.len() <= keep {
        return name;
    }
    name.char_indices().nth(keep).map_or(name, |(end, _)| &name[..end])
}

fn candidate(prefix: &str, k: u64) -> StepName {
    StepName::from_checked(format!("{prefix}_{k}"))
}

/// The suffixes of one build at which earlier searches ended, so that the next search starts there (N5).
///
/// Names are never removed from a build, so the smallest free k only grows, and an old hint is always a safe start.
/// There is a hint for each prefix and number of digits instead of one for each requested name, because long names with
/// the same truncated prefix share its suffixes.
#[derive(Clone, Debug, Default)]
pub struct SuffixHints {
    /// For each prefix, indexed by the number of digits minus one: every smaller k with as many digits is taken.
    next: HashMap<String, Vec<u64>>,
}

impl SuffixHints {
    /// As [`free_name`], but starts where earlier searches ended.
    ///
    /// `is_taken` must know all names of the build, and the hints are valid for that build only.
    #[must_use]
    pub fn free_name(&mut self, requested: &StepName, mut is_taken: impl FnMut(&str) -> bool) -> StepName {
        if !is_taken(requested.as_str()) {
            return requested.clone();
        }
        for digits in 1.. {
            let prefix = truncated_prefix(requested, digits);
            let range = suffixes(digits);
            let next = self.next(prefix, digits, range.start);
            while *next < range.end {
                let name = candidate(prefix, *next);
                if !is_taken(name.as_str()) {
                    return name;
                }
                *next += 1;
            }
        }
        unreachable!("a build has fewer steps than there are suffixes")
    }

    fn next(&mut self, prefix: &str, digits: u32, start: u64) -> &mut u64 {
        if !self.next.contains_key(prefix) {
            self.next.insert(prefix.to_owned(), Vec::new());
        }
        let hints = self.next.get_mut(prefix).expect("the prefix was just inserted");
        hints.resize(hints.len().max(digits as usize), 0);
        let next = &mut hints[digits as usize - 1];
        *next = start.max(*next);
        next
    }
}

/// All suffixes with this many digits.
const fn suffixes(digits: u32) -> Range<u64> {
    10_u64.pow(digits - 1)..10_u64.pow(digits)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> StepName {
        StepName::new(text).unwrap()
    }

    /// Adds steps with these names to a build and returns the resulting names.
    fn add_all(requested: &[&str]) -> Vec<String> {
        let mut taken = HashSet::new();
        let mut hints = SuffixHints::default();
        let mut add = |requested: &&str| {
            let name = hints.free_name(&name(requested), |name| taken.contains(name)).into_string();
            assert!(taken.insert(name.clone()), "{name} was given twice");
            name
        };
        requested.iter().map(&mut add).collect()
    }

    #[test]
    fn a_suffix_is_appended_to_the_name_as_requested() {
        assert_eq!(add_all(&["foo", "foo", "foo_1", "foo"]), ["foo", "foo_1", "foo_1_1", "foo_2"]);
    }

    #[test]
    fn gaps_are_filled() {
        assert_eq!(add_all(&["new", "new_2", "new", "new"]), ["new", "new_2", "new_1", "new_3"]);
    }

    #[test]
    fn long_names_share_the_suffixes_of_their_truncated_prefix() {
        let prefix = "é".repeat(48);
        let a = format!("{prefix}aa");
        let b = format!("{prefix}bb");
        let expected = [a.clone(), b.clone(), format!("{prefix}_1"), format!("{prefix}_2")];
        assert_eq!(add_all(&[&a, &b, &a, &b]), expected);
    }

    #[test]
    fn more_digits_shorten_the_prefix() {
        let long = "x".repeat(50);
        let names = add_all(&vec![long.as_str(); 102]);
        assert_eq!(names[9], format!("{}_9", "x".repeat(48)));
        assert_eq!(names[10], format!("{}_10", "x".repeat(47)));
        assert_eq!(names[100], format!("{}_100", "x".repeat(46)));
        assert_eq!(with_suffix(&name(&long), 100.try_into().unwrap()), names[100].as_str());
    }

    #[test]
    fn a_search_starts_where_the_last_one_ended() {
        let mut taken = HashSet::new();
        let mut hints = SuffixHints::default();
        let mut lookups = 0;
        // Long names that differ in their last characters only, so that they share every truncated prefix.
        for i in 0..5_000_u32 {
            let requested = name(&format!("{}-{:04}", "x".repeat(45), i % 2_500));
            let free = hints.free_name(&requested, |name| {
                lookups += 1;
                taken.contains(name)
            });
            taken.insert(free.into_string());
        }
        assert!(lookups < 10 * 5_000, "{lookups} lookups for 5,000 names");
    }

    fn colliding() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]", "a_[0-9]{1,2}", "[xé]{46,50}", "x{44,48}_[0-9]{1,2}"]
    }

    proptest! {
        #[test]
        fn hints_find_the_same_name_as_a_plain_search(names in prop::collection::vec(colliding(), 1..200)) {
            let mut taken = HashSet::<String>::new();
            let mut hints = SuffixHints::default();
            for requested in names.iter().map(|text| StepName::from_lossy(text)) {
                let free = hints.free_name(&requested, |name| taken.contains(name));
                let plain = if taken.contains(requested.as_str()) {
                    let candidates = (1..).map(|k| with_suffix(&requested, NonZeroU64::new(k).unwrap()));
                    candidates.into_iter().find(|name| !taken.contains(name.as_str())).unwrap()
                } else {
                    requested.clone()
                };
                prop_assert_eq!(&free, &plain);
                prop_assert_eq!(StepName::new(free.as_str()), Ok(free.clone()));
                taken.insert(free.into_string());
            }
        }
    }
}
