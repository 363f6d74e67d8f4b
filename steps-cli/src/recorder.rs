use std::{collections::VecDeque, fmt, future::Future, sync::Arc, time::Duration};

use steps::{
    AddedStep, BuildId, Clock, Error, FinishStep, NewStep, StartStep, StateString, Step, StepUrl, StepsStore,
    SystemClock, Timestamp,
};

use crate::{connect, failure, store_url::StoreUrl};

/// How long a command may have to wait for the store, before it and again after it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// The store gives up a little earlier by itself, since it knows why.
const STORE_TIMEOUT: Duration = Duration::from_millis(1800);

/// Records one command as a step, and keeps a store that fails or hangs from holding the command up.
///
/// What the store did not take in time before the command is made up for at the end: a step
/// that may be there is not left without its end.
#[derive(Debug)]
pub(crate) struct Recorder {
    store: Option<Arc<dyn StepsStore>>,
    new: NewStep,
    started_at: Option<Timestamp>,
    urls: VecDeque<StepUrl>,
    /// What the store answered to the add.
    added: Option<AddedStep>,
    /// Whether the step may be there without the store's answer.
    may_be_added: bool,
    started: bool,
}

/// Why something was not recorded.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The store says why.
    Refused(Error),
    /// The store says nothing.
    Silent,
}

impl Recorder {
    /// Records nothing yet. The step has a key, so that adding it twice is adding it once.
    pub(crate) fn new(step: NewStep, urls: Vec<StepUrl>) -> Self {
        Self {
            store: None,
            new: step,
            started_at: None,
            urls: urls.into(),
            added: None,
            may_be_added: false,
            started: false,
        }
    }

    /// Records that the command starts.
    pub(crate) async fn begin(&mut self, url: &StoreUrl) -> Result<(), Trouble> {
        let begun = in_time(async {
            let store = connect::to_add_within(STORE_TIMEOUT, url).await?;
            self.store = Some(Arc::clone(&store));
            self.catch_up(&*store).await
        })
        .await;
        // The command starts now even where nobody was told.
        self.started_at.get_or_insert_with(|| SystemClock.now());
        begun
    }

    /// Records that the command has ended, unless the step was never added.
    pub(crate) async fn end(&mut self, finish: FinishStep, remark: Option<StateString>) -> Result<(), Trouble> {
        let Some(store) = self.store.clone().filter(|_| self.added.is_some() || self.may_be_added) else {
            return Ok(());
        };
        in_time(async {
            // A step that could not be started can still be finished.
            let begun = self.catch_up(&*store).await;
            if let Some(step) = &self.added {
                // Both at once, so that the store can keep both with one write to the disk.
                let set_remark = async {
                    match remark {
                        Some(remark) => store.set_step_state_string(step.id, remark).await,
                        None => Ok(()),
                    }
                };
                tokio::try_join!(set_remark, store.finish_step(step.id, finish))?;
            }
            begun
        })
        .await
    }

    /// All steps of a build, from the store that the step was recorded in.
    pub(crate) async fn steps(&self, build_id: BuildId) -> Option<Result<Vec<Step>, Trouble>> {
        let store = self.store.as_ref()?;
        Some(in_time(store.get_steps(build_id)).await)
    }

    /// The step, once it was added.
    pub(crate) fn step(&self) -> Option<&AddedStep> {
        self.added.as_ref()
    }

    /// Whatever of the beginning the store has not taken yet.
    async fn catch_up(&mut self, store: &dyn StepsStore) -> Result<(), Error> {
        let step = match &self.added {
            Some(step) => step,
            None => {
                // Also while nobody waits for the answer any more.
                self.may_be_added = true;
                let added = store.add_step(self.new.clone()).await;
                let added = added.inspect_err(|error| self.may_be_added = error.may_have_applied())?;
                self.added.insert(added)
            }
        };
        let started_at = *self.started_at.get_or_insert_with(|| SystemClock.now());
        let start = StartStep::new(started_at).with_locks_acquired(true);
        if !self.started {
            store.start_step(step.id, start).await?;
            self.started = true;
        }
        while let Some(url) = self.urls.front() {
            store.add_url(step.id, url.clone()).await?;
            self.urls.pop_front();
        }
        Ok(())
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => f.write_str(&failure::chain(error)),
            Self::Silent => write!(f, "the store did not answer within {PATIENCE:?}"),
        }
    }
}

async fn in_time<T>(calls: impl Future<Output = Result<T, Error>>) -> Result<T, Trouble> {
    match tokio::time::timeout(PATIENCE, calls).await {
        Ok(answer) => answer.map_err(Trouble::Refused),
        Err(_) => Err(Trouble::Silent),
    }
}
