//! What the tests share: a folder with the program in it, and patience with a limit.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use sqlx::{Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An empty folder to run the program in.
pub(crate) struct Place(TempDir);

/// What a program left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
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

    /// The program, with nothing in its environment that would matter to it. Scripts find it as `$STEPS`.
    pub(crate) fn steps<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let program = env!("CARGO_BIN_EXE_steps");
        let mut command = if ignores_signals() {
            // In the background of a script, SIGINT is ignored, and so it is by all that is started there.
            let mut env = Command::new("env");
            env.args(["--default-signal", program]);
            env
        } else {
            Command::new(program)
        };
        command.args(arguments).current_dir(self.path()).env("STEPS", program).stdin(Stdio::null());
        for name in
            ["STEPS_STORE", "STEPS_BUILD", "STEPS_STEP", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "CI"]
        {
            command.env_remove(name);
        }
        command.env("TERM", "xterm");
        command
    }

    /// The program runs a script as a step of build 1.
    pub(crate) fn run_sh(&self, options: &[&str], script: &str) -> Command {
        let start = ["run", "--build", "1"].iter().chain(options);
        self.steps(start.chain(&["--", "sh", "-c", script]))
    }

    pub(crate) fn finished<const N: usize>(&self, arguments: [&str; N]) -> Finished {
        finish(&mut self.steps(arguments))
    }

    /// What the program says on standard output when all goes well.
    pub(crate) fn answer<const N: usize>(&self, arguments: [&str; N]) -> String {
        let finished = self.finished(arguments);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        finished.stdout
    }

    /// The steps of build 1.
    pub(crate) fn steps_of_build(&self) -> Vec<Value> {
        let mut document: Value = serde_json::from_str(&self.answer(["show", "1", "--json"])).unwrap();
        serde_json::from_value(document["steps"].take()).unwrap()
    }

    /// The only step of build 1.
    pub(crate) fn only_step(&self) -> Value {
        let mut steps = self.steps_of_build();
        assert_eq!(steps.len(), 1, "{steps:?}");
        steps.remove(0)
    }

    /// Takes the right to write to the store from everybody else.
    pub(crate) fn lock(&self) -> Lock {
        let mut database = self.database();
        database.execute("BEGIN IMMEDIATE");
        Lock(database)
    }

    /// Takes the right to read, too. Nobody may have the file open.
    pub(crate) fn lock_out(&self) -> Lock {
        let mut database = self.database();
        database.execute("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE");
        Lock(database)
    }

    /// Does something to the store behind its back.
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

/// The right to write to a store.
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

/// Runs a program to its end, and says how long that took.
pub(crate) fn finish_timed(command: &mut Command) -> (Finished, Duration) {
    let start = Instant::now();
    (finish(command), start.elapsed())
}

/// Runs a program to its end, with this at its standard input.
pub(crate) fn finish_with_input(command: &mut Command, input: Vec<u8>) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output
}

/// Starts a program whose output is kept.
pub(crate) fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of a program that was started.
pub(crate) fn finish_started(child: Child) -> Finished {
    text(child.wait_with_output().unwrap())
}

fn text(output: Output) -> Finished {
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Looks again and again until it is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A script that says that it runs, and goes on once the file `go` is there, or nobody needs it any more.
pub(crate) const WAIT_FOR_GO: &str =
    "touch running; i=0; while [ ! -e go ] && [ $i -lt 3000 ]; do sleep 0.02; i=$((i+1)); done;";

/// Waits until a script with [`WAIT_FOR_GO`] runs.
pub(crate) fn wait_until_running(place: &Place) {
    wait_until("the script runs", || place.file("running").exists());
}

/// Lets a script with [`WAIT_FOR_GO`] go on.
pub(crate) fn go(place: &Place) {
    fs::write(place.file("go"), "").unwrap();
}
