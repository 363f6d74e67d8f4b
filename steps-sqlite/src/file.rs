//! The store's file and the files beside it, as the file system sees them.
//!
//! Everything here may block, for example on a mount that does not answer, so it runs in [`blocking`]. Nothing here
//! opens the file of a database or its `-shm`: POSIX releases all locks of a process on a file when the process closes
//! any descriptor of it, also the locks of SQLite.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf, absolute},
    time::SystemTime,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use steps_batch::BatchError;
use steps_core::{ErrorKind, OpenMode};

use crate::access::{self, Credentials, described};

/// The ends of the names of the files that SQLite makes beside a database.
const BESIDE: [&str; 3] = [WAL, SHM, JOURNAL];
const WAL: &str = "-wal";
const SHM: &str = "-shm";
const JOURNAL: &str = "-journal";

/// The characters that `file:` URIs need no code for.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// Runs work that may block on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BatchError> + Send + 'static,
) -> Result<T, BatchError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| BatchError::new(ErrorKind::Closed, "the runtime is shut down").with_source(error))?
}

/// The file of a store.
#[derive(Clone, Debug)]
pub(crate) struct StoreFile {
    /// The path in the options, made absolute.
    path: PathBuf,
    /// The path without symbolic links. SQLite derives the names of the files beside it from this path.
    real_path: PathBuf,
    identity: Identity,
    /// Whether the file has no content yet.
    pub(crate) is_empty: bool,
    /// Whether the file belongs to another user.
    is_other_user: bool,
    /// Whether this process only reads a file of another user. The files that SQLite makes even for reading would
    /// belong to this user then, and stop the owner from writing. So none are made: see [`LogState`].
    pub(crate) is_guest: bool,
}

/// The log of a file that this process only reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LogState {
    /// The log is empty or missing, so the file has all content. It can be read as long as it does not change.
    Empty,
    /// The log and its index exist, so SQLite makes no files.
    InUse,
}

/// A version of the file. Another process that writes to the file changes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Version {
    identity: Identity,
    len: u64,
    modified: Option<SystemTime>,
}

/// The identity of a file, which stays the same when the file is renamed or written to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Identity {
    #[cfg(unix)]
    device_and_inode: (u64, u64),
}

impl Identity {
    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { device_and_inode: (metadata.dev(), metadata.ino()) }
    }

    #[cfg(not(unix))]
    fn of(_: &Metadata) -> Self {
        Self {}
    }
}

impl StoreFile {
    /// Finds the file, and creates it empty if it is missing and the mode allows. Refuses a path that cannot be a
    /// store, with a reason that SQLite would not give.
    pub(crate) fn find(path: &Path, mode: OpenMode) -> Result<Self, BatchError> {
        let path = absolute(path).map_err(|error| config("the path of the file is invalid").with_source(error))?;
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                refuse_missing(&path, mode)?;
                create(&path)?;
                fs::metadata(&path).map_err(|error| inaccessible(&path, error))?
            }
            Err(error) => return Err(inaccessible(&path, error)),
        };
        if metadata.is_dir() {
            return Err(refused(&path, "is a folder; name a file in it"));
        }
        // A FIFO or a device would block SQLite.
        if !metadata.is_file() {
            return Err(refused(&path, "is not a regular file; choose another file"));
        }
        let real_path = fs::canonicalize(&path).map_err(|error| inaccessible(&path, error))?;
        refuse_second_name(&real_path, &metadata)?;
        for end in BESIDE {
            let beside = beside(&real_path, end);
            if fs::symlink_metadata(&beside).is_ok_and(|metadata| !metadata.is_file()) {
                return Err(refused(&beside, "is not a regular file, but SQLite needs one with this name; remove it"));
            }
        }
        let process = Credentials::of_process().filter(|process| process.is_other_user(&metadata));
        Ok(Self {
            path,
            real_path,
            identity: Identity::of(&metadata),
            is_empty: metadata.len() == 0,
            is_other_user: process.is_some(),
            is_guest: process.is_some_and(|process| mode == OpenMode::ReadOnly || !process.may_write(&metadata)),
        })
    }

    /// The path as a URI with parameters. Unlike a path, it can have any bytes, and SQLite does not take it for
    /// another URI or for the name of a database in memory.
    pub(crate) fn uri(&self, parameters: &str) -> String {
        let root = if cfg!(windows) { "/" } else { "" };
        format!("file://{root}{}{parameters}", percent_encode(self.path.as_os_str().as_encoded_bytes(), PATH))
    }

    /// Whether the file has one page at most, and SQLite would roll it back to an empty file: its journal belongs to
    /// the first transaction, which was interrupted.
    pub(crate) fn is_uncommitted(&self) -> bool {
        const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
        let mut header = [0; 28];
        let journal = File::open(beside(&self.real_path, JOURNAL));
        let read = journal.and_then(|mut journal| journal.read_exact(&mut header));
        // After the magic number: the number of records, a nonce, the number of pages before the transaction, the
        // size of a sector, and the size of a page.
        let [.., a, b, c, d] = header;
        let page_size = u64::from(u32::from_be_bytes([a, b, c, d]));
        read.is_ok()
            && header[..8] == MAGIC
            && header[16..20] == [0; 4]
            && fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() <= page_size)
    }

    /// The state of the log for a process that makes no files.
    pub(crate) fn log_state(&self) -> Result<LogState, BatchError> {
        let log = beside(&self.real_path, WAL);
        let has_content = fs::metadata(&log).is_ok_and(|metadata| metadata.len() > 0);
        match (has_content, beside(&self.real_path, SHM).exists()) {
            (false, _) => Ok(LogState::Empty),
            (true, true) => Ok(LogState::InUse),
            (true, false) => Err(BatchError::new(
                ErrorKind::ReadOnly,
                format!(
                    "{} has steps that are not in the file yet; its owner must open the store once, for example with \
                     `steps doctor`",
                    log.display()
                ),
            )),
        }
    }

    /// The version of the file, or `None` if its log has content.
    pub(crate) fn version(&self) -> Option<Version> {
        let metadata = fs::metadata(&self.path).ok()?;
        let version =
            Version { identity: Identity::of(&metadata), len: metadata.len(), modified: metadata.modified().ok() };
        // After the file, since a log is moved into the file before it is removed.
        (self.log_state().ok()? == LogState::Empty).then_some(version)
    }

    /// Gives the files that SQLite made for this process to the group of the database, so that all members of the
    /// group can write to the store. Then removes an empty log that a guest made.
    pub(crate) fn share_files_beside(&self) {
        #[cfg(unix)]
        if self.is_other_user
            && let (Some(process), Ok(main)) = (Credentials::of_process(), fs::metadata(&self.real_path))
        {
            use std::os::unix::fs::{MetadataExt, chown};
            for end in [WAL, SHM] {
                let path = beside(&self.real_path, end);
                match fs::symlink_metadata(&path) {
                    Ok(metadata) if process.owns(&metadata) && self.is_guest && (end, metadata.len()) == (WAL, 0) => {
                        let _ = fs::remove_file(path);
                    }
                    Ok(metadata) if process.owns(&metadata) && metadata.gid() != main.gid() => {
                        let _ = chown(path, None, Some(main.gid()));
                    }
                    _ => {}
                }
            }
        }
    }

    /// The files that this process may not write to, each with its owner and the remedy.
    fn unwritable_files(&self) -> Vec<String> {
        let Some(process) = Credentials::of_process() else { return Vec::new() };
        let unwritable = ["", WAL, SHM, JOURNAL].into_iter().filter_map(|end| {
            let path = beside(&self.real_path, end);
            let metadata = fs::metadata(&path).ok().filter(|metadata| !process.may_write(metadata))?;
            Some(described(&path, &metadata) + remedy(end, &metadata))
        });
        unwritable.collect()
    }

    /// The files beside the database that belong to another user than the database, each with the remedy.
    pub(crate) fn files_of_other_users(&self) -> Vec<String> {
        let owner_of = |end| Some(access::owner(&fs::metadata(beside(&self.real_path, end)).ok()?));
        let Some(main) = owner_of("") else { return Vec::new() };
        let others = BESIDE.into_iter().filter(|end| owner_of(end).is_some_and(|owner| owner != main));
        let warnings = others.filter_map(|end| {
            let path = beside(&self.real_path, end);
            let metadata = fs::metadata(&path).ok()?;
            Some(format!(
                "The owner of the store may be unable to write: {}{}.",
                described(&path, &metadata),
                remedy(end, &metadata)
            ))
        });
        warnings.collect()
    }

    /// Explains an error about a missing right to write.
    pub(crate) fn cannot_write(&self) -> BatchError {
        let files = self.unwritable_files();
        let reason = if files.is_empty() { "check its mode and permissions".to_owned() } else { files.join("; ") };
        BatchError::new(ErrorKind::ReadOnly, format!("the file cannot be written to: {reason}"))
    }

    /// Whether a transaction in the file was interrupted, or is in progress.
    pub(crate) fn has_journal(&self) -> bool {
        fs::metadata(beside(&self.real_path, JOURNAL)).is_ok_and(|metadata| metadata.len() > 0)
    }

    /// The reason why SQLite could not open the file, which exists. The code of SQLite does not say.
    pub(crate) fn cannot_open(&self) -> BatchError {
        if self.has_journal() {
            return config(
                "a transaction in the file was interrupted; open it once with the program that it belongs to, and with \
                 the right to write",
            );
        }
        let files = self.unwritable_files();
        let facts = if files.is_empty() { String::new() } else { format!(": {}", files.join("; ")) };
        BatchError::new(
            ErrorKind::ReadOnly,
            format!(
                "the file cannot be opened{facts}. SQLite needs the right to read the file, and makes files beside it \
                 even to read it; ask for the rights, or copy the file to another folder"
            ),
        )
    }

    /// Whether the path leads to the same file as before.
    pub(crate) fn is_in_place(&self) -> bool {
        identity(&self.path) == Some(self.identity)
    }

    /// The error after the file was lost.
    pub(crate) fn lost(&self) -> BatchError {
        let message = format!(
            "{} or a file beside it was moved, removed or replaced while it was open; connect again to use the file \
             that is there now",
            self.path.display()
        );
        BatchError::new(ErrorKind::Closed, message)
    }

    /// The file alone, as a connection has it open that ignores the log.
    pub(crate) fn opened_without_log(&self) -> OpenFiles {
        OpenFiles(vec![(self.path.clone(), self.identity)])
    }

    /// The files that a connection has open now.
    pub(crate) fn opened(&self) -> OpenFiles {
        let mut files = vec![(self.path.clone(), self.identity)];
        for end in [WAL, SHM] {
            let path = beside(&self.real_path, end);
            files.extend(identity(&path).map(|identity| (path, identity)));
        }
        OpenFiles(files)
    }
}

/// The files of a connection, with the identities that they had when it was opened.
///
/// SQLite never replaces the log or the `-shm` of a connection that is open. A process that opens the file after one
/// of them was removed makes new ones, and does not see what this connection writes.
#[derive(Debug)]
pub(crate) struct OpenFiles(Vec<(PathBuf, Identity)>);

impl OpenFiles {
    /// Whether all paths lead to the same files as when they were opened.
    pub(crate) fn are_in_place(&self) -> bool {
        self.0.iter().all(|(path, opened)| identity(path) == Some(*opened))
    }

    /// Whether a close removes no file of another process: SQLite finds the log by its name, and removes it.
    ///
    /// Without a log there, a close is good: it moves all content into the file.
    pub(crate) fn may_be_closed(&self) -> bool {
        let mut files = self.0.iter();
        let is_in_place = |(path, opened): &(PathBuf, Identity)| identity(path) == Some(*opened);
        files.next().is_some_and(is_in_place) && files.all(|file| is_in_place(file) || identity(&file.0).is_none())
    }
}

/// The way to make a file writable again.
fn remedy(end: &str, metadata: &Metadata) -> &'static str {
    match end {
        "" => "; ask for the right to write",
        SHM => "; its owner or root can remove it while no process uses the store",
        WAL if metadata.len() == 0 => "; its owner or root can remove it while no process uses the store",
        _ => {
            "; it has steps that are not in the file yet, so do not remove it: root can give it to the owner of the \
              file with chown"
        }
    }
}

/// The identity of the file at a path, without its times: Linux updates the times of a file more often once they were
/// asked for, and then each fsync of the log takes longer (multigrain timestamps, Linux 6.13).
#[cfg(target_os = "linux")]
fn identity(path: &Path) -> Option<Identity> {
    use rustix::{
        fs::{AtFlags, CWD, StatxFlags, makedev, statx},
        io::Errno,
    };

    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
        Ok(file) => {
            let device = makedev(file.stx_dev_major, file.stx_dev_minor);
            Some(Identity { device_and_inode: (device, file.stx_ino) })
        }
        // The kernel is older than the call, or a filter of system calls forbids it.
        Err(Errno::NOSYS | Errno::PERM) => fs::metadata(path).ok().map(|metadata| Identity::of(&metadata)),
        Err(_) => None,
    }
}

#[cfg(not(target_os = "linux"))]
fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|metadata| Identity::of(&metadata))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(end);
    path.into()
}

fn config(message: impl Into<std::borrow::Cow<'static, str>>) -> BatchError {
    BatchError::new(ErrorKind::Config, message)
}

fn refused(path: &Path, reason: &str) -> BatchError {
    config(format!("{} {reason}", path.display()))
}

fn refuse_missing(path: &Path, mode: OpenMode) -> Result<(), BatchError> {
    let folder = path.parent().unwrap_or(path);
    if !folder.is_dir() {
        Err(refused(path, "does not exist, nor does its folder; make the folder first"))
    } else if mode != OpenMode::Create {
        Err(refused(path, "does not exist yet; mode=rwc makes it"))
    } else {
        Ok(())
    }
}

/// Creates an empty file. SQLite would create it without write permission for the group, whatever the umask allows.
///
/// The file is never opened if it exists, see the module.
fn create(path: &Path) -> Result<(), BatchError> {
    const MAX_LINKS: usize = 40;
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        match OpenOptions::new().write(true).create_new(true).open(&target) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::read_link(&target) {
                Ok(link) => target = target.parent().unwrap_or(path).join(link),
                // Another process was faster.
                Err(_) => return Ok(()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(inaccessible(path, error)),
        }
    }
    Err(config("the file is a link to a file that does not exist and cannot be made"))
}

/// The error of the file system as a kind of the contract.
fn inaccessible(path: &Path, error: io::Error) -> BatchError {
    use io::ErrorKind::{NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let error_of = |kind, reason: &str| BatchError::new(kind, format!("{} {reason}", path.display()));
    match error.kind() {
        PermissionDenied if path.exists() => {
            error_of(ErrorKind::ReadOnly, "cannot be opened: the permission is missing; ask for it")
        }
        PermissionDenied => error_of(
            ErrorKind::ReadOnly,
            "cannot be made or reached: the permission for its folder is missing; ask for it",
        ),
        ReadOnlyFilesystem => error_of(ErrorKind::ReadOnly, "cannot be made: the file system is read-only"),
        StorageFull | QuotaExceeded => error_of(ErrorKind::CapacityExceeded, "cannot be made: the disk is full"),
        NotADirectory => error_of(ErrorKind::Config, "is not in a folder, but in a file"),
        _ => error_of(ErrorKind::Unavailable, "cannot be reached now"),
    }
    .with_source(error)
}

/// Refuses a file that has a second name. SQLite names the log after the file, so a database with two names could
/// have two logs, and each would hide what is written under the other name.
fn refuse_second_name(real_path: &Path, metadata: &Metadata) -> Result<(), BatchError> {
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(metadata) > 1 {
        return Err(refused(
            real_path,
            "has a second name (a hard link), which could lose steps; remove the other name, or copy the file",
        ));
    }
    let _ = metadata;
    if is_mount_point(real_path) {
        return Err(refused(
            real_path,
            "is mounted as a single file, which could lose steps; mount the folder of the file instead",
        ));
    }
    Ok(())
}

/// Whether something is mounted at this path, on Linux.
fn is_mount_point(real_path: &Path) -> bool {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let path = real_path.as_os_str().as_encoded_bytes();
    // The fifth field is the mount point.
    let mut points = mounts.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    points.any(|point| unescaped(point) == path)
}

/// A path in `mountinfo`, where `\040` stands for a space.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code = (*first == b'\\').then(|| tail.get(..3)).flatten().and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match code {
            Some(byte) => {
                path.push(byte);
                rest = &tail[3..];
            }
            None => {
                path.push(*first);
                rest = tail;
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_unescaped() {
        assert_eq!(unescaped(br"/a\040b\134c"), br"/a b\c");
        assert_eq!(unescaped(br"/a\04"), br"/a\04");
    }

    #[test]
    fn a_journal_of_the_first_transaction_is_recognized() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("steps.db");
        let file = StoreFile::find(&path, OpenMode::Create).unwrap();
        assert!(!file.is_uncommitted());
        let mut header = [0; 512];
        header[..8].copy_from_slice(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
        let journal = folder.path().join("steps.db-journal");
        fs::write(&journal, header).unwrap();
        assert!(file.is_uncommitted());
        fs::write(&path, [0; 512]).unwrap();
        assert!(!file.is_uncommitted(), "the file has more than one page");
        header[26] = 2;
        fs::write(&journal, header).unwrap();
        assert!(file.is_uncommitted());
        header[19] = 1;
        fs::write(&journal, header).unwrap();
        assert!(!file.is_uncommitted());
        fs::write(&journal, [0; 512]).unwrap();
        assert!(!file.is_uncommitted());
    }
}
