//! One server: its connections.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo,
    RedisConnectionInfo, RedisError, ServerError, Value,
    aio::{MultiplexedConnection, SendError},
    io::tcp::TcpSettings,
};
use steps_batch::BatchError;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit, TryAcquireError},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{bundle::Bundled, error, options::RedisOptions, replicas::Turns};

/// How many calls of a connection may wait for their answers. Others are not sent before one of those has it, so that
/// they know that they were not.
const ROOM: usize = 1024;

/// A connection is flushed when this many bytes wait, or all that wait: fewer, larger writes to the system.
const FLUSHED_BYTES: usize = 64 * 1024;

/// A host and a port.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// As a redirect names it: the host may be missing, and then is that of the node that said so; or unknown to it.
    pub(crate) fn from_redirect(text: &str, by: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = match host {
            "?" => return None,
            "" => &by.host,
            host => host,
        };
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Which of a node's connections: an answer waits behind all that were asked for before it on the same one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lane {
    /// All but the others.
    Calls,
    /// Writes that wait for replicas, if they are to.
    Writes,
    /// Reads of whole builds, whose answers may be long.
    Builds,
}

/// One server, and the connections to it. They are made when they are needed, and made again when they ended.
pub(crate) struct Node {
    pub(crate) address: Address,
    options: Arc<RedisOptions>,
    calls: Place,
    writes: Place,
    builds: Place,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Where a connection is kept.
#[derive(Default)]
struct Place {
    current: Mutex<Option<Connection>>,
    /// Held by the one who makes a connection, while others wait for it.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
pub(crate) struct Connection {
    driver: MultiplexedConnection,
    /// For calls that wait for their answers; closed when no more are to be sent.
    room: Arc<Semaphore>,
    /// Where replicas are waited for.
    turns: Option<Arc<Turns>>,
    /// Ends with the last who has the connection; the driver does so itself with a task that it began.
    _task: Option<Arc<AbortOnDropHandle<()>>>,
}

/// Closes the room when the task of a connection ends, however it does.
struct EndOfTask(Arc<Semaphore>);

impl Drop for EndOfTask {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Nothing was sent.
    NotSent(BatchError),
    /// What was sent may have been carried out.
    Lost(BatchError),
    /// The time is up, before or after something was sent.
    TimedOut { sent: bool },
    /// The time is up; it was carried out, and too few replicas have it.
    TooFewReplicas(BatchError),
    /// The server refused it.
    Refused(ServerError),
}

impl Node {
    pub(crate) fn new(address: Address, options: Arc<RedisOptions>) -> Self {
        let [calls, writes, builds] = Default::default();
        Self { address, options, calls, writes, builds }
    }

    /// Makes the connection for calls, unless it is there.
    pub(crate) async fn connect(&self) -> Result<(), RedisError> {
        self.connection(Lane::Calls).await.map(drop)
    }

    /// Sends a command, once, and waits for its answer.
    pub(crate) async fn send(&self, lane: Lane, cmd: &Cmd, deadline: Instant) -> Result<Value, NoAnswer> {
        let connection = self.connected(lane, deadline).await?;
        self.send_on(connection, lane, cmd, false, deadline).await
    }

    /// The connection to send on; nothing is sent yet.
    pub(crate) async fn connected(&self, lane: Lane, deadline: Instant) -> Result<Connection, NoAnswer> {
        if let Some(connection) = self.living(lane) {
            return Ok(connection);
        }
        // Seldom, and large.
        match Box::pin(timeout_at(deadline, self.connection(lane))).await {
            Ok(connection) => connection.map_err(|error| NoAnswer::NotSent(error::connecting(error))),
            Err(_) => Err(NoAnswer::TimedOut { sent: false }),
        }
    }

    /// Sends a command on this connection of the lane. `asking` goes before a command for a slot that is still on its
    /// way to this node.
    pub(crate) async fn send_on(
        &self,
        connection: Connection,
        lane: Lane,
        cmd: &Cmd,
        asking: bool,
        deadline: Instant,
    ) -> Result<Value, NoAnswer> {
        match &connection.turns {
            None => self.send_once(&connection, lane, cmd, asking, deadline).await,
            // Of those who do not wait for replicas, none is to pay for it.
            Some(turns) => Box::pin(self.send_and_wait(&connection, turns, lane, cmd, asking, deadline)).await,
        }
    }

    /// Sends a write, and waits until replicas have it.
    async fn send_and_wait(
        &self,
        connection: &Connection,
        turns: &Arc<Turns>,
        lane: Lane,
        cmd: &Cmd,
        asking: bool,
        deadline: Instant,
    ) -> Result<Value, NoAnswer> {
        let turn = turns.turn(deadline).await?;
        let answer = self.send_once(connection, lane, cmd, asking, deadline).await?;
        // The script found nothing to write to.
        if answer == Value::Nil {
            return Ok(answer);
        }
        let waited = turns.wait(turn, &connection.driver, deadline).await;
        if matches!(waited, Err(NoAnswer::Lost(_) | NoAnswer::TimedOut { .. })) {
            self.forget(lane, connection);
        }
        waited.map(|()| answer)
    }

    async fn send_once(
        &self,
        connection: &Connection,
        lane: Lane,
        cmd: &Cmd,
        asking: bool,
        deadline: Instant,
    ) -> Result<Value, NoAnswer> {
        let _room = connection.room(deadline).await?;
        let mut driver = connection.driver.clone();
        let answer = async {
            if !asking {
                return driver.send_packed_command(cmd).await;
            }
            Box::pin(async {
                let mut pipeline = Pipeline::with_capacity(2);
                pipeline.cmd("ASKING").add_command(cmd.clone());
                let answers = driver.send_packed_commands(&pipeline, 0, 2).await?;
                Ok(answers.into_iter().nth(1).unwrap_or_default())
            })
            .await
        };
        match timeout_at(deadline, answer).await {
            Ok(Ok(Value::ServerError(error))) => Err(NoAnswer::Refused(error)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.forget(lane, connection);
                Err(NoAnswer::Lost(error::lost(error)))
            }
            // It may be that no answer will ever come on this connection: the next call makes another.
            Err(_) => {
                self.forget(lane, connection);
                Err(NoAnswer::TimedOut { sent: true })
            }
        }
    }

    /// Ends the connections, once what was sent is answered.
    pub(crate) fn disconnect(&self) {
        for lane in [Lane::Calls, Lane::Writes, Lane::Builds] {
            *self.current(lane) = None;
        }
    }

    async fn connection(&self, lane: Lane) -> Result<Connection, RedisError> {
        if let Some(connection) = self.living(lane) {
            return Ok(connection);
        }
        let _opening = self.place(lane).opening.lock().await;
        if let Some(connection) = self.living(lane) {
            return Ok(connection);
        }
        let connection = self.open(lane).await?;
        *self.current(lane) = Some(connection.clone());
        Ok(connection)
    }

    async fn open(&self, lane: Lane) -> Result<Connection, RedisError> {
        // The third version of the protocol, since with it the driver tells when a connection has ended.
        let mut settings = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(self.options.database)
            .set_lib_name("steps", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &self.options.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.options.password {
            settings = settings.set_password(password);
        }
        let room = Arc::new(Semaphore::new(ROOM));
        let end = EndOfTask(Arc::clone(&room));
        let patience = self.options.timeout / 4;
        let config = AsyncConnectionConfig::new()
            // Our deadlines, which know more, are kept around it.
            .set_response_timeout(None)
            .set_connection_timeout(Some(patience))
            .set_pipeline_buffer_size(ROOM)
            .set_write_backpressure_boundary(FLUSHED_BYTES)
            .set_push_sender(move |_: PushInfo| {
                let _until_the_task_ends = &end;
                Ok::<_, SendError>(())
            });
        let Address { host, port } = self.address.clone();
        let (driver, task) = if self.options.is_encrypted {
            #[cfg(feature = "tls")]
            crate::tls::choose_provider();
            let address = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
            let tcp = TcpSettings::default().set_nodelay(true);
            let info = address.into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp);
            (Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?, None)
        } else {
            let connecting = async {
                let stream = TcpStream::connect((host, port)).await?;
                stream.set_nodelay(true)?;
                match lane {
                    Lane::Calls | Lane::Writes => on_stream(&settings, stream, config).await,
                    Lane::Builds => on_stream(&settings, Bundled::new(stream), config).await,
                }
            };
            let connected = timeout(patience, connecting).await;
            let (driver, task) = connected.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))?;
            (driver, Some(Arc::new(task)))
        };
        let turns = match lane {
            Lane::Writes => Some(Arc::new(Turns::new(self.options.replicas, self.options.timeout))),
            Lane::Calls | Lane::Builds => None,
        };
        Ok(Connection { driver, room, turns, _task: task })
    }

    /// The connection that is there, if it is.
    pub(crate) fn living(&self, lane: Lane) -> Option<Connection> {
        self.current(lane).as_ref().filter(|connection| connection.is_alive()).cloned()
    }

    /// Has the next call make another connection, and also those that wait for room on this one.
    fn forget(&self, lane: Lane, connection: &Connection) {
        connection.room.close();
        let mut current = self.current(lane);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.room, &connection.room)) {
            *current = None;
        }
    }

    fn current(&self, lane: Lane) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.place(lane).current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const fn place(&self, lane: Lane) -> &Place {
        match lane {
            Lane::Calls => &self.calls,
            Lane::Writes => &self.writes,
            Lane::Builds => &self.builds,
        }
    }
}

impl Connection {
    fn is_alive(&self) -> bool {
        !self.room.is_closed()
    }

    /// Waits until there is room for one more call. Nothing is sent yet.
    async fn room(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, NoAnswer> {
        let room = match self.room.try_acquire() {
            Err(TryAcquireError::NoPermits) => match timeout_at(deadline, self.room.acquire()).await {
                Ok(room) => room.ok(),
                Err(_) => return Err(NoAnswer::TimedOut { sent: false }),
            },
            room => room.ok(),
        };
        room.ok_or_else(|| NoAnswer::NotSent(BatchError::transient("the connection to the server was lost")))
    }
}

/// Makes a connection of a stream, and its task.
async fn on_stream(
    settings: &RedisConnectionInfo,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    config: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, AbortOnDropHandle<()>), RedisError> {
    let (driver, task) = MultiplexedConnection::new_with_config(settings, stream, config).await?;
    Ok((driver, AbortOnDropHandle::new(tokio::spawn(task))))
}

impl NoAnswer {
    /// What a caller is told who does not try again.
    pub(crate) fn into_failure(self) -> BatchError {
        match self {
            Self::NotSent(failure) | Self::Lost(failure) | Self::TooFewReplicas(failure) => failure,
            Self::Refused(error) => error::from_server(&error),
            Self::TimedOut { .. } => BatchError::transient("the server does not answer"),
        }
    }
}
