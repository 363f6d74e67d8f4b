//! Maps the errors of redb to the kinds of the contract.

use std::{borrow::Cow, io};

use redb::Error;
use steps_batch::BatchError;
use steps_core::ErrorKind;

use crate::tables::ReadError;

/// The error of a batch for an error of redb.
pub(crate) fn batch_error(error: impl Into<Error>) -> BatchError {
    let error = error.into();
    let (kind, message) = match &error {
        Error::Io(io) if matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            (ErrorKind::CapacityExceeded, "the disk is full; make room")
        }
        Error::Io(io) if matches!(io.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            (ErrorKind::ReadOnly, "the permissions of the file do not allow writing; change them")
        }
        Error::Io(io) if matches!(io.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {
            (ErrorKind::Config, "the file cannot be created there; choose another path")
        }
        Error::Io(io) if io.kind() == io::ErrorKind::InvalidData => {
            (ErrorKind::Config, "the file is no redb file; choose another one")
        }
        Error::Corrupted(_) => (ErrorKind::Corrupt, "the file is damaged; restore it from a backup"),
        Error::TableTypeMismatch { .. } | Error::UpgradeRequired(_) => {
            (ErrorKind::Config, "the file belongs to another program, or to another version of this one")
        }
        Error::ValueTooLarge(_) => (ErrorKind::CapacityExceeded, "the value is too large for redb"),
        Error::DatabaseAlreadyOpen => {
            return BatchError::transient("the file is open elsewhere; close it there").with_source(error);
        }
        _ => (ErrorKind::Unavailable, "redb failed; if the error persists, open the file again"),
    };
    BatchError::new(kind, message).with_source(error)
}

/// The error of a batch for a step that could not be read.
pub(crate) fn read_error(error: ReadError) -> BatchError {
    match error {
        ReadError::Storage(error) => batch_error(error),
        ReadError::Input(error) => corrupt(error.to_string()),
    }
}

/// A stored value breaks the rules of its type.
pub(crate) fn corrupt(message: impl Into<Cow<'static, str>>) -> BatchError {
    BatchError::new(ErrorKind::Corrupt, message)
}
