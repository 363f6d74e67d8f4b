use std::{
    env, fmt,
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    str::FromStr,
    time::Duration,
};

/// The environment variable that fixes the seed.
const SEED: &str = "STEPS_CONFORMANCE_SEED";
/// The environment variable that sets the number of random cases of each property.
const CASES: &str = "STEPS_CONFORMANCE_CASES";

const DEFAULT_CASES: u32 = 64;

/// Configuration of a run of the suite.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Seed of all randomness except the ids of builds, which are fresh in each run.
    pub seed: u64,
    /// Number of random cases of each property. 0 counts as 1.
    pub cases: u32,
    /// Time limit of one call of the store. A call beyond it counts as hung.
    pub call_timeout: Duration,
    /// Time limit of a case without a new call. It ends cases that the time limit of a call cannot, such as those
    /// with a blocked thread. A case that makes new calls has no time limit.
    pub case_timeout: Duration,
    /// Restricts the run to cases whose name contains this text.
    pub filter: Option<String>,
    /// The command that runs one case again, with `{case}` for its name. A failure prints it after the seed.
    pub command: String,
}

impl Config {
    /// A fresh seed and the default number of random cases.
    #[must_use]
    pub fn new() -> Self {
        Self {
            seed: random(),
            cases: DEFAULT_CASES,
            call_timeout: Duration::from_secs(30),
            case_timeout: Duration::from_secs(120),
            filter: None,
            command: command(),
        }
    }

    /// As [`new`](Self::new), with the seed from `STEPS_CONFORMANCE_SEED` and the number of random cases of each
    /// property from `STEPS_CONFORMANCE_CASES`, if they are set.
    ///
    /// # Errors
    /// When a variable is not a whole number, or the number of cases is 0: a property that checks nothing would pass.
    pub fn from_env() -> Result<Self, ConfigError> {
        let mut config = Self::new();
        if let Some(seed) = read(SEED, 0)? {
            config.seed = seed;
        }
        if let Some(cases) = read::<NonZeroU32>(CASES, 1)? {
            config.cases = cases.get();
        }
        Ok(config)
    }

    /// Sets the seed.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the number of random cases of each property. 0 counts as 1.
    #[must_use]
    pub const fn with_cases(mut self, cases: u32) -> Self {
        self.cases = if cases == 0 { 1 } else { cases };
        self
    }

    /// Sets the time limit of one call of the store.
    #[must_use]
    pub const fn with_call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Sets the time limit of a case without a new call.
    #[must_use]
    pub const fn with_case_timeout(mut self, timeout: Duration) -> Self {
        self.case_timeout = timeout;
        self
    }

    /// Restricts the run to cases whose name contains this text.
    #[must_use]
    pub fn with_filter(mut self, filter: impl Into<String>) -> Self {
        self.filter = Some(filter.into());
        self
    }

    /// Sets the command that runs one case again, with `{case}` for its name: for programs that `cargo test` does not
    /// start.
    #[must_use]
    pub fn with_command(mut self, command: impl Into<String>) -> Self {
        self.command = command.into();
        self
    }

    pub(crate) fn selects(&self, case: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| case.contains(filter.as_str()))
    }

    /// The command that runs a case again with this configuration.
    pub(crate) fn replay(&self, case: &str) -> String {
        let cases = if self.cases == DEFAULT_CASES { String::new() } else { format!(" {CASES}={}", self.cases) };
        format!("{SEED}={}{cases} {}", self.seed, self.command.replace("{case}", case))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

/// An environment variable that is not a whole number of the allowed range.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    variable: &'static str,
    value: String,
    min: u8,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {}={}: expected a whole number, at least {}", self.variable, self.value, self.min)
    }
}

impl std::error::Error for ConfigError {}

fn read<T: FromStr>(variable: &'static str, min: u8) -> Result<Option<T>, ConfigError> {
    let Some(value) = env::var_os(variable) else { return Ok(None) };
    parsed(variable, value.to_string_lossy().into_owned(), min).map(Some)
}

fn parsed<T: FromStr>(variable: &'static str, value: String, min: u8) -> Result<T, ConfigError> {
    value.parse().map_err(|_| ConfigError { variable, value, min })
}

/// 64 random bits, from the hash seeds of the standard library.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// The command that runs one case of this program again: `cargo test` if cargo runs the program.
fn command() -> String {
    let program = env::current_exe().unwrap_or_default();
    let Ok(package) = env::var("CARGO_PKG_NAME") else { return format!("{} --exact {{case}}", program.display()) };
    let name = program.file_stem().unwrap_or_default().to_string_lossy();
    // Cargo appends a hash to the file name of a test program.
    let test = name.rsplit_once('-').map_or(&*name, |(test, _)| test);
    format!("cargo test -p {package} --test {test} -- --exact {{case}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cases_are_refused_and_any_seed_is_taken() {
        assert_eq!(parsed::<u64>(SEED, "0".into(), 0).unwrap(), 0);
        assert_eq!(parsed::<NonZeroU32>(CASES, "1".into(), 1).unwrap(), NonZeroU32::MIN);
        let refused = parsed::<NonZeroU32>(CASES, "0".into(), 1).unwrap_err();
        assert_eq!(refused.to_string(), "invalid STEPS_CONFORMANCE_CASES=0: expected a whole number, at least 1");
    }
}
