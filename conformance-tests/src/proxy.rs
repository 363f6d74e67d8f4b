//! TCP proxy that injects faults between a store and its server.
//!
//! A [`Proxy`] forwards all bytes until a call of [`fail`](Proxy::fail). The [`Fault`] sets the kind of the fault, its
//! [`Direction`], and the number of bytes before it:
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use conformance_tests::proxy::{Direction, Fault, Proxy};
//!
//! let proxy = Proxy::start("127.0.0.1:5432").await?;
//! // … connect the store to `proxy.address()` …
//! proxy.fail(Fault::cut(Direction::Answers).after(17).once());
//! // … the next answer ends after 17 bytes, and so does its connection; later ones are whole …
//! proxy.fail(Fault::silence(Direction::Requests));
//! // … requests no longer reach the server, and the store gets no error …
//! proxy.heal();
//! # Ok(())
//! # }
//! ```

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream, ToSocketAddrs, lookup_host,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// Direction of bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Direction {
    /// From the store to the server.
    Requests,
    /// From the server to the store.
    Answers,
}

/// A fault: its kind, direction, position and number of occurrences.
///
/// A fault first hits the connection that carries the next byte after the [forwarded](Self::after) ones. Then, until
/// the proxy is healed, it hits every other connection, including new ones, at its next byte in the same direction. A
/// fault with [`once`](Self::once) hits only the first connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Fault {
    kind: Kind,
    direction: Direction,
    after: u64,
    is_once: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Cut,
    Reset,
    Delay(Duration),
    Silence,
}

impl Fault {
    /// Closes the connection (FIN) on both sides.
    pub const fn cut(direction: Direction) -> Self {
        Self::new(Kind::Cut, direction)
    }

    /// Resets the connection (RST) on both sides.
    pub const fn reset(direction: Direction) -> Self {
        Self::new(Kind::Reset, direction)
    }

    /// Delays the bytes.
    pub const fn delay(direction: Direction, by: Duration) -> Self {
        Self::new(Kind::Delay(by), direction)
    }

    /// Drops all further bytes in this direction, and the end of the stream, without closing the connection. The
    /// connection is half-open, as after the crash of a machine, and stays so when the proxy is healed.
    pub const fn silence(direction: Direction) -> Self {
        Self::new(Kind::Silence, direction)
    }

    const fn new(kind: Kind, direction: Direction) -> Self {
        Self { kind, direction, after: 0, is_once: false }
    }

    /// Forwards this many bytes first, counted from [`Proxy::fail`] over all connections.
    pub const fn after(mut self, bytes: u64) -> Self {
        self.after = bytes;
        self
    }

    /// Hits one connection, and then heals the proxy.
    pub const fn once(mut self) -> Self {
        self.is_once = true;
        self
    }
}

/// Listens on a local port and forwards connections to a server.
///
/// Runs on the runtime that started it. Dropping it closes all connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    armed: Mutex<Option<Fault>>,
    connections: AtomicU64,
    requests: AtomicU64,
    answers: AtomicU64,
    failures: AtomicU64,
    /// Incremented to reset all connections.
    reset: watch::Sender<u64>,
}

impl Proxy {
    /// Starts a healthy proxy for the server, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When the name of the server does not resolve, or there is no free port. An unreachable server is not an error
    /// here: the proxy resets each connection then.
    pub async fn start(server: impl ToSocketAddrs) -> io::Result<Self> {
        let server = lookup_host(server)
            .await?
            .next()
            .ok_or_else(|| io::Error::other("the name of the server has no address"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server,
            armed: Mutex::default(),
            connections: AtomicU64::default(),
            requests: AtomicU64::default(),
            answers: AtomicU64::default(),
            failures: AtomicU64::default(),
            reset: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    /// The address that the proxy listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the fault from now on. Replaces an earlier fault.
    pub fn fail(&self, fault: Fault) {
        *self.shared.armed() = Some(fault);
        self.shared.failures.store(0, Ordering::SeqCst);
    }

    /// Forwards everything again. Silenced connections stay silent.
    pub fn heal(&self) {
        *self.shared.armed() = None;
    }

    /// Resets all open connections, idle ones too. New connections work at once.
    pub fn reset_all(&self) {
        self.shared.reset.send_modify(|times| *times += 1);
    }

    /// The number of connections that the last fault has hit.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::SeqCst)
    }

    /// The number of connections so far, including failed ones.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The number of bytes forwarded in this direction so far, over all connections.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.shared.forwarded(direction).load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn armed(&self) -> MutexGuard<'_, Option<Fault>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const fn forwarded(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Requests => &self.requests,
            Direction::Answers => &self.answers,
        }
    }

    /// The number of bytes to forward before a fault, and the fault, if one occurs within these bytes.
    fn next_fault(&self, direction: Direction, bytes: usize) -> (usize, Option<Kind>) {
        let mut armed = self.armed();
        let Some(fault) = armed.as_mut().filter(|fault| fault.direction == direction) else { return (bytes, None) };
        match usize::try_from(fault.after) {
            Ok(after) if after < bytes => {
                let kind = fault.kind;
                fault.after = 0;
                if fault.is_once {
                    *armed = None;
                }
                self.failures.fetch_add(1, Ordering::SeqCst);
                (after, Some(kind))
            }
            _ => {
                fault.after -= bytes as u64;
                (bytes, None)
            }
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, which ends the connections.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, _)) => {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(connect(client, Arc::clone(&shared)));
            }
            // Transient, such as too many open files.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// End of a connection.
enum End {
    /// Both sides are closed.
    Cut,
    Reset,
}

async fn connect(mut client: TcpStream, shared: Arc<Shared>) {
    let mut reset = shared.reset.subscribe();
    let Ok(mut server) = TcpStream::connect(shared.server).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::try_join!(
                forward(Direction::Requests, from_client, to_server, &shared),
                forward(Direction::Answers, from_server, to_client, &shared),
            )
        };
        tokio::select! {
            ended = both => ended.err().unwrap_or(End::Cut),
            _ = reset.changed() => End::Reset,
        }
    };
    if let End::Reset = end {
        for side in [&client, &server] {
            let _ = side.set_zero_linger();
        }
    }
}

/// Forwards the bytes of one direction, and the end of the stream.
async fn forward(
    direction: Direction,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
) -> Result<(), End> {
    // Without it the kernel could hold back bytes to fill a packet, which the store would see as a delay.
    let _ = to.as_ref().set_nodelay(true);
    let mut buffer = vec![0; 16_384];
    // An error of one side resets the other one.
    let lost = |_| End::Reset;
    loop {
        let mut left = match from.read(&mut buffer).await.map_err(lost)? {
            0 => {
                let _ = to.shutdown().await;
                return Ok(());
            }
            read => &buffer[..read],
        };
        while !left.is_empty() {
            let (passing, failing) = shared.next_fault(direction, left.len());
            to.write_all(&left[..passing]).await.map_err(lost)?;
            shared.forwarded(direction).fetch_add(passing as u64, Ordering::SeqCst);
            left = &left[passing..];
            match failing {
                None => {}
                Some(Kind::Cut) => return Err(End::Cut),
                Some(Kind::Reset) => return Err(End::Reset),
                Some(Kind::Silence) => loop {
                    // Keep reading, so that the sender does not notice a full buffer.
                    if !matches!(from.read(&mut buffer).await, Ok(1..)) {
                        std::future::pending::<()>().await;
                    }
                },
                Some(Kind::Delay(by)) => {
                    sleep(by).await;
                    to.write_all(left).await.map_err(lost)?;
                    shared.forwarded(direction).fetch_add(left.len() as u64, Ordering::SeqCst);
                    left = &[];
                }
            }
        }
    }
}
