//! What the stores cost beside their floors, the plainest correct thing that one would write with the
//! bare driver; and how that grows with what is there.
//!
//! `cargo bench -p steps --features full --bench floors`. Every figure is a ratio of times, store over
//! floor, measured in turns: the median of the repetitions, with the least and the greatest.

use std::{
    future::Future,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Executor, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use steps::{
    BuildId, NewStep, StateString, StepId, StepName, StepUrl, StepsStore, StepsStoreExt,
    sqlite::{SqliteOptions, SqliteStore},
};
use tokio::{sync::Mutex, task::JoinSet};

const REPETITIONS: usize = 9;

type Store = Arc<dyn StepsStore>;
type Floor = Arc<Mutex<SqliteConnection>>;

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir_in(".").expect("a folder for the databases, on the disk of this folder");
    let store: Store = Arc::new(
        SqliteStore::connect(SqliteOptions::new(folder.path().join("store.db"))).await.expect("the store opens"),
    );
    let floor = floor(&folder.path().join("floor.db")).await;

    for callers in [1, 8, 64] {
        let adds = 300 * callers.min(8);
        let mut builds = 1_000_000 * callers as i64;
        let mut ratios = Ratios::default();
        for _ in 0..REPETITIONS {
            builds += callers as i64;
            let of_store = add_steps(&store, builds, callers, adds).await;
            let of_floor = insert_rows(&floor, builds, callers, adds).await;
            ratios.push(of_store, of_floor, adds);
        }
        ratios.print(&format!("add_step, {callers} callers, over a bare sqlx insert"));
    }
    growth("the 10,000th add of one name over the 10th", |n| add_same_name(&store, n)).await;
    growth("the 10,000th url over the 10th", |n| add_urls(&store, n)).await;
}

/// The bare insert: one connection, autocommit, the same durability, the columns that the store keeps.
async fn floor(path: &Path) -> Floor {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging();
    let mut connection = options.connect().await.expect("the floor's database opens");
    connection
        .execute(
            "CREATE TABLE steps (id INTEGER PRIMARY KEY AUTOINCREMENT, build_id INTEGER NOT NULL, number INTEGER \
             NOT NULL, name TEXT NOT NULL, state_string TEXT NOT NULL, started_at INTEGER, locks_acquired_at INTEGER, \
             complete_at INTEGER, results INTEGER, hidden INTEGER NOT NULL DEFAULT 0) STRICT;
             CREATE UNIQUE INDEX steps_by_number ON steps (build_id, number);
             CREATE UNIQUE INDEX steps_by_name ON steps (build_id, name);",
        )
        .await
        .expect("the floor's table is made");
    Arc::new(Mutex::new(connection))
}

/// Many callers, each with a build of its own; gives the time of all.
async fn callers<F: Future<Output = ()> + Send + 'static>(callers: usize, call: impl Fn(usize) -> F) -> Duration {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        tasks.spawn(call(caller));
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("a caller panicked");
    }
    start.elapsed()
}

async fn add_steps(store: &Store, first_build: i64, count: usize, adds: usize) -> Duration {
    callers(count, |caller| {
        let (store, build) = (Arc::clone(store), build(first_build + caller as i64));
        async move {
            for number in 0..adds / count {
                store.add_step(new_step(build, &format!("step-{number:07}"))).await.expect("an add succeeds");
            }
        }
    })
    .await
}

async fn insert_rows(floor: &Floor, first_build: i64, count: usize, adds: usize) -> Duration {
    callers(count, |caller| {
        let (floor, build) = (Arc::clone(floor), first_build + caller as i64);
        async move {
            for number in 0..adds / count {
                sqlx::query("INSERT INTO steps (build_id, number, name, state_string) VALUES (?, ?, ?, ?)")
                    .bind(build)
                    .bind(number as i64)
                    .bind(format!("step-{number:07}"))
                    .bind(STATE)
                    .execute(&mut *floor.lock().await)
                    .await
                    .expect("an insert succeeds");
            }
        }
    })
    .await
}

const STATE: &str = "compiling 123 of 4567 files, 8 warnings!";

fn build(id: i64) -> BuildId {
    BuildId::new(id).expect("build ids are positive")
}

fn new_step(build: BuildId, name: &str) -> NewStep {
    let name = StepName::new(name).expect("it is a name");
    NewStep::new(build, name, StateString::new(STATE).expect("it is a state string"))
}

/// Sizes of what is measured for growth, in turns.
async fn growth<F: Future<Output = (Duration, Duration)>>(what: &str, measure: impl Fn(i64) -> F) {
    let mut ratios = Ratios::default();
    for repetition in 1..=3 {
        let (late, early) = measure(repetition).await;
        ratios.push(late, early, 100);
    }
    ratios.print(what);
}

/// The time of 100 adds of a name used 10,000 times, and of one used 10 times, in turns.
async fn add_same_name(store: &Store, repetition: i64) -> (Duration, Duration) {
    let (large, small) = (build(repetition), build(100 + repetition));
    fill(store, large, 10_000).await;
    fill(store, small, 10).await;
    let (mut late, mut early) = (Duration::ZERO, Duration::ZERO);
    for round in 0..100_i64 {
        let fresh = build(1_000 + repetition * 1_000 + round);
        fill(store, fresh, 10).await;
        // In turns, each as often the first: what comes first pays for the filling.
        for turn in [round % 2 == 0, round % 2 == 1] {
            let (build, sum) = if turn { (large, &mut late) } else { (fresh, &mut early) };
            *sum += time(store.add_step(new_step(build, "compile-all"))).await;
        }
    }
    (late, early)
}

async fn fill(store: &Store, build: BuildId, adds: usize) {
    let mut tasks = JoinSet::new();
    for _ in 0..adds {
        let store = Arc::clone(store);
        tasks.spawn(async move { store.add_step(new_step(build, "compile-all")).await.expect("an add succeeds") });
    }
    tasks.join_all().await;
}

async fn add_urls(store: &Store, repetition: i64) -> (Duration, Duration) {
    let large = store.add(200 + repetition, "many", "").await.expect("an add succeeds").id;
    link(store, large, 10_000).await;
    let (mut late, mut early) = (Duration::ZERO, Duration::ZERO);
    for round in 0..100 {
        let fresh = store.add(200 + repetition, "few", "").await.expect("an add succeeds").id;
        link(store, fresh, 10).await;
        let url = StepUrl::new("log", format!("https://ci.example.org/late/{round}")).expect("it is a url");
        for turn in [round % 2 == 0, round % 2 == 1] {
            let (step, sum) = if turn { (large, &mut late) } else { (fresh, &mut early) };
            *sum += time(store.add_url(step, url.clone())).await;
        }
    }
    (late, early)
}

async fn link(store: &Store, step: StepId, urls: usize) {
    let mut tasks = JoinSet::new();
    for number in 0..urls {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            store.link(step, "log", format!("https://ci.example.org/{number}")).await.expect("a link succeeds");
        });
    }
    tasks.join_all().await;
}

async fn time<T>(call: impl Future<Output = steps::Result<T>>) -> Duration {
    let start = Instant::now();
    call.await.expect("the call succeeds");
    start.elapsed()
}

/// Pairs of times that were measured in turns.
#[derive(Default)]
struct Ratios {
    ratios: Vec<f64>,
    store: Vec<Duration>,
    floor: Vec<Duration>,
}

impl Ratios {
    fn push(&mut self, store: Duration, floor: Duration, calls: usize) {
        self.ratios.push(store.as_secs_f64() / floor.as_secs_f64());
        self.store.push(store / calls as u32);
        self.floor.push(floor / calls as u32);
    }

    fn print(mut self, what: &str) {
        self.ratios.sort_by(f64::total_cmp);
        self.store.sort();
        self.floor.sort();
        let middle = self.ratios.len() / 2;
        let (least, greatest) = (self.ratios[0], self.ratios[self.ratios.len() - 1]);
        println!(
            "{what}: {:.2} ({least:.2} to {greatest:.2}); {:.1?} beside {:.1?} a call",
            self.ratios[middle], self.store[middle], self.floor[middle],
        );
    }
}
