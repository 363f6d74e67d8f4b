//! The command line, as clap reads it. The comments are the program's help.

use std::ffi::OsString;
#[cfg(feature = "conformance")]
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use steps::{BuildId, IdempotencyKey, Results, StateString, StepId, StepName, StepNumber, StepUrl, Timestamp};

/// Records the steps of a build, and shows them.
#[derive(Debug, Parser)]
#[command(name = "steps", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// The store, such as sqlite:PATH [default: sqlite://steps.db in this folder]
    // Its value may hold a password, which the help must not show.
    #[arg(long, global = true, env = "STEPS_STORE", hide_env_values = true, value_name = "URL")]
    pub(crate) store: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0, done; 1, not done; 2, called in a way that cannot be. `run` has its own: see `steps help run`.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Run),
    Add(Add),
    Start(Start),
    Locks(Locks),
    State(State),
    Url(Url),
    Finish(Finish),
    Get(Get),
    Show(Show),
    Doctor(Doctor),
    #[cfg(feature = "conformance")]
    Conformance(Conformance),
    Completions(Completions),
}

/// Run a command and record it as a step.
///
/// The command has the streams of `steps` itself, and its exit code becomes that of `steps`: 128+n after
/// signal n, 127 if it is not found, 126 if it cannot be run. SIGTERM and SIGHUP are passed on to it;
/// SIGINT and SIGQUIT, which a terminal sends to both, are left to it.
///
/// The step is a success after exit code 0 and a failure after any other, an exception if the command
/// could not be run or was killed by a signal, and cancelled if `steps` was told to end meanwhile.
///
/// The command finds STEPS_STORE, STEPS_BUILD and STEPS_STEP in its environment, so that it can call
/// `steps state TEXT` and `steps url NAME URL`. The state string is the command line, or what --state
/// says, until the command sets another; if the command could not be run or was killed, that is added at
/// the end.
///
/// Recording does not change what the command does: where the store fails, or takes longer than 2 s before
/// the command or after it, there is one warning. With --strict, the exit code is 125 when the step could not be recorded: before the
/// command, which is then not run, and after one that exited with 0.
#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) build: Build,

    /// The name of the step [default: made from the command's file name]
    #[arg(long)]
    pub(crate) name: Option<StepName>,

    /// The state string [default: the start of the command line]
    ///
    /// Give one where the arguments hold what nobody who sees the build should.
    #[arg(long, value_name = "TEXT")]
    pub(crate) state: Option<StateString>,

    /// A url of the step; may be given more than once
    #[arg(long = "url", value_name = "NAME=URL", value_parser = named_url)]
    pub(crate) urls: Vec<StepUrl>,

    /// Hide the step when it is complete
    #[arg(long)]
    pub(crate) hidden: bool,

    /// Show the build's steps at the end, on standard output
    #[arg(long)]
    pub(crate) show: bool,

    /// Show them as JSON
    #[arg(long, requires = "show")]
    pub(crate) json: bool,

    /// Exit with 125 if the step could not be recorded
    #[arg(long)]
    pub(crate) strict: bool,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Add a step to a build and print its id.
#[derive(Args, Debug)]
pub(crate) struct Add {
    #[command(flatten)]
    pub(crate) build: Build,

    /// The name; taken, it gets a suffix
    pub(crate) name: StepName,

    /// What the step is doing, in words
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) state: StateString,

    /// Add nothing if the build has a step with this key already, and print that one
    #[arg(long)]
    pub(crate) key: Option<IdempotencyKey>,

    /// Print id, number and name as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Record that a step has started.
#[derive(Args, Debug)]
pub(crate) struct Start {
    #[command(flatten)]
    pub(crate) step: Step,

    #[command(flatten)]
    pub(crate) time: Time,

    /// It has all its locks, or needs none
    #[arg(long)]
    pub(crate) locks_acquired: bool,
}

/// Record that a step has its locks.
#[derive(Args, Debug)]
pub(crate) struct Locks {
    #[command(flatten)]
    pub(crate) step: Step,

    #[command(flatten)]
    pub(crate) time: Time,
}

/// Set what a step is doing, in words.
#[derive(Args, Debug)]
pub(crate) struct State {
    #[command(flatten)]
    pub(crate) step: Step,

    /// The words
    #[arg(allow_hyphen_values = true)]
    pub(crate) text: StateString,
}

/// Add a url to a step.
#[derive(Args, Debug)]
pub(crate) struct Url {
    #[command(flatten)]
    pub(crate) step: Step,

    /// The name that it is shown under
    pub(crate) name: String,

    /// The url
    pub(crate) url: String,
}

/// Record that a step is complete, and how it ended.
#[derive(Args, Debug)]
pub(crate) struct Finish {
    #[command(flatten)]
    pub(crate) step: Step,

    /// success, warnings, failure, skipped, exception, retry, cancelled, or a number
    #[arg(allow_negative_numbers = true)]
    pub(crate) results: Results,

    /// Hide the step
    #[arg(long)]
    pub(crate) hidden: bool,
}

/// Print one step: by its id, or by its number or name in a build.
///
/// The exit code is 1 if there is no such step.
#[derive(Args, Debug)]
pub(crate) struct Get {
    // Not from the environment by clap: there, a step and a build do not exclude each other.
    /// The step [env: STEPS_STEP]
    #[arg(long, value_name = "ID", conflicts_with_all = ["build", "number", "name"])]
    pub(crate) step: Option<StepId>,

    /// The build, with --number or --name [env: STEPS_BUILD]
    #[arg(long, value_name = "N", requires = "in_build")]
    pub(crate) build: Option<BuildId>,

    /// The number of the step in the build
    #[arg(long, value_name = "N", group = "in_build")]
    pub(crate) number: Option<StepNumber>,

    /// The name of the step in the build
    #[arg(long, group = "in_build")]
    pub(crate) name: Option<StepName>,

    /// Print the step as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show the steps of a build.
#[derive(Args, Debug)]
pub(crate) struct Show {
    /// The build
    #[arg(env = "STEPS_BUILD")]
    pub(crate) build: BuildId,

    /// Show hidden steps too; JSON has them always
    #[arg(long)]
    pub(crate) all: bool,

    /// Follow the build: on a terminal in place, otherwise with a line for each change
    #[arg(long)]
    pub(crate) watch: bool,

    /// Stop once there are steps and all of them are complete
    ///
    /// A build that adds a step only after the one before is complete may be between two steps.
    #[arg(long, requires = "watch")]
    pub(crate) until_done: bool,

    /// Print the build as JSON; with --watch again on each change, a line each
    #[arg(long)]
    pub(crate) json: bool,
}

/// Say whether the store is reachable, what its format is and what it promises.
///
/// The exit code is 1 if it is not reachable, or cannot be used.
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// Print it as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check that the store keeps the contract, clause by clause.
///
/// It may run on a store that others use at the same time: it adds to builds of its own, drawn at random from the
/// upper half of those that the store takes, and looks before it adds to one that it is empty. It changes
/// nothing else and deletes nothing. In the end it says which builds it leaves behind.
///
/// The exit code is 1 if something fails. With --vectors, the last line on standard output is such as
/// `64 of 64 scenarios agree`, and a file that cannot be read or holds no scenarios is 2.
#[cfg(feature = "conformance")]
#[derive(Args, Debug)]
pub(crate) struct Conformance {
    /// Run only the cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Option<String>,

    /// Draw as a run with this seed did [env: STEPS_CONFORMANCE_SEED] [default: another each time]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// How many random cases each property has [env: STEPS_CONFORMANCE_CASES] [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) cases: Option<u32>,

    /// Replay the recorded scenarios of this file instead, one a line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["filter", "seed", "cases"])]
    pub(crate) vectors: Option<PathBuf>,

    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print the completions for a shell.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct Build {
    /// The build
    #[arg(long = "build", env = "STEPS_BUILD", value_name = "N")]
    pub(crate) id: BuildId,
}

#[derive(Args, Debug)]
pub(crate) struct Step {
    /// The step
    #[arg(long = "step", env = "STEPS_STEP", value_name = "ID")]
    pub(crate) id: StepId,
}

#[derive(Args, Debug)]
pub(crate) struct Time {
    /// When, such as 2026-01-31T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Timestamp>,
}

fn named_url(text: &str) -> Result<StepUrl, String> {
    let (name, url) = text.split_once('=').ok_or("write it as NAME=URL")?;
    StepUrl::new(name, url).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_named_url_is_split_at_the_first_equals_sign() {
        let url = named_url("log=https://example.org/?a=b").unwrap();
        assert_eq!((url.name(), url.url()), ("log", "https://example.org/?a=b"));
        assert_eq!(named_url("https://example.org/").unwrap_err(), "write it as NAME=URL");
    }
}
