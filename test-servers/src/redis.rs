use std::{
    cell::Cell,
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use redis::{Client, Cmd, Connection, FromRedisValue, IntoConnectionInfo, RedisResult};

use crate::{
    RedisCluster,
    process::{PATIENCE, Process, free_port, not_installed},
};

const PACKAGE: &str = "redis-server";

/// The file with its settings, in its folder.
const SETTINGS: &str = "redis.conf";

/// How long a command may take: a server that is paused never answers.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How a private Redis runs.
///
/// `redis-test` starts servers too, but does not wait for them, has no restart, kill or pause, and leaves
/// them behind when the test is killed.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    settings: Vec<(String, String)>,
}

impl Default for RedisOptions {
    /// In memory alone: nothing survives a restart.
    fn default() -> Self {
        Self { settings: Vec::new() }.with_setting("save", r#""""#)
    }
}

impl RedisOptions {
    /// Sets one of the server's settings, with the value as `redis.conf` has it, quotes included. The last
    /// wins. A password would keep the launcher out: set one once the server runs.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    /// When Redis is not installed, or does not start.
    pub fn start(self) -> io::Result<Redis> {
        Redis::start(&self, None)
    }

    /// Starts two servers with these settings, the second a replica of the first and in sync with it.
    ///
    /// # Errors
    /// When Redis is not installed, or does not start, or the two do not get in sync.
    pub fn start_with_replica(self) -> io::Result<(Redis, Redis)> {
        let options = self.with_setting("repl-diskless-sync-delay", "0");
        let (primary, replica) = (options.clone().start()?, options.start()?);
        replica.query::<()>(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()])?;
        // The replica says when it has all; the primary counts on it once it has confirmed what was written since, which
        // here is nothing in the end.
        let is_in_sync = || -> RedisResult<bool> {
            let info: String = query(replica.url(), &["INFO", "replication"])?;
            let mut connection = connect(primary.url())?;
            let write = "redis.call('SET', KEYS[1], ''); redis.call('DEL', KEYS[1])";
            redis::cmd("EVAL").arg(&[write, "1", "key"]).query::<()>(&mut connection)?;
            let had: u32 = redis::cmd("WAIT").arg(&["1", "100"]).query(&mut connection)?;
            Ok(field(&info, "master_link_status") == Some("up") && had == 1)
        };
        let start = Instant::now();
        while !is_in_sync().map_err(io::Error::other)? {
            if start.elapsed() > PATIENCE {
                return Err(io::Error::other("the replica does not get in sync"));
            }
        }
        Ok((primary, replica))
    }

    /// Starts a cluster of 3 primaries with a replica each, all with these settings.
    ///
    /// It fails over when a primary has not been heard of for 2 s; the setting `cluster-node-timeout`
    /// changes that.
    ///
    /// # Errors
    /// When Redis is not installed, or does not start, or the cluster does not form.
    pub fn start_cluster(self) -> io::Result<RedisCluster> {
        RedisCluster::start(self, 1)
    }

    /// Starts a cluster of 3 primaries alone, all with these settings: what a single server is compared with.
    ///
    /// # Errors
    /// When Redis is not installed, or does not start, or the cluster does not form.
    pub fn start_cluster_without_replicas(self) -> io::Result<RedisCluster> {
        RedisCluster::start(self, 0)
    }
}

/// A private Redis, stopped when it is dropped.
#[derive(Debug)]
pub struct Redis {
    program: PathBuf,
    process: Process,
    /// Where the other nodes find it, if it is one of a cluster.
    bus_port: Option<u16>,
}

impl Redis {
    /// Starts it, as a node of a cluster if there are settings for those.
    pub(crate) fn start(options: &RedisOptions, cluster: Option<&str>) -> io::Result<Self> {
        let program = program()?;
        let process = Process::new("Redis", None)?;
        let mut settings = format!("bind 127.0.0.1\n{}", cluster.unwrap_or_default());
        for (name, value) in &options.settings {
            settings.push_str(&format!("{name} {value}\n"));
        }
        fs::write(process.folder().join(SETTINGS), settings)?;
        let bus_port = if cluster.is_some() { Some(free_port()?) } else { None };
        let mut server = Self { program, process, bus_port };
        server.start_again()?;
        Ok(server)
    }

    /// The URL of its database 0.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Host and port, as in `127.0.0.1:6379`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// The port that it listens on, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.process.port()
    }

    pub(crate) fn bus_port(&self) -> Option<u16> {
        self.bus_port
    }

    /// The folder with its data, such as the append-only file.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.process.folder()
    }

    /// Starts it again, on the same port and with what it had written to its folder, after
    /// [`stop`](Self::stop) or [`kill`](Self::kill). It is ready once it has loaded its data.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_again(&mut self) -> io::Result<()> {
        // Somebody else may have taken it, until it is this server's; then the other nodes know it.
        let (bus_port, is_new) = (Cell::new(self.bus_port), self.process.port() == 0);
        let arguments = |command: &mut Command, port: u16| {
            command.arg(SETTINGS).arg("--port").arg(port.to_string());
            let Some(known) = bus_port.get() else { return };
            let port = if is_new { free_port().unwrap_or(known) } else { known };
            bus_port.set(Some(port));
            command.arg("--cluster-port").arg(port.to_string());
        };
        // It is up when it is this very process that answers.
        let is_ready = |port: u16, id: u32| {
            let info: RedisResult<String> = query(("127.0.0.1", port), &["INFO"]);
            info.is_ok_and(|info| {
                field(&info, "process_id") == Some(&id.to_string()) && field(&info, "loading") == Some("0")
            })
        };
        self.process.start(&self.program, arguments, is_ready)?;
        self.bus_port = bus_port.get();
        Ok(())
    }

    /// Stops it as an administrator would, with all that its settings have it keep.
    ///
    /// # Errors
    /// When it does not stop.
    pub fn stop(&mut self) -> io::Result<()> {
        self.process.end(Signal::SIGTERM)
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.end(Signal::SIGKILL)
    }

    /// Has it hang: it takes connections, and does not answer, until [`resume`](Self::resume).
    ///
    /// # Errors
    /// When there is no such process.
    pub fn pause(&self) -> io::Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Has it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// When there is no such process.
    pub fn resume(&self) -> io::Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Whether it was started, and neither stopped nor killed since.
    pub(crate) fn runs(&self) -> bool {
        self.process.id().is_some()
    }

    /// Asks this node, on a connection for this command alone.
    ///
    /// # Errors
    /// When it does not answer within 5 s, answers with an error, or with another type.
    pub fn query<T: FromRedisValue>(&self, command: &[&str]) -> io::Result<T> {
        let answer = query(self.url(), command);
        answer.map_err(|error| io::Error::other(format!("{} on {}: {error}", command.join(" "), self.address())))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Unlike PostgreSQL it inherits from whoever runs the tests in the background to ignore SIGQUIT.
        let _ = self.kill();
    }
}

/// The value of a field in what `INFO` or `CLUSTER INFO` answer.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// Connects with a time-out for that, and for each command.
pub(crate) fn connect(server: impl IntoConnectionInfo) -> RedisResult<Connection> {
    let connection = Client::open(server)?.get_connection_with_timeout(TIMEOUT)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    Ok(connection)
}

fn query<T: FromRedisValue>(server: impl IntoConnectionInfo, command: &[&str]) -> RedisResult<T> {
    let mut words = Cmd::new();
    words.arg(command);
    words.query(&mut connect(server)?)
}

fn program() -> io::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join("redis-server")).find(|program| program.exists());
    found.ok_or_else(|| not_installed("Redis", PACKAGE))
}
