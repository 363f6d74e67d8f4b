//! Several processes on one store: this process and child processes.

use std::{collections::BTreeSet, sync::Arc};

use steps_core::{ErrorKind, Results, StepUrl, StepsStore, StepsStoreExt};
use tokio::sync::Semaphore;

use crate::{
    Clause, Feature,
    cases::{
        Needs, cases,
        concurrently::concurrently,
        values::{keyed, time_number as at},
    },
    compare::expect_steps,
    failure::{CaseResult, expect, expect_eq, expect_text},
    handle::Handle,
    test_env::TestEnv,
};

const PROCESSES: Needs = Needs::Feature(Feature::Processes);

cases! { Example processes:
    what_one_answered_the_others_read [R3] needs PROCESSES;
    adds_at_once_leave_no_gap [I2, N3, I1] needs PROCESSES;
    repeated_adds_at_once_add_one_step [I5, I2] needs PROCESSES;
    urls_at_once_are_neither_lost_nor_doubled [U3] needs PROCESSES;
    one_that_is_killed_leaves_what_it_answered_and_nothing_in_halves [D2, D1, I2] needs PROCESSES;
}

/// Handles on the store in this process and in two others.
async fn handles(env: &mut TestEnv) -> CaseResult<Vec<Handle>> {
    Ok(vec![env.store().clone(), env.process().await?, env.process().await?])
}

async fn what_one_answered_the_others_read(env: &mut TestEnv) -> CaseResult {
    let now = env.now();
    let handles = handles(env).await?;
    let build = env.build();
    for n in 0..6 {
        let [writer, other, reader] = [0, 1, 2].map(|index| &handles[(n + index) % 3]);
        expect_eq(Clause::R3, "how many steps another process reads", reader.steps(build).await?.len(), n)?;
        let added = writer.add(build, "compile", "waiting").await?;
        other.start_with_locks(added.id, at(1)).await?;
        reader.state(added.id, "running").await?;
        writer.add_named_url(added.id, "log", "u").await?;
        other.finish(added.id, Results::new(2)).await?;
        let read = writer.steps(build).await?;
        for handle in [other, reader] {
            expect_steps(Some(Clause::R3), "in another process", &handle.steps(build).await?, &read)?;
        }
        let last = read.last().map(|step| (step.started_at, step.complete_at, step.urls.len()));
        expect_eq(Clause::R3, "what all of them set", last, Some((Some(at(1)), Some(now), 1)))?;
    }
    Ok(())
}

async fn adds_at_once_leave_no_gap(env: &mut TestEnv) -> CaseResult {
    let handles = handles(env).await?;
    let build = env.build();
    let add = |number: usize| {
        let handle = handles[number % handles.len()].clone();
        async move { Ok(handle.add(build, "compile", "").await?) }
    };
    let mut answers = concurrently((0..240).map(add)).await?;
    answers.sort_by_key(|added| added.number);
    let numbers: Vec<_> = answers.iter().map(|added| added.number.get()).collect();
    expect_eq(Clause::I2, "the numbers that the adds returned", numbers, (0..240).collect::<Vec<_>>())?;
    let ids: Vec<_> = answers.iter().map(|added| added.id.get()).collect();
    let grow = ids.is_sorted_by(|id, next| id < next);
    expect(Clause::I1, "the ids of the steps, by their numbers", ids, "each greater than the one before", grow)?;
    for added in answers {
        let k = added.number.get();
        let expected = if k == 0 { "compile".into() } else { format!("compile_{k}") };
        expect_text(Clause::N3, format!("the name of the step number {k}"), added.name.as_str(), &expected)?;
    }
    Ok(())
}

async fn repeated_adds_at_once_add_one_step(env: &mut TestEnv) -> CaseResult {
    let handles = handles(env).await?;
    let build = env.build();
    let add = |number: usize| {
        let handle = handles[number % handles.len()].clone();
        // All processes use the same key at the same time.
        let new = keyed(build, "compile", format!("k{}", number / handles.len() % 10));
        async move { Ok(handle.add_step(new?).await?) }
    };
    let answers = concurrently((0..90).map(add)).await?;
    for (number, answer) in answers.iter().enumerate() {
        let first = answers[number / handles.len() % 10 * handles.len()].clone();
        expect_eq(Clause::I5, "the result of an add with a key that concurrent adds use", answer.clone(), first)?;
    }
    expect_eq(Clause::I5, "how many steps 90 adds under 10 keys make", handles[0].steps(build).await?.len(), 10)
}

async fn urls_at_once_are_neither_lost_nor_doubled(env: &mut TestEnv) -> CaseResult {
    let handles = handles(env).await?;
    super::tasks::urls_at_once(env, &handles).await
}

async fn one_that_is_killed_leaves_what_it_answered_and_nothing_in_halves(env: &mut TestEnv) -> CaseResult {
    const CALLERS: usize = 6;

    let build = env.build();
    let (process, killed) = env.process_to_kill().await?;
    let survivor = env.process().await?;
    let answers = Arc::new(Semaphore::new(0));
    let write = |caller: usize| {
        let handle = [&killed, &survivor][caller % 2].clone();
        let answers = Arc::clone(&answers);
        let is_killed = caller.is_multiple_of(2);
        async move {
            let mut answered = Vec::new();
            // Callers of the process that is killed write until the kill.
            let turns = if is_killed { i32::MAX } else { 40 };
            for n in 0..turns {
                let written: steps_core::Result<()> = async {
                    let step = handle.add(build, "compile", "running").await?;
                    answered.push((step.clone(), 0));
                    for url in 1..=2 {
                        handle.add_named_url(step.id, "log", url.to_string()).await?;
                        answered.last_mut().expect("the step was just pushed").1 = url;
                    }
                    handle.finish(step.id, Results::new(n)).await?;
                    answered.last_mut().expect("the step was just pushed").1 = 3;
                    Ok(())
                }
                .await;
                match written {
                    Err(error) if is_killed && error.kind() == ErrorKind::Unavailable => break,
                    written => written?,
                }
                if is_killed {
                    answers.add_permits(1);
                }
            }
            Ok(answered)
        }
    };
    let kill = async {
        // Kills the process while it writes, right after a response.
        let _ = answers.acquire_many(20).await;
        process.0.kill();
    };
    let work = async {
        let answered = concurrently((0..CALLERS).map(write)).await;
        // Ends the wait of `kill` if the callers failed.
        answers.close();
        answered
    };
    let (answered, ()) = tokio::join!(work, kill);
    let answered = answered?;

    let store = env.store();
    store.add(build, "compile", "running").await?;
    let steps = store.steps(build).await?;
    let numbers: Vec<_> = steps.iter().map(|step| step.number.get()).collect();
    expect_eq(Clause::I2, "the numbers of the build's steps", numbers, (0..).take(steps.len()).collect::<Vec<u32>>())?;
    for (added, done) in answered.into_iter().flatten() {
        let step = steps.iter().find(|step| step.id == added.id && step.number == added.number);
        let is_there = step.is_some_and(|step| {
            step.name == added.name && step.urls.len() >= done.min(2) && (done < 3 || step.results.is_some())
        });
        let end = if done == 3 { " and its end" } else { "" };
        let expected = format_args!("{added:?} with {} of its urls{end}, as acknowledged", done.min(2));
        expect(Clause::D1, "a step of a process that was killed", step, expected, is_there)?;
    }
    let ids: BTreeSet<_> = steps.iter().map(|step| step.id).collect();
    expect_eq(Clause::I1, "how many ids there are", ids.len(), steps.len())?;
    for step in steps {
        let end = (step.results, step.complete_at);
        let is_whole = step.results.is_some() == step.complete_at.is_some();
        expect(Clause::D2, "the end of a step", end, "all fields that a finish sets, or none", is_whole)?;
        expect_text(Clause::D2, "the state string of a step", step.state_string.as_str(), "running")?;
        let urls: Vec<_> = step.urls.iter().map(StepUrl::url).collect();
        expect_eq(Clause::U1, "the urls of a step", urls.as_slice(), &["1", "2"][..urls.len().min(2)])?;
    }
    Ok(())
}
