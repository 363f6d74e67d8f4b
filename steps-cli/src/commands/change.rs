//! The commands that add or update a step.

use steps::{Clock, FinishStep, NewStep, StartStep, StepUrl, StepsStore, SystemClock, Timestamp};

use crate::{
    cli::{Add, Finish, Locks, Start, State, Time, Url},
    command_error::CommandError,
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
    Ok(connect::to_change(store).await?.start_step(start.step.id, request).await?)
}

pub(super) async fn locks(store: &StoreUrl, locks: Locks) -> Result<(), CommandError> {
    let at = or_now(&locks.time);
    Ok(connect::to_change(store).await?.set_step_locks_acquired_at(locks.step.id, at).await?)
}

pub(super) async fn state(store: &StoreUrl, state: State) -> Result<(), CommandError> {
    Ok(connect::to_change(store).await?.set_step_state_string(state.step.id, state.text).await?)
}

pub(super) async fn url(store: &StoreUrl, url: Url) -> Result<(), CommandError> {
    let step_url = StepUrl::new(url.name, url.url)?;
    Ok(connect::to_change(store).await?.add_url(url.step.id, step_url).await?)
}

pub(super) async fn finish(store: &StoreUrl, finish: Finish) -> Result<(), CommandError> {
    let request = FinishStep::new(finish.results).with_hidden(finish.hidden);
    Ok(connect::to_change(store).await?.finish_step(finish.step.id, request).await?)
}

fn or_now(time: &Time) -> Timestamp {
    time.at.unwrap_or_else(|| SystemClock.now())
}
