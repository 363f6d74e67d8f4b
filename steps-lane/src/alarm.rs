use std::{future::pending, pin::Pin};

use tokio::time::{Instant, Sleep, sleep_until};

/// Waits for deadlines that are mostly not reached.
///
/// To set a timer may wake a thread of the runtime, which costs more than a short read. So it stays set for the deadline
/// of a call that was answered long ago, and is set anew when it has rung: the deadlines after that are later.
pub(crate) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    pub(crate) fn new() -> Self {
        Self(Box::pin(sleep_until(Instant::now())))
    }

    /// Waits until then, or for ever.
    pub(crate) async fn wait_until(&mut self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return pending().await };
        while Instant::now() < deadline {
            if self.0.is_elapsed() || self.0.deadline() > deadline {
                self.0.as_mut().reset(deadline);
            }
            self.0.as_mut().await;
        }
    }
}
