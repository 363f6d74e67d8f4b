//! The fixed payload, the same for stores, floors and Buildbot.

/// A state string of 40 characters.
pub const STATE: &str = "compiling 123 of 4567 files, 8 warnings!";

/// A state string of 40 characters, and another for the next number: SQLite does not write what is there already.
pub fn state(number: usize) -> String {
    format!("compiling {:03} of 4567 files, 8 warnings!", number % 1_000)
}

/// The name of a url.
pub const URL_NAME: &str = "log";

/// The steps of a build that is read.
pub const STEPS: usize = 100;

/// A name of 12 characters, which no other caller of the build uses.
pub fn name(caller: usize, number: usize) -> String {
    format!("s{caller:03}{number:08}")
}

/// A url that its step does not have yet.
pub fn url(number: usize) -> String {
    format!("https://ci.example.org/builds/7/steps/{number:08}")
}

/// Whether this step of a build has a url: one at every third.
pub fn has_url(number: usize) -> bool {
    number.is_multiple_of(3)
}
