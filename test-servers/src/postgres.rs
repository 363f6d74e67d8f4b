use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, User},
};

use crate::process::{Process, not_installed};

const PACKAGE: &str = "postgresql";

/// Name of the data directory in the folder.
const DATA: &str = "data";

/// Options of a private PostgreSQL.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    encoding: &'static str,
    settings: Vec<(String, String)>,
    /// Names and contents of files in the data directory.
    files: Vec<(&'static str, String)>,
}

impl Default for PostgresOptions {
    /// UTF-8, without fsync. Committed data still survives the death of the server, since the machine keeps running.
    fn default() -> Self {
        Self { encoding: "UTF8", settings: Vec::new(), files: Vec::new() }.with_setting("fsync", "off")
    }
}

impl PostgresOptions {
    /// Sets a setting of the server.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Enables encrypted connections with this certificate and key, both as PEM.
    #[must_use]
    pub fn with_tls(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.files.extend([("server.crt", certificate.into()), ("server.key", key.into())]);
        self.with_setting("ssl", "on")
    }

    /// Starts the server.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or does not start.
    pub fn start(self) -> io::Result<Postgres> {
        Postgres::start(self)
    }
}

/// A private PostgreSQL. Dropping it stops the server.
#[derive(Debug)]
pub struct Postgres {
    options: PostgresOptions,
    programs: PathBuf,
    process: Process,
}

impl Postgres {
    fn start(options: PostgresOptions) -> io::Result<Self> {
        let programs = programs()?;
        let mut server = Self { options, programs, process: Process::new("PostgreSQL", owner()?)? };
        server.make_data()?;
        for (name, content) in &server.options.files {
            server.process.write_secret(&Path::new(DATA).join(name), content)?;
        }
        server.start_again()?;
        Ok(server)
    }

    /// The URL of the database `postgres` as the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of this database as the superuser.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port())
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.process.port()
    }

    /// Starts the server again, on the same port and with the same data, after [`stop`](Self::stop) or
    /// [`kill`](Self::kill).
    ///
    /// # Errors
    /// When the server does not start.
    pub fn start_again(&mut self) -> io::Result<()> {
        let folder = self.process.folder().to_owned();
        let arguments = |command: &mut Command, port: u16| {
            command.arg("-D").arg(folder.join(DATA)).arg("-k").arg(&folder).arg("-p").arg(port.to_string());
            command.args(["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"]);
            for (name, value) in &self.options.settings {
                command.arg("-c").arg(format!("{name}={value}"));
            }
            clear_environment(command);
        };
        // Connects through the socket in the folder, which belongs to this server only.
        let is_ready = |port: u16, _| {
            let mut command = Command::new(self.programs.join("pg_isready"));
            clear_environment(&mut command);
            command.arg("--quiet").arg("-h").arg(&folder).arg("-p").arg(port.to_string());
            command.status().is_ok_and(|status| status.success())
        };
        self.process.start(&self.programs.join("postgres"), arguments, is_ready)
    }

    /// Stops the server with a fast shutdown: running statements are rolled back, and committed data is flushed.
    ///
    /// # Errors
    /// When the server does not stop.
    pub fn stop(&mut self) -> io::Result<()> {
        self.process.end(Signal::SIGINT)
    }

    /// Kills all processes of the server with SIGKILL.
    ///
    /// # Errors
    /// When the process does not exist.
    pub fn kill(&mut self) -> io::Result<()> {
        let Some(server) = self.process.id() else { return Ok(()) };
        let children = children_of(server)?;
        self.process.end(Signal::SIGKILL)?;
        for child in children {
            // The child may already have exited, since its parent is gone.
            let _ = kill(Pid::from_raw(child as i32), Signal::SIGKILL);
        }
        Ok(())
    }

    fn make_data(&self) -> io::Result<()> {
        let mut command = Command::new(self.programs.join("initdb"));
        self.process.prepare(&mut command);
        clear_environment(&mut command);
        let output = command
            .args(["--username=postgres", "--auth=trust", "--locale=C", "--no-sync", "--encoding"])
            .arg(self.options.encoding)
            .arg("--pgdata")
            .arg(self.process.folder().join(DATA))
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("initdb failed; reinstall the package {PACKAGE}: {stderr}")))
    }
}

/// Removes the PostgreSQL variables of the caller, which would override settings.
fn clear_environment(command: &mut Command) {
    for (variable, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(variable);
    }
}

/// The folder with the programs of PostgreSQL. Debian installs them in a folder per version outside of PATH.
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
    let found = env::split_paths(&path).chain(newest_first).find(|folder| has_all(folder));
    found.ok_or_else(|| not_installed("PostgreSQL", PACKAGE))
}

/// The user of the server, if this process is root. PostgreSQL and PgBouncer refuse to run as root.
pub(crate) fn owner() -> io::Result<Option<User>> {
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

/// The child processes of `parent`.
fn children_of(parent: u32) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // The process may be gone. Its name is in parentheses and may contain blanks.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let of = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        if of == Some(parent) {
            children.push(pid);
        }
    }
    Ok(children)
}
