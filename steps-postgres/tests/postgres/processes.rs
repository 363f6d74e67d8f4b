//! Several processes on one hot build, and servers that die under them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{BufRead, BufReader, Read},
    process::Child,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use steps_core::{Step, StepId, StepUrl, StepsStoreExt};
use test_servers::{Postgres, PostgresOptions, shared_postgres};

use crate::{
    TestResult,
    children::{BUILD, Job, TASKS},
    connect, trial,
};

/// How often the server is killed: `STEPS_POSTGRES_KILLS`, or 5.
fn kills() -> usize {
    std::env::var("STEPS_POSTGRES_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(5)
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("processes::adds_of_one_name_leave_no_gap_and_share_no_name", adds_of_one_name),
        trial("processes::urls_are_neither_lost_nor_doubled", urls_of_one_step),
        trial("processes::all_that_start_on_a_missing_schema_find_a_store", start_on_a_missing_schema),
        trial("processes::a_killed_server_loses_nothing_that_was_answered", killed_server),
        trial("processes::a_loss_would_be_noticed", killed_server_without_durability),
    ]
}

async fn adds_of_one_name() -> TestResult {
    const STEPS: usize = 25;
    let schema = shared_postgres()?;
    let url = schema.url_with_schema();
    let answers = finish(start_all(&url, 8, |_| Job::Add(STEPS))?)?;

    let mut names = BTreeMap::new();
    let mut ids = BTreeMap::new();
    for words in words(&answers) {
        let number: u32 = words[2].parse()?;
        assert!(names.insert(number, words[3]).is_none(), "number {number} was given twice");
        ids.insert(number, words[1].parse::<i64>()?);
    }
    assert!(names.keys().copied().eq(0..(8 * TASKS * STEPS) as u32));
    for (number, name) in names {
        // All ask for the same name, so the n-th step is the n-th of its suffixes (N3).
        assert_eq!(name, if number == 0 { "compile".to_owned() } else { format!("compile_{number}") });
    }
    assert!(ids.values().is_sorted(), "a later step has a greater id");
    let kept = connect(&url).await?.steps(BUILD).await?;
    assert!(kept.iter().map(|step| step.id.get()).eq(ids.into_values()));
    Ok(())
}

async fn urls_of_one_step() -> TestResult {
    const URLS: usize = 25;
    let schema = shared_postgres()?;
    let url = schema.url_with_schema();
    let store = connect(&url).await?;
    let step = store.add(BUILD, "compile", "").await?.id;
    finish(start_all(&url, 8, |child| Job::Link { step, urls: URLS, child })?)?;

    let urls = store.step(step).await?.ok_or("the step is there")?.urls;
    assert_eq!(urls.len(), 8 * TASKS * URLS);
    let mut by_task: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for url in &urls {
        by_task.entry(url.name()).or_default().push(url.url().to_owned());
    }
    assert_eq!(by_task.len(), 8 * TASKS);
    for (task, urls) in by_task {
        assert_eq!(urls, (0..URLS).map(|url| format!("url-{url}")).collect::<Vec<_>>(), "{task}");
    }
    Ok(())
}

async fn start_on_a_missing_schema() -> TestResult {
    for _ in 0..5 {
        let schema = shared_postgres()?;
        let answers = finish(start_all(&schema.url_with_schema(), 4, |_| Job::Add(1))?)?;
        let numbers: BTreeSet<u32> = words(&answers).map(|words| words[2].parse()).collect::<Result<_, _>>()?;
        assert!(numbers.into_iter().eq(0..4 * TASKS as u32));
    }
    Ok(())
}

async fn killed_server() -> TestResult {
    // As a server in use: it waits for its disk.
    let mut server = PostgresOptions::default().with_setting("fsync", "on").start()?;
    let url = server.url();
    for kill in 0..kills() {
        kill_while_writing(&mut server, &url, kill).await?;
    }
    Ok(())
}

/// The control: what shows that nothing was lost would show a loss. Without `synchronous_commit`, the server
/// answers what its log has not written yet, for as long as its log's writer sleeps.
async fn killed_server_without_durability() -> TestResult {
    let lazy = PostgresOptions::default().with_setting("wal_writer_delay", "10s");
    let mut server = lazy.with_setting("wal_writer_flush_after", "0").with_setting("wal_buffers", "64MB").start()?;
    let url = format!("{}?synchronous_commit=off", server.url());
    for kill in 0..5 {
        if let Err(error) = kill_while_writing(&mut server, &url, kill).await {
            assert!(error.to_string().contains("was answered and is not there"), "{error}");
            return Ok(());
        }
    }
    Err("nothing was lost, or a loss was not noticed".into())
}

/// Kills the server in the middle of the work of two processes, starts it again, and checks what they were
/// answered.
async fn kill_while_writing(server: &mut Postgres, url: &str, kill: usize) -> TestResult {
    let schema = format!("kill_{kill}");
    let url = format!("{url}{}schema={schema}", if url.contains('?') { '&' } else { '?' });
    connect(&url).await?;
    let mut children = start_all(&url, 2, |_| Job::WriteUntilItFails)?;
    let mut answered = Answered::default();
    let mut heard = Vec::new();
    for child in &mut children {
        let mut lines = BufReader::new(child.stdout.take().ok_or("the child's output is piped")?).lines();
        // Each time it is killed at another point of its work.
        for _ in 0..100 + 37 * kill {
            answered.hear(&lines.next().ok_or("the child ended by itself")??)?;
        }
        heard.push(lines);
    }
    server.kill()?;
    // The connections end with the server, and writes that were on their way with an error. The others wait for
    // the server to come back, so the children would go on.
    for (child, lines) in children.iter_mut().zip(heard) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        child.kill()?;
        child.wait()?;
        for line in lines {
            answered.hear(&line?)?;
        }
    }
    server.start_again()?;
    let store = connect(&url).await?;
    answered.check(&store.steps(BUILD).await?)?;
    // The next calls work by themselves.
    store.add(BUILD, "compile", "running").await?;
    Ok(())
}

/// What the children said that they had been answered.
#[derive(Default)]
struct Answered {
    added: HashMap<StepId, (u32, String)>,
    linked: HashMap<StepId, BTreeSet<String>>,
    finished: BTreeSet<StepId>,
}

impl Answered {
    fn hear(&mut self, line: &str) -> TestResult {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["added", id, number, name] => {
                self.added.insert(id.parse()?, (number.parse()?, name.to_owned()));
            }
            ["linked", id, url] => {
                self.linked.entry(id.parse()?).or_default().insert(url.to_owned());
            }
            ["finished", id] => {
                self.finished.insert(id.parse()?);
            }
            _ => return Err(format!("the child said {line:?}").into()),
        }
        Ok(())
    }

    /// Everything answered is there, and nothing is half-written (D1, D2).
    fn check(&self, steps: &[Step]) -> TestResult {
        let by_id: HashMap<StepId, &Step> = steps.iter().map(|step| (step.id, step)).collect();
        let lost = |what: String| Err(format!("{what} was answered and is not there").into());
        for (id, (number, name)) in &self.added {
            let Some(step) = by_id.get(id) else { return lost(format!("step {id}")) };
            assert_eq!((step.number.get(), step.name.as_str()), (*number, name.as_str()));
        }
        for (id, urls) in &self.linked {
            let kept: BTreeSet<_> = by_id[id].urls.iter().map(|url| url.url().to_owned()).collect();
            if !kept.is_superset(urls) {
                return lost(format!("a url of step {id}"));
            }
        }
        for id in &self.finished {
            if by_id[id].results.map(|results| results.code()) != Some(by_id[id].number.get() as i32) {
                return lost(format!("the end of step {id}"));
            }
        }
        for (number, step) in (0..).zip(steps) {
            assert_eq!(step.number.get(), number);
            assert_eq!(step.state_string, "running");
            assert_eq!(step.results.is_some(), step.complete_at.is_some());
            let expected: Vec<_> = ["0", "1"][..step.urls.len()].iter().map(|url| StepUrl::new("log", *url)).collect();
            assert_eq!(step.urls.iter().cloned().map(Ok).collect::<Vec<_>>(), expected);
        }
        Ok(())
    }
}

fn start_all(url: &str, children: usize, job: impl Fn(usize) -> Job) -> std::io::Result<Vec<Child>> {
    (0..children).map(|child| job(child).start(url)).collect()
}

/// Waits for all and gives what they said; a child that fails is an error.
fn finish(children: Vec<Child>) -> Result<String, Box<dyn std::error::Error>> {
    let mut said = String::new();
    let start = Instant::now();
    for mut child in children {
        child.stdout.take().ok_or("the child's output is piped")?.read_to_string(&mut said)?;
        let status = child.wait()?;
        if !status.success() {
            return Err(format!("a child ended with {status} after {:?}", start.elapsed()).into());
        }
    }
    assert!(start.elapsed() < Duration::from_secs(120), "the children took {:?}", start.elapsed());
    Ok(said)
}

fn words(said: &str) -> impl Iterator<Item = Vec<&str>> {
    said.lines().map(|line| line.split(' ').collect())
}
