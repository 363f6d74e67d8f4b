//! Helpers of the tests: a folder to run the program in, and waiting with a deadline.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use sqlx::{Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

/// The deadline of a wait, enough for a busy machine.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// An empty folder to run the program in.
pub(crate) struct Folder(TempDir);

/// The exit code and the output of a program.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    /// The signal that killed the program.
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        fs::read_dir(self.path()).unwrap().map(name).collect()
    }

    /// A command that runs the program without the variables that affect it. Scripts find the program as `$STEPS`.
    pub(crate) fn steps<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let program = env!("CARGO_BIN_EXE_steps");
        let mut command = if ignores_signals() {
            // Processes in the background of a script inherit SIGINT as ignored.
            let mut env = Command::new("env");
            env.args(["--default-signal", program]);
            env
        } else {
            Command::new(program)
        };
        command.args(arguments).current_dir(self.path()).env("STEPS", program).stdin(Stdio::null());
        for name in [
            "STEPS_STORE",
            "STEPS_BUILD",
            "STEPS_STEP",
            "STEPS_RUN",
            "NO_COLOR",
            "CLICOLOR",
            "CLICOLOR_FORCE",
            "COLUMNS",
            "CI",
        ] {
            command.env_remove(name);
        }
        command.env("TERM", "xterm");
        command
    }

    /// A command that runs a script as a step of build 1.
    pub(crate) fn run_sh(&self, options: &[&str], script: &str) -> Command {
        let start = ["run", "--build", "1"].iter().chain(options);
        self.steps(start.chain(&["--", "sh", "-c", script]))
    }

    pub(crate) fn finished<const N: usize>(&self, arguments: [&str; N]) -> Finished {
        finish(&mut self.steps(arguments))
    }

    /// Runs the program, which must succeed, and returns its standard output.
    pub(crate) fn stdout_of<const N: usize>(&self, arguments: [&str; N]) -> String {
        let finished = self.finished(arguments);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        finished.stdout
    }

    /// The steps of build 1.
    pub(crate) fn steps_of_build(&self) -> Vec<Value> {
        let mut document: Value = serde_json::from_str(&self.stdout_of(["show", "1", "--json"])).unwrap();
        serde_json::from_value(document["steps"].take()).unwrap()
    }

    /// The only step of build 1.
    pub(crate) fn only_step(&self) -> Value {
        let mut steps = self.steps_of_build();
        assert_eq!(steps.len(), 1, "{steps:?}");
        steps.remove(0)
    }

    /// Locks the store for other writers.
    pub(crate) fn lock(&self) -> Lock {
        let mut database = self.database();
        database.execute("BEGIN IMMEDIATE");
        Lock(database)
    }

    /// Locks the store for other writers and readers. The file must not be open in another process.
    pub(crate) fn lock_out(&self) -> Lock {
        let mut database = self.database();
        database.execute("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE");
        Lock(database)
    }

    /// Executes SQL on the store's file.
    pub(crate) fn execute(&self, sql: &'static str) {
        let mut database = self.database();
        database.execute(sql);
        database.close();
    }

    /// The builds that have steps.
    #[cfg(feature = "conformance")]
    pub(crate) fn builds(&self) -> Vec<i64> {
        let mut database = self.database();
        let builds = sqlx::query_scalar("SELECT DISTINCT build_id FROM steps").fetch_all(&mut database.connection);
        let builds = database.runtime.block_on(builds).unwrap();
        database.close();
        builds
    }

    fn database(&self) -> Database {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = SqliteConnectOptions::new().filename(self.file("steps.db"));
        let connection = runtime.block_on(SqliteConnection::connect_with(&options)).unwrap();
        Database { runtime, connection }
    }
}

/// Whether the tests were started with SIGHUP, SIGINT, SIGQUIT or SIGTERM ignored.
fn ignores_signals() -> bool {
    const MASK: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 14;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & MASK != 0)
}

struct Database {
    runtime: tokio::runtime::Runtime,
    connection: SqliteConnection,
}

impl Database {
    fn execute(&mut self, sql: &'static str) {
        self.runtime.block_on(self.connection.execute(sql)).unwrap();
    }

    fn close(self) {
        self.runtime.block_on(self.connection.close()).unwrap();
    }
}

/// A lock of the store, until it is released.
pub(crate) struct Lock(Database);

impl Lock {
    pub(crate) fn release(self) {
        self.0.close();
    }
}

/// Runs a program to its end.
pub(crate) fn finish(command: &mut Command) -> Finished {
    text(command.output().unwrap())
}

/// Runs a program to its end and measures the time.
pub(crate) fn finish_timed(command: &mut Command) -> (Finished, Duration) {
    let start = Instant::now();
    (finish(command), start.elapsed())
}

/// Runs a program to its end with this standard input.
pub(crate) fn finish_with_input(command: &mut Command, input: Vec<u8>) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output
}

/// Starts a program and captures its output.
pub(crate) fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of a started program.
pub(crate) fn finish_started(child: Child) -> Finished {
    text(child.wait_with_output().unwrap())
}

fn text(output: Output) -> Finished {
    Finished {
        code: output.status.code(),
        signal: output.status.signal(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Polls until the condition is true.
pub(crate) fn wait_until(condition: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + MAX_WAIT;
    while !is_true() {
        assert!(Instant::now() < deadline, "timed out: {condition}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A script that creates the file `running` and waits for the file `go`, for a minute at most.
pub(crate) const WAIT_FOR_GO: &str =
    "touch running; i=0; while [ ! -e go ] && [ $i -lt 3000 ]; do sleep 0.02; i=$((i+1)); done;";

/// Waits until a script with [`WAIT_FOR_GO`] runs.
pub(crate) fn wait_until_running(folder: &Folder) {
    wait_until("the script runs", || folder.file("running").exists());
}

/// Lets a script with [`WAIT_FOR_GO`] continue.
pub(crate) fn go(folder: &Folder) {
    fs::write(folder.file("go"), "").unwrap();
}
