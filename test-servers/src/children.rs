//! Child processes that share a store, or write to it until they are killed.
//!
//! A test program starts itself as a child, with a [`Job`] in an environment variable, and its `main` first calls
//! [`run_job`]. The children print the answers of the store to their standard output.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env,
    io::{self, BufRead, BufReader, Lines, Read, Write, stdout},
    process::{self, Child, ChildStdout, Command, ExitCode, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use steps_core::{
    AddedStep, BuildId, IdempotencyKey, InputError, NewStep, Results, StateString, Step, StepId, StepName, StepUrl,
    StepsStore, StepsStoreExt,
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::TestResult;

const JOB: &str = "STEPS_TEST_JOB";

/// The build of all jobs.
pub const BUILD: i64 = 7;

/// Number of children of [`share_a_build`].
pub const CHILDREN: usize = 8;

/// Number of tasks of a child.
pub const TASKS: usize = 8;

/// A step of [`BUILD`] with this key, as the jobs add it.
///
/// # Errors
/// When the name or the key is not valid.
pub fn keyed(name: &str, key: &str) -> Result<NewStep, InputError> {
    let step = NewStep::new(BUILD.try_into()?, name.parse()?, "running".parse()?);
    Ok(step.with_idempotency_key(IdempotencyKey::new(key)?))
}

/// Job of a child. The environment variable contains `JOB ARGUMENT… URL`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Job {
    /// Each task adds this many steps with the same name, one after the other.
    Add(usize),
    /// Each task adds, adds urls, finishes and reads in rounds, and checks the answers.
    Share {
        /// The step that all tasks add urls to.
        step: StepId,
        /// Number of rounds.
        rounds: usize,
        /// Index of the child.
        child: usize,
    },
    /// Adds, adds urls and finishes until a call fails. Prints each answer at once.
    WriteUntilItFails,
}

impl Job {
    /// Starts a child with this job on the store at `url`.
    ///
    /// # Errors
    /// When no process can be started.
    pub fn start(self, url: &str) -> io::Result<Child> {
        let job = match self {
            Self::Add(steps) => format!("add {steps}"),
            Self::Share { step, rounds, child } => format!("share {step} {rounds} {child}"),
            Self::WriteUntilItFails => "write-until-it-fails".to_owned(),
        };
        let mut command = Command::new(env::current_exe()?);
        if let Self::WriteUntilItFails = self {
            // The job is expected to fail.
            command.stderr(Stdio::null());
        }
        command.env(JOB, format!("{job} {url}")).stdout(Stdio::piped()).spawn()
    }

    /// Starts children, waits for all, and returns the words of each line that they printed.
    ///
    /// # Errors
    /// When a child fails.
    pub fn run(children: usize, url: &str, job: impl Fn(usize) -> Self) -> TestResult<Vec<Vec<String>>> {
        let children: Vec<_> = (0..children).map(|child| job(child).start(url)).collect::<io::Result<_>>()?;
        let mut output = String::new();
        for mut child in children {
            child.stdout.take().ok_or("the child's output is piped")?.read_to_string(&mut output)?;
            succeed(child)?;
        }
        Ok(output.lines().map(words).collect())
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn succeed(mut child: Child) -> TestResult {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("a child ended with {status}").into()) }
}

/// Runs the job, if this process is a child, on the store that `connect` opens. Returns `None` otherwise.
pub fn run_job<F, S>(connect: impl FnOnce(String) -> F) -> Option<ExitCode>
where
    F: Future<Output = steps_core::Result<S>>,
    S: StepsStore + 'static,
{
    let job = env::var(JOB).ok()?;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let done = runtime.block_on(async {
        let (job, url) = job.rsplit_once(' ').ok_or("a job ends with a URL")?;
        run(job, Arc::new(connect(url.to_owned()).await?)).await
    });
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{job}: {error}");
            ExitCode::FAILURE
        }
    })
}

async fn run<S: StepsStore + 'static>(job: &str, store: Arc<S>) -> TestResult {
    let job: Vec<_> = job.split(' ').collect();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone(&store);
        match job[..] {
            ["add", steps] => {
                let steps = steps.parse()?;
                tasks.spawn(async move { add(&*store, steps).await });
            }
            ["share", step, rounds, child] => {
                let step = step.parse()?;
                let rounds = rounds.parse()?;
                let me = format!("{child}-{task}");
                tasks.spawn(async move { share(&*store, step, rounds, &me).await });
            }
            ["write-until-it-fails"] => {
                tasks.spawn(async move { write_until_it_fails(&*store).await });
            }
            _ => return Err("the job is unknown".into()),
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(store.close().await?)
}

/// Prints a line with a single write, so that the parent never reads a part of a line. Exits if the parent is gone.
fn print_line(line: &str) {
    if stdout().write_all(format!("{line}\n").as_bytes()).is_err() {
        process::exit(1);
    }
}

fn print_added(how: &str, added: &AddedStep) {
    print_line(&format!("{how} {} {} {}", added.id, added.number, added.name));
}

async fn add(store: &dyn StepsStore, steps: usize) -> TestResult {
    for _ in 0..steps {
        print_added("added", &store.add(BUILD, "compile", "running").await?);
    }
    Ok(())
}

async fn share(store: &dyn StepsStore, step: StepId, rounds: usize, me: &str) -> TestResult {
    let mut seen = 0;
    let mut last = None;
    for round in 0..rounds {
        let added = store.add(BUILD, "compile", "running").await?;
        print_added("added", &added);

        let key = IdempotencyKey::new(format!("round-{round}"))?;
        let keyed = NewStep::new(BuildId::new(BUILD)?, StepName::new("schlüssel")?, StateString::new(me)?);
        let keyed = store.add_step(keyed.with_idempotency_key(key)).await?;
        print_added(&format!("keyed-{round}"), &keyed);

        let name = format!("own-{me}-{round}");
        let own = store.add(BUILD, name.as_str(), "").await?;
        assert_eq!(own.name, *name, "N2: a free name is used unchanged");
        print_added("own", &own);
        // I2: numbers follow the order of the adds.
        assert!(last < Some(added.number) && added.number < own.number, "{last:?} {added:?} {own:?}");
        last = Some(own.number);

        store.add_named_url(step, me, format!("url-{round}")).await?;
        store.finish(own.id, Results::SUCCESS).await?;

        // R3: reads see all answered writes, and never fewer steps than before. R2: a read is one snapshot.
        let steps = store.steps(BUILD).await?;
        let by_number = |number: u32| steps.get(number as usize).map(|step| (step.id, &step.name));
        for added in [&added, &keyed, &own] {
            assert_eq!(by_number(added.number.get()), Some((added.id, &added.name)), "R3");
        }
        assert_eq!(steps[own.number.get() as usize].results, Some(Results::SUCCESS), "R3");
        assert!(steps.len() >= seen, "R3: {seen} steps were seen, and now there are {}", steps.len());
        seen = steps.len();
        check_whole(&steps);
        let shared = steps.iter().find(|it| it.id == step).ok_or("R3: the shared step is gone")?;
        let mine: Vec<_> = shared.urls.iter().filter(|url| url.name() == me).map(StepUrl::url).collect();
        let expected: Vec<_> = (0..=round).map(|url| format!("url-{url}")).collect();
        assert_eq!(mine, expected, "R3, U1");
        let found = store.get_step(steps_core::StepSelector::Id(added.id)).await?.ok_or("R3: a step is gone")?;
        assert_eq!(found.name, added.name);
    }
    Ok(())
}

async fn write_until_it_fails(store: &dyn StepsStore) -> TestResult {
    loop {
        let step = store.add(BUILD, "compile", "running").await?;
        print_added("added", &step);
        for url in 0..2 {
            store.add_named_url(step.id, "log", url.to_string()).await?;
            print_line(&format!("linked {} {url}", step.id));
        }
        store.finish(step.id, Results::new(step.number.get() as i32)).await?;
        print_line(&format!("finished {}", step.id));
    }
}

/// Checks that numbers have no gap, that ids are in the same order, and that names are unique (I1, I2, N3, R2).
fn check_whole(steps: &[Step]) {
    assert!(steps.iter().map(|step| step.number.get()).eq(0..steps.len() as u32), "I2, R2: a gap");
    assert!(steps.is_sorted_by_key(|step| step.id), "I1: the ids are not in the order of the numbers");
    let names: BTreeSet<_> = steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names.len(), steps.len(), "N3: two steps with one name");
}

/// Starts processes with many tasks that concurrently write to one build and read it. Checks that no write is lost or
/// doubled, and that each read sees the writes that were answered before, in any process (I2, I5, N2, N3, U3, R2, R3).
///
/// # Errors
/// When a call fails in this process or in a child.
pub async fn share_a_build(url: &str, store: &dyn StepsStore, rounds: usize) -> TestResult {
    let step = store.add(BUILD, "shared", "").await?;
    let (sender, mut lines_of_children) = mpsc::unbounded_channel();
    let mut children = Vec::new();
    for child in 0..CHILDREN {
        let mut child = Job::Share { step: step.id, rounds, child }.start(url)?;
        let lines = BufReader::new(child.stdout.take().ok_or("the child's output is piped")?).lines();
        let sender = sender.clone();
        thread::spawn(move || lines.map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        children.push(child);
    }
    drop(sender);

    let mut all = BTreeMap::from([(step.number.get(), (step.id, step.name.to_string()))]);
    let mut compiles = BTreeSet::new();
    let mut keyed: BTreeMap<String, u32> = BTreeMap::new();
    let mut answers = 0;
    let mut adds = 1;
    while let Some(line) = lines_of_children.recv().await {
        let [how, id, number, name] = &words(&line)[..] else {
            return Err(format!("a child printed {line:?}").into());
        };
        let id: StepId = id.parse()?;
        let number: u32 = number.parse()?;
        answers += 1;
        if how == "added" {
            compiles.insert(number);
        }
        let is_known = how.starts_with("keyed-") && keyed.contains_key(how);
        if is_known {
            assert_eq!(keyed[how], number, "I5: two answers to {how}");
        } else {
            adds += 1;
            assert!(all.insert(number, (id, name.clone())).is_none(), "I2: number {number} was given twice");
        }
        if how.starts_with("keyed-") {
            keyed.insert(how.clone(), number);
        }
        if answers % 5 == 0 {
            let found = store.step(id).await?.ok_or("R3: a step that another process added is not found")?;
            assert_eq!((found.number.get(), found.name.as_str()), (number, name.as_str()), "R3");
        }
    }
    for child in children {
        succeed(child)?;
    }

    assert_eq!(answers, 3 * CHILDREN * TASKS * rounds);
    assert_eq!((adds, keyed.len()), (1 + 2 * CHILDREN * TASKS * rounds + rounds, rounds), "I5");
    // All these adds have the same name, so the suffixes are in the order of the numbers.
    for (nth, number) in compiles.iter().enumerate() {
        let expected = if nth == 0 { "compile".to_owned() } else { format!("compile_{nth}") };
        assert_eq!(all[number].1, expected, "N3");
    }
    let steps = store.steps(BUILD).await?;
    check_whole(&steps);
    let stored = steps.iter().map(|step| (step.number.get(), (step.id, step.name.to_string())));
    assert_eq!(stored.collect::<BTreeMap<_, _>>(), all, "I2: the stored steps are not the answered ones");

    let mut urls: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for url in &steps[step.number.get() as usize].urls {
        urls.entry(url.name()).or_default().push(url.url());
    }
    assert_eq!(urls.len(), CHILDREN * TASKS, "U3");
    let expected: Vec<_> = (0..rounds).map(|url| format!("url-{url}")).collect();
    for (task, urls) in urls {
        assert_eq!(urls, expected, "U3: of task {task}");
    }
    Ok(())
}

/// Children that write until they are killed or a call fails.
#[derive(Debug)]
pub struct Writers {
    children: Vec<(Child, Lines<BufReader<ChildStdout>>)>,
}

impl Writers {
    /// Starts the children.
    ///
    /// # Errors
    /// When no process can be started.
    pub fn start(children: usize, url: &str) -> TestResult<Self> {
        let start = |_| {
            let mut child = Job::WriteUntilItFails.start(url)?;
            let lines = BufReader::new(child.stdout.take().ok_or("the child's output is piped")?).lines();
            Ok((child, lines))
        };
        Ok(Self { children: (0..children).map(start).collect::<TestResult<_>>()? })
    }

    /// Reads this number of answers from each child.
    ///
    /// # Errors
    /// When a child ends by itself.
    pub fn hear(&mut self, answers: usize, answered: &mut Answered) -> TestResult {
        for (_, lines) in &mut self.children {
            for _ in 0..answers {
                answered.record(&lines.next().ok_or("a child ended by itself")??)?;
            }
        }
        Ok(())
    }

    /// Kills the children, and reads their remaining answers.
    ///
    /// # Errors
    /// When a child cannot be killed.
    pub fn kill(mut self, answered: &mut Answered) -> TestResult {
        for (child, lines) in &mut self.children {
            child.kill()?;
            child.wait()?;
            for line in lines {
                answered.record(&line?)?;
            }
        }
        Ok(())
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for (child, _) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The writes of [`Writers`] that the store answered.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    added: HashMap<StepId, (u32, String)>,
    linked: HashMap<StepId, BTreeSet<String>>,
    finished: BTreeSet<StepId>,
}

impl Answered {
    fn record(&mut self, line: &str) -> TestResult {
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
            _ => return Err(format!("a child printed {line:?}").into()),
        }
        Ok(())
    }

    /// The number of answered writes.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.added.len() + self.linked.values().map(BTreeSet::len).sum::<usize>() + self.finished.len()
    }

    /// The answered writes that `steps` does not have (D1), each as a sentence.
    #[must_use]
    pub fn lost(&self, steps: &[Step]) -> Vec<String> {
        let by_id: HashMap<StepId, &Step> = steps.iter().map(|step| (step.id, step)).collect();
        let mut lost = Vec::new();
        for (id, (number, name)) in &self.added {
            // The id and the number of a lost step may have been used again.
            let is_same = |step: &&Step| step.number.get() == *number && step.name.as_str() == name;
            if !by_id.get(id).is_some_and(is_same) {
                lost.push(format!("step {id}"));
            }
        }
        for (id, urls) in &self.linked {
            let stored: BTreeSet<_> =
                by_id.get(id).into_iter().flat_map(|step| step.urls.iter().map(StepUrl::url)).collect();
            let gone = urls.iter().filter(|url| !stored.contains(url.as_str()));
            lost.extend(gone.map(|url| format!("url {url} of step {id}")));
        }
        for id in &self.finished {
            let step = by_id.get(id);
            if step.and_then(|step| step.results).map(Results::code) != step.map(|step| step.number.get() as i32)
                || step.is_none()
            {
                lost.push(format!("the end of step {id}"));
            }
        }
        lost.into_iter().map(|what| format!("{what} was answered and is lost")).collect()
    }

    /// Checks that all answered writes are stored (D1) and that no write is stored in part (D2).
    ///
    /// # Errors
    /// When a write is lost.
    pub fn check(&self, steps: &[Step]) -> TestResult {
        check_half_written(steps);
        match &self.lost(steps)[..] {
            [] => Ok(()),
            [first, rest @ ..] => Err(format!("{first}, and {} more", rest.len()).into()),
        }
    }
}

/// Checks that each write of [`Writers`] is stored whole or not at all (D2).
pub fn check_half_written(steps: &[Step]) {
    check_whole(steps);
    for step in steps {
        assert_eq!(step.state_string, "running", "D2");
        assert_eq!(step.results.is_some(), step.complete_at.is_some(), "D2");
        let expected: Vec<_> = ["0", "1"][..step.urls.len()].iter().map(|url| StepUrl::new("log", *url)).collect();
        assert_eq!(step.urls.iter().cloned().map(Ok).collect::<Vec<_>>(), expected, "D2");
    }
}

/// A number of repetitions, from an environment variable if it is set.
#[must_use]
pub fn times(variable: &str, default: usize) -> usize {
    env::var(variable).ok().and_then(|times| times.parse().ok()).unwrap_or(default)
}

/// Waits until the condition holds.
///
/// # Errors
/// When the condition does not hold within a minute.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) -> TestResult {
    let start = Instant::now();
    while !condition().await {
        if start.elapsed() > Duration::from_secs(60) {
            return Err(format!("not within a minute: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
