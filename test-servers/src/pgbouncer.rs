use std::{env, fs, io, os::unix::net::UnixStream, path::PathBuf, process::Command};

use crate::{
    Postgres,
    postgres::owner,
    process::{Process, not_installed},
};

const PACKAGE: &str = "pgbouncer";

/// The file with its settings, in its folder.
const SETTINGS: &str = "pgbouncer.ini";

/// A private PgBouncer in transaction mode before a private PostgreSQL, stopped when it is dropped.
///
/// It has four connections to the server for all its clients, so that they do share them, and lets everybody in
/// who finds its socket. It forgets prepared statements, as all its versions did before 1.21.
#[derive(Debug)]
pub struct PgBouncer {
    process: Process,
}

impl PgBouncer {
    /// Starts it before this server.
    ///
    /// # Errors
    /// When PgBouncer is not installed, or does not start.
    pub fn start(server: &Postgres) -> io::Result<Self> {
        let program = program()?;
        let mut process = Process::new("PgBouncer", owner()?)?;
        let (folder, server) = (process.folder().to_owned(), server.port());
        let settings = |port: u16| {
            format!(
                "[databases]\n* = host=127.0.0.1 port={server} user=postgres\n[pgbouncer]\npool_mode = transaction\n\
                 unix_socket_dir = {}\nlisten_port = {port}\nauth_type = any\nmax_client_conn = 1000\n\
                 default_pool_size = 4\n",
                folder.display()
            )
        };
        let arguments = |command: &mut Command, port: u16| {
            // If this fails, so does the server, which says why.
            let _ = fs::write(folder.join(SETTINGS), settings(port));
            command.arg("--quiet").arg(folder.join(SETTINGS));
        };
        let is_ready = |port: u16, _| UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).is_ok();
        process.start(&program, arguments, is_ready)?;
        Ok(Self { process })
    }

    /// The URL of the server's database `postgres`, as its superuser, through the socket.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "postgres:///postgres?user=postgres&host={}&port={}",
            self.process.folder().display(),
            self.process.port()
        )
    }
}

/// Debian keeps it where only root's PATH leads.
fn program() -> io::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut programs = folders.map(|folder| folder.join("pgbouncer"));
    programs.find(|program| program.exists()).ok_or_else(|| not_installed("PgBouncer", PACKAGE))
}
