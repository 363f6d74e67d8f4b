use std::{
    borrow::Cow,
    env,
    ffi::{OsStr, OsString},
    future, io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{self, Signal},
    unistd::{self, Pid},
};
use steps::{Results, StepName};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal as listen},
    time::Instant,
};

use crate::{
    group_probe::GroupProbe,
    signals::{self, Caught, Signals},
};

/// The time from a signal until it is forwarded. `timeout` and systemd send a signal to `steps` first and then to
/// the command, and only a signal that the command did not get is forwarded.
const FORWARD_DELAY: Duration = Duration::from_millis(100);

/// The folders in which a program is found if the environment has no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A command to run: its program and its arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommandLine<'a> {
    program: &'a OsStr,
    arguments: &'a [OsString],
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    end: End,
    /// Whether `steps` got a signal before the command ended that asks a program to end, or that killed the command.
    interrupted: bool,
    /// Whether `steps` got any signal before the command ended.
    has_signals: bool,
}

#[derive(Debug)]
enum End {
    Exited(u8),
    Killed(i32),
    NotStarted(io::Error),
    /// A signal arrived before the command was started.
    NotTried(i32),
}

impl<'a> CommandLine<'a> {
    /// Splits the words of a command into the program and its arguments. Returns `None` without a word.
    pub(crate) fn new(words: &'a [OsString]) -> Option<Self> {
        words.split_first().map(|(program, arguments)| Self { program, arguments })
    }

    /// The name of a step that runs the command, from the file name of its program: `make` for `/usr/bin/make`.
    pub(crate) fn step_name(self) -> StepName {
        let file = Path::new(self.program).file_name().unwrap_or(self.program);
        StepName::from_lossy(&file.to_string_lossy())
    }

    /// The command as text for a shell, cut to `limit` characters.
    pub(crate) fn to_text(self, limit: usize) -> String {
        let words = [self.program].into_iter().chain(self.arguments.iter().map(OsString::as_os_str));
        let text = words.map(quoted).collect::<Vec<_>>().join(" ");
        match text.char_indices().nth(limit) {
            None => text,
            Some(_) => text.chars().take(limit.saturating_sub(1)).chain(['…']).collect(),
        }
    }

    /// Runs the command with the streams of this process until it ends. A signal is forwarded to the command unless
    /// the command got it too.
    pub(crate) async fn run(self, environment: &Environment, signals: &mut Signals, probe: &mut GroupProbe) -> Outcome {
        if let Some(caught) = signals.pending().await {
            return Outcome { end: End::NotTried(caught.signal), interrupted: true, has_signals: true };
        }
        match self.spawn(environment) {
            Ok(child) => Running { child, received: Vec::new() }.wait(signals, probe).await,
            Err(error) => Outcome { end: End::NotStarted(error), interrupted: false, has_signals: false },
        }
    }

    fn spawn(self, environment: &Environment) -> io::Result<Child> {
        match environment.command(self.program).args(self.arguments).spawn() {
            Err(error) if error.raw_os_error() == Some(Errno::ENOEXEC as i32) => self.spawn_script(environment),
            spawned => spawned,
        }
    }

    /// Spawns a script without `#!`: as in shells, `sh` runs it. The kernel does not tell which file of `PATH` it
    /// found, so the search is done again in the same way.
    fn spawn_script(self, environment: &Environment) -> io::Result<Child> {
        let mut result = Err(io::Error::from(Errno::ENOEXEC));
        for file in self.candidates() {
            let spawned = environment.command(file.as_os_str()).args(self.arguments).spawn();
            match spawned.as_ref().err().and_then(io::Error::raw_os_error).map(Errno::from_raw) {
                Some(Errno::ENOEXEC) => {
                    return environment.command(OsStr::new("/bin/sh")).arg(file).args(self.arguments).spawn();
                }
                Some(Errno::EACCES | Errno::ENOENT | Errno::ENOTDIR | Errno::ENODEV | Errno::ESTALE) => {
                    result = spawned;
                }
                _ => return spawned,
            }
        }
        result
    }

    /// The files that the program's name may stand for, each with a slash, in the order of `PATH`.
    fn candidates(self) -> Vec<PathBuf> {
        let program = Path::new(self.program);
        // `sh` would take a path that starts with a hyphen for an option.
        let in_folder = |folder: PathBuf| if folder.is_absolute() { folder } else { Path::new(".").join(folder) };
        if self.program.as_encoded_bytes().contains(&b'/') {
            return vec![in_folder(program.to_owned())];
        }
        let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        env::split_paths(&path).map(|folder| in_folder(folder).join(program)).collect()
    }
}

/// The changes to the environment for a command, which otherwise inherits that of `steps`.
#[derive(Debug, Default)]
pub(crate) struct Environment(Vec<(&'static str, Option<String>)>);

impl Environment {
    /// Sets a variable, or removes it.
    pub(crate) fn with(mut self, name: &'static str, value: Option<String>) -> Self {
        self.0.push((name, value));
        self
    }

    fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new(program);
        for (name, value) in &self.0 {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }
}

impl Outcome {
    /// The signal that killed the command, or that arrived before the command was started.
    pub(crate) fn signal(&self) -> Option<i32> {
        match self.end {
            End::Killed(signal) | End::NotTried(signal) => Some(signal),
            End::Exited(_) | End::NotStarted(_) => None,
        }
    }

    /// Whether `steps` got a signal before the command ended.
    pub(crate) fn has_signals(&self) -> bool {
        self.has_signals
    }

    /// The exit code, as a shell would report it.
    pub(crate) fn exit_code(&self) -> u8 {
        match &self.end {
            End::Exited(code) => *code,
            End::Killed(signal) | End::NotTried(signal) => exit_code_of_signal(*signal),
            End::NotStarted(error) if error.kind() == io::ErrorKind::NotFound => 127,
            End::NotStarted(_) => 126,
        }
    }

    /// The results of a step that ran the command.
    pub(crate) fn results(&self) -> Results {
        match self.end {
            _ if self.interrupted => Results::CANCELLED,
            End::Exited(0) => Results::SUCCESS,
            End::Exited(_) => Results::FAILURE,
            End::Killed(_) | End::NotStarted(_) | End::NotTried(_) => Results::EXCEPTION,
        }
    }

    /// A remark for the state string: why the command was not run, or which signal killed it.
    pub(crate) fn remark(&self) -> Option<String> {
        match &self.end {
            End::Exited(_) => None,
            End::Killed(signal) => Some(format!("killed by {}", signal_name(*signal))),
            End::NotStarted(error) => Some(format!("not run: {}", reason(error))),
            End::NotTried(signal) => Some(format!("not run: {} came first", signal_name(*signal))),
        }
    }

    /// Why the command could not be run.
    pub(crate) fn start_error(&self) -> Option<Cow<'static, str>> {
        match &self.end {
            End::NotStarted(error) => Some(reason(error)),
            _ => None,
        }
    }
}

/// A running command.
#[derive(Debug)]
struct Running {
    child: Child,
    /// The signals that `steps` got so far.
    received: Vec<i32>,
}

impl Running {
    async fn wait(mut self, signals: &mut Signals, probe: &mut GroupProbe) -> Outcome {
        let mut children = listen(SignalKind::child()).ok();
        self.reap_orphans(probe);
        // A signal that arrived while the command was started may have missed it, so it is forwarded in any case.
        let mut started = Vec::new();
        while let Some(caught) = signals.pending().await {
            started.push(caught);
        }
        if !started.is_empty() {
            let _ = probe.take();
            for caught in started {
                self.received.push(caught.signal);
                self.send(caught.signal);
            }
        }
        let mut waiting: Vec<Caught> = Vec::new();
        let mut forward_at = Instant::now();
        loop {
            tokio::select! {
                caught = signals.next() => {
                    self.received.push(caught.signal);
                    if waiting.is_empty() {
                        forward_at = Instant::now() + FORWARD_DELAY;
                    }
                    if waiting.iter().all(|other| other.signal != caught.signal) {
                        waiting.push(caught);
                    }
                }
                () = tokio::time::sleep_until(forward_at), if !waiting.is_empty() => {
                    self.forward(&waiting, probe);
                    waiting.clear();
                }
                () = next_child(&mut children) => self.reap_orphans(probe),
                status = self.child.wait() => {
                    let end = match status {
                        Ok(status) => End::of(status),
                        Err(error) => End::NotStarted(error),
                    };
                    // A signal to both processes arrives before the command dies of it, but tokio may report both
                    // events at once.
                    while let Some(caught) = signals.pending().await {
                        self.received.push(caught.signal);
                    }
                    return self.outcome(end);
                }
            }
        }
    }

    fn outcome(&self, end: End) -> Outcome {
        let interrupted = self.received.iter().any(|received| match end {
            _ if signals::is_ending(*received) => true,
            End::Killed(signal) => signal == *received,
            _ => false,
        });
        Outcome { end, interrupted, has_signals: !self.received.is_empty() }
    }

    /// Forwards the signals that the command did not get itself.
    fn forward(&self, waiting: &[Caught], probe: &mut GroupProbe) {
        let group = probe.take();
        // The command may have left the process group, as `setsid` does.
        let is_in_group = self.id().is_some_and(|id| unistd::getpgid(Some(id)) == Ok(unistd::getpgrp()));
        for caught in waiting {
            // Without a probe: the kernel sends the signals of keys to the whole group.
            let went_to_group = group.map_or(caught.is_from_kernel, |group| group.contains(caught.signal));
            if !(went_to_group && is_in_group) {
                self.send(caught.signal);
            }
        }
    }

    /// The process id. It is `None` once the process was reaped, so it never belongs to another process.
    fn id(&self) -> Option<Pid> {
        self.child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
    }

    fn send(&self, signal: i32) {
        let Some(id) = self.id() else { return };
        // Both fail if the process has just ended, or runs as another user.
        match Signal::try_from(signal) {
            Ok(signal) => {
                let _ = signal::kill(id, signal);
            }
            // No safe function sends a real-time signal.
            Err(_) => {
                let script = format!("kill -{signal} {id} 2>/dev/null");
                let _ = process::Command::new("/bin/sh").arg("-c").arg(script).status();
            }
        }
    }

    /// Reaps the children that `steps` did not start: the orphans that it gets as the first process of a container.
    #[cfg(target_os = "linux")]
    fn reap_orphans(&self, probe: &GroupProbe) {
        use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};

        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(Some(id)) = waitid(Id::All, flags).map(|status| status.pid()) {
            if Some(id) == self.id() || Some(id) == probe.id() || waitpid(id, Some(WaitPidFlag::WNOHANG)).is_err() {
                break;
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn reap_orphans(&self, _: &GroupProbe) {}
}

impl End {
    fn of(status: process::ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            // An exit code has eight bits.
            (Some(code), _) => Self::Exited(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            (None, signal) => Self::Killed(signal.unwrap_or_default()),
        }
    }
}

/// Waits until a child process ended or stopped.
async fn next_child(children: &mut Option<tokio::signal::unix::Signal>) {
    if let Some(children) = children
        && children.recv().await.is_some()
    {
        return;
    }
    future::pending().await
}

/// The exit code of a process that a signal killed, as a shell reports it.
pub(crate) fn exit_code_of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// The message of the operating system, without the number that Rust appends.
fn reason(error: &io::Error) -> Cow<'static, str> {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().into(),
        None => error.to_string().into(),
    }
}

fn signal_name(signal: i32) -> Cow<'static, str> {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}").into(), |signal| signal.as_str().into())
}

/// A word in shell syntax, quoted if necessary.
pub(crate) fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "_-+=./:,@%^".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn name(program: &str) -> String {
        CommandLine::new(&words(&[program])).unwrap().step_name().into_string()
    }

    #[test]
    fn the_step_name_is_the_file_name_of_the_program() {
        for (program, expected) in [
            ("make", "make"),
            ("/usr/bin/make", "make"),
            ("./build.sh", "build.sh"),
            ("../7zip", "7zip"),
            ("/", "/"),
            ("..", ".."),
            ("", "_"),
            ("bin/über setzen", "über setzen"),
        ] {
            assert_eq!(name(program), expected, "{program}");
        }
        assert_eq!(name(&"x".repeat(80)), "x".repeat(50));
        let not_utf8 = [OsString::from_vec(b"/bin/a\xff".to_vec())];
        assert_eq!(CommandLine::new(&not_utf8).unwrap().step_name(), "a\u{fffd}");
    }

    #[test]
    fn the_text_is_in_shell_syntax_and_cut_to_the_limit() {
        let words = words(&["sh", "-c", "echo 'a b'", ""]);
        let command = CommandLine::new(&words).unwrap();
        assert_eq!(command.to_text(100), r"sh -c 'echo '\''a b'\''' ''");
        assert_eq!(command.to_text(27), r"sh -c 'echo '\''a b'\''' ''");
        assert_eq!(command.to_text(8), "sh -c '…");
    }

    #[test]
    fn each_outcome_has_its_exit_code_and_results() {
        let outcome = |end, interrupted| Outcome { end, interrupted, has_signals: interrupted };
        let not_found = || io::Error::from(io::ErrorKind::NotFound);
        let not_allowed = || io::Error::from(io::ErrorKind::PermissionDenied);
        for (outcome, code, results) in [
            (outcome(End::Exited(0), false), 0, Results::SUCCESS),
            (outcome(End::Exited(3), false), 3, Results::FAILURE),
            (outcome(End::Killed(9), false), 137, Results::EXCEPTION),
            (outcome(End::NotStarted(not_found()), false), 127, Results::EXCEPTION),
            (outcome(End::NotStarted(not_allowed()), false), 126, Results::EXCEPTION),
            (outcome(End::Killed(15), true), 143, Results::CANCELLED),
            (outcome(End::Exited(0), true), 0, Results::CANCELLED),
            (outcome(End::NotTried(2), true), 130, Results::CANCELLED),
        ] {
            assert_eq!((outcome.exit_code(), outcome.results()), (code, results), "{outcome:?}");
        }
    }

    #[test]
    fn a_signal_without_a_name_has_its_number() {
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(40), "signal 40");
    }
}
