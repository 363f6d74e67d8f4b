//! Calls whose future is dropped before it completes (D5).

use steps_core::{AddedStep, FinishStep, Results, StartStep, Step, StepsStore, StepsStoreExt};

use crate::{
    Clause,
    cases::{
        cases,
        concurrently::concurrently,
        values::{new_step, time_number as at, url},
        writes::{Attempt, WRITES, Write},
    },
    failure::{CaseResult, expect, expect_eq, expect_some, expect_text},
    handle::{dropped_at, polled},
    model::names_of,
    test_env::TestEnv,
};

cases! { Example dropped:
    an_add_is_whole_or_not_at_all [D5, I2];
    a_change_is_whole_or_not_at_all [D5];
    a_url_is_whole_or_not_at_all [D5, U2];
    a_read_harms_nothing [D5];
    a_close_harms_nothing [D5, D7];
    each_write_is_whole_or_not_at_all_at_every_await [D5, D2, I2];
    no_other_call_is_harmed [D5];
}

/// The number of polls before a call is dropped.
const POLLS: std::ops::Range<usize> = 0..6;

async fn an_add_is_whole_or_not_at_all(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let mut completed = Vec::new();
    for round in 0..30 {
        let add = store.add_step(new_step(build, "compile", "")?);
        completed.extend(polled(round % POLLS.len(), add).await.transpose()?);
        if round % 3 == 0 {
            completed.push(store.add(build, "compile", "").await?);
        }
    }
    let last = store.add(build, "compile", "").await?;
    completed.push(last);
    // A dropped add may still be in flight. Most likely it is done by the time of this read.
    let steps = store.steps(build).await?;
    let numbers: Vec<_> = steps.iter().map(|step| step.number.get()).collect();
    expect_eq(Clause::I2, "the numbers of the build's steps", numbers, (0..).take(steps.len()).collect::<Vec<u32>>())?;
    let expected = names_of(std::iter::repeat_n("compile", steps.len()));
    for (step, expected) in steps.iter().zip(&expected) {
        expect_text(Clause::N3, "the name of a step", step.name.as_str(), expected)?;
    }
    expect_completed(&steps, &completed)
}

/// Expects the steps of the adds that completed.
fn expect_completed(steps: &[Step], completed: &[AddedStep]) -> CaseResult {
    for added in completed {
        let got = steps.iter().find(|step| step.id == added.id).map(|step| step.number);
        let what = format_args!("the number of the step {}, whose add completed", added.id);
        expect_eq(Clause::D5, what, got, Some(added.number))?;
    }
    Ok(())
}

async fn a_change_is_whole_or_not_at_all(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    env.set_clock(at(3));
    for polls in POLLS {
        let step = store.add(build, "compile", "waiting").await?;
        let _ = polled(polls, store.start_step(step.id, StartStep::new(at(1)).with_locks_acquired(true))).await;
        let _ = polled(polls, store.set_step_state_string(step.id, "running".parse()?)).await;
        let _ = polled(polls, store.finish_step(step.id, FinishStep::new(Results::FAILURE).with_hidden(true))).await;
        let got = expect_some(Clause::D5, "the step", store.step(step.id).await?)?;
        let started = (got.started_at, got.locks_acquired_at);
        let is_whole = [(None, None), (Some(at(1)), Some(at(1)))].contains(&started);
        expect(Clause::D5, "the times after a dropped start", started, "both times, or none", is_whole)?;
        let is_whole = ["waiting", "running"].contains(&got.state_string.as_str());
        let what = "the state string after a dropped change";
        expect(Clause::D5, what, got.state_string, "\"waiting\" or \"running\"", is_whole)?;
        let finished = (got.complete_at, got.results, got.hidden);
        let is_whole = [(None, None, false), (Some(at(3)), Some(Results::FAILURE), true)].contains(&finished);
        expect(Clause::D5, "the fields after a dropped finish", finished, "all three, or none", is_whole)?;
        // The store still works.
        store.state(step.id, "done").await?;
    }
    Ok(())
}

async fn a_url_is_whole_or_not_at_all(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let step = store.add(build, "compile", "").await?;
    for round in 0..20 {
        let _ = polled(round % POLLS.len(), store.add_url(step.id, url("log", round.to_string())?)).await;
    }
    for round in 0..20 {
        store.add_named_url(step.id, "log", round.to_string()).await?;
    }
    let urls = expect_some(Clause::D5, "the step", store.step(step.id).await?)?.urls;
    let mut rounds: Vec<_> = urls.iter().map(|url| url.url().parse().unwrap_or(u32::MAX)).collect();
    rounds.sort_unstable();
    expect_eq(Clause::U2, "the urls, each of which was added twice", rounds, (0..20).collect::<Vec<_>>())
}

async fn a_read_harms_nothing(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let step = store.add(build, "compile", "").await?;
    for round in 0..30 {
        let _ = polled(round % POLLS.len(), store.get_steps(build)).await;
        let _ = polled(round % POLLS.len(), store.get_step(step.id.into())).await;
    }
    expect_eq(Clause::D5, "how many steps the build has", store.steps(build).await?.len(), 1)?;
    store.add(build, "compile", "").await?;
    expect_eq(Clause::D5, "how many steps the build has", store.steps(build).await?.len(), 2)
}

async fn a_close_harms_nothing(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    store.add(build, "compile", "").await?;
    for polls in POLLS {
        let _ = polled(polls, store.close()).await;
    }
    // The store may be closed or not. Either way a read returns, and another close succeeds.
    let _ = store.steps(build).await;
    Ok(store.close().await?)
}

/// An upper bound on the awaits of a call.
const MAX_AWAITS: usize = 100;

async fn each_write_is_whole_or_not_at_all_at_every_await(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    for (first_mark, write) in (0..).step_by(MAX_AWAITS).zip(WRITES) {
        // Drops the call one await later each time, until it completes.
        for (awaits, mark) in (0..MAX_AWAITS).zip(first_mark..) {
            let attempt = Attempt::new(write, store, build, mark).await?;
            let answer = dropped_at(awaits, attempt.call(store)).await.transpose()?.transpose()?;
            let applied = attempt.applied(&store.steps(build).await?)?;
            if answer.is_some() {
                expect_eq(Clause::R3, format_args!("how often the {write:?} was applied"), applied, 1)?;
                break;
            }
            let what = format_args!("how often a {write:?} that was dropped was applied");
            expect(Clause::D5, what, applied, "0 or 1", applied <= 1)?;
            // Makes another write of the same kind.
            let next = Attempt { mark: mark + 1_000_000, ..attempt.clone() };
            next.call(store).await??;
            let steps = store.steps(build).await?;
            let dropped = attempt.applied(&steps)?;
            let applied = next.applied(&steps)?;
            let what = format_args!("how often a {write:?} after a dropped one was applied");
            match write {
                Write::Start | Write::Locks | Write::State | Write::Finish => {
                    // The dropped write may be applied late, and then it overwrites the next one.
                    expect_eq(Clause::D5, format_args!("{what}, or the dropped one afterwards"), applied + dropped, 1)?;
                }
                Write::Add | Write::KeyedAdd | Write::Url => expect_eq(Clause::D5, what, applied, 1)?,
            }
        }
    }
    let steps = store.steps(build).await?;
    let numbers: Vec<_> = steps.iter().map(|step| step.number.get()).collect();
    expect_eq(Clause::I2, "the numbers of the build's steps", numbers, (0..).take(steps.len()).collect::<Vec<u32>>())
}

async fn no_other_call_is_harmed(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let calls = (0..8).map(|caller: usize| {
        let store = store.clone();
        async move {
            let mut completed = Vec::new();
            for round in 0..12 {
                let add = store.add(build, "compile", "");
                if caller.is_multiple_of(2) {
                    completed.extend(dropped_at(1 + (caller + round) % 4, add).await.transpose()?);
                } else {
                    completed.push(add.await?);
                }
            }
            Ok(completed)
        }
    });
    let completed: Vec<_> = concurrently(calls).await?.into_iter().flatten().collect();
    let steps = store.steps(build).await?;
    expect_completed(&steps, &completed)
}
