//! What the PostgreSQL store costs beside its floor, the plainest correct thing that one would write with a
//! dedicated connection of the bare driver; and how that grows with what is there.
//!
//! `cargo bench -p steps --features full --bench postgres`, on a private server, or on the one that
//! `STEPS_TEST_POSTGRES_URL` names. Every figure is a ratio of times, store over floor, measured in turns: the
//! median of the repetitions, with the least and the greatest.

use std::{
    env,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Connection, Executor, PgConnection, Row};
use steps::{
    StepId, StepsStore, StepsStoreExt,
    postgres::{PostgresOptions, PostgresStore},
};
use tokio::{sync::Mutex, task::JoinSet};

const REPETITIONS: usize = 9;
const STATE: &str = "compiling 123 of 4567 files, 8 warnings!";

type Store = Arc<PostgresStore>;
type Floor = Arc<Mutex<PgConnection>>;

#[tokio::main]
async fn main() {
    // A server that waits for its disk, as one in use does.
    let server = test_servers::PostgresOptions::default().with_setting("fsync", "on");
    let (url, _server) = match env::var(test_servers::POSTGRES_URL) {
        Ok(url) => (url, None),
        Err(_) => {
            let server = server.start().expect("PostgreSQL starts");
            (server.url(), Some(server))
        }
    };
    let options = PostgresOptions::from_url(&url).expect("it is a URL").with_schema("steps_bench").expect("a name");
    let store = Arc::new(PostgresStore::connect(options).await.expect("the store opens"));
    let floor = floor(&url).await;

    let mut fresh = 1_i64 << 40;
    let mut builds = |count: usize| {
        fresh += count as i64;
        fresh
    };
    for (what, callers, is_spread) in
        [("1 caller", 1, true), ("32 callers, spread", 32, true), ("32 callers, one build", 32, false)]
    {
        let adds = if callers == 1 { 400 } else { 3_200 };
        let mut ratios = Ratios::default();
        for _ in 0..REPETITIONS {
            let (of_store, of_floor) = (builds(callers), builds(callers));
            let build = |first: i64, caller: usize| if is_spread { first + caller as i64 } else { first };
            let of_store = add_steps(&store, |caller| build(of_store, caller), callers, adds).await;
            let of_floor = insert_rows(&floor, |caller| build(of_floor, caller), callers, adds).await;
            ratios.push(of_store, of_floor, adds);
        }
        ratios.print(&format!("add_step, {what}, over INSERT … RETURNING"));
    }

    let build = builds(1);
    add_steps(&store, |_| build, 1, 100).await;
    let ids: Vec<i64> = store.steps(build).await.expect("they are read").iter().map(|step| step.id.get()).collect();
    for callers in [1, 32] {
        let reads = 200 * callers;
        let mut ratios = Ratios::default();
        for _ in 0..REPETITIONS {
            let of_store = get_step(&store, &ids, callers, reads).await;
            ratios.push(of_store, select_row(&floor, callers, reads).await, reads);
        }
        ratios.print(&format!("get_step, {callers} callers, over SELECT by id"));
    }
    let mut ratios = Ratios::default();
    for _ in 0..REPETITIONS {
        let of_store = get_steps(&store, build).await;
        ratios.push(of_store, select_rows(&floor).await, 100);
    }
    ratios.print("get_steps of 100, over SELECT by build");

    growth("the 10,000th add of one name over the 10th", |n| add_same_name(&store, n)).await;
    growth("the 10,000th url over the 10th", |n| add_urls(&store, n)).await;
    store.close().await.expect("the store closes");
    let drop = "DROP SCHEMA steps_bench CASCADE; DROP SCHEMA floor CASCADE";
    floor.lock().await.execute(drop).await.expect("the schemas are dropped");
}

/// The columns and unique keys that the store has.
async fn floor(url: &str) -> Floor {
    let mut connection = PgConnection::connect(url).await.expect("the floor connects");
    connection
        .execute(
            "CREATE SCHEMA floor; SET search_path = floor;
             CREATE TABLE steps (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, build_id BIGINT NOT NULL, number \
             BIGINT NOT NULL, name TEXT NOT NULL, state_string TEXT NOT NULL, started_at TIMESTAMPTZ, \
             locks_acquired_at TIMESTAMPTZ, complete_at TIMESTAMPTZ, results INTEGER, hidden BOOLEAN NOT NULL DEFAULT \
             false);
             CREATE UNIQUE INDEX steps_by_number ON steps (build_id, number);
             CREATE UNIQUE INDEX steps_by_name ON steps (build_id, name);",
        )
        .await
        .expect("the floor's table is made");
    // What is read of both.
    for id in 1..=100_i64 {
        let row = "INSERT INTO steps (build_id, number, name, state_string) VALUES (0, $1, $2, $3)";
        let row = sqlx::query(row).bind(id).bind(format!("step-{id:07}")).bind(STATE);
        row.execute(&mut connection).await.expect("an insert succeeds");
    }
    Arc::new(Mutex::new(connection))
}

/// Runs all callers at once, and gives the time of all.
async fn callers<F: Future<Output = ()> + Send + 'static>(callers: usize, call: impl Fn(usize) -> F) -> Duration {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        tasks.spawn(call(caller));
    }
    tasks.join_all().await;
    start.elapsed()
}

async fn add_steps(store: &Store, build: impl Fn(usize) -> i64, count: usize, adds: usize) -> Duration {
    callers(count, |caller| {
        let (store, build) = (Arc::clone(store), build(caller));
        async move {
            for number in 0..adds / count {
                store.add(build, format!("step-{caller:02}-{number:07}"), STATE).await.expect("an add succeeds");
            }
        }
    })
    .await
}

async fn insert_rows(floor: &Floor, build: impl Fn(usize) -> i64, count: usize, adds: usize) -> Duration {
    callers(count, |caller| {
        let (floor, build) = (Arc::clone(floor), build(caller));
        async move {
            for number in 0..adds / count {
                let insert =
                    "INSERT INTO steps (build_id, number, name, state_string) VALUES ($1, $2, $3, $4) RETURNING id";
                let insert = sqlx::query(insert).bind(build).bind((caller * 1_000_000 + number) as i64);
                let insert = insert.bind(format!("step-{caller:02}-{number:07}")).bind(STATE);
                insert.fetch_one(&mut *floor.lock().await).await.expect("an insert succeeds");
            }
        }
    })
    .await
}

async fn get_step(store: &Store, ids: &[i64], count: usize, reads: usize) -> Duration {
    callers(count, |caller| {
        let (store, id) = (Arc::clone(store), StepId::new(ids[caller]).expect("it is an id"));
        async move {
            for _ in 0..reads / count {
                store.step(id).await.expect("a read succeeds").expect("the step is there");
            }
        }
    })
    .await
}

async fn select_row(floor: &Floor, count: usize, reads: usize) -> Duration {
    callers(count, |caller| {
        let floor = Arc::clone(floor);
        async move {
            for _ in 0..reads / count {
                let select = "SELECT * FROM steps WHERE id = $1";
                let row = sqlx::query(select).bind(caller as i64 + 1).fetch_one(&mut *floor.lock().await).await;
                row.expect("a read succeeds").get::<String, _>("state_string");
            }
        }
    })
    .await
}

async fn get_steps(store: &Store, build: i64) -> Duration {
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(store.steps(build).await.expect("a read succeeds").len(), 100);
    }
    start.elapsed()
}

async fn select_rows(floor: &Floor) -> Duration {
    let start = Instant::now();
    for _ in 0..100 {
        let select = "SELECT id, build_id, number, name, state_string, results, hidden FROM steps WHERE build_id = 0 ORDER BY number";
        let rows = sqlx::query(select).fetch_all(&mut *floor.lock().await).await.expect("a read succeeds");
        let names: Vec<(i64, String, String)> =
            rows.iter().map(|row| (row.get("number"), row.get("name"), row.get("state_string"))).collect();
        assert_eq!(names.len(), 100);
    }
    start.elapsed()
}

/// Late beside early calls, in turns.
async fn growth<F: Future<Output = (Duration, Duration)>>(what: &str, measure: impl Fn(i64) -> F) {
    let mut ratios = Ratios::default();
    for repetition in 1..=3 {
        let (late, early) = measure(repetition).await;
        ratios.push(late, early, 100);
    }
    ratios.print(what);
}

async fn add_same_name(store: &Store, repetition: i64) -> (Duration, Duration) {
    let (large, small) = (repetition, 100 + repetition);
    fill(store, large, 10_000).await;
    fill(store, small, 10).await;
    let (mut late, mut early) = (Duration::ZERO, Duration::ZERO);
    for round in 0..100_i64 {
        let fresh = 1_000 + repetition * 1_000 + round;
        fill(store, fresh, 10).await;
        for is_late in [round % 2 == 0, round % 2 == 1] {
            let (build, sum) = if is_late { (large, &mut late) } else { (fresh, &mut early) };
            *sum += time(store.add(build, "compile-all", STATE)).await;
        }
    }
    (late, early)
}

async fn fill(store: &Store, build: i64, adds: usize) {
    callers(adds, |_| {
        let store = Arc::clone(store);
        async move { drop(store.add(build, "compile-all", STATE).await.expect("an add succeeds")) }
    })
    .await;
}

async fn add_urls(store: &Store, repetition: i64) -> (Duration, Duration) {
    let large = store.add(200 + repetition, "many", "").await.expect("an add succeeds").id;
    link(store, large, 10_000).await;
    let (mut late, mut early) = (Duration::ZERO, Duration::ZERO);
    for round in 0..100 {
        let fresh = store.add(200 + repetition, "few", "").await.expect("an add succeeds").id;
        link(store, fresh, 10).await;
        for is_late in [round % 2 == 0, round % 2 == 1] {
            let (step, sum) = if is_late { (large, &mut late) } else { (fresh, &mut early) };
            *sum += time(store.link(step, "log", format!("https://ci.example.org/late/{round}"))).await;
        }
    }
    (late, early)
}

async fn link(store: &Store, step: StepId, urls: usize) {
    callers(urls, |number| {
        let store = Arc::clone(store);
        async move {
            store.link(step, "log", format!("https://ci.example.org/{number}")).await.expect("a link succeeds");
        }
    })
    .await;
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
