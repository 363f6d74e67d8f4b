//! Jobs for processes of their own.

use std::{
    env,
    io::{Write, stdout},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
};

use steps_core::{BuildId, ErrorKind, StepId, StepsStore, StepsStoreExt};
use steps_sqlite::{SqliteOptions, SqliteStore};
use tokio::task::JoinSet;

const JOB: &str = "STEPS_SQLITE_JOB";

/// The build that all jobs add to.
pub(crate) const BUILD: i64 = 7;

/// What a child does, said in its environment as `JOB ARGUMENT… PATH`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Job {
    /// Adds this many steps of one name, one after the other.
    Add(usize),
    /// Adds this many urls to the step, as this child.
    Link { step: StepId, urls: usize, child: usize },
    /// Adds, links and finishes with eight tasks until it is killed, and prints each answer once it has it.
    WriteUntilKilled,
    /// Adds large steps until the disk is full, removes the file `ballast` beside the database, and adds one more.
    FillTheDisk,
    /// Reads the build, and says what a write answers.
    WriteWithoutRights,
}

impl Job {
    /// Starts a child with this job on the database at `path`, by way of `through` where that is not empty.
    pub(crate) fn start(self, path: &Path, through: &[&str]) -> std::io::Result<Child> {
        let job = match self {
            Self::Add(steps) => format!("add {steps}"),
            Self::Link { step, urls, child } => format!("link {step} {urls} {child}"),
            Self::WriteUntilKilled => "write-until-killed".to_owned(),
            Self::FillTheDisk => "fill-the-disk".to_owned(),
            Self::WriteWithoutRights => "write-without-rights".to_owned(),
        };
        let program = env::current_exe()?;
        let mut command = match through {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.env(JOB, format!("{job} {}", path.display())).stdout(Stdio::piped()).spawn()
    }
}

/// Does the job of this process, if it is a child.
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

async fn run(job: &str) -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<_> = job.split(' ').collect();
    let (path, job) = words.split_last().ok_or("a job ends with a path")?;
    let store = Arc::new(SqliteStore::connect(SqliteOptions::new(*path)).await?);
    match job {
        ["add", steps] => {
            for _ in 0..steps.parse()? {
                let added = store.add(BUILD, "compile", "running").await?;
                println!("{} {}", added.number, added.name);
            }
        }
        ["link", step, urls, child] => {
            for url in 0..urls.parse()? {
                store.link(step.parse()?, format!("child-{child}"), format!("url-{url}")).await?;
            }
        }
        ["write-until-killed"] => write_until_killed(&store).await?,
        ["fill-the-disk"] => fill_the_disk(&store, Path::new(path)).await?,
        ["write-without-rights"] => {
            println!("{}", store.steps(BUILD).await?.len());
            println!("{:?}", store.add(BUILD, "compile", "").await.map_err(|error| error.kind()));
        }
        _ => return Err("the job is unknown".into()),
    }
    Ok(store.close().await?)
}

async fn write_until_killed(store: &Arc<SqliteStore>) -> steps_core::Result<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            loop {
                let step = store.add(BUILD, "compile", "running").await?;
                say(&format!("added {} {} {}", step.id, step.number, step.name));
                for url in 0..2 {
                    store.link(step.id, "log", url.to_string()).await?;
                    say(&format!("linked {} {url}", step.id));
                }
                store.finish(step.id, steps_core::Results::new(step.number.get() as i32)).await?;
                say(&format!("finished {}", step.id));
            }
        });
    }
    match tasks.join_next().await {
        Some(Ok(ended)) => ended,
        _ => panic!("a task panicked"),
    }
}

/// One write a line, so that a line is there whole or not at all.
fn say(line: &str) {
    let _ = stdout().write_all(format!("{line}\n").as_bytes());
}

async fn fill_the_disk(store: &SqliteStore, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let state = "x".repeat(30_000);
    let mut answered = 0;
    let error = loop {
        match store.add(BUILD, "compile", &state).await {
            Ok(_) => answered += 1,
            Err(error) => break error,
        }
    };
    println!("{answered} {:?} {}", error.kind(), error.may_have_applied());
    let kept = store.get_steps(BuildId::new(BUILD)?).await?;
    println!("{}", kept.iter().filter(|step| step.state_string == state.as_str()).count());
    std::fs::remove_file(path.with_file_name("ballast"))?;
    println!("{}", store.add(BUILD, "compile", &state).await?.number);
    assert_ne!(error.kind(), ErrorKind::Corrupt);
    Ok(())
}
