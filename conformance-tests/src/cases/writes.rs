//! Writes that leave a trace, for calls with an unknown outcome: the trace tells how often the write was applied.

use steps_core::{
    BuildId, Error, FinishStep, IdempotencyKey, Results, StartStep, StateString, Step, StepId, StepsStore,
    StepsStoreExt,
};

use crate::{
    Clause,
    cases::values::{new_step, time_number as at, url},
    failure::{CaseResult, expect, expect_some},
    handle::Handle,
};

/// The kind of a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Write {
    Add,
    KeyedAdd,
    Start,
    Locks,
    State,
    Finish,
    Url,
}

pub(super) const WRITES: [Write; 7] =
    [Write::Add, Write::KeyedAdd, Write::Start, Write::Locks, Write::State, Write::Finish, Write::Url];

/// A write with its arguments.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) write: Write,
    pub(super) build: BuildId,
    pub(super) step: StepId,
    /// A value that only this write writes.
    pub(super) mark: i32,
}

impl Attempt {
    /// Creates a write on a new step.
    pub(super) async fn new(write: Write, healthy: &Handle, build: BuildId, mark: i32) -> CaseResult<Self> {
        let step = healthy.add(build, "compile", "before").await?.id;
        Ok(Self { write, build, step, mark })
    }

    fn text(&self) -> String {
        format!("mark {}", self.mark)
    }

    pub(super) async fn call(&self, store: &Handle) -> CaseResult<Result<(), Error>> {
        let step = self.step;
        let mark = at(i64::from(self.mark));
        let new = new_step(self.build, "compile", self.text())?;
        Ok(match self.write {
            Write::Add => store.add_step(new).await.map(drop),
            Write::KeyedAdd => {
                let key = IdempotencyKey::new(self.text())?;
                store.add_step(new.with_idempotency_key(key)).await.map(drop)
            }
            Write::Start => store.start_step(step, StartStep::new(mark).with_locks_acquired(true)).await,
            Write::Locks => store.set_step_locks_acquired_at(step, mark).await,
            Write::State => store.set_step_state_string(step, StateString::new(self.text())?).await,
            Write::Finish => store.finish_step(step, FinishStep::new(Results::new(self.mark)).with_hidden(true)).await,
            Write::Url => store.add_url(step, url("log", self.text())?).await,
        })
    }

    /// Returns how often the write was applied, according to the steps of its build. Expects that it was applied
    /// completely or not at all (D2).
    pub(super) fn applied(&self, steps: &[Step]) -> CaseResult<usize> {
        if matches!(self.write, Write::Add | Write::KeyedAdd) {
            return Ok(steps.iter().filter(|step| step.state_string == *self.text()).count());
        }
        let step = steps.iter().find(|step| step.id == self.step);
        let step = expect_some(Clause::R3, "the step of the write", step)?;
        let mark = Some(at(i64::from(self.mark)));
        let (is_applied, is_whole) = match self.write {
            Write::Start => (step.started_at == mark, step.started_at == step.locks_acquired_at),
            Write::Locks => (step.locks_acquired_at == mark, true),
            Write::State => (step.state_string == *self.text(), true),
            // A finish of another attempt may be there too. It must also be complete.
            Write::Finish => {
                let finished = step.complete_at.is_some();
                let is_whole = step.results.is_some() == finished && step.hidden == finished;
                (step.results == Some(Results::new(self.mark)), is_whole)
            }
            _ => return Ok(step.urls.iter().filter(|url| url.url() == self.text()).count()),
        };
        let what = format_args!("the step of a {:?}", self.write);
        expect(Clause::D2, what, step, "all fields that the call sets, or none", is_whole)?;
        Ok(usize::from(is_applied))
    }
}
