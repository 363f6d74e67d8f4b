use std::{
    collections::HashMap,
    env, io,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use steps_core::{Dispatch, Error, ErrorKind, Handler, Request, Response, Result, async_trait};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    BANNER, CHILD,
    protocol::{Handshake, NumberedRequest, NumberedResponse, OpenResult},
};
use crate::{
    Feature,
    failure::{CaseResult, Failure},
};

/// Time limit for a child to start and to open the store.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A child process, which is killed on drop. The child also exits when this process exits or dies.
#[derive(Debug)]
pub(crate) struct Process {
    /// Request lines to write to the child.
    lines: mpsc::UnboundedSender<String>,
    pending: Arc<Mutex<PendingCalls>>,
    child: Mutex<Child>,
}

/// Calls that wait for a response.
#[derive(Debug)]
struct PendingCalls {
    last_number: u64,
    /// By number. `None` once the child is gone.
    callers: Option<HashMap<u64, oneshot::Sender<NumberedResponse>>>,
}

impl Process {
    /// Starts a child, which opens the store of the case.
    pub(crate) async fn start(handshake: &Handshake) -> CaseResult<Dispatch<Self>> {
        let failure = |got: String| {
            Failure::new(format_args!("a child for the feature {}", Feature::Processes))
                .expected(
                    "a process that opens the store: it needs `StoreFactory::open`, and a call of \
                     `conformance_tests::child` first in `main` (`conformance_tests::main` includes that call)",
                )
                .got(got)
        };
        if env::var_os(CHILD).is_some() {
            return Err(failure("the suite runs in a child".into()));
        }
        timeout(START_TIMEOUT, Self::try_start(handshake))
            .await
            .unwrap_or_else(|_| Err(io::Error::other(format!("no answer within {START_TIMEOUT:?}"))))
            .map(Dispatch)
            .map_err(|error| failure(error.to_string()))
    }

    async fn try_start(handshake: &Handshake) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.env(CHILD, "1").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let piped = || io::Error::other("a child without pipes");
        let mut stdin = child.stdin.take().ok_or_else(piped)?;
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(piped)?).lines();
        let gone = || io::Error::other("the child exited");
        let banner = lines.next_line().await?.ok_or_else(gone)?;
        if banner != BANNER {
            return Err(io::Error::other(format!("a program that wrote {banner:?}")));
        }
        stdin.write_all(format!("{}\n", serde_json::to_string(handshake)?).as_bytes()).await?;
        loop {
            // A store may also print lines while it opens, so other lines are skipped.
            let line = lines.next_line().await?.ok_or_else(gone)?;
            if let Ok(opened) = serde_json::from_str::<OpenResult>(&line) {
                opened.map_err(io::Error::other)?;
                break;
            }
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let pending = Arc::new(Mutex::new(PendingCalls { last_number: 0, callers: Some(HashMap::new()) }));
        tokio::spawn(write_requests(receiver, stdin));
        tokio::spawn(read_responses(lines, Arc::clone(&pending)));
        Ok(Self { lines: sender, pending, child: Mutex::new(child) })
    }

    /// Kills the child with calls in flight.
    pub(crate) fn kill(&self) {
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).start_kill();
    }
}

#[async_trait]
impl Handler for Process {
    async fn handle(&self, request: Request) -> Result<Response> {
        let gone = || Error::new(ErrorKind::Unavailable, "the process is gone").with_may_have_applied(true);
        let (sender, receiver) = oneshot::channel();
        let number = {
            let mut pending = lock(&self.pending);
            pending.last_number += 1;
            let number = pending.last_number;
            pending.callers.as_mut().ok_or_else(gone)?.insert(number, sender);
            number
        };
        let line = serde_json::to_string(&NumberedRequest { number, request });
        let line = line.map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))?;
        self.lines.send(line).map_err(|_| gone())?;
        let response = receiver.await.map_err(|_| gone())?;
        response.result.map_err(Error::from)
    }
}

fn lock(pending: &Mutex<PendingCalls>) -> MutexGuard<'_, PendingCalls> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes request lines to the child. The child exits at the end of its input, when this task ends.
async fn write_requests(mut lines: mpsc::UnboundedReceiver<String>, mut stdin: ChildStdin) {
    while let Some(line) = lines.recv().await {
        if stdin.write_all(format!("{line}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Reads responses and hands each to its caller.
async fn read_responses(mut lines: Lines<BufReader<ChildStdout>>, pending: Arc<Mutex<PendingCalls>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(response) = serde_json::from_str::<NumberedResponse>(&line) else { continue };
        let caller = lock(&pending).callers.as_mut().and_then(|callers| callers.remove(&response.number));
        if let Some(caller) = caller {
            let _ = caller.send(response);
        }
    }
    lock(&pending).callers = None;
}
