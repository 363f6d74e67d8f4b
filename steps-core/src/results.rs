use std::{fmt, str::FromStr};

use crate::InputError;

/// The results of a step: any `i32`, of which Buildbot names seven (T3).
///
/// The named codes are those of `buildbot.process.results`. Results are displayed as the name of the code if it has
/// one, and parsed from a name or an integer.
///
/// ```
/// use steps_core::Results;
///
/// assert_eq!(Results::FAILURE.to_string(), "failure");
/// assert_eq!(Results::new(42).to_string(), "42");
/// assert_eq!("cancelled".parse(), Ok(Results::CANCELLED));
/// assert_eq!("-7".parse(), Ok(Results::new(-7)));
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Results(i32);

impl Results {
    /// 0: the step succeeded.
    pub const SUCCESS: Self = Self(0);
    /// 1: the step succeeded with warnings.
    pub const WARNINGS: Self = Self(1);
    /// 2: the step failed.
    pub const FAILURE: Self = Self(2);
    /// 3: the step was not run.
    pub const SKIPPED: Self = Self(3);
    /// 4: the step could not run or was killed, for a reason outside of it.
    pub const EXCEPTION: Self = Self(4);
    /// 5: the step is to be run again.
    pub const RETRY: Self = Self(5);
    /// 6: a user stopped the step.
    pub const CANCELLED: Self = Self(6);

    /// The names of the codes, from 0 on.
    const NAMES: [&str; 7] = ["success", "warnings", "failure", "skipped", "exception", "retry", "cancelled"];

    /// Creates results from a code.
    #[must_use]
    pub const fn new(code: i32) -> Self {
        Self(code)
    }

    /// The code of the results.
    #[must_use]
    pub const fn code(self) -> i32 {
        self.0
    }

    /// Buildbot's name for the code, if it has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        usize::try_from(self.0).ok().and_then(|code| Self::NAMES.get(code).copied())
    }
}

impl From<i32> for Results {
    fn from(code: i32) -> Self {
        Self(code)
    }
}

impl From<Results> for i32 {
    fn from(results: Results) -> i32 {
        results.0
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => self.0.fmt(f),
        }
    }
}

impl FromStr for Results {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        (0..).zip(Self::NAMES).find(|(_, name)| *name == text).map_or_else(
            || text.parse().map(Self).map_err(|_| InputError::Results { value: text.to_owned() }),
            |(code, _)| Ok(Self(code)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buildbots_codes_have_names() {
        let named = [
            Results::SUCCESS,
            Results::WARNINGS,
            Results::FAILURE,
            Results::SKIPPED,
            Results::EXCEPTION,
            Results::RETRY,
            Results::CANCELLED,
        ];
        for (code, results) in (0..).zip(named) {
            assert_eq!(results.code(), code);
            assert_eq!(results.name().unwrap().parse(), Ok(results));
            assert_eq!(code.to_string().parse(), Ok(results));
        }
        for code in [-1, 7, i32::MIN, i32::MAX] {
            assert_eq!(Results::new(code).name(), None);
            assert_eq!(i32::from(Results::from(code)), code);
            assert_eq!(Results::new(code).to_string().parse(), Ok(Results::new(code)));
        }
        for text in ["", "Success", "1.0", "2147483648"] {
            assert!(text.parse::<Results>().is_err());
        }
    }
}
