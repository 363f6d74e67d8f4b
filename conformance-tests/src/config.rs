use std::{
    env, fmt,
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    str::FromStr,
    time::Duration,
};

/// The environment variable that fixes the seed.
const SEED: &str = "STEPS_CONFORMANCE_SEED";
/// The environment variable that says how many random cases each property has.
const CASES: &str = "STEPS_CONFORMANCE_CASES";

const DEFAULT_CASES: u32 = 64;

/// How the suite runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// What all randomness comes from, but for the ids of builds, which are fresh in each run.
    pub seed: u64,
    /// How many random cases each property has, at least 1: 0 is taken for it.
    pub cases: u32,
    /// How long one call of the store may take. Longer is taken for a hang.
    pub call_timeout: Duration,
    /// How long one case may go on without a new call: it ends what the time-out of a call cannot, such as a blocked
    /// thread. As long as there are more calls, a case may take as long as it does.
    pub case_timeout: Duration,
    /// Only the cases whose name contains this text.
    pub filter: Option<String>,
    /// The command that runs one case again, where `{case}` stands for its name: what a failure shows, after the seed.
    pub command: String,
}

impl Config {
    /// A fresh seed, and as many random cases as an everyday run can afford.
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

    /// As [`new`](Self::new), but for what the environment fixes: `STEPS_CONFORMANCE_SEED`, the seed, and
    /// `STEPS_CONFORMANCE_CASES`, how many random cases each property has.
    ///
    /// # Errors
    /// When one of them is no whole number, or there are to be no cases at all: a property that checks nothing would
    /// pass.
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

    /// Fixes the seed.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Says how many random cases each property has: at least 1, which 0 is taken for.
    #[must_use]
    pub const fn with_cases(mut self, cases: u32) -> Self {
        self.cases = if cases == 0 { 1 } else { cases };
        self
    }

    /// Says how long one call of the store may take.
    #[must_use]
    pub const fn with_call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Says how long one case may go on without a new call.
    #[must_use]
    pub const fn with_case_timeout(mut self, timeout: Duration) -> Self {
        self.case_timeout = timeout;
        self
    }

    /// Runs only the cases whose name contains this text.
    #[must_use]
    pub fn with_filter(mut self, filter: impl Into<String>) -> Self {
        self.filter = Some(filter.into());
        self
    }

    /// Says how one case is run again, where `{case}` stands for its name: for programs that are not
    /// started by `cargo test`.
    #[must_use]
    pub fn with_command(mut self, command: impl Into<String>) -> Self {
        self.command = command.into();
        self
    }

    pub(crate) fn selects(&self, case: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| case.contains(filter.as_str()))
    }

    /// The command that runs one case again as it ran here.
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

/// A variable of the environment that is no whole number, or a smaller one than may be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    variable: &'static str,
    value: String,
    least: u8,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}: it is no whole number from {} up that fits", self.variable, self.value, self.least)
    }
}

impl std::error::Error for ConfigError {}

fn read<T: FromStr>(variable: &'static str, least: u8) -> Result<Option<T>, ConfigError> {
    let Some(value) = env::var_os(variable) else { return Ok(None) };
    parsed(variable, value.to_string_lossy().into_owned(), least).map(Some)
}

fn parsed<T: FromStr>(variable: &'static str, value: String, least: u8) -> Result<T, ConfigError> {
    value.parse().map_err(|_| ConfigError { variable, value, least })
}

/// 64 bits that nobody else has: the standard library's own source of them.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// How a case of this program is run again: by cargo, if cargo runs it.
fn command() -> String {
    let program = env::current_exe().unwrap_or_default();
    let Ok(package) = env::var("CARGO_PKG_NAME") else { return format!("{} --exact {{case}}", program.display()) };
    let name = program.file_stem().unwrap_or_default().to_string_lossy();
    // Cargo appends a hash to the name of a test's program.
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
        assert_eq!(refused.to_string(), "STEPS_CONFORMANCE_CASES=0: it is no whole number from 1 up that fits");
    }
}
