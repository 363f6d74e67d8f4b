//! A store and its floors, filled and ready to be measured.

use std::sync::Arc;

use crate::{
    memory, postgres, redis,
    round::{Fixture, Operation, Prepared, Round},
    sqlite,
    subject::{Store, Subject},
    support::locations::Backend,
};

/// The name of the store's side.
pub(crate) const STORE: &str = "store";

/// Two sides whose rounds run in turns.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) measured: &'static str,
    pub(crate) floor: &'static str,
    /// A description of the floor.
    pub(crate) name: &'static str,
}

impl Pair {
    /// The store compared with the floor of this name.
    pub(crate) const fn with_floor(name: &'static str) -> Self {
        Self { measured: STORE, floor: name, name }
    }
}

pub(crate) trait Bench {
    /// The numbers of concurrent callers to measure.
    fn callers(&self) -> &'static [usize];

    /// Whether several processes can use the store concurrently.
    fn is_shared(&self) -> bool {
        true
    }

    /// Whether no call ever waits. Each caller then has a thread of its own, since tasks that never wait would not
    /// take turns. Rounds are ten times shorter, since the calls of a long round would fill the memory.
    fn never_waits(&self) -> bool {
        false
    }

    /// The sides to compare for this operation.
    fn pairs(&self, operation: Operation, callers: usize) -> Vec<Pair>;

    /// Prepares a round of a side.
    fn prepare(&self, side: &str, round: &Round) -> Prepared;
}

/// Connects to the stores at the URLs of a location. The first process creates and fills them.
pub(crate) async fn open(backend: Backend, urls: &[String], is_first: bool) -> Box<dyn Bench> {
    let url = &urls[0];
    match backend {
        Backend::Memory => Box::new(memory::Memory::open(url).await),
        Backend::Sqlite => Box::new(sqlite::Sqlite::open(url, is_first).await),
        Backend::Postgres => Box::new(postgres::Postgres::open(url, is_first).await),
        Backend::Redis => Box::new(redis::Redis::open(url, is_first).await),
        Backend::RedisCluster => Box::new(redis::Cluster::open(url, &urls[1], is_first).await),
    }
}

pub(crate) async fn store(url: &str) -> Store {
    Store(steps::connect(url).await.expect("the store opens"))
}

/// A subject, and in the first process its steps.
pub(crate) struct Side<S> {
    subject: Arc<S>,
    fixture: Option<Fixture>,
}

impl<S: Subject> Side<S> {
    pub(crate) async fn new(subject: S, is_first: bool) -> Self {
        let fixture = if is_first { Some(Fixture::fill(&subject).await) } else { None };
        Self { subject: Arc::new(subject), fixture }
    }

    pub(crate) fn prepare(&self, round: &Round) -> Prepared {
        round.prepare(&self.subject, self.fixture.as_ref())
    }
}
