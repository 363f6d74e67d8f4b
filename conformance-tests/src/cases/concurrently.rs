//! Concurrent calls of several tasks.

use std::future::Future;

use steps_core::{AddedStep, NewStep, StepsStore};
use tokio::task::{JoinError, JoinSet};

use crate::{
    failure::{CaseResult, Failure},
    handle::Handle,
};

/// The maximum number of concurrent calls.
const MAX_CONCURRENT: usize = 100;

/// Adds the steps concurrently and returns the results in the order of the steps.
pub(super) async fn add_concurrently(store: &Handle, steps: Vec<NewStep>) -> CaseResult<Vec<AddedStep>> {
    let add = |step| {
        let store = store.clone();
        async move { Ok(store.add_step(step).await?) }
    };
    concurrently(steps.into_iter().map(add)).await
}

/// Runs the futures concurrently, each in its own task, and returns the results in the order of the futures.
pub(super) async fn concurrently<T: Send + 'static>(
    work: impl IntoIterator<Item: Future<Output = CaseResult<T>> + Send + 'static>,
) -> CaseResult<Vec<T>> {
    let mut tasks = JoinSet::new();
    let mut done = Vec::new();
    for (index, work) in work.into_iter().enumerate() {
        if tasks.len() == MAX_CONCURRENT {
            done.push(joined(tasks.join_next().await)?);
        }
        tasks.spawn(async move { (index, work.await) });
    }
    while !tasks.is_empty() {
        done.push(joined(tasks.join_next().await)?);
    }
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

fn joined<T>(task: Option<Result<T, JoinError>>) -> CaseResult<T> {
    task.expect("a task is running").map_err(|error| Failure::new("a task of the case").got(error.to_string()))
}
