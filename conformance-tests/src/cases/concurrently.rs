//! Calls of several tasks at once.

use std::future::Future;

use steps_core::{AddedStep, NewStep, StepsStore};
use tokio::task::{JoinError, JoinSet};

use crate::{
    failure::{CaseResult, Failure},
    handle::Handle,
};

/// How many calls wait at a time.
const WAVE: usize = 100;

/// Adds these steps, many at a time, and gives the answers in the order of the steps.
pub(super) async fn add_concurrently(store: &Handle, steps: Vec<NewStep>) -> CaseResult<Vec<AddedStep>> {
    let add = |step| {
        let store = store.clone();
        async move { Ok(store.add_step(step).await?) }
    };
    concurrently(steps.into_iter().map(add)).await
}

/// Runs these, many at a time, each in a task of its own, and gives what they give, in their order.
pub(super) async fn concurrently<T: Send + 'static>(
    work: impl IntoIterator<Item: Future<Output = CaseResult<T>> + Send + 'static>,
) -> CaseResult<Vec<T>> {
    let (mut tasks, mut done) = (JoinSet::new(), Vec::new());
    for (place, work) in work.into_iter().enumerate() {
        if tasks.len() == WAVE {
            done.push(ended(tasks.join_next().await)?);
        }
        tasks.spawn(async move { (place, work.await) });
    }
    while !tasks.is_empty() {
        done.push(ended(tasks.join_next().await)?);
    }
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

fn ended<T>(task: Option<Result<T, JoinError>>) -> CaseResult<T> {
    task.expect("a task is left").map_err(|error| Failure::new("a task of the case").got(error.to_string()))
}
