//! The store in Redis beside single commands, and on a Redis Cluster beside the store on one server.

use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Script, aio::MultiplexedConnection};

use crate::{
    bench::{Bench, Pair, STORE, Side, store},
    round::{Fixture, Operation, Prepared, Round},
    subject::{Call, Store, Subject},
    support::payload::{STATE, STEPS, URL_NAME, has_url, name, url},
};

const SET: &str = "SET";
const GET: &str = "GET of the same bytes";
const TWO_WRITES: &str = "a script of two writes";
const ONE_SERVER: &str = "the store on one server";

pub(crate) struct Redis {
    store: Side<Store>,
    commands: Side<Commands>,
    script: Side<TwoWrites>,
}

impl Redis {
    pub(crate) async fn open(url: &str, is_first: bool) -> Self {
        let connection = connect(url).await;
        let commands = Commands(connection.clone());
        commands.fill().await;
        Self {
            store: Side::new(store(url).await, is_first).await,
            commands: Side::new(commands, is_first).await,
            script: Side::new(TwoWrites::new(connection), is_first).await,
        }
    }
}

impl Bench for Redis {
    fn callers(&self) -> &'static [usize] {
        &[1, 32, 256]
    }

    fn pairs(&self, operation: Operation, _: usize) -> Vec<Pair> {
        match operation {
            Operation::GetStep | Operation::GetSteps => vec![Pair::with_floor(GET)],
            Operation::SetStepStateString | Operation::FinishStep => vec![Pair::with_floor(SET)],
            Operation::AddStep | Operation::AddUrl => vec![Pair::with_floor(SET), Pair::with_floor(TWO_WRITES)],
        }
    }

    fn prepare(&self, side: &str, round: &Round) -> Prepared {
        match side {
            STORE => self.store.prepare(round),
            SET | GET => self.commands.prepare(round),
            TWO_WRITES => self.script.prepare(round),
            _ => unreachable!("there is no side {side}"),
        }
    }
}

pub(crate) struct Cluster {
    store: Side<Store>,
    one_server: Side<Store>,
}

impl Cluster {
    pub(crate) async fn open(url: &str, one_server: &str, is_first: bool) -> Self {
        Self {
            store: Side::new(store(url).await, is_first).await,
            one_server: Side::new(store(one_server).await, is_first).await,
        }
    }
}

impl Bench for Cluster {
    fn callers(&self) -> &'static [usize] {
        &[1, 32, 256]
    }

    fn pairs(&self, _: Operation, _: usize) -> Vec<Pair> {
        vec![Pair::with_floor(ONE_SERVER)]
    }

    fn prepare(&self, side: &str, round: &Round) -> Prepared {
        match side {
            STORE => self.store.prepare(round),
            ONE_SERVER => self.one_server.prepare(round),
            _ => unreachable!("there is no side {side}"),
        }
    }
}

/// One connection for all callers, which sends what waits together: what the driver is made for.
async fn connect(url: &str) -> MultiplexedConnection {
    let patient = AsyncConnectionConfig::new().set_response_timeout(None);
    let client = Client::open(url).expect("it is a URL of Redis");
    client.get_multiplexed_async_connection_with_config(&patient).await.expect("the floor connects")
}

/// What the store keeps of a step, in as many bytes.
fn record(name: &str) -> String {
    format!("{:042}{name}{STATE}", 0)
}

/// What the store keeps of a url, in as many bytes.
fn url_record(url: &str) -> String {
    format!("{:013}{URL_NAME}{url}", 0)
}

/// What the store keeps of a build that is read, in as many bytes.
fn build_record() -> String {
    let urls = (0..STEPS).filter(|number| has_url(*number)).map(|number| url_record(&url(number)));
    (0..STEPS).map(|number| record(&name(0, number))).chain(urls).collect()
}

/// As the store's ids, but for more steps.
fn id(build: i64, number: usize) -> i64 {
    (build << 32) + number as i64
}

/// A write is one SET of a key, and a read one GET of all that is read.
struct Commands(MultiplexedConnection);

impl Commands {
    /// The builds that are read, each in one key.
    async fn fill(&self) {
        for build in 1..=Fixture::BUILDS {
            self.query::<()>(["SET", &format!("floor:build:{build}"), &build_record()]).await;
        }
    }

    async fn query<T: FromRedisValue>(&self, command: impl IntoIterator<Item = &str>) -> T {
        let mut cmd = Cmd::new();
        for argument in command {
            cmd.arg(argument);
        }
        cmd.query_async(&mut self.0.clone()).await.expect("the command succeeds")
    }

    async fn set(&self, key: &str, value: &str) {
        self.query::<()>(["SET", key, value]).await;
    }
}

impl Subject for Commands {
    type Prepared = Call;

    fn prepare(&self, call: Call) -> Call {
        call
    }

    async fn run(&self, _: usize, call: Call) -> i64 {
        match call {
            Call::AddStep { build, number, name } => {
                let id = id(build, number);
                self.set(&format!("floor:step:{id}"), &record(&name)).await;
                id
            }
            Call::AddUrl { id, url } => {
                self.set(&format!("floor:url:{id}:{url}"), &url_record(&url)).await;
                1
            }
            Call::SetStepStateString { id, state } => {
                self.set(&format!("floor:state:{id}"), &state).await;
                1
            }
            Call::FinishStep { id, .. } => {
                self.set(&format!("floor:end:{id}"), "of time 8, results 8 and hidden 1").await;
                1
            }
            Call::GetStep { id } => {
                let found: String = self.query(["GET", &format!("floor:step:{id}")]).await;
                (found.len() > STATE.len()).into()
            }
            Call::GetSteps { build } => {
                let found: String = self.query(["GET", &format!("floor:build:{build}")]).await;
                if found.len() > STEPS * STATE.len() { STEPS as i64 } else { 0 }
            }
        }
    }
}

/// A write is one script, which writes a record and by what it is found.
struct TwoWrites {
    connection: MultiplexedConnection,
    script: Script,
}

impl TwoWrites {
    fn new(connection: MultiplexedConnection) -> Self {
        let script =
            "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]); return redis.call('HSET', KEYS[2], ARGV[3], ARGV[1])";
        Self { connection, script: Script::new(script) }
    }
}

impl Subject for TwoWrites {
    type Prepared = Call;

    fn prepare(&self, call: Call) -> Call {
        call
    }

    async fn run(&self, _: usize, call: Call) -> i64 {
        let (answer, of, place, record, found_by) = match call {
            Call::AddStep { build, number, name } => {
                (id(build, number), build, number.to_string(), record(&name), name)
            }
            Call::AddUrl { id, url } => (1, id, format!("{id}:{url}"), url_record(&url), url),
            _ => unreachable!("this floor is for what is added"),
        };
        let mut script = self.script.prepare_invoke();
        script.key(format!("floor:{{{of}}}")).key(format!("floor:{{{of}}}:index")).arg(place).arg(record).arg(found_by);
        let () = script.invoke_async(&mut self.connection.clone()).await.expect("the script succeeds");
        answer
    }
}
