//! Writes that are answered once replicas have them.
//!
//! `WAIT` waits for what was written on its own connection, and holds up all that comes behind it there. So such writes
//! have a connection of their own, and take turns with it: those that are there are sent, and once all have their
//! answers, one `WAIT` is sent for all of them. What comes meanwhile is sent after it.

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

use crate::{error, node::NoAnswer};

/// The turns of one connection.
#[derive(Debug)]
pub(crate) struct Turns {
    /// How many replicas are waited for.
    replicas: u8,
    timeout: Duration,
    /// Held by each write until it has its answer, and by a `WAIT` alone.
    turn: RwLock<()>,
    /// What the next `WAIT` gives, for those who have written.
    next: Mutex<Option<watch::Receiver<Waited>>>,
}

/// How far a `WAIT` is.
#[derive(Clone, Debug)]
enum Waited {
    NotYet,
    /// So many replicas had it when they were asked last; they are asked again.
    TooFew(i64),
    Enough,
    Lost(BatchError),
}

impl Turns {
    pub(crate) fn new(replicas: u8, timeout: Duration) -> Self {
        Self { replicas, timeout, turn: RwLock::default(), next: Mutex::default() }
    }

    /// Waits for the turn of a write. Nothing is sent yet.
    pub(crate) async fn turn(&self, deadline: Instant) -> Result<RwLockReadGuard<'_, ()>, NoAnswer> {
        let turn = timeout_at(deadline, self.turn.read()).await.map_err(|_| NoAnswer::TimedOut { sent: false })?;
        // Who has no time to hear of the replicas had better not write: that is certain.
        if Instant::now() + self.timeout / 4 > deadline {
            return Err(NoAnswer::NotSent(BatchError::transient("the writes before it still wait for replicas")));
        }
        Ok(turn)
    }

    /// Waits until enough replicas have what was written in this turn, and all that was written before.
    pub(crate) async fn wait(
        self: &Arc<Self>,
        turn: RwLockReadGuard<'_, ()>,
        driver: &MultiplexedConnection,
        deadline: Instant,
    ) -> Result<(), NoAnswer> {
        let mut waited = self.next().get_or_insert_with(|| self.begin(driver.clone())).clone();
        drop(turn);
        let is_over = |waited: &Waited| matches!(waited, Waited::Enough | Waited::Lost(_));
        let outcome = timeout_at(deadline, waited.wait_for(is_over)).await.map(|over| over.map(|over| over.clone()));
        match outcome {
            Ok(Ok(Waited::Lost(failure))) => Err(NoAnswer::Lost(failure)),
            Ok(Ok(_)) => Ok(()),
            Err(_) if let Waited::TooFew(had) = *waited.borrow() => {
                Err(NoAnswer::TooFewReplicas(error::too_few_replicas(had, self.replicas, self.timeout)))
            }
            // The time is up; or the runtime has ended, and the task with it.
            Err(_) | Ok(Err(_)) => Err(NoAnswer::TimedOut { sent: true }),
        }
    }

    /// Begins a `WAIT`, in a task: whoever has it begun may leave before the others (D5).
    fn begin(self: &Arc<Self>, mut driver: MultiplexedConnection) -> watch::Receiver<Waited> {
        let (tell, waited) = watch::channel(Waited::NotYet);
        let turns = Arc::clone(self);
        tokio::spawn(async move {
            let _alone = turns.turn.write().await;
            // All who have written wait for it by now, and who comes later waits for another.
            *turns.next() = None;
            let mut cmd = redis::cmd("WAIT");
            // Nobody's time is up before it has ended once. 0 would be no limit.
            cmd.arg(turns.replicas).arg((turns.timeout / 5).as_millis().max(1) as u64);
            loop {
                let waited = tokio::select! {
                    answer = driver.send_packed_command(&cmd) => turns.read(answer),
                    () = tell.closed() => break,
                };
                let is_over = !matches!(waited, Waited::TooFew(_));
                tell.send_replace(waited);
                if is_over {
                    break;
                }
            }
        });
        waited
    }

    fn read(&self, answer: Result<Value, RedisError>) -> Waited {
        match answer {
            Ok(Value::Int(had)) if had < i64::from(self.replicas) => Waited::TooFew(had),
            Ok(Value::Int(_)) => Waited::Enough,
            Ok(Value::ServerError(error)) => Waited::Lost(error::from_server(&error).with_may_have_applied(true)),
            Ok(_) => Waited::Lost(error::unexpected_answer()),
            Err(error) => Waited::Lost(error::lost(error)),
        }
    }

    fn next(&self) -> MutexGuard<'_, Option<watch::Receiver<Waited>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
