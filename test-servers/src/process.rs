use std::{
    fs,
    io::{self, Write},
    net::TcpListener,
    os::unix::{
        fs::{OpenOptionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User},
};

use crate::watchdog::{PID_FILE, Watchdog};

/// Time limit for a server to start or stop, including recovery.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Writes its process id before it becomes the server, so that the watchdog knows every server.
const SCRIPT: &str = r#"echo $$ >"$0" && exec "$@""#;

/// Process of a server, with its own folder and port. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    folder: PathBuf,
    owner: Option<User>,
    /// 0 until the first start, and constant after it.
    port: u16,
    child: Option<Child>,
    _watchdog: Watchdog,
}

impl Process {
    /// Creates the folder. The server will run as `owner`, or as the current user.
    pub(crate) fn new(name: &'static str, owner: Option<User>) -> io::Result<Self> {
        let prefix = format!("steps-{}-", name.to_lowercase());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        if let Some(owner) = &owner {
            chown(folder.path(), Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        }
        let watchdog = Watchdog::start(folder.path())?;
        Ok(Self { name, folder: folder.keep(), owner, port: 0, child: None, _watchdog: watchdog })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates a file in the folder that only the user of the server can read.
    pub(crate) fn write_secret(&self, path: &Path, content: &str) -> io::Result<()> {
        let path = self.folder.join(path);
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(content.as_bytes())?;
        match &self.owner {
            Some(owner) => chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())),
            None => Ok(()),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts the server on its previous port, or on a free one, and waits until it is ready.
    ///
    /// `arguments` adds the arguments for a port to the command. `is_ready` gets the port and the process id. It must
    /// not return `true` for another server on that port.
    pub(crate) fn start(
        &mut self,
        program: &Path,
        arguments: impl Fn(&mut Command, u16),
        is_ready: impl Fn(u16, u32) -> bool,
    ) -> io::Result<()> {
        let start = Instant::now();
        loop {
            // A previous process may still be shutting down. It never becomes ready.
            let mut port = self.port;
            if !self.is_running()? {
                port = if port == 0 { free_port()? } else { port };
                self.spawn(program, |command| arguments(command, port))?;
            }
            while let Some(id) = self.id() {
                if is_ready(port, id) {
                    self.port = port;
                    return Ok(());
                }
                if start.elapsed() > TIME_LIMIT {
                    self.end(Signal::SIGKILL)?;
                }
                sleep(Duration::from_millis(20));
                self.is_running()?;
            }
            // Another process took the port, or killed processes still exist. Try again.
            if start.elapsed() > TIME_LIMIT {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                return Err(io::Error::other(format!("{} does not start; its log:\n{log}", self.name)));
            }
        }
    }

    fn spawn(&mut self, program: &Path, arguments: impl Fn(&mut Command)) -> io::Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT]).arg(self.folder.join(PID_FILE)).arg(program);
        arguments(&mut command);
        self.prepare(&mut command);
        self.child = Some(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?);
        Ok(())
    }

    /// Makes the command run as the user of the server, in the folder, and in its own process group, so that a Ctrl-C
    /// for the tests does not reach it.
    pub(crate) fn prepare(&self, command: &mut Command) {
        command.current_dir(&self.folder).process_group(0);
        if let Some(owner) = &self.owner {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
    }

    /// Sends a signal to the process, if it runs.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(id) = self.id() else { return Ok(()) };
        Ok(kill(Pid::from_raw(id as i32), signal)?)
    }

    /// Ends the process with this signal, if it runs, and with SIGKILL after the time limit.
    pub(crate) fn end(&mut self, signal: Signal) -> io::Result<()> {
        self.signal(signal)?;
        let start = Instant::now();
        while self.is_running()? {
            if start.elapsed() > TIME_LIMIT {
                self.signal(Signal::SIGKILL)?;
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn is_running(&mut self) -> io::Result<bool> {
        let Some(child) = &mut self.child else { return Ok(false) };
        if child.try_wait()?.is_none() {
            return Ok(true);
        }
        self.child = None;
        // The process id may be reused by another process.
        let _ = fs::remove_file(self.folder.join(PID_FILE));
        Ok(false)
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A paused process would not handle SIGQUIT.
        let _ = self.signal(Signal::SIGCONT);
        let _ = self.end(Signal::SIGQUIT);
    }
}

/// A port of this machine that is free at the moment.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The error for a server that is not installed.
pub(crate) fn not_installed(name: &str, package: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{name} is not installed; install the package {package}"))
}
