//! Writes that are acknowledged once replicas have them.
//!
//! `WAIT` covers all earlier writes of its own connection, and blocks all later commands there. So replicated writes
//! have a connection of their own and alternate on it with `WAIT`: the writes in flight are completed first, then one
//! `WAIT` is sent for all of them, and later writes are sent when it has ended.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{RedisError, Value, aio::MultiplexedConnection};
use steps_batch::BatchError;
use tokio::{
    sync::{RwLock, RwLockReadGuard, watch},
    time::{Instant, timeout_at},
};

use crate::{connection::SendError, error};

/// Lets the writes of one connection alternate with `WAIT`.
#[derive(Debug)]
pub(crate) struct ReplicationBarrier {
    /// How many replicas must acknowledge a write.
    replicas: u8,
    timeout: Duration,
    /// Held shared by each write until it has its reply, and exclusively by a `WAIT`.
    lock: RwLock<()>,
    /// The state of the next `WAIT`, if a write is waiting for one.
    next_wait: Mutex<Option<watch::Receiver<WaitState>>>,
}

/// How far a `WAIT` is.
#[derive(Clone, Debug)]
enum WaitState {
    Pending,
    /// The last `WAIT` timed out with this number of replicas; the next one is in flight.
    TooFew(i64),
    Enough,
    Lost(BatchError),
}

impl ReplicationBarrier {
    pub(crate) fn new(replicas: u8, timeout: Duration) -> Self {
        Self { replicas, timeout, lock: RwLock::default(), next_wait: Mutex::default() }
    }

    /// Waits until a write may be sent.
    pub(crate) async fn enter(&self, deadline: Instant) -> Result<RwLockReadGuard<'_, ()>, SendError> {
        let guard =
            timeout_at(deadline, self.lock.read()).await.map_err(|_| SendError::TimedOut { was_sent: false })?;
        // With less than a quarter of the time-out left, WAIT would probably not end in time. Refusing the write now
        // is certain to apply nothing.
        if Instant::now() + self.timeout / 4 > deadline {
            return Err(SendError::NotSent(BatchError::transient("the writes before it still wait for replicas")));
        }
        Ok(guard)
    }

    /// Waits until enough replicas have all writes that this connection has sent so far.
    pub(crate) async fn wait(
        self: &Arc<Self>,
        guard: RwLockReadGuard<'_, ()>,
        driver: &MultiplexedConnection,
        deadline: Instant,
    ) -> Result<(), SendError> {
        let mut state = self.next_wait().get_or_insert_with(|| self.spawn_wait(driver.clone())).clone();
        drop(guard);
        let has_ended = |state: &WaitState| matches!(state, WaitState::Enough | WaitState::Lost(_));
        let outcome =
            timeout_at(deadline, state.wait_for(has_ended)).await.map(|ended| ended.map(|state| state.clone()));
        match outcome {
            Ok(Ok(WaitState::Lost(error))) => Err(SendError::Lost(error)),
            Ok(Ok(_)) => Ok(()),
            Err(_) if let WaitState::TooFew(acknowledged) = *state.borrow() => {
                Err(SendError::TooFewReplicas(error::too_few_replicas(acknowledged, self.replicas, self.timeout)))
            }
            // The deadline has passed, or the runtime has shut down and the task with it.
            Err(_) | Ok(Err(_)) => Err(SendError::TimedOut { was_sent: true }),
        }
    }

    /// Starts a `WAIT` in a task of its own, because the caller that starts it may be cancelled (D5).
    fn spawn_wait(self: &Arc<Self>, mut driver: MultiplexedConnection) -> watch::Receiver<WaitState> {
        let (sender, receiver) = watch::channel(WaitState::Pending);
        let barrier = Arc::clone(self);
        tokio::spawn(async move {
            let _exclusive = barrier.lock.write().await;
            // All writes sent so far have subscribed to this WAIT. Later writes subscribe to another one.
            *barrier.next_wait() = None;
            let mut cmd = redis::cmd("WAIT");
            // A fifth of the time-out, so that WAIT returns at least once before any caller expires. 0 would mean "no
            // limit".
            cmd.arg(barrier.replicas).arg((barrier.timeout / 5).as_millis().max(1) as u64);
            loop {
                let state = tokio::select! {
                    reply = driver.send_packed_command(&cmd) => barrier.state_after(reply),
                    () = sender.closed() => break,
                };
                let has_ended = !matches!(state, WaitState::TooFew(_));
                sender.send_replace(state);
                if has_ended {
                    break;
                }
            }
        });
        receiver
    }

    fn state_after(&self, reply: Result<Value, RedisError>) -> WaitState {
        match reply {
            Ok(Value::Int(acknowledged)) if acknowledged < i64::from(self.replicas) => WaitState::TooFew(acknowledged),
            Ok(Value::Int(_)) => WaitState::Enough,
            Ok(Value::ServerError(error)) => WaitState::Lost(error::server_error(&error).with_may_have_applied(true)),
            Ok(_) => WaitState::Lost(error::unexpected_reply()),
            Err(error) => WaitState::Lost(error::connection_lost(error)),
        }
    }

    fn next_wait(&self) -> MutexGuard<'_, Option<watch::Receiver<WaitState>>> {
        self.next_wait.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
