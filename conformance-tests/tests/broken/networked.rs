//! Stores with a server that mishandle failing connections, and a correct one.

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
use serde::{Deserialize, Serialize};
use steps_core::{BuildId, Dispatch, Error, ErrorKind, Handler, Request, Response, Result};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use super::{MAX_BUILD, PlainStore};

broken! { Net NET:
    /// A lost write is always reported as not applied.
    ReportsNotApplied D3 "faults::a_connection_that_ends";
    /// Every call is retried.
    RetriesEverything D6 "faults::a_write_is_not_repeated";
    /// The end of a connection is treated as success.
    TreatsEndAsSuccess D1 "faults::a_connection_that_ends";
    /// The time-out is not enforced.
    WaitsForEver D4 "faults::a_server_that_falls_silent";
    /// The time-out is too short.
    GivesUpEarly D4 "faults::a_slow_server";
    /// A failed connection is used again.
    ReusesAFailedConnection D4 "faults::connections_at_rest";
    /// A finish is sent as two requests.
    FinishesInTwo D2 "faults::a_connection_that_ends";
    /// An add with a key is retried without the key.
    ForgetsTheKey I5 "faults::a_keyed_add";
    /// A lost connection is reported as `Corrupt`.
    ReportsTheWrongKind D3 "faults::a_connection_that_ends";
}

/// A line from the client to the server, as JSON.
#[derive(Deserialize, Serialize)]
enum Line {
    /// Precedes the first request of its kind on a connection, like a prepared statement.
    Prepare(String),
    Request(Request),
}

/// The server's reply, as JSON.
#[derive(Deserialize, Serialize)]
enum Reply {
    Response(Response),
    NotFound,
    NoRoom,
}

impl From<Result<Response>> for Reply {
    fn from(result: Result<Response>) -> Self {
        match result {
            Ok(response) => Self::Response(response),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::NotFound,
            Err(_) => Self::NoRoom,
        }
    }
}

/// Answers each line of JSON with another, on every connection.
async fn serve(listener: TcpListener, store: PlainStore) {
    let store = Arc::new(store);
    while let Ok((connection, _)) = listener.accept().await {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut connection = BufStream::new(connection);
            let mut line = String::new();
            // An incomplete line is not a request.
            while connection.read_line(&mut line).await.is_ok_and(|read| read > 0) && line.ends_with('\n') {
                let reply = match serde_json::from_str(&line) {
                    Ok(Line::Prepare(_)) => Reply::Response(Response::Done),
                    Ok(Line::Request(request)) => request.send(&store).await.into(),
                    Err(_) => return,
                };
                let reply = serde_json::to_string(&reply).unwrap() + "\n";
                if connection.write_all(reply.as_bytes()).await.is_err() || connection.flush().await.is_err() {
                    return;
                }
                line.clear();
            }
        });
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
    /// The kinds of requests that were prepared.
    prepared: HashSet<Discriminant<Request>>,
}

impl NetStore {
    fn has(&self, flaw: Net) -> bool {
        self.flaw == Some(flaw)
    }

    async fn call(&self, mut request: Request) -> Result<Response> {
        let call = request.call();
        let timeout = match self.flaw {
            Some(Net::WaitsForEver) => Duration::from_secs(3_600),
            Some(Net::GivesUpEarly) => self.timeout / 50,
            _ => self.timeout,
        };
        let deadline = Instant::now() + timeout;
        let mut sent = false;
        let unavailable = |sent, message: String| {
            let kind = if self.has(Net::ReportsTheWrongKind) { ErrorKind::Corrupt } else { ErrorKind::Unavailable };
            let sent = sent && !self.has(Net::ReportsNotApplied);
            Err(Error::new(kind, message).with_call(call).with_may_have_applied(sent))
        };
        loop {
            let error = match timeout_at(deadline, self.attempt(&request, &mut sent)).await {
                Ok(Ok(Reply::Response(response))) => return Ok(response),
                Ok(Ok(Reply::NotFound)) => return Err(Error::not_found(call)),
                Ok(Ok(Reply::NoRoom)) => {
                    return Err(Error::new(ErrorKind::CapacityExceeded, "the build id is too large").with_call(call));
                }
                Ok(Err(error)) => error,
                Err(_) => return unavailable(sent, format!("no answer within {timeout:?}")),
            };
            if self.has(Net::TreatsEndAsSuccess) {
                match request {
                    Request::AddStep(_) | Request::GetSteps(_) => {}
                    Request::GetStep(_) => return Ok(Response::Step(None)),
                    _ => return Ok(Response::Done),
                }
            }
            let may_retry = !sent || call.is_idempotent() || self.has(Net::RetriesEverything);
            if !may_retry || Instant::now() + Duration::from_millis(20) >= deadline {
                return unavailable(sent, error.to_string());
            }
            if let (Request::AddStep(new), Some(Net::ForgetsTheKey)) = (&mut request, self.flaw) {
                new.idempotency_key = None;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Takes the connection out of its slot and puts it back after a complete reply, so that a dropped call discards it
    /// (D5).
    async fn attempt(&self, request: &Request, sent: &mut bool) -> io::Result<Reply> {
        let mut slot = self.connection.lock().await;
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => {
                Connection { stream: BufStream::new(TcpStream::connect(self.address).await?), prepared: HashSet::new() }
            }
        };
        if self.prepares && connection.prepared.insert(discriminant(request)) {
            // As long as a real statement. It writes no data, so `sent` stays false.
            let statement = Line::Prepare("a statement ".repeat(40));
            exchange(&mut connection.stream, &statement, &mut false).await?;
        }
        let reply = exchange(&mut connection.stream, &Line::Request(request.clone()), sent).await;
        if reply.is_ok() || self.has(Net::ReusesAFailedConnection) {
            *slot = Some(connection);
        }
        reply
    }
}

async fn exchange(connection: &mut BufStream<TcpStream>, line: &Line, sent: &mut bool) -> io::Result<Reply> {
    let mut text = serde_json::to_string(line)? + "\n";
    *sent = true;
    connection.write_all(text.as_bytes()).await?;
    connection.flush().await?;
    text.clear();
    connection.read_line(&mut text).await?;
    Ok(serde_json::from_str(&text)?)
}

#[async_trait]
impl Handler for NetStore {
    async fn handle(&self, request: Request) -> Result<Response> {
        match &request {
            Request::Close => {
                self.connection.lock().await.take();
                return Ok(Response::Done);
            }
            Request::FinishStep(id, finish) if self.has(Net::FinishesInTwo) => {
                self.call(Request::FinishStep(*id, finish.with_hidden(false))).await?;
            }
            _ => {}
        }
        self.call(request).await
    }
}

/// Creates stores with at most one flaw, each with its own server.
#[derive(Clone, Copy)]
pub(crate) struct Networked {
    pub(crate) flaw: Option<Net>,
    /// Whether each kind of request is prepared on each connection. An early fault on a new connection then reaches no
    /// data.
    pub(crate) prepares: bool,
}

/// A server, which is shut down when this is dropped.
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
            .fold(Profile::strict().with_greatest_build_id(BuildId::new(MAX_BUILD).unwrap()), |profile, feature| {
                profile.without(feature, "it is a store for failing connections")
            })
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let Self { flaw, prepares } = *self;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = Server(tokio::spawn(serve(listener, PlainStore::new(case.clock()))));
        let store = move |flaw, address, timeout| {
            Dispatch(NetStore { flaw, address, timeout, prepares, connection: Mutex::default() })
        };
        let through = move |proxy, timeout| async move { Ok(store(flaw, proxy, timeout)) };
        let fixture = Fixture::new(store(None, address, Duration::from_secs(10)));
        Ok(fixture.with_guard(server).with_faults(address.to_string(), through))
    }
}
