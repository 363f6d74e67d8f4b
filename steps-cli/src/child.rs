use std::{
    borrow::Cow,
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::signal::{self, Signal},
    unistd::Pid,
};
use steps::{Results, StepName};
use tokio::process::{Child, Command};

use crate::signals::Signals;

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
    /// Whether `steps` got a signal before the command ended.
    interrupted: bool,
}

#[derive(Debug)]
enum End {
    Exited(u8),
    Killed(i32),
    NotStarted(io::Error),
    /// A signal arrived before the command was started.
    NotTried(Signal),
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

    /// Runs the command with the streams of this process until it ends. SIGTERM and SIGHUP are forwarded to it.
    /// SIGINT and SIGQUIT are not, since a terminal sends them to both processes.
    pub(crate) async fn run(self, environment: &Environment, signals: &mut Signals) -> Outcome {
        if let Some(signal) = signals.pending().await {
            return Outcome { end: End::NotTried(signal), interrupted: true };
        }
        match self.spawn(environment) {
            Ok(child) => wait(child, signals).await,
            Err(error) => Outcome { end: End::NotStarted(error), interrupted: false },
        }
    }

    fn spawn(self, environment: &Environment) -> io::Result<Child> {
        let command = |program: &OsStr| {
            let mut command = Command::new(program);
            environment.apply(&mut command);
            command
        };
        match command(self.program).args(self.arguments).spawn() {
            // A script without `#!`: as in shells, `sh` runs it.
            Err(error) if error.raw_os_error() == Some(Errno::ENOEXEC as i32) => {
                command(OsStr::new("/bin/sh")).arg(self.program_file()).args(self.arguments).spawn()
            }
            spawned => spawned,
        }
    }

    fn program_file(self) -> PathBuf {
        let program = Path::new(self.program);
        let is_name = program.components().count() == 1 && !self.program.as_encoded_bytes().contains(&b'/');
        let path = env::var_os("PATH").filter(|_| is_name).unwrap_or_default();
        let found = env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
        found.unwrap_or_else(|| program.to_owned())
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

    fn apply(&self, command: &mut Command) {
        for (name, value) in &self.0 {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }
}

impl Outcome {
    /// The exit code, as a shell would report it.
    pub(crate) fn exit_code(&self) -> u8 {
        match &self.end {
            End::Exited(code) => *code,
            End::Killed(signal) => exit_code_of_signal(*signal),
            End::NotTried(signal) => exit_code_of_signal(*signal as i32),
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
            End::NotTried(signal) => Some(format!("not run: {signal} came first")),
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

async fn wait(mut child: Child, signals: &mut Signals) -> Outcome {
    let mut interrupted = false;
    loop {
        tokio::select! {
            signal = signals.next() => {
                interrupted = true;
                if matches!(signal, Signal::SIGTERM | Signal::SIGHUP) {
                    forward(signal, &child);
                }
            }
            status = child.wait() => {
                let end = match status {
                    Ok(status) => match (status.code(), status.signal()) {
                        // An exit code has eight bits.
                        (Some(code), _) => End::Exited(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
                        (None, signal) => End::Killed(signal.unwrap_or_default()),
                    },
                    Err(error) => End::NotStarted(error),
                };
                // A signal to both processes arrives before the command dies of it, but tokio may report both events
                // at once.
                interrupted |= signals.pending().await.is_some();
                return Outcome { end, interrupted };
            }
        }
    }
}

fn forward(signal: Signal, child: &Child) {
    // The id is `None` once the process was reaped, so it never belongs to another process.
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // This fails if the process has just ended, or runs as another user.
        let _ = signal::kill(Pid::from_raw(id), signal);
    }
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
        let outcome = |end, interrupted| Outcome { end, interrupted };
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
            (outcome(End::NotTried(Signal::SIGINT), true), 130, Results::CANCELLED),
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
