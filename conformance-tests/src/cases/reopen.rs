//! After a restart, acknowledged writes are still there (D1), and ids, numbers, names and keys continue.

use steps_core::{FinishStep, Results, StepsStore, StepsStoreExt};

use crate::{
    Clause,
    cases::{
        REOPEN, cases,
        values::{keyed, time_number as at},
    },
    compare::expect_steps,
    failure::{CaseResult, expect, expect_eq, expect_text},
    test_env::{Ending, TestEnv},
};

cases! { Example reopen:
    everything_is_there_after_a_close [D1, I1] needs REOPEN;
    everything_is_there_after_a_drop [D1, I1] needs REOPEN;
    numbers_and_names_go_on [I2, N3] needs REOPEN;
    ids_are_not_used_again [I1] needs REOPEN;
    keys_hold [I5] needs REOPEN;
    urls_that_are_there_are_known [U2, U1] needs REOPEN;
    changes_go_on [L5] needs REOPEN;
    it_may_be_reopened_again_and_again [D1] needs REOPEN;
}

async fn everything_is_there_after_a_close(env: &mut TestEnv) -> CaseResult {
    everything_is_there(env, Ending::Closed).await
}

async fn everything_is_there_after_a_drop(env: &mut TestEnv) -> CaseResult {
    everything_is_there(env, Ending::Dropped).await
}

async fn everything_is_there(env: &mut TestEnv, ending: Ending) -> CaseResult {
    let builds = [env.build(), env.build(), env.build()];
    let store = env.store();
    for (n, name) in (0..).zip(["compile", "compile", "übersetzen", &"x".repeat(50), &"x".repeat(50)]) {
        let step = store.add(builds[0], name, "waiting").await?;
        store.start_with_locks(step.id, at(n)).await?;
        store.set_step_locks_acquired_at(step.id, at(n + 10)).await?;
        store.state(step.id, format!("state {n}")).await?;
        for url in ["b", "a", "b", "c"] {
            store.add_named_url(step.id, "log", url).await?;
        }
        env.set_clock(at(n + 20));
        store.finish_step(step.id, FinishStep::new(Results::new(2)).with_hidden(n % 2 == 0)).await?;
    }
    store.add(builds[1], "compile", "the last write").await?;
    let mut before = Vec::new();
    for build in builds {
        before.push(store.steps(build).await?);
    }
    env.reopen(ending).await?;
    for (build, before) in builds.into_iter().zip(&before) {
        let after = env.store().steps(build).await?;
        expect_steps(Some(Clause::D1), "after reopening the store", &after, before)?;
    }
    Ok(())
}

async fn numbers_and_names_go_on(env: &mut TestEnv) -> CaseResult {
    let build = env.build();
    let long = "x".repeat(50);
    let cut = |k| format!("{}_{k}", "x".repeat(48));
    let rounds = [
        [("foo", "foo".to_owned()), ("foo", "foo_1".into()), ("foo_3", "foo_3".into()), (&long, long.clone())],
        [("foo", "foo_2".into()), ("foo", "foo_4".into()), (&long, cut(1)), ("foo_3", "foo_3_1".into())],
        [("foo", "foo_5".into()), ("bar", "bar".into()), (&long, cut(2)), ("foo_3", "foo_3_2".into())],
    ];
    let mut number = 0;
    for round in rounds {
        for (requested, expected) in round {
            let added = env.store().add(build, requested, "").await?;
            expect_text(Clause::N3, "the name that the last add returned", added.name.as_str(), &expected)?;
            expect_eq(Clause::I2, "the number that the last add returned", added.number.get(), number)?;
            number += 1;
        }
        env.reopen(Ending::Closed).await?;
    }
    Ok(())
}

async fn ids_are_not_used_again(env: &mut TestEnv) -> CaseResult {
    let builds = [env.build(), env.build()];
    let mut ids = Vec::new();
    for round in 0..4 {
        for build in builds {
            let id = env.store().add(build, "compile", "").await?.id;
            let what = "the id that an add returned after reopening";
            expect(Clause::I1, what, id, "an id that was not used before", !ids.contains(&id))?;
            ids.push(id);
        }
        env.reopen(if round % 2 == 0 { Ending::Closed } else { Ending::Dropped }).await?;
    }
    let got: Vec<_> = env.store().steps(builds[0]).await?.into_iter().map(|step| step.id).collect();
    expect_eq(Clause::I1, "the ids of a build's steps", got, ids.into_iter().step_by(2).collect::<Vec<_>>())
}

async fn keys_hold(env: &mut TestEnv) -> CaseResult {
    let build = env.build();
    env.store().add(build, "compile", "").await?;
    let first = env.store().add_step(keyed(build, "compile", "k")?).await?;
    env.reopen(Ending::Dropped).await?;
    let again = env.store().add_step(keyed(build, "other", "k")?).await?;
    expect_eq(Clause::I5, "the result of an add that repeats a key", again, first)?;
    expect_eq(Clause::I5, "how many steps the build has", env.store().steps(build).await?.len(), 2)
}

async fn urls_that_are_there_are_known(env: &mut TestEnv) -> CaseResult {
    let build = env.build();
    let step = env.store().add(build, "compile", "").await?;
    for urls in [["b", "a", "c"], ["a", "d", "b"], ["c", "d", "A"]] {
        for url in urls {
            env.store().add_named_url(step.id, "log", url).await?;
        }
        env.reopen(Ending::Closed).await?;
    }
    let steps = env.store().steps(build).await?;
    let urls: Vec<_> = steps.iter().flat_map(|step| &step.urls).map(|url| url.url().to_owned()).collect();
    expect_eq(Clause::U2, "the urls", urls, ["b", "a", "c", "d", "A"])
}

async fn changes_go_on(env: &mut TestEnv) -> CaseResult {
    let build = env.build();
    let step = env.store().add(build, "compile", "").await?;
    for n in 0..3 {
        env.reopen(Ending::Closed).await?;
        env.set_clock(at(n));
        env.store().finish(step.id, Results::new(5)).await?;
        let steps = env.store().steps(build).await?;
        let got: Vec<_> = steps.iter().map(|step| (step.complete_at, step.results)).collect();
        let expected = [(Some(at(n)), Some(Results::new(5)))];
        expect_eq(Clause::L4, "complete_at and results, by the clock of the new handle", got, expected)?;
    }
    Ok(())
}

async fn it_may_be_reopened_again_and_again(env: &mut TestEnv) -> CaseResult {
    let build = env.build();
    for round in 0..10 {
        let ending = if round % 3 == 0 { Ending::Dropped } else { Ending::Closed };
        env.reopen(ending).await?;
        if round % 2 == 0 {
            env.store().add(build, "compile", "").await?;
        }
    }
    expect_eq(Clause::D1, "how many steps the build has", env.store().steps(build).await?.len(), 5)
}
