use std::{env, pin::pin, process::ExitCode};

use steps::{BuildId, FinishStep, IdempotencyKey, NewStep, Results, StateString, Step};

use super::show;
use crate::{
    child::{CommandLine, Environment},
    cli::Run,
    command_error::CommandError,
    connect,
    exit::Exit,
    group_probe::GroupProbe,
    output,
    recorder::{RecordError, Recorder, STORE_TIMEOUT},
    signals::Signals,
    store_url::StoreUrl,
};

/// The exit code with `--strict` if the step could not be recorded. `env` and `timeout` use the same code for their
/// own failures.
const NOT_RECORDED: u8 = 125;

/// The variable with the id of the running step, empty if the step was not recorded. It is separate from `STEPS_STEP`,
/// which a script may set to the id of another step.
pub(super) const RUNNING_STEP: &str = "STEPS_RUN";

/// The length at which a command line is cut to become the state string.
const STATE_CHARACTERS: usize = 80;

pub(super) async fn run(store: &StoreUrl, run: Run) -> Result<Exit, CommandError> {
    // Before the step is added: a signal after the add must not leave an unfinished step.
    let mut signals = Signals::listen_to_all().map_err(CommandError::System)?;
    let command =
        CommandLine::new(&run.command).ok_or_else(|| CommandError::Usage("the command is missing".to_owned()))?;
    let state = match run.state {
        Some(state) => state,
        None => StateString::new(command.to_text(STATE_CHARACTERS))?,
    };
    let step = NewStep::new(run.build.id, run.name.unwrap_or_else(|| command.step_name()), state.clone())
        .with_idempotency_key(random_key()?);
    let mut failures = WarnOnce { strict: run.strict, is_reported: false };

    // It starts while the store is connected to.
    let mut probe = GroupProbe::start();
    let mut recorder = Recorder::new(async || connect::to_add_within(STORE_TIMEOUT, store).await, step, run.urls);
    if let Err(error) = recorder.begin().await {
        let unrecorded = if recorder.step().is_some() { "the start of the step" } else { "the step" };
        let yet = if recorder.is_away() && !run.strict { " yet" } else { "" };
        failures.report(&format!("{unrecorded} is not recorded{yet}"), &error);
        if run.strict {
            output::note("the command is not run");
            recorder.stop_retrying();
            // If the step was added nevertheless, its end says that the command did not run.
            let finish = FinishStep::new(Results::EXCEPTION).with_hidden(run.hidden);
            let remark = with_remark(&state, "not run: it could not be recorded");
            let _ = recorder.end(finish, Some(remark)).await;
            return Ok(ExitCode::from(NOT_RECORDED).into());
        }
    }

    let folder = env::current_dir();
    let absolute_store = folder.map_or_else(|_| store.clone(), |folder| store.absolute(&folder));
    let step_id = recorder.step().map(|step| step.id.to_string());
    let environment = Environment::default()
        .with("STEPS_STORE", Some(absolute_store.as_str().to_owned()))
        .with("STEPS_BUILD", Some(run.build.id.to_string()))
        .with(RUNNING_STEP, Some(step_id.clone().unwrap_or_default()))
        // Without a step the variable is removed: it would name the step of an outer `steps run`.
        .with("STEPS_STEP", step_id);
    let outcome = {
        let mut running = pin!(command.run(&environment, &mut signals, &mut probe));
        tokio::select! {
            biased;
            outcome = &mut running => outcome,
            () = recorder.retry() => running.await,
        }
    };
    if let Some(error) = outcome.start_error() {
        output::error(&format!("cannot run {}: {error}", command.to_text(STATE_CHARACTERS)));
    }

    let finish = FinishStep::new(outcome.results()).with_hidden(run.hidden);
    let remark = outcome.remark().map(|remark| with_remark(&state, &remark));
    let ended = recorder.end(finish, remark).await;
    if let Err(error) = &ended {
        failures.report("the end of the step is not recorded", error);
    } else if run.show {
        match recorder.steps(run.build.id).await {
            Some(Ok(steps)) => print(run.build.id, &steps, run.json),
            Some(Err(error)) => failures.report("the build cannot be shown", &error),
            None => {}
        }
    }
    // Without this process, a signal after the command would have reached the shell only. It ends the program as it
    // would have without the command, except for another copy of a signal that ended the command.
    let late = if outcome.has_signals() { None } else { signals.pending().await.map(|caught| caught.signal) };
    Ok(match (outcome.signal().or(late), outcome.exit_code()) {
        (Some(signal), _) => Exit::Signal(signal),
        (None, 0) if run.strict && ended.is_err() => ExitCode::from(NOT_RECORDED).into(),
        (None, code) => ExitCode::from(code).into(),
    })
}

/// Prints the build's steps. A failure does not change the exit code, which is the command's.
fn print(build_id: BuildId, steps: &[Step], json: bool) {
    if let Err(error) = show::print(build_id, steps, false, json) {
        let _ = error.report();
    }
}

/// `make -j4 (killed by SIGKILL)`
fn with_remark(state: &StateString, remark: &str) -> StateString {
    let text = if state.as_str().is_empty() { remark.to_owned() } else { format!("{state} ({remark})") };
    // A state string of the maximum length stays without the remark.
    StateString::new(text).unwrap_or_else(|_| state.clone())
}

/// Reports the first failure of the store only: the later ones mostly have the same cause.
#[derive(Debug)]
struct WarnOnce {
    strict: bool,
    is_reported: bool,
}

impl WarnOnce {
    fn report(&mut self, consequence: &str, error: &RecordError) {
        let message = format!("{consequence}: {error}");
        match (self.is_reported, self.strict) {
            (true, _) => {}
            (false, true) => output::error(&message),
            (false, false) => output::warning(&message),
        }
        self.is_reported = true;
    }
}

fn random_key() -> Result<IdempotencyKey, CommandError> {
    let random = || getrandom::u64().map_err(|error| CommandError::System(error.into()));
    Ok(IdempotencyKey::new(format!("steps-run-{:016x}{:016x}", random()?, random()?))?)
}
