//! Calls whose future is dropped half-way (D5).

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

/// How often a call is polled before it is dropped: never, and until it has got somewhere.
const POLLS: std::ops::Range<usize> = 0..6;

async fn an_add_is_whole_or_not_at_all(env: &mut TestEnv) -> CaseResult {
    let (store, build) = (env.store(), env.build());
    let mut answered = Vec::new();
    for round in 0..30 {
        let add = store.add_step(new_step(build, "compile", "")?);
        answered.extend(polled(round % POLLS.len(), add).await.transpose()?);
        if round % 3 == 0 {
            answered.push(store.add(build, "compile", "").await?);
        }
    }
    let last = store.add(build, "compile", "").await?;
    answered.push(last);
    // One that was dropped may still come: the last read is of a store at rest, or as good as.
    let steps = store.steps(build).await?;
    let numbers: Vec<_> = steps.iter().map(|step| step.number.get()).collect();
    expect_eq(Clause::I2, "the numbers of the build's steps", numbers, (0..).take(steps.len()).collect::<Vec<u32>>())?;
    let expected = names_of(std::iter::repeat_n("compile", steps.len()));
    for (step, expected) in steps.iter().zip(&expected) {
        expect_text(Clause::N3, "the name of a step", step.name.as_str(), expected)?;
    }
    expect_answered(&steps, &answered)
}

/// Expects the steps that adds answered.
fn expect_answered(steps: &[Step], answered: &[AddedStep]) -> CaseResult {
    for added in answered {
        let got = steps.iter().find(|step| step.id == added.id).map(|step| step.number);
        let what = format_args!("the number of the step {}, whose add was answered", added.id);
        expect_eq(Clause::D5, what, got, Some(added.number))?;
    }
    Ok(())
}

async fn a_change_is_whole_or_not_at_all(env: &mut TestEnv) -> CaseResult {
    let (store, build) = (env.store(), env.build());
    env.set_clock(at(3));
    for polls in POLLS {
        let step = store.add(build, "compile", "waiting").await?;
        let _ = polled(polls, store.start_step(step.id, StartStep::new(at(1)).with_locks_acquired(true))).await;
        let _ = polled(polls, store.set_step_state_string(step.id, "running".parse()?)).await;
        let _ = polled(polls, store.finish_step(step.id, FinishStep::new(Results::FAILURE).with_hidden(true))).await;
        let got = expect_some(Clause::D5, "the step", store.step(step.id).await?)?;
        let started = (got.started_at, got.locks_acquired_at);
        let is_whole = [(None, None), (Some(at(1)), Some(at(1)))].contains(&started);
        expect(Clause::D5, "what a dropped start sets", started, "both times, or none", is_whole)?;
        let is_whole = ["waiting", "running"].contains(&got.state_string.as_str());
        let what = "the state string after a dropped change of it";
        expect(Clause::D5, what, got.state_string, "\"waiting\" or \"running\"", is_whole)?;
        let finished = (got.complete_at, got.results, got.hidden);
        let is_whole = [(None, None, false), (Some(at(3)), Some(Results::FAILURE), true)].contains(&finished);
        expect(Clause::D5, "what a dropped finish sets", finished, "all three, or none", is_whole)?;
        // The store goes on.
        store.state(step.id, "done").await?;
    }
    Ok(())
}

async fn a_url_is_whole_or_not_at_all(env: &mut TestEnv) -> CaseResult {
    let (store, build) = (env.store(), env.build());
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
    let (store, build) = (env.store(), env.build());
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
    let (store, build) = (env.store(), env.build());
    store.add(build, "compile", "").await?;
    for polls in POLLS {
        let _ = polled(polls, store.close()).await;
    }
    // It is closed or it is not: either way it answers, and a close that is waited for closes it.
    let _ = store.steps(build).await;
    Ok(store.close().await?)
}

/// More than any call waits.
const MOST_AWAITS: usize = 100;

async fn each_write_is_whole_or_not_at_all_at_every_await(env: &mut TestEnv) -> CaseResult {
    let (store, build) = (env.store(), env.build());
    for (first_mark, write) in (0..).step_by(MOST_AWAITS).zip(WRITES) {
        // Further each time, until it is answered.
        for (awaits, mark) in (0..MOST_AWAITS).zip(first_mark..) {
            let attempt = Attempt::new(write, store, build, mark).await?;
            let answer = dropped_at(awaits, attempt.call(store)).await.transpose()?.transpose()?;
            let applied = attempt.applied(&store.steps(build).await?)?;
            if answer.is_some() {
                expect_eq(Clause::R3, format_args!("how often the {write:?} was applied"), applied, 1)?;
                break;
            }
            let what = format_args!("how often a {write:?} that was dropped was applied");
            expect(Clause::D5, what, applied, "0 or 1", applied <= 1)?;
            // Another like it takes its place.
            let next = Attempt { mark: mark + 1_000_000, ..attempt.clone() };
            next.call(store).await??;
            let steps = store.steps(build).await?;
            let (dropped, applied) = (attempt.applied(&steps)?, next.applied(&steps)?);
            let what = format_args!("how often a {write:?} after a dropped one was applied");
            match write {
                Write::Start | Write::Locks | Write::State | Write::Finish => {
                    // The dropped one may still come, and then it is the later one.
                    expect_eq(Clause::D5, format_args!("{what}, or the dropped one, late"), applied + dropped, 1)?;
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
    let (store, build) = (env.store(), env.build());
    let calls = (0..8).map(|caller: usize| {
        let store = store.clone();
        async move {
            let mut answered = Vec::new();
            for round in 0..12 {
                let add = store.add(build, "compile", "");
                if caller.is_multiple_of(2) {
                    answered.extend(dropped_at(1 + (caller + round) % 4, add).await.transpose()?);
                } else {
                    answered.push(add.await?);
                }
            }
            Ok(answered)
        }
    });
    let answered: Vec<_> = concurrently(calls).await?.into_iter().flatten().collect();
    let steps = store.steps(build).await?;
    expect_answered(&steps, &answered)
}
