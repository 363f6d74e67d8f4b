//! A store with three writers and two readers, which note the requests of each batch.

use std::{
    sync::{Mutex, atomic::AtomicBool},
    time::Duration,
};

use steps_core::{Error, ErrorKind, ManualClock, Request, Results, StepName, StepNumber, StepsStoreExt};

use super::*;

const WRITERS: usize = 3;
const READERS: usize = 2;

/// The requests that a worker has carried out, and whether it was closed.
struct Log<R> {
    requests: Mutex<Vec<R>>,
    is_closed: AtomicBool,
}

impl<R: Clone> Log<R> {
    fn new() -> Arc<Self> {
        Arc::new(Self { requests: Mutex::default(), is_closed: AtomicBool::new(false) })
    }

    fn requests(&self) -> Vec<R> {
        self.requests.lock().unwrap().clone()
    }
}

struct Writer(Arc<Log<Write>>);

impl Worker for Writer {
    type Request = Write;
    type Response = WriteResponse;

    const BACKEND: &'static str = "fake";
    const BATCH: usize = 100;

    fn size(request: &Write) -> usize {
        request.size()
    }

    async fn run(&mut self, requests: &[Write]) -> Result<Vec<Result<WriteResponse, BatchError>>, BatchError> {
        self.0.requests.lock().unwrap().extend_from_slice(requests);
        let response = |request: &Write| match request {
            Write::AddStep(step) => Ok(WriteResponse::Added(added(step))),
            Write::UpdateStep(id, _) if id.get() == 404 => Err(request.unmatched_error()),
            _ => Ok(WriteResponse::Changed),
        };
        Ok(requests.iter().map(response).collect())
    }

    async fn close(&mut self) {
        self.0.is_closed.store(true, Ordering::Relaxed);
    }
}

struct Reader(Arc<Log<Read>>);

/// Steps that the caller's task decodes.
struct Encoded(Result<Vec<Step>, BatchError>);

impl ReadResponse for Encoded {
    fn into_steps(self) -> Result<Vec<Step>, BatchError> {
        self.0
    }
}

impl Worker for Reader {
    type Request = Read;
    type Response = Encoded;

    const BACKEND: &'static str = "fake";
    const BATCH: usize = 100;

    fn size(_: &Read) -> usize {
        0
    }

    async fn run(&mut self, requests: &[Read]) -> Result<Vec<Result<Encoded, BatchError>>, BatchError> {
        self.0.requests.lock().unwrap().extend_from_slice(requests);
        let response = |request: &Read| match request {
            Read::Steps(build) if build.get() == 500 => Err(BatchError::new(ErrorKind::Corrupt, "damaged")),
            Read::Steps(build) => Ok(vec![step(*build)]),
            Read::Step(_) => Ok(Vec::new()),
        };
        Ok(requests.iter().map(|request| Ok(Encoded(response(request)))).collect())
    }

    async fn close(&mut self) {
        self.0.is_closed.store(true, Ordering::Relaxed);
    }
}

struct Fixture {
    store: BatchedStore<Writer, Reader>,
    writers: Vec<Arc<Log<Write>>>,
    readers: Vec<Arc<Log<Read>>>,
}

impl Fixture {
    fn new() -> Self {
        let timeout = Duration::from_secs(10);
        let writers: Vec<_> = (0..WRITERS).map(|_| Log::new()).collect();
        let readers: Vec<_> = (0..READERS).map(|_| Log::new()).collect();
        let store = BatchedStore::new(
            Arc::new(ManualClock::new(now())),
            writers.iter().map(|log| Batcher::start(Writer(Arc::clone(log)), timeout)).collect(),
            readers.iter().map(|log| Batcher::start(Reader(Arc::clone(log)), timeout)).collect(),
        );
        Self { store, writers, readers }
    }

    /// The requests that the writers have carried out since the last call, each with the index of its writer.
    fn take_writes(&self) -> Vec<(usize, Write)> {
        let writers = self.writers.iter().enumerate();
        writers
            .flat_map(|(index, log)| {
                log.requests.lock().unwrap().drain(..).map(move |write| (index, write)).collect::<Vec<_>>()
            })
            .collect()
    }
}

fn now() -> Timestamp {
    Timestamp::from_unix_micros(1_000).unwrap()
}

fn step_id(id: i64) -> StepId {
    StepId::new(id).unwrap()
}

fn build_id(id: i64) -> BuildId {
    BuildId::new(id).unwrap()
}

fn added(step: &NewStep) -> AddedStep {
    AddedStep::new(step_id(step.build_id.get()), StepNumber::new(0), step.name.clone())
}

fn step(build: BuildId) -> Step {
    let name = StepName::new("compile").unwrap();
    Step::builder(step_id(1), build, StepNumber::new(0), name, StateString::new("").unwrap()).build()
}

#[tokio::test]
async fn each_operation_is_one_request() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let id = step_id(3);
    let state = StateString::new("running").unwrap();
    let new = NewStep::new(build_id(7), StepName::new("compile").unwrap(), state.clone());
    let start = StartStep::new(now());
    let finish = FinishStep::new(Results::SUCCESS);
    let url = StepUrl::new("log", "a").unwrap();

    assert_eq!(store.add_step(new.clone()).await.unwrap(), added(&new));
    assert_eq!(fixture.take_writes()[0].1, Write::AddStep(new));
    store.start_step(id, start).await.unwrap();
    assert_eq!(fixture.take_writes()[0].1, Write::UpdateStep(id, StepUpdate::start(start)));
    store.set_step_locks_acquired_at(id, now()).await.unwrap();
    assert_eq!(fixture.take_writes()[0].1, Write::UpdateStep(id, StepUpdate::locks_acquired(now())));
    store.set_step_state_string(id, state.clone()).await.unwrap();
    assert_eq!(fixture.take_writes()[0].1, Write::UpdateStep(id, StepUpdate::state(state)));
    store.finish_step(id, finish).await.unwrap();
    assert_eq!(fixture.take_writes()[0].1, Write::UpdateStep(id, StepUpdate::finish(finish, now())));
    store.add_url(id, url.clone()).await.unwrap();
    assert_eq!(fixture.take_writes()[0].1, Write::url(id, url));

    assert_eq!(store.get_step(id.into()).await.unwrap(), None);
    assert_eq!(store.get_steps(build_id(7)).await.unwrap(), [step(build_id(7))]);
    assert_eq!(fixture.readers[0].requests(), [Read::Step(id.into())]);
    assert_eq!(fixture.readers[1].requests(), [Read::Steps(build_id(7))]);
}

#[tokio::test]
async fn writes_to_one_build_or_step_have_one_writer() {
    let fixture = Fixture::new();
    let mut used = [0; WRITERS];
    for id in 1..=30 {
        for _ in 0..3 {
            fixture.store.add(id, "compile", "").await.unwrap();
        }
        let adds = fixture.take_writes();
        assert!(adds.iter().all(|(writer, _)| *writer == adds[0].0), "{adds:?}");
        fixture.store.set_step_locks_acquired_at(step_id(id), now()).await.unwrap();
        fixture.store.finish(step_id(id), Results::SUCCESS).await.unwrap();
        fixture.store.add_url(step_id(id), StepUrl::new("log", "a").unwrap()).await.unwrap();
        let changes = fixture.take_writes();
        assert!(changes.iter().all(|(writer, _)| *writer == changes[0].0), "{changes:?}");
        used[adds[0].0] += 1;
    }
    // Consecutive ids are distributed evenly.
    assert!(used.iter().all(|count| (5..=15).contains(count)), "{used:?}");
}

#[tokio::test]
async fn reads_are_distributed_over_the_readers() {
    let fixture = Fixture::new();
    for _ in 0..10 {
        fixture.store.get_steps(build_id(7)).await.unwrap();
    }
    assert_eq!(fixture.readers.iter().map(|log| log.requests().len()).collect::<Vec<_>>(), [5, 5]);
}

#[tokio::test]
async fn errors_name_their_call_and_backend() {
    let store = Fixture::new().store;
    let update = store.set_step_locks_acquired_at(step_id(404), now()).await.unwrap_err();
    assert_eq!(
        update.to_string(),
        Error::not_found(Request::SetStepLocksAcquiredAt(step_id(404), now()).call()).with_backend("fake").to_string()
    );
    // The caller's task decodes the response of a read.
    let read = store.get_steps(build_id(500)).await.unwrap_err();
    assert_eq!(read.kind(), ErrorKind::Corrupt);
    assert_eq!(
        read.to_string(),
        Error::new(ErrorKind::Corrupt, "damaged")
            .with_call(Call::get_steps(build_id(500)))
            .with_backend("fake")
            .to_string()
    );
}

#[tokio::test]
async fn a_close_closes_all_writers_and_readers() {
    let Fixture { store, writers, readers } = Fixture::new();
    assert!(!store.is_closed());
    store.close().await.unwrap();
    assert!(store.is_closed());
    assert!(writers.iter().all(|log| log.is_closed.load(Ordering::Relaxed)));
    assert!(readers.iter().all(|log| log.is_closed.load(Ordering::Relaxed)));
    store.close().await.unwrap();
    assert_eq!(store.add(1, "compile", "").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.get_steps(build_id(7)).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.get_step(step_id(1).into()).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
#[should_panic(expected = "a store needs a writer and a reader")]
async fn a_store_without_a_reader_is_refused() {
    let writer = Batcher::start(Writer(Log::new()), Duration::from_secs(10));
    drop(BatchedStore::<Writer, Reader>::new(Arc::new(ManualClock::new(now())), vec![writer], Vec::new()));
}
