//! The users of a file: the rights of this process, and the owners of the files beside a database.

use std::{
    fs::{self, Metadata},
    path::Path,
};

/// The user and the groups of this process, on Linux.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    user: u32,
    groups: Vec<u32>,
    /// Whether the process may write to the files of other users, as root may.
    is_privileged: bool,
}

impl Credentials {
    /// The effective user and groups of this process, or `None` where the system does not tell.
    pub(crate) fn of_process() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        const CAP_DAC_OVERRIDE: u64 = 1 << 1;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        // The second number is the effective one.
        let effective = |name: &str| field(name)?.split_whitespace().nth(1)?.parse().ok();
        let mut groups: Vec<u32> = field("Groups")?.split_whitespace().filter_map(|group| group.parse().ok()).collect();
        groups.push(effective("Gid")?);
        let capabilities = u64::from_str_radix(field("CapEff")?.trim(), 16).ok()?;
        Some(Self { user: effective("Uid")?, groups, is_privileged: capabilities & CAP_DAC_OVERRIDE != 0 })
    }

    /// Whether files that this process makes beside this one belong to another user than this one.
    #[cfg(unix)]
    pub(crate) fn is_other_user(&self, metadata: &Metadata) -> bool {
        use std::os::unix::fs::MetadataExt;
        // SQLite gives the files of root to the owner of the database.
        !self.is_privileged && self.user != metadata.uid()
    }

    /// Whether the mode allows this process to write. An access control list may say otherwise.
    #[cfg(unix)]
    pub(crate) fn may_write(&self, metadata: &Metadata) -> bool {
        use std::os::unix::fs::MetadataExt;
        let bit = if metadata.uid() == self.user {
            0o200
        } else if self.groups.contains(&metadata.gid()) {
            0o020
        } else {
            0o002
        };
        self.is_privileged || metadata.mode() & bit != 0
    }

    #[cfg(not(unix))]
    pub(crate) fn is_other_user(&self, _: &Metadata) -> bool {
        let _ = self.user;
        false
    }

    #[cfg(not(unix))]
    pub(crate) fn may_write(&self, _: &Metadata) -> bool {
        let _ = (&self.groups, self.is_privileged);
        true
    }

    /// Whether this process owns the file.
    pub(crate) fn owns(&self, metadata: &Metadata) -> bool {
        owner(metadata) == Some(self.user)
    }
}

/// The user who owns a file.
#[cfg(unix)]
pub(crate) fn owner(metadata: &Metadata) -> Option<u32> {
    Some(std::os::unix::fs::MetadataExt::uid(metadata))
}

#[cfg(not(unix))]
pub(crate) fn owner(_: &Metadata) -> Option<u32> {
    None
}

/// `/srv/steps.db-shm belongs to user bob and has mode 0644`
#[cfg(unix)]
pub(crate) fn described(path: &Path, metadata: &Metadata) -> String {
    use std::os::unix::fs::MetadataExt;
    let user = user_name(metadata.uid());
    format!("{} belongs to user {user} and has mode {:04o}", path.display(), metadata.mode() & 0o7777)
}

#[cfg(not(unix))]
pub(crate) fn described(path: &Path, _: &Metadata) -> String {
    format!("{} may not be written to", path.display())
}

/// The name of a user, otherwise the number.
pub(crate) fn user_name(user: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = user.to_string();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    name.unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_process_has_its_credentials() {
        let status = "Name:\tsteps\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapEff:\t0000000000000002\n";
        let credentials = Credentials::parse(status).unwrap();
        assert_eq!((credentials.user, credentials.is_privileged), (2, true));
        assert_eq!(credentials.groups, [9, 10, 6]);
        assert!(Credentials::parse("Name:\tsteps\n").is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_user_has_a_name_or_a_number() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_000_000_000), "4000000000");
    }
}
