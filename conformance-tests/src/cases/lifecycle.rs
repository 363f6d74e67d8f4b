//! Changes of steps: start, locks, state string, finish (L2 to L6).

use steps_core::{
    BuildId, ErrorKind, FinishStep, Operation, Results, StartStep, StateString, Step, StepId, StepsStore,
    StepsStoreExt, Timestamp,
};

use crate::{
    Clause,
    cases::{
        cases,
        values::{missing_ids, time, time_number as at, url},
    },
    compare::{expect_step, expect_steps},
    failure::{CaseResult, expect_eq, expect_error, expect_some},
    handle::Handle,
    model,
    test_env::TestEnv,
};

cases! { Example lifecycle:
    start_sets_when_it_started [L2];
    start_with_locks_sets_both_times [L2];
    start_without_locks_leaves_their_time_as_it_was [L2];
    start_again_overwrites [L2, L5];
    locks_acquired_sets_only_that [L3];
    state_string_sets_only_that [L3];
    finish_sets_time_results_and_hidden [L4];
    finish_again_overwrites_all_three [L4];
    finish_takes_the_time_from_its_clock [L4];
    finish_leaves_the_rest_as_it_was [L4];
    changes_come_in_any_order [L5];
    the_last_change_wins [L5];
    changes_touch_no_other_step [L3, L2, L4];
    a_change_of_a_missing_step_is_not_found [L6, D3];
    a_change_of_a_missing_step_changes_nothing [L6];
}

/// A change of a step, with its arguments.
#[derive(Clone, Debug)]
enum Change {
    Start(StartStep),
    Locks(Timestamp),
    State(&'static str),
    /// Includes the time of the clock.
    Finish(FinishStep, Timestamp),
    Url(&'static str, &'static str),
}

impl Change {
    /// A change of each kind. The arguments differ for each `n`.
    fn each(n: i64) -> [Self; 5] {
        [
            Self::Start(StartStep::new(at(10 * n)).with_locks_acquired(n % 2 == 0)),
            Self::Locks(at(10 * n + 1)),
            Self::State(["running", "done", ""][usize::try_from(n % 3).expect("a small number")]),
            Self::Finish(
                FinishStep::new(Results::new(i32::try_from(n).expect("a small number"))).with_hidden(n % 2 == 1),
                at(10 * n + 2),
            ),
            Self::Url(["log", "page"][usize::try_from(n % 2).expect("a small number")], "https://example.org/"),
        ]
    }

    async fn make(&self, env: &TestEnv, id: StepId) -> steps_core::Result<()> {
        let store = env.store();
        match self {
            Self::Start(start) => store.start_step(id, *start).await,
            Self::Locks(at) => store.set_step_locks_acquired_at(id, *at).await,
            Self::State(state) => store.state(id, *state).await,
            Self::Finish(finish, now) => {
                env.set_clock(*now);
                store.finish_step(id, *finish).await
            }
            Self::Url(name, url) => store.add_named_url(id, *name, *url).await,
        }
    }

    /// Applies the change to the expected step.
    fn apply(&self, step: &mut Step) -> CaseResult {
        match self {
            Self::Start(start) => model::start(step, *start),
            Self::Locks(at) => step.locks_acquired_at = Some(*at),
            Self::State(state) => step.state_string = StateString::new(*state)?,
            Self::Finish(finish, now) => model::finish(step, *finish, *now),
            Self::Url(name, link) => model::add_url(step, url(*name, *link)?),
        }
        Ok(())
    }

    const fn operation(&self) -> Operation {
        match self {
            Self::Start(_) => Operation::StartStep,
            Self::Locks(_) => Operation::SetStepLocksAcquiredAt,
            Self::State(_) => Operation::SetStepStateString,
            Self::Finish(..) => Operation::FinishStep,
            Self::Url(..) => Operation::AddUrl,
        }
    }
}

/// Makes the changes to a new step and compares it with the expected step after each. Differences are blamed on
/// `clause`.
async fn expect_changes(env: &TestEnv, clause: Clause, changes: &[Change]) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let mut expected = added(store, build, "compile").await?;
    for change in changes {
        change.make(env, expected.id).await?;
        change.apply(&mut expected)?;
        let got = expect_some(clause, "the step just changed", store.step(expected.id).await?)?;
        expect_step(Some(clause), "after the last change", &got, &expected)?;
    }
    Ok(())
}

/// Adds a step and reads it.
async fn added(store: &Handle, build: BuildId, name: &str) -> CaseResult<Step> {
    let added = store.add(build, name, "waiting").await?;
    expect_some(Clause::R3, "the step just added", store.step(added.id).await?)
}

fn start(n: i64) -> Change {
    Change::Start(StartStep::new(at(n)))
}

fn start_with_locks(n: i64) -> Change {
    Change::Start(StartStep::new(at(n)).with_locks_acquired(true))
}

fn finish(results: i32, hidden: bool, n: i64) -> Change {
    Change::Finish(FinishStep::new(Results::new(results)).with_hidden(hidden), at(n))
}

async fn start_sets_when_it_started(env: &mut TestEnv) -> CaseResult {
    expect_changes(env, Clause::L2, &[start(1)]).await
}

async fn start_with_locks_sets_both_times(env: &mut TestEnv) -> CaseResult {
    expect_changes(env, Clause::L2, &[start_with_locks(1)]).await?;
    expect_changes(env, Clause::L2, &[Change::Locks(at(1)), start_with_locks(2)]).await
}

async fn start_without_locks_leaves_their_time_as_it_was(env: &mut TestEnv) -> CaseResult {
    expect_changes(env, Clause::L2, &[Change::Locks(at(1)), start(2)]).await?;
    expect_changes(env, Clause::L2, &[start_with_locks(1), start(2)]).await
}

async fn start_again_overwrites(env: &mut TestEnv) -> CaseResult {
    expect_changes(env, Clause::L2, &[start(2), start(3), start(1), start_with_locks(5), start_with_locks(4)]).await
}

async fn locks_acquired_sets_only_that(env: &mut TestEnv) -> CaseResult {
    expect_changes(env, Clause::L3, &[Change::Locks(at(2)), Change::Locks(at(1))]).await?;
    let [start, locks, state, finish, url] = Change::each(4);
    expect_changes(env, Clause::L3, &[start, state, finish, url, locks, Change::Locks(at(9))]).await
}

async fn state_string_sets_only_that(env: &mut TestEnv) -> CaseResult {
    expect_changes(env, Clause::L3, &[Change::State("running"), Change::State(""), Change::State("done")]).await?;
    let [start, locks, state, finish, url] = Change::each(4);
    expect_changes(env, Clause::L3, &[start, locks, finish, url, state, Change::State("done")]).await
}

async fn finish_sets_time_results_and_hidden(env: &mut TestEnv) -> CaseResult {
    expect_changes(env, Clause::L4, &[finish(0, false, 1)]).await?;
    expect_changes(env, Clause::L4, &[finish(2, true, 1)]).await
}

async fn finish_again_overwrites_all_three(env: &mut TestEnv) -> CaseResult {
    expect_changes(env, Clause::L4, &[finish(2, true, 5), finish(0, false, 9), finish(6, true, 1), finish(6, false, 1)])
        .await
}

async fn finish_takes_the_time_from_its_clock(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let step = store.add(build, "compile", "").await?;
    for now in ["2001-09-09T01:46:40Z", "1970-01-01T00:00:00Z", "2038-01-19T03:14:08.000001Z", "1999-12-31T23:59:59Z"] {
        let now = time(now)?;
        env.set_clock(now);
        store.finish(step.id, Results::SUCCESS).await?;
        let got = expect_some(Clause::L4, "the step just finished", store.step(step.id).await?)?;
        expect_eq(Clause::L4, "complete_at, by the clock of the handle", got.complete_at, Some(now))?;
    }
    Ok(())
}

async fn finish_leaves_the_rest_as_it_was(env: &mut TestEnv) -> CaseResult {
    let [start, locks, state, finish, url] = Change::each(4);
    expect_changes(env, Clause::L4, &[start, locks, state, url, finish]).await
}

async fn changes_come_in_any_order(env: &mut TestEnv) -> CaseResult {
    let changes = Change::each(1);
    for rotated in 0..changes.len() {
        for skipped in 1..changes.len() {
            // A stride of 1 to 4 through the five changes, so that each pair of changes occurs in both orders.
            let order: Vec<_> =
                (0..changes.len()).map(|n| changes[(rotated + n * skipped) % changes.len()].clone()).collect();
            expect_changes(env, Clause::L5, &order).await?;
        }
    }
    Ok(())
}

async fn the_last_change_wins(env: &mut TestEnv) -> CaseResult {
    let twice: Vec<_> = [5, 3, 8, 1].into_iter().flat_map(Change::each).collect();
    expect_changes(env, Clause::L5, &twice).await
}

async fn changes_touch_no_other_step(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let builds = [env.build(), env.build()];
    for build in builds {
        for _ in 0..3 {
            store.add(build, "compile", "waiting").await?;
        }
    }
    let mut expected = [store.steps(builds[0]).await?, store.steps(builds[1]).await?];
    // Each step gets changes with different arguments.
    for (n, (build, number)) in (0..).zip([(0, 1), (1, 1), (0, 0), (1, 2), (0, 2), (1, 0)]) {
        let step: &mut Step = &mut expected[build][number];
        for change in Change::each(n) {
            change.make(env, step.id).await?;
            change.apply(step)?;
        }
        for (build, expected) in builds.into_iter().zip(&expected) {
            let what = "after the changes of one step";
            expect_steps(Some(Clause::L3), what, &store.steps(build).await?, expected)?;
        }
    }
    Ok(())
}

async fn a_change_of_a_missing_step_is_not_found(env: &mut TestEnv) -> CaseResult {
    for id in missing_ids()? {
        for change in Change::each(1) {
            let got = change.make(env, id).await;
            let error = expect_error(Clause::L6, "a change of a missing step", got, ErrorKind::NotFound)?;
            let call = error.call().map(|call| (call.operation(), call.step_id()));
            expect_eq(Clause::D3, "the call that the error names", call, Some((change.operation(), Some(id))))?;
        }
    }
    Ok(())
}

async fn a_change_of_a_missing_step_changes_nothing(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    store.add(build, "compile", "waiting").await?;
    let before = store.steps(build).await?;
    for id in missing_ids()? {
        for change in Change::each(1) {
            expect_error(Clause::L6, "a change of a missing step", change.make(env, id).await, ErrorKind::NotFound)?;
        }
        expect_eq(Clause::L6, "the missing step, after changes of it", store.step(id).await?, None)?;
    }
    expect_steps(Some(Clause::L6), "after changes of a missing step", &store.steps(build).await?, &before)?;
    let added = store.add(build, "test", "").await?;
    expect_eq(Clause::L6, "the number of the next add", added.number.get(), 1)
}
