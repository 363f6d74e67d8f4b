//! The store in Redis, compared with single commands; on a Redis Cluster, compared with the store on one server.

use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Script, aio::MultiplexedConnection};

use crate::{
    bench::{Bench, Pair, STORE, Side, store},
    round::{Fixture, Operation, Prepared, Round},
    subject::{RawCall, Store, Subject},
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

/// One connection for all callers, which pipelines their commands: the intended use of the driver.
async fn connect(url: &str) -> MultiplexedConnection {
    let without_timeout = AsyncConnectionConfig::new().set_response_timeout(None);
    let client = Client::open(url).expect("it is a URL of Redis");
    client.get_multiplexed_async_connection_with_config(&without_timeout).await.expect("the floor connects")
}

/// As many bytes as the store writes for a step.
fn record(name: &str) -> String {
    format!("{:042}{name}{STATE}", 0)
}

/// As many bytes as the store writes for a url.
fn url_record(url: &str) -> String {
    format!("{:013}{URL_NAME}{url}", 0)
}

/// As many bytes as the store reads for a build.
fn build_record() -> String {
    let urls = (0..STEPS).filter(|number| has_url(*number)).map(|number| url_record(&url(number)));
    (0..STEPS).map(|number| record(&name(0, number))).chain(urls).collect()
}

/// An id like those of the store, with room for more steps.
fn id(build: i64, number: usize) -> i64 {
    (build << 32) + number as i64
}

/// A floor whose write is one SET of a key, and whose read is one GET of all bytes.
struct Commands(MultiplexedConnection);

impl Commands {
    /// Writes the builds that are read, each in one key.
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
    type Prepared = RawCall;

    fn prepare(&self, call: RawCall) -> RawCall {
        call
    }

    async fn run(&self, _: usize, call: RawCall) -> i64 {
        match call {
            RawCall::AddStep { build, number, name } => {
                let id = id(build, number);
                self.set(&format!("floor:step:{id}"), &record(&name)).await;
                id
            }
            RawCall::AddUrl { id, url } => {
                self.set(&format!("floor:url:{id}:{url}"), &url_record(&url)).await;
                1
            }
            RawCall::SetStepStateString { id, state } => {
                self.set(&format!("floor:state:{id}"), &state).await;
                1
            }
            RawCall::FinishStep { id, .. } => {
                self.set(&format!("floor:end:{id}"), "of time 8, results 8 and hidden 1").await;
                1
            }
            RawCall::GetStep { id } => {
                let found: String = self.query(["GET", &format!("floor:step:{id}")]).await;
                (found.len() > STATE.len()).into()
            }
            RawCall::GetSteps { build } => {
                let found: String = self.query(["GET", &format!("floor:build:{build}")]).await;
                if found.len() > STEPS * STATE.len() { STEPS as i64 } else { 0 }
            }
        }
    }
}

/// A floor whose write is one script, which writes a record and an index entry for it.
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
    type Prepared = RawCall;

    fn prepare(&self, call: RawCall) -> RawCall {
        call
    }

    async fn run(&self, _: usize, call: RawCall) -> i64 {
        let (answer, hash_tag, field, record, index_key) = match call {
            RawCall::AddStep { build, number, name } => {
                (id(build, number), build, number.to_string(), record(&name), name)
            }
            RawCall::AddUrl { id, url } => (1, id, format!("{id}:{url}"), url_record(&url), url),
            _ => unreachable!("this floor is for adds"),
        };
        let mut script = self.script.prepare_invoke();
        script
            .key(format!("floor:{{{hash_tag}}}"))
            .key(format!("floor:{{{hash_tag}}}:index"))
            .arg(field)
            .arg(record)
            .arg(index_key);
        let () = script.invoke_async(&mut self.connection.clone()).await.expect("the script succeeds");
        answer
    }
}
