use std::{error::Error as StdError, io, process::ExitCode};

use steps::{Error, ErrorKind, InputError};

use crate::output;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// Wrong arguments.
    Usage(String),
    /// The store has no such step.
    NotFound(String),
    /// The store returned an error.
    Store(Error),
    /// Writing to standard output failed.
    Output(io::Error),
    /// The operating system returned an error.
    System(io::Error),
}

impl CommandError {
    /// Prints the error to standard error and returns the exit code of the program.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            // The reader of a pipe has enough, as in `steps show 7 | head -1`: that is no error.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::Usage(message) | Self::NotFound(message) => output::error(message),
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

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<InputError> for CommandError {
    fn from(error: InputError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// The messages of an error and of its sources, a line each. A message that an earlier line contains is left out.
pub(crate) fn chain(error: &Error) -> String {
    let mut lines = vec![error.to_string()];
    let mut next = error.source();
    while let Some(source) = next {
        let line = source.to_string();
        if !lines.iter().any(|earlier| earlier.contains(&line)) {
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
    fn a_source_that_adds_nothing_is_left_out() {
        let source = io::Error::other(io::Error::other("disk on fire"));
        let error = Error::new(ErrorKind::Unavailable, "the store is gone").with_source(source);
        assert_eq!(chain(&error), "the store is gone\ndisk on fire");
        let error = Error::new(ErrorKind::Unavailable, "the store is gone: disk on fire")
            .with_source(io::Error::other("disk on fire"));
        assert_eq!(chain(&error), "the store is gone: disk on fire");
    }

    #[test]
    fn an_invalid_value_is_a_usage_error() {
        assert_eq!(CommandError::from(InputError::NameEmpty).exit_code(), 2);
        assert_eq!(CommandError::from(Error::from(InputError::NameEmpty)).exit_code(), 2);
        assert_eq!(CommandError::from(Error::new(ErrorKind::Config, "no")).exit_code(), 1);
    }
}
