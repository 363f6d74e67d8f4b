//! Stores in files that are moved, shared with other users, or no files at all.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use crate::support::{Folder, finish, finish_timed, start};

#[test]
fn a_fifo_does_not_hold_a_command_up() {
    let folder = Folder::new();
    assert!(Command::new("mkfifo").arg(folder.file("f")).status().unwrap().success());
    let mut command = folder.steps(["--store", "sqlite:f", "run", "--build", "1", "--", "echo", "hi"]);
    let (finished, elapsed) = finish_timed(&mut command);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), "hi\n"));
    assert!(finished.stderr.contains("is not a regular file"), "{finished:?}");
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}

#[test]
fn a_command_that_removes_the_store_is_reported() {
    for script in ["rm steps.db*", "mv steps.db other.db", "rm steps.db-wal"] {
        let folder = Folder::new();
        let finished = finish(&mut folder.run_sh(&[], script));
        assert_eq!(finished.code, Some(0), "{script}: {finished:?}");
        assert!(finished.stderr.contains("warning: the end of the step is not recorded"), "{finished:?}");
        assert!(finished.stderr.contains("moved, removed or replaced"), "{finished:?}");

        let folder = Folder::new();
        let finished = finish(&mut folder.run_sh(&["--strict"], script));
        assert_eq!(finished.code, Some(125), "{script}: {finished:?}");
    }
}

#[test]
fn a_watch_takes_the_store_that_replaced_the_old_one() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "1", "old"]);
    let mut watch = start(&mut folder.steps(["show", "1", "--watch", "--json"]));
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("old"));
    for name in folder.files() {
        fs::remove_file(folder.file(&name)).unwrap();
    }
    folder.stdout_of(["add", "--build", "1", "new"]);
    assert!(lines.next().unwrap().unwrap().contains("new"));
    watch.kill().unwrap();
    let warning = BufReader::new(watch.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    watch.wait().unwrap();
    assert!(warning.contains("moved, removed or replaced"), "{warning}");
}

#[test]
fn a_folder_whose_name_is_not_utf_8_has_a_store() {
    let folder = Folder::new();
    let odd = folder.path().join(OsStr::from_bytes(b"a \xff%?"));
    fs::create_dir_all(odd.join("inner")).unwrap();
    // The inner command is in another folder and adds to the same store.
    let script = "cd inner && \"$STEPS\" add inner";
    let finished = finish(folder.run_sh(&["--strict"], script).current_dir(&odd));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let shown = finish(folder.steps(["show", "1", "--json"]).current_dir(&odd));
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("inner") && odd.join("steps.db").exists(), "{shown:?}");
}

/// The users of a folder that all may write to. Only root can be several users.
struct SharedFolder {
    folder: Folder,
    program: PathBuf,
}

const OWNER: u32 = 60001;
const READER: u32 = 60002;

impl SharedFolder {
    fn new() -> Option<Self> {
        let user = Command::new("id").arg("-u").output().unwrap();
        if user.stdout != b"0\n" {
            eprintln!("skipped: only root can run programs as several users");
            return None;
        }
        let folder = Folder::new();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Other users may be unable to reach the program where it was built.
        let program = folder.file("steps");
        fs::copy(env!("CARGO_BIN_EXE_steps"), &program).unwrap();
        fs::create_dir(folder.file("shared")).unwrap();
        fs::set_permissions(folder.file("shared"), fs::Permissions::from_mode(0o1777)).unwrap();
        Some(Self { folder, program })
    }

    fn as_user(&self, user: u32, umask: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        let user = user.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "sh", "-c"]);
        command.arg(format!("umask {umask}; exec \"$@\"")).arg("sh").arg(&self.program).args(arguments);
        command.current_dir(self.folder.file("shared")).env_remove("STEPS_STORE").stdin(Stdio::null());
        command
    }

    /// Adds a step as the owner.
    fn owner_adds(&self, umask: &str) {
        let finished = finish(&mut self.as_user(OWNER, umask, &["add", "--build", "1", "compile"]));
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    }

    fn reader_sees(&self, umask: &str, steps: usize) {
        let finished = finish(&mut self.as_user(READER, umask, &["show", "1", "--json"]));
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
        assert_eq!(finished.stdout.matches("\"number\"").count(), steps, "{}", finished.stdout);
    }

    /// Closes the store as its last user, so that only its file is left.
    fn owner_closes(&self, umask: &str) {
        assert_eq!(finish(&mut self.as_user(OWNER, umask, &["show", "1"])).code, Some(0));
        assert!(!self.folder.file("shared/steps.db-wal").exists());
    }
}

#[test]
fn a_reader_of_another_user_does_not_stop_the_owner() {
    for umask in ["022", "002"] {
        let Some(shared) = SharedFolder::new() else { return };
        shared.owner_adds(umask);
        shared.reader_sees(umask, 1);
        shared.owner_adds(umask);
        shared.reader_sees(umask, 2);

        shared.owner_closes(umask);
        shared.reader_sees(umask, 2);
        let doctor = finish(&mut shared.as_user(READER, umask, &["doctor"]));
        assert_eq!(doctor.code, Some(0), "{doctor:?}");
        let files: Vec<_> = fs::read_dir(shared.folder.file("shared")).unwrap().collect();
        assert_eq!(files.len(), 1, "reading left files: {files:?}");
        shared.owner_adds(umask);

        shared.owner_closes(umask);
        let refused = finish(&mut shared.as_user(READER, umask, &["add", "--build", "1", "test"]));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("steps.db belongs to user 60001 and has mode 06"), "{refused:?}");
        shared.owner_adds(umask);
        shared.reader_sees(umask, 4);
    }
}

#[test]
fn a_watch_of_another_user_sees_new_steps_and_may_be_killed() {
    let Some(shared) = SharedFolder::new() else { return };
    shared.owner_adds("022");
    shared.owner_closes("022");
    let mut watch = start(&mut shared.as_user(READER, "022", &["show", "1", "--watch", "--json"]));
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"compile\""));
    for number in 1..4 {
        shared.owner_adds("022");
        assert!(lines.next().unwrap().unwrap().contains(&format!("\"compile_{number}\"")));
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
    shared.owner_adds("022");
    shared.owner_closes("022");
}

#[test]
fn files_that_stop_the_owner_are_named_with_their_owner_and_the_remedy() {
    let Some(shared) = SharedFolder::new() else { return };
    shared.owner_adds("022");
    shared.owner_closes("022");
    for end in ["-wal", "-shm"] {
        let file = shared.folder.file(&format!("shared/steps.db{end}"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::chown(&file, Some(READER), Some(READER)).unwrap();
    }
    let refused = finish(&mut shared.as_user(OWNER, "022", &["add", "--build", "1", "test"]));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in ["steps.db-shm belongs to user 60002 and has mode 0644", "can remove it while no process uses"] {
        assert!(refused.stderr.contains(part), "{refused:?}");
    }
    let doctor = finish(&mut shared.as_user(READER, "022", &["doctor"]));
    assert!((doctor.stdout + &doctor.stderr).contains("steps.db-shm belongs to user 60002"));
    for end in ["-wal", "-shm"] {
        let _ = fs::remove_file(shared.folder.file(&format!("shared/steps.db{end}")));
    }
    shared.owner_adds("022");
}
