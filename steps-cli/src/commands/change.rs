//! The commands that add or update a step.

use std::env;

use steps::{
    Clock, Error, ErrorKind, FinishStep, NewStep, StartStep, StepId, StepUrl, StepsStore, SystemClock, Timestamp,
};

use super::run::RUNNING_STEP;
use crate::{
    cli::{self, Add, Finish, Locks, Start, State, Time, Url},
    command_error::{self, CommandError},
    connect,
    output::{self, json},
    store_url::StoreUrl,
};

pub(super) async fn add(store: &StoreUrl, add: Add) -> Result<(), CommandError> {
    let mut step = NewStep::new(add.build.id, add.name, add.state);
    if let Some(key) = add.key {
        step = step.with_idempotency_key(key);
    }
    let added = connect::to_add(store).await?.add_step(step).await?;
    if add.json { json::line(&added) } else { output::data(&format!("{}\n", added.id)) }
}

pub(super) async fn start(store: &StoreUrl, start: Start) -> Result<(), CommandError> {
    let request = StartStep::new(or_now(&start.time)).with_locks_acquired(start.locks_acquired);
    change(store, &start.step, async |store, id| store.start_step(id, request).await).await
}

pub(super) async fn locks(store: &StoreUrl, locks: Locks) -> Result<(), CommandError> {
    let at = or_now(&locks.time);
    change(store, &locks.step, async |store, id| store.set_step_locks_acquired_at(id, at).await).await
}

pub(super) async fn state(store: &StoreUrl, state: State) -> Result<(), CommandError> {
    change(store, &state.step, async |store, id| store.set_step_state_string(id, state.text).await).await
}

pub(super) async fn url(store: &StoreUrl, url: Url) -> Result<(), CommandError> {
    let step_url = StepUrl::new(url.name, url.url)?;
    change(store, &url.step, async |store, id| store.add_url(id, step_url).await).await
}

pub(super) async fn finish(store: &StoreUrl, finish: Finish) -> Result<(), CommandError> {
    let request = FinishStep::new(finish.results).with_hidden(finish.hidden);
    change(store, &finish.step, async |store, id| store.finish_step(id, request).await).await
}

/// Changes a step. A store that fails does not affect the command of `steps run`, so the failure of a change to its
/// step is a warning without `--strict`.
async fn change(
    store: &StoreUrl,
    step: &cli::Step,
    apply: impl AsyncFnOnce(&dyn StepsStore, StepId) -> Result<(), Error>,
) -> Result<(), CommandError> {
    // Empty if the step of the command is not recorded.
    let running = env::var(RUNNING_STEP).ok();
    let Some(id) = step.id else {
        return match (running, step.strict) {
            (Some(_), false) => {
                output::warning("the change is not recorded: the step of this command was not recorded at its start");
                Ok(())
            }
            (Some(_), true) => {
                let message = "the step of this command was not recorded at its start";
                Err(CommandError::NotFound(message.to_owned()))
            }
            (None, _) => {
                let message = "missing argument: give --step ID or set STEPS_STEP";
                Err(CommandError::Usage(message.to_owned()))
            }
        };
    };
    let is_lenient = !step.strict && running.is_some_and(|running| running == id.to_string());
    let change = async { apply(&*connect::to_change(store).await?, id).await };
    match change.await {
        Err(error) if is_lenient && !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => {
            output::warning(&format!("the change is not recorded: {}", command_error::chain(&error)));
            Ok(())
        }
        changed => Ok(changed?),
    }
}

fn or_now(time: &Time) -> Timestamp {
    time.at.unwrap_or_else(|| SystemClock.now())
}
