//! The store in a SQLite file, compared with two drivers.

use std::{
    path::Path,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use rusqlite::{Connection, params};
use sqlx::{
    ConnectOptions, Executor, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use steps::{Clock, SystemClock};
use tokio::sync::oneshot;

use crate::{
    bench::{Bench, Pair, STORE, Side, store},
    round::{Operation, Prepared, Round},
    subject::{RawCall, Store, Subject},
    support::{
        locations::sibling_file,
        payload::{STATE, URL_NAME},
    },
};

const SQLX: &str = "sqlx, one connection, autocommit";
const THREAD: &str = "rusqlite, a thread with group commit";
const MUTEX: &str = "rusqlite, one connection behind a mutex";

/// The columns and the unique keys that the store has.
const SCHEMA: &str = include_str!("sqlite_floor.sql");
const ADD_STEP: &str = "INSERT INTO steps (build_id, number, name, state_string) VALUES (?, ?, ?, ?)";
const ADD_URL: &str = "INSERT INTO step_urls (step_id, name, url) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
const SET_STATE: &str = "UPDATE steps SET state_string = ? WHERE id = ?";
const FINISH: &str = "UPDATE steps SET complete_at = ?, results = ?, hidden = ? WHERE id = ?";
const GET_STEP: &str = "SELECT steps.*, step_urls.name, url FROM steps LEFT JOIN step_urls ON step_id = steps.id \
                        WHERE steps.id = ? ORDER BY step_urls.id";
const GET_STEPS: &str = "SELECT steps.*, step_urls.name, url FROM steps LEFT JOIN step_urls ON step_id = steps.id \
                         WHERE build_id = ? ORDER BY number, step_urls.id";

fn now() -> i64 {
    SystemClock.now().unix_micros()
}

/// The time-out of the store, which also waits for the lock of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Sqlite {
    store: Side<Store>,
    sqlx: Side<Sqlx>,
    rusqlite: Side<Rusqlite>,
}

impl Sqlite {
    pub(crate) async fn open(url: &str, is_first: bool) -> Self {
        Self {
            store: Side::new(store(url).await, is_first).await,
            sqlx: Side::new(Sqlx::open(&sibling_file(url, "sqlx.db")).await, is_first).await,
            rusqlite: Side::new(Rusqlite::open(&sibling_file(url, "rusqlite.db")), is_first).await,
        }
    }
}

impl Bench for Sqlite {
    fn callers(&self) -> &'static [usize] {
        &[1, 8, 64]
    }

    fn pairs(&self, operation: Operation, callers: usize) -> Vec<Pair> {
        match (operation, callers) {
            (Operation::GetStep | Operation::GetSteps, _) => vec![Pair::with_floor(MUTEX)],
            (_, 1) => vec![Pair::with_floor(SQLX), Pair::with_floor(THREAD)],
            _ => vec![Pair::with_floor(THREAD)],
        }
    }

    fn prepare(&self, side: &str, round: &Round) -> Prepared {
        match side {
            STORE => self.store.prepare(round),
            SQLX => self.sqlx.prepare(round),
            THREAD | MUTEX => self.rusqlite.prepare(round),
            _ => unreachable!("there is no side {side}"),
        }
    }
}

struct Sqlx(tokio::sync::Mutex<SqliteConnection>);

impl Sqlx {
    async fn open(path: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let mut connection = options.connect().await.expect("the floor's database opens");
        connection.execute(SCHEMA).await.expect("the floor's tables are created");
        Self(tokio::sync::Mutex::new(connection))
    }
}

impl Subject for Sqlx {
    type Prepared = RawCall;

    fn prepare(&self, call: RawCall) -> RawCall {
        call
    }

    async fn run(&self, _: usize, call: RawCall) -> i64 {
        let query = match call {
            RawCall::AddStep { build, number, name } => {
                sqlx::query(ADD_STEP).bind(build).bind(number as i64).bind(name).bind(STATE)
            }
            RawCall::AddUrl { id, url } => sqlx::query(ADD_URL).bind(id).bind(URL_NAME).bind(url),
            RawCall::SetStepStateString { id, state } => sqlx::query(SET_STATE).bind(state).bind(id),
            RawCall::FinishStep { id, results } => sqlx::query(FINISH).bind(now()).bind(results).bind(false).bind(id),
            RawCall::GetStep { .. } | RawCall::GetSteps { .. } => unreachable!("this floor is for writes"),
        };
        let done = query.execute(&mut *self.0.lock().await).await.expect("the statement succeeds");
        done.last_insert_rowid().max(1)
    }
}

/// A thread that executes all waiting writes in one transaction, and a connection for reads.
struct Rusqlite {
    writes: mpsc::Sender<(RawCall, oneshot::Sender<i64>)>,
    reads: Mutex<Connection>,
}

impl Rusqlite {
    fn open(path: &Path) -> Self {
        let connect = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "full")?;
            connection.execute_batch(SCHEMA)?;
            Ok(connection)
        };
        let writer = connect().expect("the floor's database opens");
        let reads = Mutex::new(connect().expect("the floor's database opens"));
        let (writes, waiting) = mpsc::channel();
        thread::spawn(move || Self::write(&writer, &waiting).expect("the floor writes"));
        Self { writes, reads }
    }

    fn write(
        connection: &Connection,
        waiting: &mpsc::Receiver<(RawCall, oneshot::Sender<i64>)>,
    ) -> rusqlite::Result<()> {
        while let Ok(first) = waiting.recv() {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            let mut done = Vec::new();
            for (call, answer) in std::iter::once(first).chain(waiting.try_iter()) {
                match call {
                    RawCall::AddStep { build, number, name } => {
                        connection.prepare_cached(ADD_STEP)?.execute(params![build, number as i64, name, STATE])
                    }
                    RawCall::AddUrl { id, url } => {
                        connection.prepare_cached(ADD_URL)?.execute(params![id, URL_NAME, url])
                    }
                    RawCall::SetStepStateString { id, state } => {
                        connection.prepare_cached(SET_STATE)?.execute(params![state, id])
                    }
                    RawCall::FinishStep { id, results } => {
                        connection.prepare_cached(FINISH)?.execute(params![now(), results, false, id])
                    }
                    RawCall::GetStep { .. } | RawCall::GetSteps { .. } => unreachable!("reads do not use the thread"),
                }?;
                done.push((answer, connection.last_insert_rowid()));
            }
            connection.execute_batch("COMMIT")?;
            for (answer, id) in done {
                // A caller that was cancelled has dropped its receiver.
                let _ = answer.send(id.max(1));
            }
        }
        Ok(())
    }

    fn read(&self, sql: &str, key: i64) -> rusqlite::Result<Vec<Row>> {
        let connection = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection.prepare_cached(sql)?;
        let mut found = statement.query([key])?;
        let mut rows: Vec<Row> = Vec::new();
        while let Some(row) = found.next()? {
            let id: i64 = row.get(0)?;
            if rows.last().is_none_or(|last| last.id != id) {
                rows.push(Row::read(row)?);
            }
            if let (Some(name), Some(url), Some(last)) = (row.get(10)?, row.get(11)?, rows.last_mut()) {
                last.urls.push((name, url));
            }
        }
        Ok(rows)
    }
}

impl Subject for Rusqlite {
    type Prepared = RawCall;

    fn prepare(&self, call: RawCall) -> RawCall {
        call
    }

    async fn run(&self, _: usize, call: RawCall) -> i64 {
        let rows = match call {
            RawCall::GetStep { id } => self.read(GET_STEP, id),
            RawCall::GetSteps { build } => self.read(GET_STEPS, build),
            write => {
                let (answer, answered) = oneshot::channel();
                self.writes.send((write, answer)).expect("the floor's thread runs");
                return answered.await.expect("the floor's thread answers");
            }
        };
        std::hint::black_box(rows.expect("the floor reads")).len() as i64
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
    times: [Option<i64>; 3],
    results: Option<i32>,
    hidden: bool,
    urls: Vec<(String, String)>,
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            build_id: row.get(1)?,
            number: row.get(2)?,
            name: row.get(3)?,
            state_string: row.get(4)?,
            times: [row.get(5)?, row.get(6)?, row.get(7)?],
            results: row.get(8)?,
            hidden: row.get(9)?,
            urls: Vec::new(),
        })
    }
}
