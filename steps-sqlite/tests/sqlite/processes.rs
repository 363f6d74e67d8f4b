//! Several processes on one file, and processes that die.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{BufRead, BufReader, Read},
    path::Path,
    process::Child,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use steps_core::{Step, StepId, StepUrl, StepsStoreExt};
use steps_sqlite::{SqliteOptions, SqliteStore};

use crate::{
    TestResult,
    children::{BUILD, Job},
    trial,
};

/// How often the process that writes is killed: `STEPS_SQLITE_KILLS`, or 5.
fn kills() -> usize {
    std::env::var("STEPS_SQLITE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(5)
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("processes::adds_of_one_name_leave_no_gap_and_share_no_name", adds_of_one_name),
        trial("processes::urls_are_neither_lost_nor_doubled", urls_of_one_step),
        trial("processes::all_that_start_on_a_missing_file_find_a_store", start_on_a_missing_file),
        trial("processes::a_killed_process_loses_nothing_that_was_answered", killed_while_writing),
    ]
}

async fn adds_of_one_name() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let answers = finish(start_all(&path, 8, |_| Job::Add(200))?)?;

    let numbers: BTreeSet<u32> = words(&answers).map(|words| words[0].parse()).collect::<Result<_, _>>()?;
    assert_eq!(numbers, (0..1600).collect());
    let names: BTreeMap<u32, &str> = words(&answers)
        .map(|words| Ok((words[0].parse()?, words[1])))
        .collect::<Result<_, std::num::ParseIntError>>()?;
    for (number, name) in names {
        // All ask for the same name, so the n-th step is the n-th of its suffixes (N3).
        assert_eq!(name, if number == 0 { "compile".to_owned() } else { format!("compile_{number}") });
    }
    Ok(())
}

async fn urls_of_one_step() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let store = SqliteStore::connect(SqliteOptions::new(&path)).await?;
    let step = store.add(BUILD, "compile", "").await?.id;
    finish(start_all(&path, 8, |child| Job::Link { step, urls: 200, child })?)?;

    let urls = store.step(step).await?.ok_or("the step is there")?.urls;
    assert_eq!(urls.len(), 1600);
    for child in 0..8 {
        let of_child: Vec<_> = urls.iter().filter(|url| url.name() == format!("child-{child}")).collect();
        let expected: Vec<_> = (0..200).map(|url| format!("url-{url}")).collect();
        assert_eq!(of_child.iter().map(|url| url.url()).collect::<Vec<_>>(), expected);
    }
    Ok(())
}

async fn start_on_a_missing_file() -> TestResult {
    for _ in 0..10 {
        let folder = tempfile::tempdir()?;
        let answers = finish(start_all(&folder.path().join("steps.db"), 2, |_| Job::Add(3))?)?;
        let numbers: BTreeSet<_> = words(&answers).map(|words| words[0]).collect();
        assert_eq!(numbers, ["0", "1", "2", "3", "4", "5"].into());
    }
    Ok(())
}

async fn killed_while_writing() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let mut answered = Answered::default();
    for kill in 0..kills() {
        let mut child = Job::WriteUntilKilled.start(&path, &[])?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("the child's output is piped")?).lines();
        // It is killed in the middle of its work, each time at another point of it.
        for _ in 0..50 + 37 * kill {
            answered.hear(&lines.next().ok_or("the child ended by itself")??)?;
        }
        child.kill()?;
        child.wait()?;
        // What it said before it died counts too.
        for line in lines {
            answered.hear(&line?)?;
        }
        answered.check(&SqliteStore::connect(SqliteOptions::new(&path)).await?.steps(BUILD).await?)?;
    }
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
        for (id, (number, name)) in &self.added {
            let step = by_id.get(id).ok_or_else(|| format!("step {id} was answered and is not there"))?;
            assert_eq!((step.number.get(), step.name.as_str()), (*number, name.as_str()));
        }
        for (id, urls) in &self.linked {
            let kept: BTreeSet<_> = by_id[id].urls.iter().map(|url| url.url().to_owned()).collect();
            assert!(kept.is_superset(urls), "step {id} has {kept:?}, and was answered {urls:?}");
        }
        for id in &self.finished {
            assert_eq!(by_id[id].results.map(|results| results.code()), Some(by_id[id].number.get() as i32));
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

fn start_all(path: &Path, children: usize, job: impl Fn(usize) -> Job) -> std::io::Result<Vec<Child>> {
    (0..children).map(|child| job(child).start(path, &[])).collect()
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
