//! One connection to a server.

use std::{io, sync::Arc};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo,
    RedisConnectionInfo, RedisError, ServerError, Value, aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use steps_batch::BatchError;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit, TryAcquireError},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{error, node::Address, options::RedisOptions, replicas::ReplicationBarrier, resp_rewrite::ArrayAsBulk};

/// How many commands of a connection may be in flight. Further commands are held back, so that they are certainly not
/// applied if they expire.
const MAX_IN_FLIGHT: usize = 1024;

/// How many bytes the driver buffers before it writes, if further commands are queued: fewer, larger system calls.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// The connections of a node. On each of them replies arrive in the order of the commands, so a slow command delays
/// all later ones.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Channel {
    /// For all commands that need no other channel.
    Default,
    /// For writes that wait for replicas.
    Replicated,
    /// For reads of whole builds, whose replies may be long.
    Bulk,
}

#[derive(Clone)]
pub(crate) struct Connection {
    driver: MultiplexedConnection,
    /// Permits for commands in flight. Closed when no more commands may be sent.
    permits: Arc<Semaphore>,
    /// Set on a [replicated](Channel::Replicated) channel.
    barrier: Option<Arc<ReplicationBarrier>>,
    /// Aborts our I/O task with the last clone. `None` when the driver spawned its own task (TLS).
    _io_task: Option<Arc<AbortOnDropHandle<()>>>,
}

/// Closes the permits of a connection when its I/O task drops it.
struct CloseOnDrop(Arc<Semaphore>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The reasons why a command has no result.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The command was not sent.
    NotSent(BatchError),
    /// The connection was lost after the command was sent.
    Lost(BatchError),
    /// The deadline has passed.
    TimedOut { was_sent: bool },
    /// The command was applied, but too few replicas had it before the deadline.
    TooFewReplicas(BatchError),
    /// The server returned an error.
    Refused(ServerError),
}

impl SendError {
    /// The error for a caller that does not retry.
    pub(crate) fn into_batch_error(self) -> BatchError {
        match self {
            Self::NotSent(error) | Self::Lost(error) | Self::TooFewReplicas(error) => error,
            Self::Refused(error) => error::server_error(&error),
            Self::TimedOut { .. } => BatchError::transient("the server does not reply"),
        }
    }
}

impl Connection {
    /// Opens a connection to the node at `address`.
    pub(crate) async fn open(address: &Address, channel: Channel, options: &RedisOptions) -> Result<Self, RedisError> {
        let permits = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        let config = driver_config(options, CloseOnDrop(Arc::clone(&permits)));
        let (driver, io_task) = if options.is_encrypted {
            (connect_encrypted(address, options, &config).await?, None)
        } else {
            let (driver, io_task) = connect_plain(address, channel, options, config).await?;
            (driver, Some(Arc::new(io_task)))
        };
        let barrier = match channel {
            Channel::Replicated => Some(Arc::new(ReplicationBarrier::new(options.replicas, options.timeout))),
            Channel::Default | Channel::Bulk => None,
        };
        Ok(Self { driver, permits, barrier, _io_task: io_task })
    }

    pub(crate) fn is_live(&self) -> bool {
        !self.permits.is_closed()
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.permits, &other.permits)
    }

    /// Prevents further commands, also commands that wait for a permit.
    pub(crate) fn close(&self) {
        self.permits.close();
    }

    /// Sends a command once. On a replicated channel, also waits until replicas have the write.
    ///
    /// `asking` announces a command for a slot that is still being imported by this node.
    pub(crate) async fn send(&self, cmd: &Cmd, asking: bool, deadline: Instant) -> Result<Value, SendError> {
        match &self.barrier {
            None => self.send_command(cmd, asking, deadline).await,
            // Boxed, so that the future of all other calls stays small.
            Some(barrier) => Box::pin(self.send_replicated(barrier, cmd, asking, deadline)).await,
        }
    }

    async fn send_replicated(
        &self,
        barrier: &Arc<ReplicationBarrier>,
        cmd: &Cmd,
        asking: bool,
        deadline: Instant,
    ) -> Result<Value, SendError> {
        let guard = barrier.enter(deadline).await?;
        let reply = self.send_command(cmd, asking, deadline).await?;
        // A script that returns nil has written nothing.
        if reply != Value::Nil {
            barrier.wait(guard, &self.driver, deadline).await?;
        }
        Ok(reply)
    }

    async fn send_command(&self, cmd: &Cmd, asking: bool, deadline: Instant) -> Result<Value, SendError> {
        let _permit = self.acquire_permit(deadline).await?;
        let mut driver = self.driver.clone();
        let reply = async {
            if !asking {
                return driver.send_packed_command(cmd).await;
            }
            Box::pin(async {
                let mut pipeline = Pipeline::with_capacity(2);
                pipeline.cmd("ASKING").add_command(cmd.clone());
                let replies = driver.send_packed_commands(&pipeline, 0, 2).await?;
                Ok(replies.into_iter().nth(1).unwrap_or_default())
            })
            .await
        };
        match timeout_at(deadline, reply).await {
            Ok(Ok(Value::ServerError(error))) => Err(SendError::Refused(error)),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(SendError::Lost(error::connection_lost(error))),
            Err(_) => Err(SendError::TimedOut { was_sent: true }),
        }
    }

    /// Waits until one more command may be in flight.
    async fn acquire_permit(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, SendError> {
        let permit = match self.permits.try_acquire() {
            Err(TryAcquireError::NoPermits) => match timeout_at(deadline, self.permits.acquire()).await {
                Ok(permit) => permit.ok(),
                Err(_) => return Err(SendError::TimedOut { was_sent: false }),
            },
            permit => permit.ok(),
        };
        permit.ok_or_else(|| SendError::NotSent(BatchError::transient("the connection to the server was lost")))
    }
}

/// The driver's settings of a connection. `on_end` is dropped when the connection ends.
fn driver_config(options: &RedisOptions, on_end: CloseOnDrop) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        // Deadlines are enforced by the caller of the driver, which knows whether a command was sent.
        .set_response_timeout(None)
        .set_connection_timeout(Some(connect_timeout(options)))
        .set_pipeline_buffer_size(MAX_IN_FLIGHT)
        .set_write_backpressure_boundary(WRITE_BUFFER_BYTES)
        // No push messages are expected: the closure only owns `on_end`, because the driver drops it when the
        // connection ends.
        .set_push_sender(move |_: PushInfo| {
            let _owned = &on_end;
            Ok::<_, redis::aio::SendError>(())
        })
}

fn connect_timeout(options: &RedisOptions) -> std::time::Duration {
    options.timeout / 4
}

/// The settings that the driver applies to a new connection: protocol, login and database.
fn session_settings(options: &RedisOptions) -> RedisConnectionInfo {
    // With RESP3 the driver reports the end of a connection.
    let mut settings = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_db(options.database)
        .set_lib_name("steps", env!("CARGO_PKG_VERSION"));
    if let Some(user) = &options.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &options.password {
        settings = settings.set_password(password);
    }
    settings
}

/// Connects with TLS. The driver opens the stream and spawns the I/O task, so replies are not rewritten.
async fn connect_encrypted(
    address: &Address,
    options: &RedisOptions,
    config: &AsyncConnectionConfig,
) -> Result<MultiplexedConnection, RedisError> {
    #[cfg(feature = "tls")]
    crate::tls::install_provider();
    let Address { host, port } = address.clone();
    let info = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        .into_connection_info()?
        .set_redis_settings(session_settings(options))
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    Client::open(info)?.get_multiplexed_async_connection_with_config(config).await
}

async fn connect_plain(
    address: &Address,
    channel: Channel,
    options: &RedisOptions,
    config: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, AbortOnDropHandle<()>), RedisError> {
    let settings = session_settings(options);
    let connecting = async {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        match channel {
            Channel::Default | Channel::Replicated => spawn_driver(stream, &settings, config).await,
            Channel::Bulk => spawn_driver(ArrayAsBulk::new(stream), &settings, config).await,
        }
    };
    match timeout(connect_timeout(options), connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

/// Starts the driver's I/O task on a stream.
async fn spawn_driver(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    settings: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, AbortOnDropHandle<()>), RedisError> {
    let (driver, io_task) = MultiplexedConnection::new_with_config(settings, stream, config).await?;
    Ok((driver, AbortOnDropHandle::new(tokio::spawn(io_task))))
}
