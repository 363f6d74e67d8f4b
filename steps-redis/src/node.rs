//! One server with its connections.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redis::{Cmd, RedisError, Value};
use tokio::time::{Instant, timeout_at};

use crate::{
    connection::{Channel, Connection, SendError},
    error,
    options::RedisOptions,
};

/// A host and a port.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Parses the address in a redirect. An empty host stands for the sender's host, an unknown host gives `None`.
    pub(crate) fn from_redirect(text: &str, sender: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = match host {
            "?" => return None,
            "" => &sender.host,
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

/// A server and the connections to it. A connection is opened when it is first needed, and again after it was lost.
pub(crate) struct Node {
    pub(crate) address: Address,
    options: Arc<RedisOptions>,
    default: ConnectionSlot,
    replicated: ConnectionSlot,
    bulk: ConnectionSlot,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Holds the connection of one channel.
#[derive(Default)]
struct ConnectionSlot {
    current: Mutex<Option<Connection>>,
    /// Locked while a connection is being opened, so that all callers share it.
    opening: tokio::sync::Mutex<()>,
}

impl Node {
    pub(crate) fn new(address: Address, options: Arc<RedisOptions>) -> Self {
        Self {
            address,
            options,
            default: ConnectionSlot::default(),
            replicated: ConnectionSlot::default(),
            bulk: ConnectionSlot::default(),
        }
    }

    /// Opens the default connection, unless it is open.
    pub(crate) async fn connect(&self) -> Result<(), RedisError> {
        self.get_or_open(Channel::Default).await.map(drop)
    }

    /// Sends a command, once, and waits for its reply.
    pub(crate) async fn send(&self, channel: Channel, cmd: &Cmd, deadline: Instant) -> Result<Value, SendError> {
        let connection = self.connection(channel, deadline).await?;
        self.send_on(&connection, channel, cmd, false, deadline).await
    }

    /// The connection of a channel.
    pub(crate) async fn connection(&self, channel: Channel, deadline: Instant) -> Result<Connection, SendError> {
        if let Some(connection) = self.live_connection(channel) {
            return Ok(connection);
        }
        // Boxed, because the future is large and seldom needed.
        match Box::pin(timeout_at(deadline, self.get_or_open(channel))).await {
            Ok(connection) => connection.map_err(|error| SendError::NotSent(error::connect_error(error))),
            Err(_) => Err(SendError::TimedOut { was_sent: false }),
        }
    }

    /// Sends a command on this connection of a channel, see [`Connection::send`].
    pub(crate) async fn send_on(
        &self,
        connection: &Connection,
        channel: Channel,
        cmd: &Cmd,
        asking: bool,
        deadline: Instant,
    ) -> Result<Value, SendError> {
        let reply = connection.send(cmd, asking, deadline).await;
        // After a time-out a reply may never arrive on this connection, so the next call opens another one.
        if let Err(SendError::Lost(_) | SendError::TimedOut { was_sent: true }) = reply {
            self.discard(channel, connection);
        }
        reply
    }

    /// Discards all connections. They close when the commands in flight have their replies.
    pub(crate) fn disconnect(&self) {
        for channel in [Channel::Default, Channel::Replicated, Channel::Bulk] {
            *self.current(channel) = None;
        }
    }

    async fn get_or_open(&self, channel: Channel) -> Result<Connection, RedisError> {
        if let Some(connection) = self.live_connection(channel) {
            return Ok(connection);
        }
        let _opening = self.slot(channel).opening.lock().await;
        if let Some(connection) = self.live_connection(channel) {
            return Ok(connection);
        }
        let connection = Connection::open(&self.address, channel, &self.options).await?;
        *self.current(channel) = Some(connection.clone());
        Ok(connection)
    }

    /// The connection of a channel, if it is open.
    pub(crate) fn live_connection(&self, channel: Channel) -> Option<Connection> {
        self.current(channel).as_ref().filter(|connection| connection.is_live()).cloned()
    }

    /// Closes a connection, so that the next call and the calls that wait for a permit use another one.
    fn discard(&self, channel: Channel, connection: &Connection) {
        connection.close();
        let mut current = self.current(channel);
        if current.as_ref().is_some_and(|current| current.is_same(connection)) {
            *current = None;
        }
    }

    fn current(&self, channel: Channel) -> MutexGuard<'_, Option<Connection>> {
        self.slot(channel).current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const fn slot(&self, channel: Channel) -> &ConnectionSlot {
        match channel {
            Channel::Default => &self.default,
            Channel::Replicated => &self.replicated,
            Channel::Bulk => &self.bulk,
        }
    }
}
