//! The store in memory beside one `HashMap` behind one `Mutex`.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    hint::black_box,
    sync::{Mutex, PoisonError},
};

use steps::{Clock, SystemClock, Timestamp};
use tracing::{Instrument, info_span};

use crate::{
    bench::{Bench, Pair, STORE, Side, store},
    round::{Operation, Prepared, Round},
    subject::{self, Call, Store, Subject},
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

/// A step, in what one would take for its columns.
#[expect(dead_code, reason = "it is read as a caller would read it")]
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

/// All that a store of steps must find: by id, by build and number, and by build and name; and
/// which urls a step has.
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
    type Prepared = Call;

    fn prepare(&self, call: Call) -> Call {
        call
    }

    async fn run(&self, _: usize, call: Call) -> i64 {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = &mut *tables;
        match call {
            Call::AddStep { build, name, .. } => {
                let id = tables.rows.len() as i64 + 1;
                let numbers = tables.numbers.entry(build).or_default();
                let Entry::Vacant(free) = tables.names.entry((build, name.clone())) else {
                    unreachable!("the bench adds no name twice")
                };
                free.insert(id);
                // Its name is part of the answer.
                let answer = black_box(name.clone());
                tables.rows.insert(id, Row::new(id, build, numbers.len() as u32, name));
                numbers.push(id);
                drop(answer);
                id
            }
            Call::AddUrl { id, url } => {
                let row = tables.rows.get_mut(&id).expect("it is there");
                let pair = (URL_NAME.to_owned(), url);
                if tables.pairs.insert((id, pair.clone())) {
                    row.urls.push(pair);
                }
                1
            }
            Call::SetStepStateString { id, state } => {
                tables.rows.get_mut(&id).expect("it is there").state_string = state;
                1
            }
            Call::FinishStep { id, results } => {
                let row = tables.rows.get_mut(&id).expect("it is there");
                row.times[2] = Some(SystemClock.now());
                row.results = Some(results);
                row.hidden = false;
                1
            }
            Call::GetStep { id } => black_box(tables.rows.get(&id).cloned()).iter().count() as i64,
            Call::GetSteps { build } => {
                let ids = tables.numbers.get(&build).map_or(&[][..], Vec::as_slice);
                let rows: Vec<Row> = ids.iter().map(|id| tables.rows[id].clone()).collect();
                black_box(rows).len() as i64
            }
        }
    }
}

/// The least that could be called a store: its adds look for no name and number nothing.
#[derive(Default)]
struct Rows(Mutex<HashMap<i64, Row>>);

impl Subject for Rows {
    type Prepared = Call;

    fn prepare(&self, call: Call) -> Call {
        call
    }

    async fn run(&self, _: usize, call: Call) -> i64 {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match call {
            Call::AddStep { build, number, name } => {
                let id = rows.len() as i64 + 1;
                rows.insert(id, Row::new(id, build, number as u32, name));
                id
            }
            Call::GetStep { id } => black_box(rows.get(&id).cloned()).iter().count() as i64,
            // The steps that are read have the urls of the other sides.
            Call::AddUrl { id, url } => {
                rows.get_mut(&id).expect("it is there").urls.push((URL_NAME.to_owned(), url));
                1
            }
            Call::SetStepStateString { .. } | Call::FinishStep { .. } | Call::GetSteps { .. } => {
                unreachable!("this floor is for adds and reads of one step")
            }
        }
    }
}

/// The store as an application has it: with a span around each call, or the same without.
struct Around<const SPAN: bool>(Store);

impl<const SPAN: bool> Subject for Around<SPAN> {
    type Prepared = subject::Prepared;

    fn prepare(&self, call: Call) -> Self::Prepared {
        self.0.prepare(call)
    }

    async fn run(&self, caller: usize, call: Self::Prepared) -> i64 {
        if !SPAN {
            return self.0.run(caller, call).await;
        }
        let span = info_span!("steps", caller);
        // To enter a span at each poll takes a wrapper around the future, which is as much work as a read.
        if span.is_disabled() {
            self.0.run(caller, call).await
        } else {
            self.0.run(caller, call).instrument(span).await
        }
    }
}
