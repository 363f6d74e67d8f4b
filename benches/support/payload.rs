//! The fixed payload, the same for stores, floors and Buildbot.

/// A state string of 40 characters.
pub const STATE: &str = "compiling 123 of 4567 files, 8 warnings!";

/// A state string of 40 characters that differs from that of the next number: SQLite does not write an unchanged
/// value.
pub fn state(number: usize) -> String {
    format!("compiling {:03} of 4567 files, 8 warnings!", number % 1_000)
}

/// The name of a url.
pub const URL_NAME: &str = "log";

/// The number of steps of a build that is read.
pub const STEPS: usize = 100;

/// A name of 12 characters, unique in the build for each caller and number.
pub fn name(caller: usize, number: usize) -> String {
    format!("s{caller:03}{number:08}")
}

/// A url that differs for each number.
pub fn url(number: usize) -> String {
    format!("https://ci.example.org/builds/7/steps/{number:08}")
}

/// Whether this step of a build has a url: every third step has one.
pub fn has_url(number: usize) -> bool {
    number.is_multiple_of(3)
}
