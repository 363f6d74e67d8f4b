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

/// A command, as it was given: its program and its arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommandLine<'a> {
    program: &'a OsStr,
    arguments: &'a [OsString],
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    end: End,
    /// Whether `steps` was asked to end meanwhile.
    interrupted: bool,
}

#[derive(Debug)]
enum End {
    Exited(u8),
    Killed(i32),
    NotStarted(io::Error),
    /// The signal came before there was a command.
    NotTried(Signal),
}

impl<'a> CommandLine<'a> {
    /// The words of a command, of which the first is its program. `None` where there are none.
    pub(crate) fn new(words: &'a [OsString]) -> Option<Self> {
        words.split_first().map(|(program, arguments)| Self { program, arguments })
    }

    /// The name of a step that runs it, from the file name of the program: `make` of `/usr/bin/make`.
    pub(crate) fn step_name(self) -> StepName {
        let file = Path::new(self.program).file_name().unwrap_or(self.program);
        StepName::from_lossy(&file.to_string_lossy())
    }

    /// What it says, at most `limit` characters of it.
    pub(crate) fn to_text(self, limit: usize) -> String {
        let words = [self.program].into_iter().chain(self.arguments.iter().map(OsString::as_os_str));
        let text = words.map(quoted).collect::<Vec<_>>().join(" ");
        match text.char_indices().nth(limit) {
            None => text,
            Some(_) => text.chars().take(limit.saturating_sub(1)).chain(['…']).collect(),
        }
    }

    /// Runs it with the streams of this process, until it ends. SIGTERM and SIGHUP are passed on to it;
    /// SIGINT and SIGQUIT, which a terminal sends to both, are left to it.
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
            // A script without `#!`: shells, and what else runs commands on Unix, give it to `sh`.
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

/// What a command finds in its environment beside what `steps` found there.
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
    /// The exit code that a shell gives.
    pub(crate) fn exit_code(&self) -> u8 {
        match &self.end {
            End::Exited(code) => *code,
            End::Killed(signal) => exit_code_of_signal(*signal),
            End::NotTried(signal) => exit_code_of_signal(*signal as i32),
            End::NotStarted(error) if error.kind() == io::ErrorKind::NotFound => 127,
            End::NotStarted(_) => 126,
        }
    }

    /// How a step that ran the command ended.
    pub(crate) fn results(&self) -> Results {
        match self.end {
            _ if self.interrupted => Results::CANCELLED,
            End::Exited(0) => Results::SUCCESS,
            End::Exited(_) => Results::FAILURE,
            End::Killed(_) | End::NotStarted(_) | End::NotTried(_) => Results::EXCEPTION,
        }
    }

    /// What there is to say about it that its results do not: why it was not run, or what killed it.
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
                    pass_on(signal, &child);
                }
            }
            status = child.wait() => {
                let end = match status {
                    Ok(status) => match (status.code(), status.signal()) {
                        // A code has eight bits.
                        (Some(code), _) => End::Exited(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
                        (None, signal) => End::Killed(signal.unwrap_or_default()),
                    },
                    Err(error) => End::NotStarted(error),
                };
                // A signal to both came before the command died of it, but the news of both may come at once.
                interrupted |= signals.pending().await.is_some();
                return Outcome { end, interrupted };
            }
        }
    }
}

fn pass_on(signal: Signal, child: &Child) {
    // There is an id until the end was waited for, so it is never that of another process.
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // It may have ended by itself just now, or belong to another user.
        let _ = signal::kill(Pid::from_raw(id), signal);
    }
}

/// The exit code that a shell gives for the end by a signal.
pub(crate) fn exit_code_of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// What the system says, without the number that Rust adds.
fn reason(error: &io::Error) -> Cow<'static, str> {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().into(),
        None => error.to_string().into(),
    }
}

fn signal_name(signal: i32) -> Cow<'static, str> {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}").into(), |signal| signal.as_str().into())
}

/// A word as one would type it into a shell.
fn quoted(word: &OsStr) -> String {
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
    fn the_name_is_that_of_the_programs_file() {
        for (program, expected) in [
            ("make", "make"),
            ("/usr/bin/make", "make"),
            ("./build.sh", "build_sh"),
            ("../7zip", "_zip"),
            ("/", "_"),
            ("..", "__"),
            ("", "_"),
            ("bin/über setzen", "über_setzen"),
        ] {
            assert_eq!(name(program), expected, "{program}");
        }
        assert_eq!(name(&"x".repeat(80)), "x".repeat(50));
        let not_utf8 = [OsString::from_vec(b"/bin/a\xff".to_vec())];
        assert_eq!(CommandLine::new(&not_utf8).unwrap().step_name(), "a\u{fffd}");
    }

    #[test]
    fn the_text_is_what_one_would_type_as_far_as_there_is_room() {
        let words = words(&["sh", "-c", "echo 'a b'", ""]);
        let command = CommandLine::new(&words).unwrap();
        assert_eq!(command.to_text(100), r"sh -c 'echo '\''a b'\''' ''");
        assert_eq!(command.to_text(27), r"sh -c 'echo '\''a b'\''' ''");
        assert_eq!(command.to_text(8), "sh -c '…");
    }

    #[test]
    fn results_and_exit_codes_are_those_of_the_table() {
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
