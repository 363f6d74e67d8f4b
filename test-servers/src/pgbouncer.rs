use std::{env, fs, io, os::unix::net::UnixStream, path::PathBuf, process::Command};

use crate::{
    Postgres,
    postgres::owner,
    process::{Process, not_installed},
};

const PACKAGE: &str = "pgbouncer";

/// Name of the configuration file in the folder.
const SETTINGS: &str = "pgbouncer.ini";

/// A private PgBouncer in transaction mode in front of a private PostgreSQL. Dropping it stops the server.
///
/// It has only four connections to PostgreSQL, so that clients share them, and accepts every client on its socket. It
/// does not track prepared statements, like all versions before 1.21.
#[derive(Debug)]
pub struct PgBouncer {
    process: Process,
}

impl PgBouncer {
    /// Starts PgBouncer in front of this server.
    ///
    /// # Errors
    /// When PgBouncer is not installed, or does not start.
    pub fn start(server: &Postgres) -> io::Result<Self> {
        let program = program()?;
        let mut process = Process::new("PgBouncer", owner()?)?;
        let folder = process.folder().to_owned();
        let server_port = server.port();
        let settings = |port: u16| {
            format!(
                "[databases]\n* = host=127.0.0.1 port={server_port} user=postgres\n[pgbouncer]\npool_mode = transaction\n\
                 unix_socket_dir = {}\nlisten_port = {port}\nauth_type = any\nmax_client_conn = 1000\n\
                 default_pool_size = 4\n",
                folder.display()
            )
        };
        let arguments = |command: &mut Command, port: u16| {
            // If this fails, PgBouncer also fails, and its log has the reason.
            let _ = fs::write(folder.join(SETTINGS), settings(port));
            command.arg("--quiet").arg(folder.join(SETTINGS));
        };
        let is_ready = |port: u16, _| UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).is_ok();
        process.start(&program, arguments, is_ready)?;
        Ok(Self { process })
    }

    /// The URL of the database `postgres` as the superuser, through the socket of PgBouncer.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "postgres:///postgres?user=postgres&host={}&port={}",
            self.process.folder().display(),
            self.process.port()
        )
    }
}

/// The path of the program. Debian installs it in a folder that only root has in its PATH.
fn program() -> io::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut programs = folders.map(|folder| folder.join("pgbouncer"));
    programs.find(|program| program.exists()).ok_or_else(|| not_installed("PgBouncer", PACKAGE))
}
