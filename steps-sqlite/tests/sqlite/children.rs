//! Jobs of child processes that have fewer rights, or less disk space, than this process.

use std::{
    env,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

use steps_core::{BuildId, ErrorKind, StepsStore, StepsStoreExt};
use steps_sqlite::{SqliteOptions, SqliteStore};
use test_servers::{TestResult, children::BUILD};

const JOB: &str = "STEPS_SQLITE_JOB";

/// The job of a child. The environment has it as `JOB PATH`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Job {
    /// Adds large steps until the disk is full, removes the file `ballast` beside the database, and adds another step.
    FillTheDisk,
    /// Reads the build, and prints the outcome of a write.
    WriteWithoutRights,
    /// Creates the store, adds a step, and ends without a close.
    Create,
    /// Connects and closes the store, and prints the kind of the error.
    Connect,
}

impl Job {
    /// Starts a child with this job on the database at `path`. The command line `wrapper` runs the child.
    pub(crate) fn start(self, path: &Path, wrapper: &[&str]) -> std::io::Result<Child> {
        self.command(path, wrapper)?.stdout(Stdio::piped()).spawn()
    }

    /// The command of a child with this job.
    pub(crate) fn command(self, path: &Path, wrapper: &[&str]) -> std::io::Result<Command> {
        let job = match self {
            Self::FillTheDisk => "fill-the-disk",
            Self::WriteWithoutRights => "write-without-rights",
            Self::Create => "create",
            Self::Connect => "connect",
        };
        let program = env::current_exe()?;
        let mut command = match wrapper {
            [] => Command::new(program),
            [wrapper, arguments @ ..] => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(program);
                command
            }
        };
        command.env(JOB, format!("{job} {}", path.display()));
        Ok(command)
    }
}

/// Runs the job of this process, if it is a child with such a job.
pub(crate) fn run_job() -> Option<ExitCode> {
    let job = env::var(JOB).ok()?;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    Some(match runtime.block_on(run(&job)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{job}: {error}");
            ExitCode::FAILURE
        }
    })
}

async fn run(job: &str) -> TestResult {
    let (job, path) = job.split_once(' ').ok_or("a job ends with a path")?;
    let connected = SqliteStore::connect(SqliteOptions::new(path)).await;
    if job == "connect" {
        let closed = match connected {
            Ok(store) => store.close().await,
            Err(error) => Err(error),
        };
        println!("{:?}", closed.map_err(|error| error.kind()));
        return Ok(());
    }
    let store = connected?;
    match job {
        "create" => {
            store.add(BUILD, "compile", "").await?;
            std::process::exit(0);
        }
        "fill-the-disk" => fill_the_disk(&store, Path::new(path)).await?,
        "write-without-rights" => {
            println!("{}", store.steps(BUILD).await?.len());
            println!("{:?}", store.add(BUILD, "compile", "").await.map_err(|error| error.kind()));
        }
        _ => return Err("the job is unknown".into()),
    }
    Ok(store.close().await?)
}

async fn fill_the_disk(store: &SqliteStore, path: &Path) -> TestResult {
    let state = "x".repeat(30_000);
    let mut answered = 0;
    let error = loop {
        match store.add(BUILD, "compile", &state).await {
            Ok(_) => answered += 1,
            Err(error) => break error,
        }
    };
    println!("{answered} {:?} {}", error.kind(), error.may_have_applied());
    let stored = store.get_steps(BuildId::new(BUILD)?).await?;
    println!("{}", stored.iter().filter(|step| step.state_string == state.as_str()).count());
    std::fs::remove_file(path.with_file_name("ballast"))?;
    println!("{}", store.add(BUILD, "compile", &state).await?.number);
    assert_ne!(error.kind(), ErrorKind::Corrupt);
    Ok(())
}
