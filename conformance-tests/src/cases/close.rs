//! Close (D7).

use steps_core::{
    ErrorKind, FinishStep, Results, StartStep, StateString, StepSelector, StepsStore, StepsStoreExt, Timestamp,
};

use crate::{
    Clause,
    cases::{
        PEERS, REOPEN, cases,
        concurrently::concurrently,
        values::{named, new_step, numbered, url},
    },
    failure::{CaseResult, expect, expect_eq, expect_error},
    test_env::{Ending, TestEnv},
};

cases! { Example close:
    every_later_call_is_closed [D7, D3];
    a_second_close_is_fine [D7];
    all_who_share_the_handle_are_closed [D7];
    calls_that_wait_end [D7, D4];
    what_was_answered_stays [D7, D1] needs REOPEN;
    a_peer_goes_on [D7] needs PEERS;
}

async fn every_later_call_is_closed(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let step = store.add(build, "compile", "").await?;
    let id = step.id;
    store.close().await?;
    // Two rounds, in case a call reopens the store.
    for _ in 0..2 {
        let results = [
            ("add_step", store.add_step(new_step(build, "test", "")?).await.map(drop)),
            ("start_step", store.start_step(id, StartStep::new(Timestamp::UNIX_EPOCH)).await),
            ("set_step_locks_acquired_at", store.set_step_locks_acquired_at(id, Timestamp::UNIX_EPOCH).await),
            ("set_step_state_string", store.set_step_state_string(id, StateString::default()).await),
            ("finish_step", store.finish_step(id, FinishStep::new(Results::SUCCESS)).await),
            ("add_url", store.add_url(id, url("log", "u")?).await),
            ("get_step by id", store.get_step(StepSelector::Id(id)).await.map(drop)),
            ("get_step by number", store.get_step(numbered(build, 0)).await.map(drop)),
            ("get_step by name", store.get_step(named(build, "compile")?).await.map(drop)),
            ("get_steps", store.get_steps(build).await.map(drop)),
        ];
        for (call, got) in results {
            expect_error(Clause::D7, format!("{call} after close"), got, ErrorKind::Closed)?;
        }
    }
    Ok(())
}

async fn a_second_close_is_fine(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    store.add(env.build(), "compile", "").await?;
    for _ in 0..3 {
        store.close().await?;
    }
    Ok(())
}

async fn all_who_share_the_handle_are_closed(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let shared = store.clone();
    store.add(build, "compile", "").await?;
    shared.close().await?;
    expect_error(Clause::D7, "a read after another task closed the store", store.steps(build).await, ErrorKind::Closed)
        .map(drop)
}

async fn calls_that_wait_end(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let call = |number: u32| {
        let store = store.clone();
        async move {
            let result =
                if number == 30 { store.close().await } else { store.add(build, "compile", "").await.map(drop) };
            Ok((number, result))
        }
    };
    // An add may succeed or fail, depending on timing. The time-out of the calls ensures that each one ends.
    for (number, result) in concurrently((0..60).map(call)).await? {
        match result {
            Err(error) if number != 30 => {
                let is_expected = matches!(error.kind(), ErrorKind::Closed | ErrorKind::Unavailable);
                let what = format_args!("the kind of the error \"{error}\" of an add during a close");
                expect(Clause::D7, what, error.kind(), "Closed or Unavailable", is_expected)?;
            }
            result => result?,
        }
    }
    expect_error(Clause::D7, "a read after close", store.steps(build).await, ErrorKind::Closed).map(drop)
}

async fn what_was_answered_stays(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let call = |number: u32| {
        let store = store.clone();
        async move {
            if number == 30 {
                store.close().await?;
                return Ok(None);
            }
            Ok(Some((number.to_string(), store.add(build, "compile", number.to_string()).await)))
        }
    };
    let answers: Vec<_> = concurrently((0..60).map(call)).await?.into_iter().flatten().collect();
    env.reopen(Ending::Closed).await?;
    let steps = env.store().steps(build).await?;
    for (state, answer) in answers {
        let got = steps.iter().find(|step| step.state_string == *state).map(|step| step.id);
        match answer {
            Ok(added) => expect_eq(Clause::D7, "a step whose add returned before the close", got, Some(added.id))?,
            Err(error) if error.may_have_applied() => {}
            Err(_) => expect_eq(Clause::D3, "a step whose add was certainly not applied", got, None)?,
        }
    }
    let numbers: Vec<_> = steps.iter().map(|step| step.number.get()).collect();
    expect_eq(Clause::I2, "the numbers of the build's steps", numbers, (0..).take(steps.len()).collect::<Vec<u32>>())
}

async fn a_peer_goes_on(env: &mut TestEnv) -> CaseResult {
    let peer = env.peer().await?;
    let store = env.store();
    let build = env.build();
    store.add(build, "compile", "").await?;
    store.close().await?;
    let added = peer.add(build, "compile", "").await?;
    expect_eq(Clause::D7, "the number of an add by a peer of a closed handle", added.number.get(), 1)?;
    expect_eq(Clause::D7, "how many steps the peer reads", peer.steps(build).await?.len(), 2)
}
