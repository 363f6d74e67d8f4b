use crate::{Worker, alarm::Alarm};

/// What the lane's task and a caller that carries out its own request take turns at.
pub(crate) struct Desk<W> {
    pub(crate) worker: W,
    /// Whether several were answered just now, so that callers had better make a batch with the others.
    pub(crate) has_crowd: bool,
    /// For the caller; the task has one of its own.
    pub(crate) alarm: Alarm,
}

impl<W: Worker> Desk<W> {
    pub(crate) fn new(worker: W) -> Self {
        Self { worker, has_crowd: false, alarm: Alarm::new() }
    }
}
