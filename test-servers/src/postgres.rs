use std::{
    env, fs, io,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, User},
};

use crate::watchdog::Watchdog;

const PACKAGE: &str = "postgresql";

/// How long a server may take to start or stop; it may have to recover first.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a private PostgreSQL runs.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    encoding: &'static str,
    settings: Vec<(String, String)>,
}

impl Default for PostgresOptions {
    /// In UTF-8, and without waiting for the disk: what a process had answered survives its death all the
    /// same, since the machine lives on.
    fn default() -> Self {
        Self { encoding: "UTF8", settings: Vec::new() }.with_setting("fsync", "off")
    }
}

impl PostgresOptions {
    /// Sets one of the server's settings.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or does not start.
    pub fn start(self) -> io::Result<Postgres> {
        Postgres::start(self)
    }
}

/// A private PostgreSQL, stopped when it is dropped.
#[derive(Debug)]
pub struct Postgres {
    options: PostgresOptions,
    programs: PathBuf,
    folder: PathBuf,
    owner: Option<User>,
    port: u16,
    server: Option<Child>,
    /// Last, so that it is dropped after the server has stopped.
    _watchdog: Watchdog,
}

impl Postgres {
    fn start(options: PostgresOptions) -> io::Result<Self> {
        let programs = programs()?;
        let owner = owner()?;
        let folder = tempfile::Builder::new().prefix("steps-postgres-").tempdir()?;
        if let Some(owner) = &owner {
            chown(folder.path(), Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        }
        let watchdog = Watchdog::start(folder.path(), "data/postmaster.pid")?;
        let folder = folder.keep();
        let mut server = Self { options, programs, folder, owner, port: 0, server: None, _watchdog: watchdog };
        server.make_data()?;
        server.start_again()?;
        Ok(server)
    }

    /// The URL of its database `postgres`, as its superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of this database, as its superuser.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port that it listens on, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it again, on the same port and with the same data, after [`stop`](Self::stop) or
    /// [`kill`](Self::kill).
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_again(&mut self) -> io::Result<()> {
        let start = Instant::now();
        loop {
            if self.port == 0 {
                self.port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            }
            if self.try_start(start)? {
                return Ok(());
            }
            // Somebody else took the port, or processes that were killed are not quite gone.
            if start.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                return Err(io::Error::other(format!("PostgreSQL does not start; its log:\n{log}")));
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Stops it as an administrator would who is in a hurry: running statements are given up, and what
    /// was committed is kept.
    ///
    /// # Errors
    /// When it does not stop.
    pub fn stop(&mut self) -> io::Result<()> {
        self.end(Signal::SIGINT)
    }

    /// Kills all its processes at once with SIGKILL.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn kill(&mut self) -> io::Result<()> {
        let Some(server) = &self.server else { return Ok(()) };
        let server = server.id();
        let children = children_of(server)?;
        self.end(Signal::SIGKILL)?;
        for child in children {
            // It may have noticed the end of its parent.
            let _ = kill(Pid::from_raw(child as i32), Signal::SIGKILL);
        }
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> io::Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        kill(Pid::from_raw(server.id() as i32), signal)?;
        let start = Instant::now();
        while server.try_wait()?.is_none() {
            if start.elapsed() > PATIENCE {
                server.kill()?;
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn make_data(&self) -> io::Result<()> {
        let output = self
            .program("initdb")
            .args(["--username=postgres", "--auth=trust", "--locale=C", "--no-sync", "--encoding"])
            .arg(self.options.encoding)
            .arg("--pgdata")
            .arg(self.data())
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(io::Error::other(format!("initdb failed; install the package {PACKAGE} anew: {said}")))
    }

    /// Gives `false` if the server ended by itself.
    fn try_start(&mut self, start: Instant) -> io::Result<bool> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(&self.folder).arg("-p").arg(self.port.to_string());
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"]);
        for (name, value) in &self.options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let mut server = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        while server.try_wait()?.is_none() {
            if self.is_ready()? {
                self.server = Some(server);
                return Ok(true);
            }
            if start.elapsed() > PATIENCE {
                server.kill()?;
                server.wait()?;
            }
            sleep(Duration::from_millis(20));
        }
        Ok(false)
    }

    /// Whether it is this server that answers: the socket is in its own folder.
    fn is_ready(&self) -> io::Result<bool> {
        let mut command = self.program("pg_isready");
        command.arg("--quiet").arg("-h").arg(&self.folder).arg("-p").arg(self.port.to_string());
        Ok(command.status()?.success())
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        // Its settings are ours alone, and Ctrl-C is for the tests.
        for (variable, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(variable);
        }
        command.current_dir(&self.folder).process_group(0);
        if let Some(owner) = &self.owner {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.end(Signal::SIGQUIT);
    }
}

/// Where PostgreSQL's own programs are: Debian keeps them by version and out of the way.
fn programs() -> io::Result<PathBuf> {
    let has_all = |folder: &Path| ["initdb", "postgres", "pg_isready"].iter().all(|name| folder.join(name).exists());
    let mut debian: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    debian.sort();
    let newest_first = debian.into_iter().rev().map(|(_, folder)| folder);
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(newest_first).find(|folder| has_all(folder)).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("PostgreSQL is not installed; install the package {PACKAGE}"))
    })
}

/// Whom the server runs as: it refuses to run as root.
fn owner() -> io::Result<Option<User>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    match User::from_name("postgres")? {
        Some(user) => Ok(Some(user)),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("PostgreSQL does not run as root, and there is no user postgres; install the package {PACKAGE}"),
        )),
    }
}

/// The processes whose parent is `parent`.
fn children_of(parent: u32) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may be gone by now. Its name, in parentheses, may have blanks.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let of = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        if of == Some(parent) {
            children.push(pid);
        }
    }
    Ok(children)
}
