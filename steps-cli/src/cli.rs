//! The command line, as clap parses it. The comments are the program's help.

#[cfg(feature = "conformance")]
use std::path::PathBuf;
use std::{
    borrow::Cow,
    ffi::OsString,
    io::{self, Write},
    process,
};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use steps::{BuildId, IdempotencyKey, Results, StateString, StepId, StepName, StepNumber, StepUrl, Timestamp};

use crate::{output::text, store_url};

/// Records the steps of a build, and shows them.
#[derive(Debug, Parser)]
#[command(name = "steps", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    // The value may hold a password, which the help must not show.
    #[arg(long, global = true, env = "STEPS_STORE", hide_env_values = true, value_name = "URL", help = store_help())]
    pub(crate) store: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Parses the arguments of the program. Prints the help or a usage error and exits if there is no command to run.
    pub(crate) fn from_arguments() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            let message = error.render().to_string();
            let shown: Vec<_> = message.lines().map(text::shown).collect();
            if shown.iter().all(|line| matches!(line, Cow::Borrowed(_))) {
                error.exit();
            }
            // An argument in the message is untrusted text too: a script may pass on the name of a branch.
            let _ = writeln!(io::stderr(), "{}", shown.join("\n"));
            process::exit(error.exit_code())
        })
    }
}

const EXIT_CODES: &str = "Exit codes: 0: success; 1: failure; 2: usage error. `run` has its own: see `steps help run`.";

fn store_help() -> String {
    format!("The store, such as sqlite:PATH [default: {} in this folder]", store_url::DEFAULT)
}

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
    // Parsed only for an error that names the feature.
    #[cfg(not(feature = "conformance"))]
    #[command(hide = true)]
    Conformance(WithoutConformance),
    Completions(Completions),
}

/// Run a command and record it as a step.
///
/// The command inherits the streams of `steps`, and `steps` exits with its exit code: 127 if the command is not found,
/// 126 if it cannot be run. If a signal kills the command, `steps` records that and dies of the same signal, which
/// a shell reports as 128+n after signal n.
///
/// The command gets each signal once. A signal to `steps` alone is forwarded after 100 ms, unless the command got it
/// too, as from a terminal, `timeout`, systemd or `kill -- -PGID`. This holds for every signal that ends a process by
/// default and can be caught, apart from SIGSEGV, SIGBUS, SIGFPE and SIGILL, which report a fault of `steps`. A small
/// process named `steps: signal probe` tells whether the process group got a signal.
///
/// The results of the step are success after exit code 0 and failure after any other, exception if the command
/// could not be run or was killed by a signal, and cancelled if `steps` got SIGINT, SIGQUIT, SIGTERM, SIGHUP, or the
/// signal that killed the command. As the first process of a container, `steps` also reaps orphans.
///
/// STEPS_STORE, STEPS_BUILD and STEPS_STEP are set in the environment of the command, so that it can call
/// `steps state TEXT` and `steps url NAME URL`. If the store fails meanwhile, they print a warning and exit with 0,
/// unless they have --strict; STEPS_RUN tells them that they run inside `steps run`. The state string is the text of
/// --state or the command line, until the command sets another. If the command could not be run or was killed, the
/// reason is appended.
///
/// A store that fails does not affect the command: it may delay the command by 2 s before the start and by 2 s after
/// the end, and `steps` prints one warning. If the store is away before the command, `steps` tries again while the
/// command runs and after it; the command has no STEPS_STEP then. With --strict, the exit code is 125 if the step
/// could not be recorded. If recording fails before the command, the command is not run; if it fails after the
/// command, an exit code of the command other than 0 takes precedence.
#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) build: Build,

    /// The name of the step [default: made from the command's file name]
    #[arg(long)]
    pub(crate) name: Option<StepName>,

    /// The state string [default: the start of the command line]
    ///
    /// Set it if the arguments are confidential: every reader of the build sees the state string.
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

    /// The name; a name that is taken gets a suffix
    pub(crate) name: StepName,

    /// The state string
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) state: StateString,

    /// An idempotency key: if the build has a step with this key already, print that step and add none
    #[arg(long)]
    pub(crate) key: Option<IdempotencyKey>,

    /// Print id, number and name as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Record the start of a step.
#[derive(Args, Debug)]
pub(crate) struct Start {
    #[command(flatten)]
    pub(crate) step: Step,

    #[command(flatten)]
    pub(crate) time: Time,

    /// The step has all its locks, or needs none
    #[arg(long)]
    pub(crate) locks_acquired: bool,
}

/// Record that a step has acquired its locks.
#[derive(Args, Debug)]
pub(crate) struct Locks {
    #[command(flatten)]
    pub(crate) step: Step,

    #[command(flatten)]
    pub(crate) time: Time,
}

/// Set the state string of a step.
#[derive(Args, Debug)]
pub(crate) struct State {
    #[command(flatten)]
    pub(crate) step: Step,

    /// The state string
    #[arg(allow_hyphen_values = true)]
    pub(crate) text: StateString,
}

/// Add a url to a step.
#[derive(Args, Debug)]
pub(crate) struct Url {
    #[command(flatten)]
    pub(crate) step: Step,

    /// The name of the url
    pub(crate) name: String,

    /// The url
    pub(crate) url: String,
}

/// Record the end of a step and its results.
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
    // clap does not read the environment here: STEPS_STEP and STEPS_BUILD may both be set, while --step and --build
    // exclude each other.
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
///
/// On a terminal the table fits the width: long texts are wrapped, names are cut in the middle and state strings at
/// the end, and a row has at most 6 lines. Urls are shown whole, in a column or under the table, or counted as in
/// `… 3 more`. A narrow terminal leaves out WAITED, then TIME, then STATE. `steps get` shows all of a step. Without a
/// terminal nothing is cut.
///
/// Characters that are invisible or control the terminal are shown escaped, as in `\u{200b}`. The duration `0ms?` is
/// negative, because the clocks of two machines differ.
#[derive(Args, Debug)]
pub(crate) struct Show {
    /// The build
    #[arg(env = "STEPS_BUILD")]
    pub(crate) build: BuildId,

    /// Show hidden steps too; JSON always contains them
    #[arg(long)]
    pub(crate) all: bool,

    /// Follow the build: redraw the table on a terminal, otherwise print a line for each change
    ///
    /// This ends with Ctrl-C, or when nothing reads the output any more, as after `| head -1`. Ctrl-Z gives the
    /// terminal back until `fg`. A terminal without a type in TERM gets lines.
    #[arg(long)]
    pub(crate) watch: bool,

    /// Stop once the build has steps and all of them are complete
    ///
    /// This may be too early for a build that adds a step only after the previous one is complete.
    #[arg(long, requires = "watch")]
    pub(crate) until_done: bool,

    /// Print the build as JSON; with --watch, print it again on each change, a line each
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check that the store is reachable, and print its format and its guarantees.
///
/// The exit code is 1 if the store is not reachable or cannot be used.
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check that the store keeps the contract, clause by clause.
///
/// The store may be in use by others: the suite writes only to builds of its own. It draws their ids at random
/// from the upper half of the ids that the store supports, and checks before its first add that a build is empty.
/// It deletes nothing. At the end it prints the builds that it leaves behind.
///
/// The exit code is 1 if a case fails. With --vectors, the last line on standard output is a count such as
/// `64 of 64 scenarios agree`, and the exit code is 2 for a file that cannot be read or holds no scenarios.
#[cfg(feature = "conformance")]
#[derive(Args, Debug)]
pub(crate) struct Conformance {
    /// Run only the cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Option<String>,

    /// The seed of the random cases, to repeat a run [env: STEPS_CONFORMANCE_SEED] [default: a random one]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// The number of random cases of each property [env: STEPS_CONFORMANCE_CASES] [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) cases: Option<u32>,

    /// Replay the recorded scenarios of this file instead, one on each line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["filter", "seed", "cases"])]
    pub(crate) vectors: Option<PathBuf>,

    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check that the store keeps the contract: not compiled in, needs the feature `conformance` of `steps-cli`.
#[cfg(not(feature = "conformance"))]
#[derive(Args, Debug)]
pub(crate) struct WithoutConformance {
    /// Ignored
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<OsString>,
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
    pub(crate) id: Option<StepId>,

    /// Fail if the store fails, also inside `steps run`
    ///
    /// A change to the step of a running `steps run` does not fail otherwise: a store that fails, or a step that could
    /// not be recorded, is only a warning.
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Time {
    /// The time, such as 2026-01-31T12:00:00Z [default: now]
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
