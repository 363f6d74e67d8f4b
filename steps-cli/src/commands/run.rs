use std::{env, process::ExitCode};

use steps::{BuildId, FinishStep, IdempotencyKey, NewStep, Results, StateString, Step};

use super::show;
use crate::{
    child::{CommandLine, Environment},
    cli::Run,
    connect,
    failure::Failure,
    output,
    recorder::{Recorder, STORE_TIMEOUT, Trouble},
    signals::Signals,
    store_url::StoreUrl,
};

/// The exit code when the step could not be recorded and `--strict` says that it must be: that of
/// `env` and `timeout` for failures of their own.
const NOT_RECORDED: u8 = 125;

/// How much of the command line becomes the state string.
const STATE_CHARACTERS: usize = 80;

pub(super) async fn run(store: &StoreUrl, run: Run) -> Result<ExitCode, Failure> {
    // First of all, so that no signal leaves a step behind that never ends.
    let mut signals = Signals::listen().map_err(Failure::System)?;
    let command = CommandLine::new(&run.command).ok_or_else(|| Failure::Usage("which command?".to_owned()))?;
    let state = match run.state {
        Some(state) => state,
        None => StateString::new(command.to_text(STATE_CHARACTERS))?,
    };
    let step = NewStep::new(run.build.id, run.name.unwrap_or_else(|| command.step_name()), state.clone())
        .with_idempotency_key(random_key()?);
    let mut complaints = Complaints { strict: run.strict, made: false };

    let mut recorder = Recorder::new(step, run.urls);
    if let Err(trouble) = recorder.begin(connect::to_add_within(STORE_TIMEOUT, store)).await {
        let what = if recorder.step().is_some() { "the start of the step" } else { "the step" };
        complaints.make(&format!("{what} is not recorded"), &trouble);
        if run.strict {
            output::note("the command is not run");
            // What was added all the same must not look as if it ran.
            let finish = FinishStep::new(Results::EXCEPTION).with_hidden(run.hidden);
            let remark = with_remark(&state, "not run: it could not be recorded");
            let _ = recorder.end(finish, Some(remark)).await;
            return Ok(ExitCode::from(NOT_RECORDED));
        }
    }

    let folder = env::current_dir();
    let store_there = folder.map_or_else(|_| store.clone(), |folder| store.seen_from_anywhere(&folder));
    let environment = Environment::default()
        .with("STEPS_STORE", Some(store_there.as_str().to_owned()))
        .with("STEPS_BUILD", Some(run.build.id.to_string()))
        // Where there is no step, that of a command around this one is not it.
        .with("STEPS_STEP", recorder.step().map(|step| step.id.to_string()));
    let outcome = command.run(&environment, &mut signals).await;
    if let Some(error) = outcome.start_error() {
        output::error(&format!("cannot run {}: {error}", command.to_text(STATE_CHARACTERS)));
    }

    let finish = FinishStep::new(outcome.results()).with_hidden(run.hidden);
    let remark = outcome.remark().map(|remark| with_remark(&state, &remark));
    let ended = recorder.end(finish, remark).await;
    if let Err(trouble) = &ended {
        complaints.make("the end of the step is not recorded", trouble);
    } else if run.show {
        match recorder.steps(run.build.id).await {
            Some(Ok(steps)) => print(run.build.id, &steps, run.json),
            Some(Err(trouble)) => complaints.make("the build cannot be shown", &trouble),
            None => {}
        }
    }
    Ok(ExitCode::from(match outcome.exit_code() {
        0 if run.strict && ended.is_err() => NOT_RECORDED,
        code => code,
    }))
}

/// Prints the build's steps. Where that fails, it is no matter of the command.
fn print(build_id: BuildId, steps: &[Step], json: bool) {
    if let Err(failure) = show::print(build_id, steps, false, json) {
        let _ = failure.report();
    }
}

/// `make -j4 (killed by SIGKILL)`
fn with_remark(state: &StateString, remark: &str) -> StateString {
    let text = if state.as_str().is_empty() { remark.to_owned() } else { format!("{state} ({remark})") };
    // A state string that is as long as one may be has no room for more.
    StateString::new(text).unwrap_or_else(|_| state.clone())
}

/// Of a store that fails, the user hears once.
#[derive(Debug)]
struct Complaints {
    strict: bool,
    made: bool,
}

impl Complaints {
    fn make(&mut self, what: &str, trouble: &Trouble) {
        let message = format!("{what}: {trouble}");
        match (self.made, self.strict) {
            (true, _) => {}
            (false, true) => output::error(&message),
            (false, false) => output::warning(&message),
        }
        self.made = true;
    }
}

fn random_key() -> Result<IdempotencyKey, Failure> {
    let random = || getrandom::u64().map_err(|error| Failure::System(error.into()));
    Ok(IdempotencyKey::new(format!("steps-run-{:016x}{:016x}", random()?, random()?))?)
}
