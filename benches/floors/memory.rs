//! The store in memory, compared with one `HashMap` behind one `Mutex`.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    hint::black_box,
    sync::{Mutex, PoisonError},
};

use steps::{Clock, Request, SystemClock, Timestamp};
use tracing::{Instrument, info_span};

use crate::{
    bench::{Bench, Pair, STORE, Side, store},
    round::{Operation, Prepared, Round},
    subject::{RawCall, Store, Subject},
    support::payload::{STATE, URL_NAME},
};

const CONTENT: &str = "Mutex<HashMap>, same content";
const ROWS: &str = "Mutex<HashMap>, rows by id alone";
const TRACED: &str = "store with spans";
const UNTRACED: &str = "store without spans";

pub(crate) struct Memory {
    store: Side<Store>,
    traced: Side<Around<true>>,
    untraced: Side<Around<false>>,
    content: Side<Content>,
    rows: Side<Rows>,
}

impl Memory {
    pub(crate) async fn open(url: &str) -> Self {
        Self {
            store: Side::new(store(url).await, true).await,
            traced: Side::new(Around(store(url).await), true).await,
            untraced: Side::new(Around(store(url).await), true).await,
            content: Side::new(Content::default(), true).await,
            rows: Side::new(Rows::default(), true).await,
        }
    }
}

impl Bench for Memory {
    fn callers(&self) -> &'static [usize] {
        &[1, 2]
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn never_waits(&self) -> bool {
        true
    }

    fn pairs(&self, operation: Operation, callers: usize) -> Vec<Pair> {
        const SPANS: Pair =
            Pair { measured: TRACED, floor: UNTRACED, name: "the store without a disabled span a call" };
        match operation {
            Operation::AddStep | Operation::GetStep if callers == 1 => {
                vec![Pair::with_floor(CONTENT), Pair::with_floor(ROWS), SPANS]
            }
            Operation::AddStep | Operation::GetStep => vec![Pair::with_floor(CONTENT), Pair::with_floor(ROWS)],
            _ => vec![Pair::with_floor(CONTENT)],
        }
    }

    fn prepare(&self, side: &str, round: &Round) -> Prepared {
        match side {
            STORE => self.store.prepare(round),
            TRACED => self.traced.prepare(round),
            UNTRACED => self.untraced.prepare(round),
            CONTENT => self.content.prepare(round),
            ROWS => self.rows.prepare(round),
            _ => unreachable!("there is no side {side}"),
        }
    }
}

/// A step, in the usual types for its columns.
#[expect(dead_code, reason = "a caller would read it")]
#[derive(Clone)]
struct Row {
    id: i64,
    build: i64,
    number: u32,
    name: String,
    state_string: String,
    times: [Option<Timestamp>; 3],
    results: Option<i32>,
    hidden: bool,
    urls: Vec<(String, String)>,
}

impl Row {
    fn new(id: i64, build: i64, number: u32, name: String) -> Self {
        let state_string = STATE.to_owned();
        Self { id, build, number, name, state_string, times: [None; 3], results: None, hidden: false, urls: Vec::new() }
    }
}

/// The content of a store, with all its keys: steps by id, by build and number, and by build and name, and the
/// urls of each step.
#[derive(Default)]
struct Content(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    rows: HashMap<i64, Row>,
    numbers: HashMap<i64, Vec<i64>>,
    names: HashMap<(i64, String), i64>,
    pairs: HashSet<(i64, (String, String))>,
}

impl Subject for Content {
    type Prepared = RawCall;

    fn prepare(&self, call: RawCall) -> RawCall {
        call
    }

    async fn run(&self, _: usize, call: RawCall) -> i64 {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = &mut *guard;
        match call {
            RawCall::AddStep { build, name, .. } => {
                let id = tables.rows.len() as i64 + 1;
                let numbers = tables.numbers.entry(build).or_default();
                let Entry::Vacant(free) = tables.names.entry((build, name.clone())) else {
                    unreachable!("the bench adds no name twice")
                };
                free.insert(id);
                // The answer of an add contains the name.
                let answer = black_box(name.clone());
                tables.rows.insert(id, Row::new(id, build, numbers.len() as u32, name));
                numbers.push(id);
                drop(answer);
                id
            }
            RawCall::AddUrl { id, url } => {
                let row = tables.rows.get_mut(&id).expect("the step exists");
                let pair = (URL_NAME.to_owned(), url);
                if tables.pairs.insert((id, pair.clone())) {
                    row.urls.push(pair);
                }
                1
            }
            RawCall::SetStepStateString { id, state } => {
                tables.rows.get_mut(&id).expect("the step exists").state_string = state;
                1
            }
            RawCall::FinishStep { id, results } => {
                let row = tables.rows.get_mut(&id).expect("the step exists");
                row.times[2] = Some(SystemClock.now());
                row.results = Some(results);
                row.hidden = false;
                1
            }
            RawCall::GetStep { id } => black_box(tables.rows.get(&id).cloned()).iter().count() as i64,
            RawCall::GetSteps { build } => {
                let ids = tables.numbers.get(&build).map_or(&[][..], Vec::as_slice);
                let rows: Vec<Row> = ids.iter().map(|id| tables.rows[id].clone()).collect();
                black_box(rows).len() as i64
            }
        }
    }
}

/// A minimal store: its adds neither check the name nor assign a number.
#[derive(Default)]
struct Rows(Mutex<HashMap<i64, Row>>);

impl Subject for Rows {
    type Prepared = RawCall;

    fn prepare(&self, call: RawCall) -> RawCall {
        call
    }

    async fn run(&self, _: usize, call: RawCall) -> i64 {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match call {
            RawCall::AddStep { build, number, name } => {
                let id = rows.len() as i64 + 1;
                rows.insert(id, Row::new(id, build, number as u32, name));
                id
            }
            RawCall::GetStep { id } => black_box(rows.get(&id).cloned()).iter().count() as i64,
            // The steps of the fixture have urls, as on the other sides.
            RawCall::AddUrl { id, url } => {
                rows.get_mut(&id).expect("the step exists").urls.push((URL_NAME.to_owned(), url));
                1
            }
            RawCall::SetStepStateString { .. } | RawCall::FinishStep { .. } | RawCall::GetSteps { .. } => {
                unreachable!("this floor is for adds and reads of one step")
            }
        }
    }
}

/// The store in an application, with or without a span around each call.
struct Around<const SPAN: bool>(Store);

impl<const SPAN: bool> Subject for Around<SPAN> {
    type Prepared = Request;

    fn prepare(&self, call: RawCall) -> Self::Prepared {
        self.0.prepare(call)
    }

    async fn run(&self, caller: usize, call: Self::Prepared) -> i64 {
        if !SPAN {
            return self.0.run(caller, call).await;
        }
        let span = info_span!("steps", caller);
        // `instrument` wraps the future to enter the span at each poll, which costs as much as a read.
        if span.is_disabled() {
            self.0.run(caller, call).await
        } else {
            self.0.run(caller, call).instrument(span).await
        }
    }
}
