use std::{collections::VecDeque, fmt, future::Future, sync::Arc, time::Duration};

use steps::{
    AddedStep, BuildId, Clock, Error, FinishStep, NewStep, StartStep, StateString, Step, StepUrl, StepsStore,
    SystemClock, Timestamp,
};

use crate::{command_error, connect};

/// The longest time that the store may delay a command, before it and again after it.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(2);
/// The time-out of the store, a little shorter than [`MAX_DELAY`], since the error of the store tells the cause.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_millis(1800);

/// The time from a failed attempt to record the start until the next one, which doubles.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(250);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Records one command as a step. A store that fails or hangs does not hold the command up.
///
/// Calls that failed before the command are made again after it, so that a step that may have been added gets its
/// end. If the store was away, they are also made again while the command runs.
#[derive(Debug)]
pub(crate) struct Recorder<C> {
    connect: C,
    store: Option<Arc<dyn StepsStore>>,
    /// Whether the store was away at the last attempt, so that another may succeed.
    is_away: bool,
    new: NewStep,
    started_at: Option<Timestamp>,
    urls: VecDeque<StepUrl>,
    /// The answer to the add.
    added: Option<AddedStep>,
    /// Whether an add without an answer may have been applied.
    may_be_added: bool,
    started: bool,
}

/// Why something was not recorded.
#[derive(Debug)]
pub(crate) enum RecordError {
    /// The store returned an error.
    Store(Error),
    /// The store did not answer in time.
    TimedOut,
}

impl<C: AsyncFn() -> Result<Arc<dyn StepsStore>, Error>> Recorder<C> {
    /// Records nothing yet. The step must have an idempotency key, since it may be added twice.
    pub(crate) fn new(connect: C, step: NewStep, urls: Vec<StepUrl>) -> Self {
        Self {
            connect,
            store: None,
            is_away: false,
            new: step,
            started_at: None,
            urls: urls.into(),
            added: None,
            may_be_added: false,
            started: false,
        }
    }

    /// Connects to the store and records the start of the command.
    pub(crate) async fn begin(&mut self) -> Result<(), RecordError> {
        let begun = self.attempt().await;
        // The command starts now even if that could not be recorded.
        self.started_at.get_or_insert_with(|| SystemClock.now());
        begun
    }

    /// Tries again to record the start while the command runs, until that has succeeded or cannot succeed.
    pub(crate) async fn retry(&mut self) {
        let mut delay = FIRST_RETRY_DELAY;
        while self.is_away {
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(MAX_RETRY_DELAY);
            // The end is reported, if that cannot be recorded either.
            let _ = self.attempt().await;
        }
    }

    /// Whether another attempt to record the start may succeed.
    pub(crate) fn is_away(&self) -> bool {
        self.is_away
    }

    /// Makes no further attempt to add a step that was certainly not added.
    pub(crate) fn stop_retrying(&mut self) {
        self.is_away = false;
    }

    async fn attempt(&mut self) -> Result<(), RecordError> {
        let begun = in_time(self.catch_up()).await;
        self.is_away = begun.as_ref().is_err_and(RecordError::is_retryable);
        begun
    }

    /// Records the end of the command, unless the step was certainly not added and cannot be added now.
    pub(crate) async fn end(&mut self, finish: FinishStep, remark: Option<StateString>) -> Result<(), RecordError> {
        if self.added.is_none() && !self.may_be_added && !self.is_away {
            return Ok(());
        }
        in_time(async {
            // A step whose start could not be recorded can still be finished.
            let begun = self.catch_up().await;
            if let (Some(store), Some(step)) = (&self.store, &self.added) {
                // Concurrently, so that the store can batch both into one write to the disk.
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

    /// Reads the steps of a build from the store that the step was recorded in, and closes it. Returns `None` if
    /// connecting failed.
    pub(crate) async fn steps(&self, build_id: BuildId) -> Option<Result<Vec<Step>, RecordError>> {
        let store = self.store.as_ref()?;
        let read = async {
            let steps = store.get_steps(build_id).await;
            connect::close_quietly(&**store).await;
            steps
        };
        Some(in_time(read).await)
    }

    /// The step, once it was added.
    pub(crate) fn step(&self) -> Option<&AddedStep> {
        self.added.as_ref()
    }

    /// Makes the calls of the start that have not succeeded yet.
    async fn catch_up(&mut self) -> Result<(), Error> {
        let store = match &self.store {
            Some(store) => store,
            None => self.store.insert((self.connect)().await?),
        };
        let step = match &self.added {
            Some(step) => step,
            None => {
                // Set before the call: a time-out may drop the call half-way.
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

impl RecordError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::TimedOut => true,
        }
    }
}

impl From<Error> for RecordError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => f.write_str(&command_error::chain(error)),
            Self::TimedOut => write!(f, "the store did not answer within {MAX_DELAY:?}"),
        }
    }
}

async fn in_time<T>(calls: impl Future<Output = Result<T, Error>>) -> Result<T, RecordError> {
    match tokio::time::timeout(MAX_DELAY, calls).await {
        Ok(answer) => answer.map_err(RecordError::Store),
        Err(_) => Err(RecordError::TimedOut),
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
        Dispatch, ErrorKind, Handler, Request, Response, Results,
        memory::{MemoryOptions, MemoryStore},
    };
    use tokio::time::Instant;

    use super::*;

    /// A store that applies calls, but never answers the first few.
    #[derive(Debug)]
    struct SilentStore {
        store: MemoryStore,
        unanswered: AtomicUsize,
    }

    impl SilentStore {
        fn new(unanswered: usize) -> Arc<Dispatch<Self>> {
            let store = MemoryStore::with_options(MemoryOptions::new());
            Arc::new(Dispatch(Self { store, unanswered: AtomicUsize::new(unanswered) }))
        }
    }

    #[async_trait]
    impl Handler for SilentStore {
        async fn handle(&self, request: Request) -> Result<Response, Error> {
            let response = request.send(&self.store).await;
            let decrement = |left: usize| left.checked_sub(1);
            match self.unanswered.fetch_update(Ordering::SeqCst, Ordering::SeqCst, decrement) {
                Ok(_) => pending().await,
                Err(_) => response,
            }
        }
    }

    fn build() -> BuildId {
        BuildId::new(7).unwrap()
    }

    fn recorder<C: AsyncFn() -> Result<Arc<dyn StepsStore>, Error>>(connect: C) -> Recorder<C> {
        let step = NewStep::new(build(), "compile".parse().unwrap(), StateString::default())
            .with_idempotency_key("once".parse().unwrap());
        Recorder::new(connect, step, vec![StepUrl::new("a", "1").unwrap(), StepUrl::new("b", "2").unwrap()])
    }

    fn recorder_of(
        store: &Arc<Dispatch<SilentStore>>,
    ) -> Recorder<impl AsyncFn() -> Result<Arc<dyn StepsStore>, Error>> {
        let shared: Arc<dyn StepsStore> = Arc::<Dispatch<SilentStore>>::clone(store);
        recorder(async move || Ok(Arc::clone(&shared)))
    }

    fn finish() -> FinishStep {
        FinishStep::new(Results::FAILURE)
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_whose_add_was_not_answered_gets_its_end() {
        for unanswered in 1..=4 {
            let store = SilentStore::new(unanswered);
            let mut recorder = recorder_of(&store);
            let mut timed_out = usize::from(recorder.begin().await.is_err());
            let started_at = recorder.started_at;
            tokio::time::advance(Duration::from_secs(60)).await;
            while recorder.end(finish(), None).await.is_err() {
                timed_out += 1;
            }
            assert_eq!(timed_out, unanswered);
            let steps = store.0.store.get_steps(build()).await.unwrap();
            assert_eq!(steps.len(), 1, "the key makes the second add return the first step");
            assert_eq!(steps[0].results, Some(Results::FAILURE));
            assert_eq!(steps[0].started_at, started_at, "the start is that of the command");
            assert_eq!(steps[0].urls.iter().map(StepUrl::name).collect::<Vec<_>>(), ["a", "b"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_delays_a_command_by_two_seconds_before_and_two_after() {
        let store = SilentStore::new(usize::MAX);
        let mut recorder = recorder_of(&store);
        let start = Instant::now();
        assert!(matches!(recorder.begin().await, Err(RecordError::TimedOut)));
        assert_eq!(start.elapsed(), Duration::from_secs(2));
        assert!(matches!(recorder.end(finish(), None).await, Err(RecordError::TimedOut)));
        assert_eq!(start.elapsed(), Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_refuses_the_connection_is_not_called_again() {
        let mut recorder = recorder(async || Err(Error::new(ErrorKind::Config, "no")));
        assert!(matches!(recorder.begin().await, Err(RecordError::Store(_))));
        let start = Instant::now();
        recorder.retry().await;
        assert!(recorder.end(finish(), None).await.is_ok());
        assert!(recorder.steps(build()).await.is_none());
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_was_away_is_tried_again_while_the_command_runs_and_after_it() {
        for waits in [true, false] {
            let store = SilentStore::new(0);
            let shared: Arc<dyn StepsStore> = Arc::<Dispatch<SilentStore>>::clone(&store);
            let attempts = AtomicUsize::new(0);
            let mut recorder = recorder(async || match attempts.fetch_add(1, Ordering::SeqCst) {
                0 => Err(Error::new(ErrorKind::Unavailable, "not yet")),
                1 if waits => pending().await,
                _ => Ok(Arc::clone(&shared)),
            });
            assert!(recorder.begin().await.is_err());
            let started_at = recorder.started_at;
            if waits {
                recorder.retry().await;
                assert!(recorder.step().is_some());
            }
            assert!(recorder.end(finish(), None).await.is_ok());
            let steps = store.0.store.get_steps(build()).await.unwrap();
            assert_eq!((steps.len(), steps[0].results), (1, Some(Results::FAILURE)));
            assert_eq!(steps[0].started_at, started_at, "the start is that of the command");
        }
    }

    #[tokio::test]
    async fn an_add_that_was_refused_is_not_repeated() {
        let store = SilentStore::new(0);
        let mut recorder = recorder_of(&store);
        store.0.store.close().await.unwrap();
        assert!(matches!(recorder.begin().await, Err(RecordError::Store(_))));
        assert!(recorder.end(finish(), None).await.is_ok(), "no call is made, so none fails");
    }
}
