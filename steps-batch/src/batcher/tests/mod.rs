//! The promises of a batcher, shown with a worker that obeys its requests. The clock advances only during sleeps.

mod batching;
mod closing;
mod deadlines;
mod retries;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use steps_core::StepId;
use tokio::{sync::Semaphore, task::JoinHandle, time::sleep};

use super::*;
use crate::lock_timeout;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A timer may fire this much too late.
const TOLERANCE: Duration = Duration::from_millis(10);

/// A request tells what happens to its batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Request {
    /// Succeeds.
    Number(u32),
    /// Makes its batch fail.
    Bad,
    /// Loses the connection of its batch, which may have been applied.
    Lost,
    /// Never ends.
    Stuck,
    /// Makes the worker panic.
    Panics,
    /// Loses the connection the first time, and succeeds the second.
    LostOnce,
    /// Waits for a lock, and fails with its batch unless the test has released the lock.
    Locked,
    /// As `Locked`, with a second lock.
    LockedToo,
    /// Gets a transient error of its own while the first lock is held. The rest of its batch succeeds.
    Skipped,
    /// Names a step that does not exist.
    Missing,
    /// Takes more than half of the bytes of a batch.
    Large,
}
use Request::{Bad, Large, Locked, LockedToo, Lost, LostOnce, Missing, Number, Panics, Skipped, Stuck};

/// Why the worker cannot connect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Server {
    Hangs,
    Refuses,
    /// Another attempt would not help.
    IsAnother,
}

/// The state that the test shares with the worker.
struct State {
    batches: Mutex<Vec<Vec<Request>>>,
    /// A batch takes a permit, unless it fails on a lock.
    gate: Semaphore,
    server: Mutex<Option<Server>>,
    is_locked: AtomicBool,
    is_locked_too: AtomicBool,
    was_lost: AtomicBool,
    is_closed: AtomicBool,
}

struct Fake(Arc<State>);

impl Worker for Fake {
    type Request = Request;
    type Response = u32;

    const BACKEND: &'static str = "fake";
    const BATCH: usize = 4;

    fn size(request: &Request) -> usize {
        if *request == Large { 5 * 1024 * 1024 } else { 1 }
    }

    async fn connect(&mut self) -> Result<(), BatchError> {
        let server = *self.0.server.lock().unwrap();
        match server {
            Some(Server::Hangs) => std::future::pending().await,
            Some(Server::Refuses) => Err(BatchError::transient("refused")),
            Some(Server::IsAnother) => Err(BatchError::new(ErrorKind::Config, "another")),
            None => Ok(()),
        }
    }

    async fn run(&mut self, requests: &[Request]) -> Result<Vec<Result<u32, BatchError>>, BatchError> {
        let state = &self.0;
        state.batches.lock().unwrap().push(requests.to_vec());
        state.gate.acquire().await.unwrap().forget();
        if requests.contains(&Stuck) {
            std::future::pending::<()>().await;
        }
        assert!(!requests.contains(&Panics), "the worker panics on purpose");
        let is_locked = state.is_locked.load(Ordering::Relaxed);
        let is_locked_too = state.is_locked_too.load(Ordering::Relaxed);
        if (is_locked && requests.contains(&Locked)) || (is_locked_too && requests.contains(&LockedToo)) {
            sleep(lock_timeout(TIMEOUT)).await;
            state.gate.add_permits(1);
            return Err(BatchError::transient("locked"));
        }
        if requests.contains(&Lost) || (requests.contains(&LostOnce) && !state.was_lost.swap(true, Ordering::Relaxed)) {
            return Err(BatchError::new(ErrorKind::Unavailable, "lost").with_may_have_applied(true));
        }
        if requests.contains(&Bad) {
            return Err(BatchError::new(ErrorKind::Corrupt, "bad"));
        }
        let response = |request: &Request| match request {
            Number(number) => Ok(*number),
            Missing => Err(BatchError::new(ErrorKind::NotFound, "missing")),
            Skipped if is_locked => Err(BatchError::transient("locked")),
            _ => Ok(0),
        };
        Ok(requests.iter().map(response).collect())
    }

    async fn close(&mut self) {
        sleep(Duration::from_millis(1)).await;
        self.0.is_closed.store(true, Ordering::Relaxed);
    }
}

/// A batcher whose worker runs a batch for each permit of the gate. Both locks are held.
struct Fixture {
    batcher: Arc<Batcher<Fake>>,
    state: Arc<State>,
}

impl Fixture {
    fn new(permits: usize) -> Self {
        let state = Arc::new(State {
            batches: Mutex::default(),
            gate: Semaphore::new(permits),
            server: Mutex::default(),
            is_locked: AtomicBool::new(true),
            is_locked_too: AtomicBool::new(true),
            was_lost: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        });
        Self { batcher: Arc::new(Batcher::start(Fake(Arc::clone(&state)), TIMEOUT)), state }
    }

    /// Starts a call that is not idempotent. Its request is queued or in flight when this returns.
    async fn call(&self, request: Request) -> JoinHandle<Result<u32>> {
        self.spawn(write(), request).await
    }

    /// Starts a call that is idempotent (D6).
    async fn call_idempotent(&self, request: Request) -> JoinHandle<Result<u32>> {
        self.spawn(add_url(), request).await
    }

    async fn spawn(&self, call: Call, request: Request) -> JoinHandle<Result<u32>> {
        let batcher = Arc::clone(&self.batcher);
        let handle = tokio::spawn(async move { batcher.call(call, request).await });
        sleep(Duration::from_millis(1)).await;
        handle
    }

    /// Starts a call, and a second one as soon as the first has its response.
    async fn call_twice(&self, first: u32, second: u32) {
        let batcher = Arc::clone(&self.batcher);
        tokio::spawn(async move {
            for number in [first, second] {
                batcher.call(write(), Number(number)).await.unwrap();
            }
        });
        sleep(Duration::from_millis(1)).await;
    }

    fn start_close(&self) -> JoinHandle<Result<()>> {
        let batcher = Arc::clone(&self.batcher);
        tokio::spawn(async move { batcher.close().await })
    }

    fn permit(&self, batches: usize) {
        self.state.gate.add_permits(batches);
    }

    fn release_lock(&self) {
        self.state.is_locked.store(false, Ordering::Relaxed);
    }

    fn set_server(&self, server: Option<Server>) {
        *self.state.server.lock().unwrap() = server;
    }

    fn batches(&self) -> Vec<Vec<Request>> {
        self.state.batches.lock().unwrap().clone()
    }
}

fn write() -> Call {
    Call::on_step(Operation::FinishStep, StepId::new(1).unwrap())
}

fn add_url() -> Call {
    Call::on_step(Operation::AddUrl, StepId::new(1).unwrap())
}

fn assert_timed_out(response: Result<u32>, may_have_applied: bool) {
    let error = response.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.may_have_applied(), may_have_applied, "{error}");
    assert_eq!(error.is_retryable(), !may_have_applied);
}

/// Asserts that the call timed out behind a lock, without having been applied.
fn assert_locked_out(response: Result<u32>) {
    let error = response.unwrap_err();
    assert!(!error.may_have_applied() && error.is_retryable(), "{error}");
    assert!(std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("locked")));
}
