//! Jobs for processes of their own.

use std::{
    env,
    io::{Write, stdout},
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
};

use steps_core::{Results, StepId, StepsStore, StepsStoreExt};
use steps_postgres::PostgresStore;
use tokio::task::JoinSet;

use crate::connect;

const JOB: &str = "STEPS_POSTGRES_JOB";

/// The build that all jobs add to.
pub(crate) const BUILD: i64 = 7;

/// How many tasks a child has.
pub(crate) const TASKS: usize = 8;

/// What a child does, said in its environment as `JOB ARGUMENT… URL`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Job {
    /// Each task adds this many steps of one name, one after the other.
    Add(usize),
    /// Each task adds this many urls to the step, as this child, and finishes it in between.
    Link { step: StepId, urls: usize, child: usize },
    /// Adds, links and finishes until a call fails, and prints each answer once it has it.
    WriteUntilItFails,
}

impl Job {
    /// Starts a child with this job on the store at `url`.
    pub(crate) fn start(self, url: &str) -> std::io::Result<Child> {
        let job = match self {
            Self::Add(steps) => format!("add {steps}"),
            Self::Link { step, urls, child } => format!("link {step} {urls} {child}"),
            Self::WriteUntilItFails => "write-until-it-fails".to_owned(),
        };
        let mut command = Command::new(env::current_exe()?);
        if let Self::WriteUntilItFails = self {
            // It is expected to fail.
            command.stderr(Stdio::null());
        }
        command.env(JOB, format!("{job} {url}")).stdout(Stdio::piped()).spawn()
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
    let (url, job) = words.split_last().ok_or("a job ends with a URL")?;
    let store = Arc::new(connect(url).await?);
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone(&store);
        match job {
            ["add", steps] => {
                let steps = steps.parse()?;
                tasks.spawn(async move { add(&store, steps).await });
            }
            ["link", step, urls, child] => {
                let (step, urls, child) = (step.parse()?, urls.parse()?, format!("{child}-{task}"));
                tasks.spawn(async move { link(&store, step, urls, &child).await });
            }
            ["write-until-it-fails"] => {
                tasks.spawn(async move { write_until_it_fails(&store).await });
            }
            _ => return Err("the job is unknown".into()),
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(store.close().await?)
}

async fn add(store: &PostgresStore, steps: usize) -> steps_core::Result<()> {
    for _ in 0..steps {
        let added = store.add(BUILD, "compile", "running").await?;
        say(&format!("added {} {} {}", added.id, added.number, added.name));
    }
    Ok(())
}

async fn link(store: &PostgresStore, step: StepId, urls: usize, task: &str) -> steps_core::Result<()> {
    for url in 0..urls {
        store.link(step, task, format!("url-{url}")).await?;
        store.finish(step, Results::SUCCESS).await?;
    }
    Ok(())
}

async fn write_until_it_fails(store: &PostgresStore) -> steps_core::Result<()> {
    loop {
        let step = store.add(BUILD, "compile", "running").await?;
        say(&format!("added {} {} {}", step.id, step.number, step.name));
        for url in 0..2 {
            store.link(step.id, "log", url.to_string()).await?;
            say(&format!("linked {} {url}", step.id));
        }
        store.finish(step.id, Results::new(step.number.get() as i32)).await?;
        say(&format!("finished {}", step.id));
    }
}

/// One write a line, so that a line is there whole or not at all.
fn say(line: &str) {
    let _ = stdout().write_all(format!("{line}\n").as_bytes());
}
