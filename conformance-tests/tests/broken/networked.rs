//! Stores with a server, which are wrong about connections that fail; and one that is right.

use std::{
    collections::HashSet,
    io,
    mem::{Discriminant, discriminant},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use steps_core::{
    AddedStep, BuildId, Call, Error, ErrorKind, FinishStep, IdempotencyKey, NewStep, Operation, Result, Results,
    StartStep, StateString, Step, StepId, StepName, StepSelector, StepUrl, StepsStore, Timestamp,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use super::{GREATEST, PlainStore};

broken! { Net NET:
    /// Whatever was sent, it says that nothing was applied.
    DeniesWhatItSent D3 "faults::a_connection_that_ends";
    /// It tries everything again.
    RepeatsEverything D6 "faults::a_write_is_not_repeated";
    /// It takes the end of a connection for an answer.
    TakesTheEndForAnAnswer D1 "faults::a_connection_that_ends";
    /// It waits for as long as it takes.
    WaitsForEver D4 "faults::a_server_that_falls_silent";
    /// It waits too short.
    GivesUpEarly D4 "faults::a_slow_server";
    /// It goes on with a connection that failed.
    KeepsABrokenConnection D4 "faults::connections_at_rest";
    /// It finishes a step by two requests.
    FinishesInTwo D2 "faults::a_connection_that_ends";
    /// It tries a keyed add again without the key.
    ForgetsTheKey I5 "faults::a_keyed_add";
    /// A lost connection is called damaged data.
    NamesTheWrongKind D3 "faults::a_connection_that_ends";
}

#[derive(Clone, Deserialize, Serialize)]
enum Ask {
    /// Comes before the first request of its kind on a connection, where statements are prepared.
    Prepare(String),
    Add(BuildId, StepName, StateString, Option<IdempotencyKey>),
    Start(StepId, Timestamp, bool),
    Locks(StepId, Timestamp),
    State(StepId, StateString),
    Finish(StepId, Results, bool),
    Url(StepId, StepUrl),
    Steps(BuildId),
    Step(StepId),
}

#[derive(Deserialize, Serialize)]
enum Reply<T> {
    Answer(T),
    NotFound,
    NoRoom,
}

impl<T> From<Result<T>> for Reply<T> {
    fn from(answer: Result<T>) -> Self {
        match answer {
            Ok(answer) => Self::Answer(answer),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::NotFound,
            Err(_) => Self::NoRoom,
        }
    }
}

/// Answers a line of JSON with another, on each connection.
async fn serve(listener: TcpListener, store: PlainStore) {
    let store = Arc::new(store);
    while let Ok((connection, _)) = listener.accept().await {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut connection = BufStream::new(connection);
            let mut line = String::new();
            // Half a request is none.
            while connection.read_line(&mut line).await.is_ok_and(|read| read > 0) && line.ends_with('\n') {
                let Ok(ask) = serde_json::from_str(&line) else { return };
                let answer = answer(&store, ask).await + "\n";
                if connection.write_all(answer.as_bytes()).await.is_err() || connection.flush().await.is_err() {
                    return;
                }
                line.clear();
            }
        });
    }
}

async fn answer(store: &PlainStore, ask: Ask) -> String {
    fn json<T: Serialize>(answer: Result<T>) -> String {
        serde_json::to_string(&Reply::from(answer)).unwrap()
    }
    match ask {
        Ask::Prepare(_) => json(Ok(())),
        Ask::Add(build, name, state, key) => {
            let mut new = NewStep::new(build, name, state);
            new.idempotency_key = key;
            json(store.add_step(new).await)
        }
        Ask::Start(id, at, locks) => json(store.start_step(id, StartStep::new(at).with_locks_acquired(locks)).await),
        Ask::Locks(id, at) => json(store.set_step_locks_acquired_at(id, at).await),
        Ask::State(id, state) => json(store.set_step_state_string(id, state).await),
        Ask::Finish(id, results, hidden) => {
            json(store.finish_step(id, FinishStep::new(results).with_hidden(hidden)).await)
        }
        Ask::Url(id, url) => json(store.add_url(id, url).await),
        Ask::Steps(build) => json(store.get_steps(build).await),
        Ask::Step(id) => json(store.get_step(id.into()).await),
    }
}

#[derive(Debug)]
struct NetStore {
    flaw: Option<Net>,
    address: SocketAddr,
    timeout: Duration,
    prepares: bool,
    connection: Mutex<Option<Connection>>,
}

#[derive(Debug)]
struct Connection {
    stream: BufStream<TcpStream>,
    /// The kinds of requests that it knows.
    prepared: HashSet<Discriminant<Ask>>,
}

impl NetStore {
    fn has(&self, flaw: Net) -> bool {
        self.flaw == Some(flaw)
    }

    async fn call<T: DeserializeOwned>(&self, call: Call, mut ask: Ask) -> Result<T> {
        let timeout = match self.flaw {
            Some(Net::WaitsForEver) => Duration::from_secs(3_600),
            Some(Net::GivesUpEarly) => self.timeout / 50,
            _ => self.timeout,
        };
        let (deadline, mut sent) = (Instant::now() + timeout, false);
        let unavailable = |sent, message: String| {
            let kind = if self.has(Net::NamesTheWrongKind) { ErrorKind::Corrupt } else { ErrorKind::Unavailable };
            let sent = sent && !self.has(Net::DeniesWhatItSent);
            Err(Error::new(kind, message).with_call(call).with_may_have_applied(sent))
        };
        loop {
            let error = match timeout_at(deadline, self.attempt::<T>(&ask, &mut sent)).await {
                Ok(Ok(Reply::Answer(answer))) => return Ok(answer),
                Ok(Ok(Reply::NotFound)) => return Err(Error::not_found(call)),
                Ok(Ok(Reply::NoRoom)) => {
                    return Err(Error::new(ErrorKind::CapacityExceeded, "no such build fits").with_call(call));
                }
                Ok(Err(error)) => error,
                Err(_) => return unavailable(sent, format!("no answer within {timeout:?}")),
            };
            if self.has(Net::TakesTheEndForAnAnswer)
                && let Ok(done) = serde_json::from_str("null")
            {
                return Ok(done);
            }
            let may_repeat = !sent || call.is_idempotent() || self.has(Net::RepeatsEverything);
            if !may_repeat || Instant::now() + Duration::from_millis(20) >= deadline {
                return unavailable(sent, error.to_string());
            }
            if let (Ask::Add(.., key), Some(Net::ForgetsTheKey)) = (&mut ask, self.flaw) {
                *key = None;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Takes the connection, and puts it back only when it is at rest (D5).
    async fn attempt<T: DeserializeOwned>(&self, ask: &Ask, sent: &mut bool) -> io::Result<Reply<T>> {
        let mut place = self.connection.lock().await;
        let mut connection = match place.take() {
            Some(connection) => connection,
            None => {
                Connection { stream: BufStream::new(TcpStream::connect(self.address).await?), prepared: HashSet::new() }
            }
        };
        if self.prepares && connection.prepared.insert(discriminant(ask)) {
            // As long as a statement is, and certainly no write yet.
            let statement = "a statement ".repeat(40);
            exchange::<()>(&mut connection.stream, &Ask::Prepare(statement), &mut false).await?;
        }
        if self.has(Net::KeepsABrokenConnection) {
            let answer = exchange(&mut connection.stream, ask, sent).await;
            *place = Some(connection);
            return answer;
        }
        let answer = exchange(&mut connection.stream, ask, sent).await?;
        *place = Some(connection);
        Ok(answer)
    }
}

async fn exchange<T: DeserializeOwned>(
    connection: &mut BufStream<TcpStream>,
    ask: &Ask,
    sent: &mut bool,
) -> io::Result<Reply<T>> {
    let mut line = serde_json::to_string(ask)? + "\n";
    *sent = true;
    connection.write_all(line.as_bytes()).await?;
    connection.flush().await?;
    line.clear();
    connection.read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}

#[async_trait]
impl StepsStore for NetStore {
    async fn add_step(&self, new: NewStep) -> Result<AddedStep> {
        let call = Call::add_step(&new);
        self.call(call, Ask::Add(new.build_id, new.name, new.state_string, new.idempotency_key)).await
    }

    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()> {
        let call = Call::on_step(Operation::StartStep, id);
        self.call(call, Ask::Start(id, start.started_at, start.locks_acquired)).await
    }

    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
        self.call(Call::on_step(Operation::SetStepLocksAcquiredAt, id), Ask::Locks(id, at)).await
    }

    async fn set_step_state_string(&self, id: StepId, state: StateString) -> Result<()> {
        self.call(Call::on_step(Operation::SetStepStateString, id), Ask::State(id, state)).await
    }

    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
        let call = Call::on_step(Operation::FinishStep, id);
        if self.has(Net::FinishesInTwo) {
            self.call::<()>(call, Ask::Finish(id, finish.results, false)).await?;
        }
        self.call(call, Ask::Finish(id, finish.results, finish.hidden)).await
    }

    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
        self.call(Call::on_step(Operation::AddUrl, id), Ask::Url(id, url)).await
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        let call = Call::get_step(&step);
        match step {
            StepSelector::Id(id) => self.call(call, Ask::Step(id)).await,
            StepSelector::Number { build_id, number } => {
                let steps: Vec<Step> = self.call(call, Ask::Steps(build_id)).await?;
                Ok(steps.into_iter().find(|step| step.number == number))
            }
            StepSelector::Name { build_id, name } => {
                let steps: Vec<Step> = self.call(call, Ask::Steps(build_id)).await?;
                Ok(steps.into_iter().find(|step| step.name == name))
            }
        }
    }

    async fn get_steps(&self, build: BuildId) -> Result<Vec<Step>> {
        self.call(Call::get_steps(build), Ask::Steps(build)).await
    }

    async fn close(&self) -> Result<()> {
        self.connection.lock().await.take();
        Ok(())
    }
}

/// Makes stores with a server of their own, and one flaw or none.
#[derive(Clone, Copy)]
pub(crate) struct Networked {
    pub(crate) flaw: Option<Net>,
    /// Whether a connection has to be told of each kind of request before the first one, as of a prepared statement:
    /// what fails early on a new connection then reaches no data.
    pub(crate) prepares: bool,
}

/// A server, which ends with this.
struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[async_trait]
impl StoreFactory for Networked {
    fn name(&self) -> &str {
        "networked"
    }

    fn profile(&self) -> Profile {
        [Feature::Reopen, Feature::Peers, Feature::Processes]
            .into_iter()
            .fold(Profile::strict().with_greatest_build_id(BuildId::new(GREATEST).unwrap()), |profile, feature| {
                profile.without(feature, "it is for connections that fail")
            })
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let Self { flaw, prepares } = *self;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = Server(tokio::spawn(serve(listener, PlainStore::new(case.clock()))));
        let store =
            move |flaw, address, timeout| NetStore { flaw, address, timeout, prepares, connection: Mutex::default() };
        let through = move |proxy, timeout| async move { Ok(store(flaw, proxy, timeout)) };
        let fixture = Fixture::new(store(None, address, Duration::from_secs(10)));
        Ok(fixture.with_guard(server).with_faults(address.to_string(), through))
    }
}
