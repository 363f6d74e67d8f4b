//! A store and its floors, filled and ready to be measured.

use std::sync::Arc;

use crate::{
    memory, postgres, redis,
    round::{Fixture, Operation, Prepared, Round},
    sqlite,
    subject::{Store, Subject},
    support::places::Backend,
};

/// The side that is the store.
pub(crate) const STORE: &str = "store";

/// Two sides whose rounds run in turns.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) measured: &'static str,
    pub(crate) floor: &'static str,
    /// What the floor is.
    pub(crate) name: &'static str,
}

impl Pair {
    /// The store beside a floor whose side has this name.
    pub(crate) const fn with_floor(name: &'static str) -> Self {
        Self { measured: STORE, floor: name, name }
    }
}

pub(crate) trait Bench {
    /// How many callers at once are measured.
    fn callers(&self) -> &'static [usize];

    /// Whether several processes can use it at once.
    fn is_shared(&self) -> bool {
        true
    }

    /// Whether no call ever waits: then each caller has a thread of its own, since tasks would not take turns; and rounds
    /// are ten times shorter, since the calls of a long one would fill the memory.
    fn never_waits(&self) -> bool {
        false
    }

    /// What is compared with what for this operation.
    fn pairs(&self, operation: Operation, callers: usize) -> Vec<Pair>;

    /// Prepares a round of a side.
    fn prepare(&self, side: &str, round: &Round) -> Prepared;
}

/// Connects to what is at these URLs of a place. The first process makes and fills what the others find there.
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

/// A subject, and in the first process the steps that it was filled with.
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
