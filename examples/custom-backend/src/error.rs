//! The errors of this store: what redb says, as the contract's kinds.

use std::{borrow::Cow, io};

use redb::Error;
use steps_core::ErrorKind;
use steps_batch::BatchError;

use crate::tables::ReadError;

/// What redb's error means.
pub(crate) fn failure(error: impl Into<Error>) -> BatchError {
    let error = error.into();
    let (kind, message) = match &error {
        Error::Io(io) if matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            (ErrorKind::CapacityExceeded, "the disk is full; make room")
        }
        Error::Io(io) if matches!(io.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            (ErrorKind::ReadOnly, "the right to write to the file is missing; ask for it")
        }
        Error::Io(io) if matches!(io.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {
            (ErrorKind::Config, "there is no such file, and none can be made there; choose another path")
        }
        Error::Io(io) if io.kind() == io::ErrorKind::InvalidData => {
            (ErrorKind::Config, "the file is not of redb; choose another one")
        }
        Error::Corrupted(_) => (ErrorKind::Corrupt, "the file is damaged; restore it from a backup"),
        Error::TableTypeMismatch { .. } | Error::UpgradeRequired(_) => {
            (ErrorKind::Config, "the file is of another program, or of another version of this one")
        }
        Error::ValueTooLarge(_) => (ErrorKind::CapacityExceeded, "the value is too large for redb"),
        // Whoever has it may let it go.
        Error::DatabaseAlreadyOpen => return BatchError::transient("another process has the file open").with_source(error),
        _ => (ErrorKind::Unavailable, "redb failed; if it goes on, open the file again"),
    };
    BatchError::new(kind, message).with_source(error)
}

/// Why a step could not be read.
pub(crate) fn unreadable(error: ReadError) -> BatchError {
    match error {
        ReadError::Storage(error) => failure(error),
        ReadError::Input(error) => corrupt(error.to_string()),
    }
}

/// What is stored is no step.
pub(crate) fn corrupt(message: impl Into<Cow<'static, str>>) -> BatchError {
    BatchError::new(ErrorKind::Corrupt, message)
}
