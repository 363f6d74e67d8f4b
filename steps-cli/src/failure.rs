use std::{error::Error as StdError, io, process::ExitCode};

use steps::{Error, ErrorKind, InputError};

use crate::output;

/// Why the program ends without having done what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was called in a way that cannot be.
    Usage(String),
    /// What it was asked for is not there.
    Absent(String),
    /// The store refused.
    Store(Error),
    /// The terminal, pipe or file at standard output refused.
    Output(io::Error),
    /// The system refused.
    System(io::Error),
}

impl Failure {
    /// Says it on standard error, and gives the program's exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            // Nobody reads on, as in `steps show 7 | head -1`: there is nobody to complain to.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::Usage(message) | Self::Absent(message) => output::error(message),
            Self::Store(error) => output::error(&chain(error)),
            Self::Output(error) => output::error(&format!("cannot write to standard output: {error}")),
            Self::System(error) => output::error(&error.to_string()),
        }
        ExitCode::from(self.exit_code())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Store(error) if error.kind() == ErrorKind::InvalidInput => 2,
            _ => 1,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// An error and the errors behind it, a line each; those that say nothing new are left out.
pub(crate) fn chain(error: &Error) -> String {
    let mut lines = vec![error.to_string()];
    let mut next = error.source();
    while let Some(source) = next {
        let line = source.to_string();
        if !lines.iter().any(|said| said.contains(&line)) {
            lines.push(line);
        }
        next = source.source();
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_adds_something_is_said() {
        let behind = io::Error::other(io::Error::other("disk on fire"));
        let error = Error::new(ErrorKind::Unavailable, "the store is gone").with_source(behind);
        assert_eq!(chain(&error), "the store is gone\ndisk on fire");
        let error = Error::new(ErrorKind::Unavailable, "the store is gone: disk on fire")
            .with_source(io::Error::other("disk on fire"));
        assert_eq!(chain(&error), "the store is gone: disk on fire");
    }

    #[test]
    fn a_value_that_cannot_be_is_a_usage_error() {
        assert_eq!(Failure::from(InputError::NameEmpty).exit_code(), 2);
        assert_eq!(Failure::from(Error::from(InputError::NameEmpty)).exit_code(), 2);
        assert_eq!(Failure::from(Error::new(ErrorKind::Config, "no")).exit_code(), 1);
    }
}
