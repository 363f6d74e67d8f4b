//! A TCP proxy that fails on cue: what stands between a store and its server in the tests of its faults.
//!
//! A [`Proxy`] passes everything on, byte for byte, until it is told to [`fail`](Proxy::fail). A [`Fault`] says what
//! happens then, in which [`Direction`], and after how many bytes:
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
//! // … no request reaches the server any more, and nobody says so …
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

/// Which way bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Direction {
    /// From the store to the server.
    Requests,
    /// From the server to the store.
    Answers,
}

/// What goes wrong, in which direction, where, and how long.
///
/// A fault meets the connection whose byte is the next one after those that still [pass](Self::after). From then on,
/// until the proxy is healed, it meets every other connection at its next byte in the same direction, new ones
/// too; unless it happens [once](Self::once).
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
    /// The connection ends in good order (FIN), on both sides.
    pub const fn cut(direction: Direction) -> Self {
        Self::new(Kind::Cut, direction)
    }

    /// The connection is reset (RST), on both sides.
    pub const fn reset(direction: Direction) -> Self {
        Self::new(Kind::Reset, direction)
    }

    /// What comes is passed on this much later.
    pub const fn delay(direction: Direction, by: Duration) -> Self {
        Self::new(Kind::Delay(by), direction)
    }

    /// The connection stays open, and nothing more comes through in this direction, not even its end. It
    /// is half-open, as when a machine vanishes, and stays so when the proxy is healed.
    pub const fn silence(direction: Direction) -> Self {
        Self::new(Kind::Silence, direction)
    }

    const fn new(kind: Kind, direction: Direction) -> Self {
        Self { kind, direction, after: 0, is_once: false }
    }

    /// Lets this many bytes pass first, counted from [`Proxy::fail`] on and over all connections.
    pub const fn after(mut self, bytes: u64) -> Self {
        self.after = bytes;
        self
    }

    /// Meets one connection, and then the proxy is healthy again.
    pub const fn once(mut self) -> Self {
        self.is_once = true;
        self
    }
}

/// Listens on a port of this machine and passes on to a server what comes, and back what it answers.
///
/// It lives on the runtime on which it was started. Dropping it ends all its connections.
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
    /// Counts up when all connections are to end.
    reset: watch::Sender<u64>,
}

impl Proxy {
    /// Starts a healthy proxy before this server, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When the server's name is not known, or there is no free port. Whether the server is there shows
    /// with each connection: without it, that is reset.
    pub async fn start(server: impl ToSocketAddrs) -> io::Result<Self> {
        let server =
            lookup_host(server).await?.next().ok_or_else(|| io::Error::other("the server's name has no address"))?;
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

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Fails in this way from now on, and in no other.
    pub fn fail(&self, fault: Fault) {
        *self.shared.armed() = Some(fault);
        self.shared.failures.store(0, Ordering::SeqCst);
    }

    /// Passes on everything again. Connections that were silenced stay so.
    pub fn heal(&self) {
        *self.shared.armed() = None;
    }

    /// Resets all connections that are open, at rest or not. New ones can be made at once.
    pub fn reset_all(&self) {
        self.shared.reset.send_modify(|times| *times += 1);
    }

    /// How many connections the last fault has met so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::SeqCst)
    }

    /// How many connections were made so far, with or without success.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many bytes were passed on in this direction so far, over all connections.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.shared.passed(direction).load(Ordering::SeqCst)
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

    const fn passed(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Requests => &self.requests,
            Direction::Answers => &self.answers,
        }
    }

    /// How many of these bytes may pass before something happens, and what does.
    fn meet(&self, direction: Direction, bytes: usize) -> (usize, Option<Kind>) {
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
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, _)) => {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(connect(client, Arc::clone(&shared)));
            }
            // No descriptor is free, say: there may be one soon.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// How a connection ends.
enum End {
    /// Both sides are told that it is over.
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
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let both = async {
            tokio::try_join!(
                pass_on(Direction::Requests, from_client, to_server, &shared),
                pass_on(Direction::Answers, from_server, to_client, &shared),
            )
        };
        tokio::select! {
            passed = both => passed.err().unwrap_or(End::Cut),
            _ = reset.changed() => End::Reset,
        }
    };
    if let End::Reset = end {
        for side in [&client, &server] {
            let _ = side.set_zero_linger();
        }
    }
}

/// Passes on what comes in one direction, and its end.
async fn pass_on(
    direction: Direction,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
) -> Result<(), End> {
    // What a proxy holds back to fill a packet would count as delayed.
    let _ = to.as_ref().set_nodelay(true);
    let mut buffer = vec![0; 16_384];
    // A side that is gone in another way than by its end takes the other one along.
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
            let (passing, failing) = shared.meet(direction, left.len());
            to.write_all(&left[..passing]).await.map_err(lost)?;
            shared.passed(direction).fetch_add(passing as u64, Ordering::SeqCst);
            left = &left[passing..];
            match failing {
                None => {}
                Some(Kind::Cut) => return Err(End::Cut),
                Some(Kind::Reset) => return Err(End::Reset),
                Some(Kind::Silence) => loop {
                    // What comes is taken, so that the sender notices nothing.
                    if !matches!(from.read(&mut buffer).await, Ok(1..)) {
                        std::future::pending::<()>().await;
                    }
                },
                Some(Kind::Delay(by)) => {
                    sleep(by).await;
                    to.write_all(left).await.map_err(lost)?;
                    shared.passed(direction).fetch_add(left.len() as u64, Ordering::SeqCst);
                    left = &[];
                }
            }
        }
    }
}
