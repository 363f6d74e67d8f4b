//! The store in PostgreSQL, compared with a connection of the bare driver for each caller.

use sqlx::{
    Connection, Executor, PgConnection, Row as _,
    postgres::PgRow,
    types::chrono::{DateTime, Utc},
};
use tokio::sync::Mutex;

use crate::{
    bench::{Bench, Pair, STORE, Side, store},
    round::{Operation, Prepared, Round},
    subject::{RawCall, Store, Subject},
    support::payload::{STATE, URL_NAME},
};

const DEDICATED: &str = "sqlx, a connection for each caller, autocommit";

const CALLERS: [usize; 3] = [1, 8, 32];

const ADD_STEP: &str =
    "INSERT INTO floor.steps (build_id, number, name, state_string) VALUES ($1, $2, $3, $4) RETURNING id";
const ADD_URL: &str = "INSERT INTO floor.step_urls (step_id, name, url) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const SET_STATE: &str = "UPDATE floor.steps SET state_string = $1 WHERE id = $2";
const FINISH: &str = "UPDATE floor.steps SET complete_at = now(), results = $1, hidden = $2 WHERE id = $3";
const GET_STEP: &str = "SELECT steps.*, step_urls.name, url FROM floor.steps LEFT JOIN floor.step_urls \
                        ON step_id = steps.id WHERE steps.id = $1 ORDER BY step_urls.id";
const GET_STEPS: &str = "SELECT steps.*, step_urls.name, url FROM floor.steps LEFT JOIN floor.step_urls \
                         ON step_id = steps.id WHERE build_id = $1 ORDER BY number, step_urls.id";

pub(crate) struct Postgres {
    store: Side<Store>,
    floor: Side<Dedicated>,
}

impl Postgres {
    pub(crate) async fn open(url: &str, is_first: bool) -> Self {
        Self {
            store: Side::new(store(url).await, is_first).await,
            floor: Side::new(Dedicated::connect(url, is_first).await, is_first).await,
        }
    }
}

impl Bench for Postgres {
    fn callers(&self) -> &'static [usize] {
        &CALLERS
    }

    fn pairs(&self, _: Operation, _: usize) -> Vec<Pair> {
        vec![Pair::with_floor(DEDICATED)]
    }

    fn prepare(&self, side: &str, round: &Round) -> Prepared {
        match side {
            STORE => self.store.prepare(round),
            DEDICATED => self.floor.prepare(round),
            _ => unreachable!("there is no side {side}"),
        }
    }
}

/// A connection for each caller, so that no caller waits for its mutex.
struct Dedicated(Vec<Mutex<PgConnection>>);

impl Dedicated {
    async fn connect(url: &str, is_first: bool) -> Self {
        let mut connections = Vec::new();
        for _ in 0..CALLERS[CALLERS.len() - 1] {
            connections.push(Mutex::new(PgConnection::connect(url).await.expect("the floor connects")));
        }
        if is_first {
            let mut connection = connections[0].lock().await;
            connection.execute(include_str!("postgres_floor.sql")).await.expect("the floor's tables are created");
        }
        Self(connections)
    }
}

impl Subject for Dedicated {
    type Prepared = RawCall;

    fn prepare(&self, call: RawCall) -> RawCall {
        call
    }

    async fn run(&self, caller: usize, call: RawCall) -> i64 {
        let (query, is_read) = match call {
            RawCall::AddStep { build, number, name } => {
                (sqlx::query(ADD_STEP).bind(build).bind(number as i64).bind(name).bind(STATE), false)
            }
            RawCall::AddUrl { id, url } => (sqlx::query(ADD_URL).bind(id).bind(URL_NAME).bind(url), false),
            RawCall::SetStepStateString { id, state } => (sqlx::query(SET_STATE).bind(state).bind(id), false),
            RawCall::FinishStep { id, results } => (sqlx::query(FINISH).bind(results).bind(false).bind(id), false),
            RawCall::GetStep { id } => (sqlx::query(GET_STEP).bind(id), true),
            RawCall::GetSteps { build } => (sqlx::query(GET_STEPS).bind(build), true),
        };
        let connection = &mut *self.0[caller].lock().await;
        let found = query.fetch_all(connection).await.expect("the statement succeeds");
        if is_read {
            std::hint::black_box(Row::read_all(&found)).len() as i64
        } else {
            found.first().map_or(1, |row| row.get(0))
        }
    }
}

/// A step, in the usual types for its columns.
#[expect(dead_code, reason = "a caller would read it")]
struct Row {
    id: i64,
    build_id: i64,
    number: i64,
    name: String,
    state_string: String,
    times: [Option<DateTime<Utc>>; 3],
    results: Option<i32>,
    hidden: bool,
    urls: Vec<(String, String)>,
}

impl Row {
    fn read_all(found: &[PgRow]) -> Vec<Self> {
        let mut rows: Vec<Self> = Vec::new();
        for row in found {
            let id: i64 = row.get(0);
            if rows.last().is_none_or(|last| last.id != id) {
                rows.push(Self {
                    id,
                    build_id: row.get(1),
                    number: row.get(2),
                    name: row.get(3),
                    state_string: row.get(4),
                    times: [row.get(5), row.get(6), row.get(7)],
                    results: row.get(8),
                    hidden: row.get(9),
                    urls: Vec::new(),
                });
            }
            if let (Some(name), Some(url), Some(last)) = (row.get(10), row.get(11), rows.last_mut()) {
                last.urls.push((name, url));
            }
        }
        rows
    }
}
