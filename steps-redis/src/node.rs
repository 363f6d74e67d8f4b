//! One server: its connections.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo,
    RedisConnectionInfo, RedisError, ServerError, Value,
    aio::{MultiplexedConnection, SendError},
    io::tcp::TcpSettings,
};
use steps_lane::Failure;
use tokio::time::{Instant, timeout_at};

use crate::{error, options::RedisOptions};

/// How many calls may wait for the task of a connection before others wait for them.
const WAITING: usize = 1024;

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
    /// All but the next.
    Calls,
    /// Reads of whole builds, whose answers may be long.
    Builds,
}

/// One server, and the connections to it. They are made when they are needed, and made again when they ended.
pub(crate) struct Node {
    pub(crate) address: Address,
    options: Arc<RedisOptions>,
    calls: Place,
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
    has_ended: Arc<AtomicBool>,
}

/// Sets its flag when the task of a connection ends, however it does.
struct EndOfTask(Arc<AtomicBool>);

impl Drop for EndOfTask {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Nothing was sent.
    NotSent(Failure),
    /// What was sent may have been carried out.
    Lost(Failure),
    /// The time is up, before or after something was sent.
    TimedOut { sent: bool },
    /// The server refused it.
    Refused(ServerError),
}

impl Node {
    pub(crate) fn new(address: Address, options: Arc<RedisOptions>) -> Self {
        Self { address, options, calls: Place::default(), builds: Place::default() }
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
        match timeout_at(deadline, self.connection(lane)).await {
            Ok(connection) => connection.map_err(|error| NoAnswer::NotSent(error::connecting(error))),
            Err(_) => Err(NoAnswer::TimedOut { sent: false }),
        }
    }

    /// Sends a command on this connection of the lane. `asking` goes before a command for a slot that is still on its
    /// way to this node.
    pub(crate) async fn send_on(
        &self,
        mut connection: Connection,
        lane: Lane,
        cmd: &Cmd,
        asking: bool,
        deadline: Instant,
    ) -> Result<Value, NoAnswer> {
        let answer = async {
            if !asking {
                return connection.driver.send_packed_command(cmd).await;
            }
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.cmd("ASKING").add_command(cmd.clone());
            let answers = connection.driver.send_packed_commands(&pipeline, 0, 2).await?;
            Ok(answers.into_iter().nth(1).unwrap_or_default())
        };
        match timeout_at(deadline, answer).await {
            Ok(Ok(Value::ServerError(error))) => Err(NoAnswer::Refused(error)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.forget(lane, &connection);
                Err(NoAnswer::Lost(error::lost(error)))
            }
            // It may be that no answer will ever come on this connection: the next call makes another.
            Err(_) => {
                self.forget(lane, &connection);
                Err(NoAnswer::TimedOut { sent: true })
            }
        }
    }

    /// Ends the connections, once what was sent is answered.
    pub(crate) fn disconnect(&self) {
        for lane in [Lane::Calls, Lane::Builds] {
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
        let connection = self.open().await?;
        *self.current(lane) = Some(connection.clone());
        Ok(connection)
    }

    async fn open(&self) -> Result<Connection, RedisError> {
        let Address { host, port } = self.address.clone();
        let address = if self.options.is_encrypted {
            #[cfg(feature = "tls")]
            crate::tls::choose_provider();
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
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
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = address.into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp);

        let has_ended = Arc::new(AtomicBool::new(false));
        let end = EndOfTask(Arc::clone(&has_ended));
        let config = AsyncConnectionConfig::new()
            // Our deadlines, which know more, are kept around it.
            .set_response_timeout(None)
            .set_connection_timeout(Some(self.options.timeout / 4))
            .set_pipeline_buffer_size(WAITING)
            .set_write_backpressure_boundary(FLUSHED_BYTES)
            .set_push_sender(move |_: PushInfo| {
                let _until_the_task_ends = &end;
                Ok::<_, SendError>(())
            });
        let driver = Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Connection { driver, has_ended })
    }

    fn living(&self, lane: Lane) -> Option<Connection> {
        self.current(lane).as_ref().filter(|connection| connection.is_alive()).cloned()
    }

    /// Has the next call make another connection.
    fn forget(&self, lane: Lane, connection: &Connection) {
        let mut current = self.current(lane);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.has_ended, &connection.has_ended)) {
            *current = None;
        }
    }

    fn current(&self, lane: Lane) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.place(lane).current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const fn place(&self, lane: Lane) -> &Place {
        match lane {
            Lane::Calls => &self.calls,
            Lane::Builds => &self.builds,
        }
    }
}

impl Connection {
    fn is_alive(&self) -> bool {
        !self.has_ended.load(Ordering::Acquire)
    }
}

impl NoAnswer {
    /// What a caller is told who does not try again.
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::NotSent(failure) | Self::Lost(failure) => failure,
            Self::Refused(error) => error::from_server(&error),
            Self::TimedOut { .. } => Failure::busy("the server does not answer"),
        }
    }
}
