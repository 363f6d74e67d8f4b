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
    process::{Process, TIME_LIMIT, free_port, not_installed},
};

const PACKAGE: &str = "redis-server";

/// Name of the configuration file in the folder.
const SETTINGS: &str = "redis.conf";

/// Time-out of a command, since a paused server never answers.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Options of a private Redis.
///
/// The crate `redis-test` also starts servers, but does not wait until they are ready, has no restart, kill or pause,
/// and leaks them when the test is killed.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    settings: Vec<(String, String)>,
}

impl Default for RedisOptions {
    /// In memory only: no data survives a restart.
    fn default() -> Self {
        Self { settings: Vec::new() }.with_setting("save", r#""""#)
    }
}

impl RedisOptions {
    /// Sets a setting of the server, with the value in the syntax of `redis.conf`, including quotes. The last value
    /// wins. A password would lock out the readiness check, so set one only after the start.
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

    /// Starts a primary and a replica with these settings, and waits until they are in sync.
    ///
    /// # Errors
    /// When Redis is not installed, does not start, or the replica does not get in sync.
    pub fn start_with_replica(self) -> io::Result<(Redis, Redis)> {
        let options = self.with_setting("repl-diskless-sync-delay", "0");
        let primary = options.clone().start()?;
        let replica = options.start()?;
        replica.query::<()>(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()])?;
        // The link status of the replica shows that it is in sync. The primary counts the replica in WAIT only after an
        // acknowledgement, so write a key, delete it again, and wait.
        let is_in_sync = || -> RedisResult<bool> {
            let info: String = query(replica.url(), &["INFO", "replication"])?;
            let mut connection = connect(primary.url())?;
            let write = "redis.call('SET', KEYS[1], ''); redis.call('DEL', KEYS[1])";
            redis::cmd("EVAL").arg(&[write, "1", "key"]).query::<()>(&mut connection)?;
            let acknowledged: u32 = redis::cmd("WAIT").arg(&["1", "100"]).query(&mut connection)?;
            Ok(field(&info, "master_link_status") == Some("up") && acknowledged == 1)
        };
        let start = Instant::now();
        while !is_in_sync().map_err(io::Error::other)? {
            if start.elapsed() > TIME_LIMIT {
                return Err(io::Error::other("the replica does not get in sync"));
            }
        }
        Ok((primary, replica))
    }

    /// Starts a cluster of 3 primaries with a replica each, all with these settings.
    ///
    /// The cluster fails over 2 s after the last message of a primary. The setting `cluster-node-timeout` changes that
    /// time.
    ///
    /// # Errors
    /// When Redis is not installed, does not start, or the cluster does not form.
    pub fn start_cluster(self) -> io::Result<RedisCluster> {
        RedisCluster::start(self, 1)
    }

    /// Starts a cluster of 3 primaries without replicas, all with these settings, for comparison with a single server.
    ///
    /// # Errors
    /// When Redis is not installed, does not start, or the cluster does not form.
    pub fn start_cluster_without_replicas(self) -> io::Result<RedisCluster> {
        RedisCluster::start(self, 0)
    }
}

/// A private Redis. Dropping it stops the server.
#[derive(Debug)]
pub struct Redis {
    program: PathBuf,
    process: Process,
    /// The port for the other nodes, if the server is a node of a cluster.
    bus_port: Option<u16>,
}

impl Redis {
    /// Starts the server, as a node of a cluster if there are settings for one.
    pub(crate) fn start(options: &RedisOptions, cluster_settings: Option<&str>) -> io::Result<Self> {
        let program = program()?;
        let process = Process::new("Redis", None)?;
        let mut settings = format!("bind 127.0.0.1\n{}", cluster_settings.unwrap_or_default());
        for (name, value) in &options.settings {
            settings.push_str(&format!("{name} {value}\n"));
        }
        fs::write(process.folder().join(SETTINGS), settings)?;
        let bus_port = if cluster_settings.is_some() { Some(free_port()?) } else { None };
        let mut server = Self { program, process, bus_port };
        server.start_again()?;
        Ok(server)
    }

    /// The URL of database 0.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Host and port, as in `127.0.0.1:6379`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.process.port()
    }

    pub(crate) fn bus_port(&self) -> Option<u16> {
        self.bus_port
    }

    /// The folder with the data, such as the append-only file.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.process.folder()
    }

    /// Starts the server again, on the same port and with the data in its folder, after [`stop`](Self::stop) or
    /// [`kill`](Self::kill). Waits until the data is loaded.
    ///
    /// # Errors
    /// When the server does not start.
    pub fn start_again(&mut self) -> io::Result<()> {
        // Before the first successful start, another process may take the bus port, so each attempt uses a new one.
        // After it the port must not change, since the other nodes know it.
        let bus_port = Cell::new(self.bus_port);
        let is_new = self.process.port() == 0;
        let arguments = |command: &mut Command, port: u16| {
            command.arg(SETTINGS).arg("--port").arg(port.to_string());
            let Some(known) = bus_port.get() else { return };
            let port = if is_new { free_port().unwrap_or(known) } else { known };
            bus_port.set(Some(port));
            command.arg("--cluster-port").arg(port.to_string());
        };
        // Compares the process id, since another server may answer on the port.
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

    /// Stops the server with SIGTERM, which saves the data if the settings enable persistence.
    ///
    /// # Errors
    /// When the server does not stop.
    pub fn stop(&mut self) -> io::Result<()> {
        self.process.end(Signal::SIGTERM)
    }

    /// Kills the server with SIGKILL.
    ///
    /// # Errors
    /// When the server does not end.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.end(Signal::SIGKILL)
    }

    /// Pauses the server: it accepts connections but does not answer until [`resume`](Self::resume).
    ///
    /// # Errors
    /// When the process does not exist.
    pub fn pause(&self) -> io::Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Resumes the server after [`pause`](Self::pause).
    ///
    /// # Errors
    /// When the process does not exist.
    pub fn resume(&self) -> io::Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Whether the server was started, and neither stopped nor killed since.
    pub(crate) fn runs(&self) -> bool {
        self.process.id().is_some()
    }

    /// Sends a command to this node on a new connection.
    ///
    /// # Errors
    /// When the node does not answer within 5 s, or answers with an error or another type.
    pub fn query<T: FromRedisValue>(&self, command: &[&str]) -> io::Result<T> {
        let answer = query(self.url(), command);
        answer.map_err(|error| io::Error::other(format!("{} on {}: {error}", command.join(" "), self.address())))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // SIGKILL, since a Redis of a background job ignores SIGQUIT: a shell starts background jobs with SIGQUIT
        // ignored, and Redis does not reset that, unlike PostgreSQL.
        let _ = self.kill();
    }
}

/// The value of a field in the answer of `INFO` or `CLUSTER INFO`.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// Connects with a time-out for the connection and for each command.
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
