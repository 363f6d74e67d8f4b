use std::{collections::VecDeque, fmt, future::Future, sync::Arc, time::Duration};

use steps::{
    AddedStep, BuildId, Clock, Error, FinishStep, NewStep, StartStep, StateString, Step, StepUrl, StepsStore,
    SystemClock, Timestamp,
};

use crate::{connect, failure};

/// How long a command may have to wait for the store, before it and again after it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// The store gives up a little earlier by itself, since it knows why.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_millis(1800);

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

    /// Records that the command starts, in the store that is being connected to.
    pub(crate) async fn begin(
        &mut self,
        store: impl Future<Output = Result<Arc<dyn StepsStore>, Error>>,
    ) -> Result<(), Trouble> {
        let begun = in_time(async {
            let store = store.await?;
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

    /// All steps of a build, from the store that the step was recorded in, which is left then.
    pub(crate) async fn steps(&self, build_id: BuildId) -> Option<Result<Vec<Step>, Trouble>> {
        let store = self.store.as_ref()?;
        let read = async {
            let steps = store.get_steps(build_id).await;
            connect::leave(&**store).await;
            steps
        };
        Some(in_time(read).await)
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

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use async_trait::async_trait;
    use steps::{
        ErrorKind, Results, StepId, StepSelector,
        memory::{MemoryOptions, MemoryStore},
    };
    use tokio::time::Instant;

    use super::*;

    /// A store that carries out what it is asked and does not say so, this many times.
    #[derive(Debug)]
    struct Silent {
        store: MemoryStore,
        silent: AtomicUsize,
    }

    impl Silent {
        fn times(silent: usize) -> Arc<Self> {
            let store = MemoryStore::with_options(MemoryOptions::new());
            Arc::new(Self { store, silent: AtomicUsize::new(silent) })
        }

        async fn answer<T>(&self, answer: T) -> T {
            let silent = |left: usize| left.checked_sub(1);
            match self.silent.fetch_update(Ordering::SeqCst, Ordering::SeqCst, silent) {
                Ok(_) => pending().await,
                Err(_) => answer,
            }
        }

        async fn steps(&self) -> Vec<Step> {
            self.store.get_steps(build()).await.unwrap()
        }
    }

    #[async_trait]
    impl StepsStore for Silent {
        async fn add_step(&self, step: NewStep) -> Result<AddedStep, Error> {
            self.answer(self.store.add_step(step).await).await
        }

        async fn start_step(&self, id: StepId, start: StartStep) -> Result<(), Error> {
            self.answer(self.store.start_step(id, start).await).await
        }

        async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<(), Error> {
            self.answer(self.store.set_step_locks_acquired_at(id, at).await).await
        }

        async fn set_step_state_string(&self, id: StepId, state_string: StateString) -> Result<(), Error> {
            self.answer(self.store.set_step_state_string(id, state_string).await).await
        }

        async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<(), Error> {
            self.answer(self.store.finish_step(id, finish).await).await
        }

        async fn add_url(&self, id: StepId, url: StepUrl) -> Result<(), Error> {
            self.answer(self.store.add_url(id, url).await).await
        }

        async fn get_step(&self, step: StepSelector) -> Result<Option<Step>, Error> {
            self.answer(self.store.get_step(step).await).await
        }

        async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>, Error> {
            self.answer(self.store.get_steps(build_id).await).await
        }

        async fn close(&self) -> Result<(), Error> {
            self.answer(self.store.close().await).await
        }
    }

    fn build() -> BuildId {
        BuildId::new(7).unwrap()
    }

    fn recorder() -> Recorder {
        let step = NewStep::new(build(), "compile".parse().unwrap(), StateString::default())
            .with_idempotency_key("once".parse().unwrap());
        Recorder::new(step, vec![StepUrl::new("a", "1").unwrap(), StepUrl::new("b", "2").unwrap()])
    }

    async fn begin(recorder: &mut Recorder, store: &Arc<Silent>) -> Result<(), Trouble> {
        let store: Arc<dyn StepsStore> = Arc::<Silent>::clone(store);
        recorder.begin(async { Ok(store) }).await
    }

    fn finish() -> FinishStep {
        FinishStep::new(Results::FAILURE)
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_was_added_without_an_answer_has_its_end() {
        for silent in 1..=4 {
            let (store, mut recorder) = (Silent::times(silent), recorder());
            let mut was_silent = 0;
            was_silent += usize::from(begin(&mut recorder, &store).await.is_err());
            let started_at = recorder.started_at;
            tokio::time::advance(Duration::from_secs(60)).await;
            while recorder.end(finish(), None).await.is_err() {
                was_silent += 1;
            }
            assert_eq!(was_silent, silent);
            let steps = store.steps().await;
            assert_eq!(steps.len(), 1, "adding twice is adding once");
            assert_eq!(steps[0].results, Some(Results::FAILURE));
            assert_eq!(steps[0].started_at, started_at, "it started when the command did");
            assert_eq!(steps[0].urls.iter().map(StepUrl::name).collect::<Vec<_>>(), ["a", "b"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_costs_two_seconds_before_and_two_after() {
        let (store, mut recorder) = (Silent::times(usize::MAX), recorder());
        let start = Instant::now();
        assert!(matches!(begin(&mut recorder, &store).await, Err(Trouble::Silent)));
        assert_eq!(start.elapsed(), Duration::from_secs(2));
        assert!(matches!(recorder.end(finish(), None).await, Err(Trouble::Silent)));
        assert_eq!(start.elapsed(), Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_cannot_be_connected_to_is_not_asked_again() {
        let mut hanging = recorder();
        assert!(matches!(hanging.begin(pending()).await, Err(Trouble::Silent)));
        let mut refusing = recorder();
        let refusal = Error::new(ErrorKind::Config, "no");
        assert!(matches!(refusing.begin(async { Err(refusal) }).await, Err(Trouble::Refused(_))));
        let start = Instant::now();
        for mut recorder in [hanging, refusing] {
            assert!(recorder.end(finish(), None).await.is_ok());
            assert!(recorder.steps(build()).await.is_none());
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn an_add_that_was_refused_is_not_made_up_for() {
        let (store, mut recorder) = (Silent::times(0), recorder());
        store.store.close().await.unwrap();
        assert!(matches!(begin(&mut recorder, &store).await, Err(Trouble::Refused(_))));
        assert!(recorder.end(finish(), None).await.is_ok(), "nothing is tried, so nothing is refused");
    }
}
