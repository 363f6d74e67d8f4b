use std::{
    collections::HashMap,
    env, io,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use steps_core::{
    AddedStep, BuildId, Error, ErrorKind, FinishStep, NewStep, Result, StartStep, StateString, Step, StepId,
    StepSelector, StepUrl, StepsStore, Timestamp,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    CHILD, GREETING,
    protocol::{Hello, Opened, Reply, Request},
};
use crate::{
    Feature, calls,
    failure::{CaseResult, Failure},
    linear::Seen,
};

/// How long a child may take to start and to open the store.
const PATIENCE: Duration = Duration::from_secs(30);

/// The store as another process has it. That ends with this value, and with this process, however it ends.
#[derive(Debug)]
pub(crate) struct Process {
    requests: mpsc::UnboundedSender<String>,
    waiting: Arc<Mutex<Waiting>>,
    child: Mutex<Child>,
}

/// Those who wait for an answer, by number; none any more when the child is gone.
#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    callers: Option<HashMap<u64, oneshot::Sender<Reply>>>,
}

impl Process {
    /// Starts a child, which opens the store of this case.
    pub(crate) async fn start(hello: &Hello) -> CaseResult<Self> {
        let failure = |got: String| {
            Failure::new(format_args!("a child for the feature {}", Feature::Processes))
                .expected(
                    "a process that opens the store: `StoreFactory::open`, and `conformance_tests::child` at the \
                     beginning of `main`, which `conformance_tests::main` calls by itself",
                )
                .got(got)
        };
        if env::var_os(CHILD).is_some() {
            return Err(failure("the suite runs in a child".into()));
        }
        timeout(PATIENCE, Self::try_start(hello))
            .await
            .unwrap_or_else(|_| Err(io::Error::other(format!("nothing within {PATIENCE:?}"))))
            .map_err(|error| failure(error.to_string()))
    }

    async fn try_start(hello: &Hello) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.env(CHILD, "1").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let piped = || io::Error::other("a child without pipes");
        let mut stdin = child.stdin.take().ok_or_else(piped)?;
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(piped)?).lines();
        let gone = || io::Error::other("it ended by itself");
        let greeting = lines.next_line().await?.ok_or_else(gone)?;
        if greeting != GREETING {
            return Err(io::Error::other(format!("a program that said {greeting:?}")));
        }
        stdin.write_all(format!("{}\n", serde_json::to_string(hello)?).as_bytes()).await?;
        loop {
            // What else a store says there while it opens is no answer.
            let line = lines.next_line().await?.ok_or_else(gone)?;
            if let Ok(opened) = serde_json::from_str::<Opened>(&line) {
                opened.map_err(io::Error::other)?;
                break;
            }
        }
        let (requests, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(Waiting { last: 0, callers: Some(HashMap::new()) }));
        tokio::spawn(ask(receiver, stdin));
        tokio::spawn(hear(lines, Arc::clone(&waiting)));
        Ok(Self { requests, waiting, child: Mutex::new(child) })
    }

    /// Kills it, in the middle of whatever it does.
    pub(crate) fn kill(&self) {
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).start_kill();
    }

    async fn call<T>(&self, call: calls::Call, answer: impl FnOnce(Seen) -> Option<T>) -> Result<T> {
        let gone = || Error::new(ErrorKind::Unavailable, "the process is gone").with_may_have_applied(true);
        let (sender, receiver) = oneshot::channel();
        let number = {
            let mut waiting = lock(&self.waiting);
            waiting.last += 1;
            let number = waiting.last;
            waiting.callers.as_mut().ok_or_else(gone)?.insert(number, sender);
            number
        };
        let request = serde_json::to_string(&Request { number, call: call.into() });
        let request = request.map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))?;
        self.requests.send(request).map_err(|_| gone())?;
        let reply = receiver.await.map_err(|_| gone())?;
        let seen = reply.answer.map_err(Error::from)?;
        answer(seen).ok_or_else(|| Error::new(ErrorKind::Corrupt, "the child answered another call"))
    }

    async fn change(&self, call: calls::Call) -> Result<()> {
        self.call(call, |seen| matches!(seen, Seen::Done).then_some(())).await
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes on what is asked. The child ends when this does.
async fn ask(mut requests: mpsc::UnboundedReceiver<String>, mut stdin: ChildStdin) {
    while let Some(request) = requests.recv().await {
        if stdin.write_all(format!("{request}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Gives each answer to who waits for it.
async fn hear(mut lines: Lines<BufReader<ChildStdout>>, waiting: Arc<Mutex<Waiting>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(reply) = serde_json::from_str::<Reply>(&line) else { continue };
        let caller = lock(&waiting).callers.as_mut().and_then(|callers| callers.remove(&reply.number));
        if let Some(caller) = caller {
            let _ = caller.send(reply);
        }
    }
    lock(&waiting).callers = None;
}

#[async_trait]
impl StepsStore for Process {
    async fn add_step(&self, step: NewStep) -> Result<AddedStep> {
        self.call(calls::Call::AddStep(step), |seen| match seen {
            Seen::Added(added) => Some(added),
            _ => None,
        })
        .await
    }

    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()> {
        self.change(calls::Call::StartStep(id, start)).await
    }

    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
        self.change(calls::Call::SetStepLocksAcquiredAt(id, at)).await
    }

    async fn set_step_state_string(&self, id: StepId, state_string: StateString) -> Result<()> {
        self.change(calls::Call::SetStepStateString(id, state_string)).await
    }

    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
        self.change(calls::Call::FinishStep(id, finish)).await
    }

    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
        self.change(calls::Call::AddUrl(id, url)).await
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        self.call(calls::Call::GetStep(step), |seen| match seen {
            Seen::Step(step) => Some(step),
            _ => None,
        })
        .await
    }

    async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>> {
        self.call(calls::Call::GetSteps(build_id), |seen| match seen {
            Seen::Steps(steps) => Some(steps),
            _ => None,
        })
        .await
    }

    async fn close(&self) -> Result<()> {
        self.change(calls::Call::Close).await
    }
}
