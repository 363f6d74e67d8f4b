//! Several handles on one store (R3).

use std::collections::BTreeSet;

use steps_core::{Results, StepsStore, StepsStoreExt};

use crate::{
    Clause,
    cases::{
        PEERS, cases,
        concurrently::concurrently,
        values::{keyed, time_number as at},
    },
    compare::expect_steps,
    failure::{CaseResult, expect_eq, expect_text},
    model::names_of,
    test_env::TestEnv,
};

cases! { Example peers:
    what_one_answered_the_other_reads [R3] needs PEERS;
    numbers_and_names_are_shared [I2, N3] needs PEERS;
    keys_are_shared [I5] needs PEERS;
    urls_are_shared [U1, U2] needs PEERS;
    adds_of_both_at_once_leave_no_gap [I2, N3] needs PEERS;
    urls_of_both_at_once_are_neither_lost_nor_doubled [U3] needs PEERS;
}

async fn what_one_answered_the_other_reads(env: &mut TestEnv) -> CaseResult {
    let peer = env.peer().await?;
    let store = env.store();
    let build = env.build();
    for n in 0..4 {
        let (writer, reader) = if n % 2 == 0 { (store, &peer) } else { (&peer, store) };
        // Both handles have read the build before, so a cache could be stale.
        expect_eq(Clause::R3, "how many steps the other reads", reader.steps(build).await?.len(), n)?;
        let added = writer.add(build, "compile", "waiting").await?;
        let n = i64::try_from(n).expect("it is small");
        expect_steps(Some(Clause::R3), "after an add", &reader.steps(build).await?, &writer.steps(build).await?)?;
        reader.start_with_locks(added.id, at(n)).await?;
        writer.state(added.id, "running").await?;
        reader.add_named_url(added.id, "log", "u").await?;
        env.set_clock(at(n + 10));
        writer.finish(added.id, Results::new(2)).await?;
        let one = writer.step(added.id).await?;
        let other = reader.step(added.id).await?;
        expect_steps(Some(Clause::R3), "after changes by both", other.as_slice(), one.as_slice())?;
        let times = one.map(|step| (step.started_at, step.complete_at));
        expect_eq(Clause::R3, "what both set", times, Some((Some(at(n)), Some(at(n + 10)))))?;
    }
    Ok(())
}

async fn numbers_and_names_are_shared(env: &mut TestEnv) -> CaseResult {
    let peers = [env.peer().await?, env.peer().await?];
    let store = env.store();
    let build = env.build();
    let handles = [store, &peers[0], &peers[1]];
    let long = "x".repeat(50);
    let requested: Vec<&str> = (0..30).map(|n| ["foo", "foo_1", &long, "foo_7"][n * n % 4]).collect();
    for (index, expected) in names_of(requested.iter().copied()).into_iter().enumerate() {
        let added = handles[index * 5 % 7 % 3].add(build, requested[index], "").await?;
        expect_text(Clause::N3, "the name that the last add returned", added.name.as_str(), &expected)?;
        expect_eq(Clause::I2, "the number that the last add returned", added.number.get() as usize, index)?;
    }
    Ok(())
}

async fn keys_are_shared(env: &mut TestEnv) -> CaseResult {
    let peer = env.peer().await?;
    let store = env.store();
    let build = env.build();
    let first = store.add_step(keyed(build, "compile", "k")?).await?;
    for handle in [&peer, store] {
        let again = handle.add_step(keyed(build, "test", "k")?).await?;
        expect_eq(Clause::I5, "the result of an add that repeats the key of another handle", again, first.clone())?;
    }
    expect_eq(Clause::I5, "how many steps the build has", peer.steps(build).await?.len(), 1)
}

async fn urls_are_shared(env: &mut TestEnv) -> CaseResult {
    let peer = env.peer().await?;
    let store = env.store();
    let build = env.build();
    let step = store.add(build, "compile", "").await?;
    for (index, url) in ["c", "a", "c", "b", "a", "d"].into_iter().enumerate() {
        [store, &peer][index % 2].add_named_url(step.id, "log", url).await?;
    }
    for handle in [store, &peer] {
        let steps = handle.steps(build).await?;
        let urls: Vec<_> = steps.iter().flat_map(|step| &step.urls).map(|url| url.url().to_owned()).collect();
        expect_eq(Clause::U1, "the urls", urls, ["c", "a", "b", "d"])?;
    }
    Ok(())
}

async fn adds_of_both_at_once_leave_no_gap(env: &mut TestEnv) -> CaseResult {
    let peer = env.peer().await?;
    let store = env.store();
    let build = env.build();
    let add = |number: usize| {
        let handle = [store, &peer][number % 2].clone();
        async move { Ok(handle.add(build, "compile", "").await?) }
    };
    let answers = concurrently((0..100).map(add)).await?;
    let numbers: BTreeSet<_> = answers.iter().map(|added| added.number.get()).collect();
    expect_eq(Clause::I2, "the numbers that the adds returned", numbers, (0..100).collect::<BTreeSet<_>>())?;
    for step in peer.steps(build).await? {
        let k = step.number.get();
        let expected = if k == 0 { "compile".into() } else { format!("compile_{k}") };
        expect_text(Clause::N3, format!("the name of the step number {k}"), step.name.as_str(), &expected)?;
    }
    Ok(())
}

async fn urls_of_both_at_once_are_neither_lost_nor_doubled(env: &mut TestEnv) -> CaseResult {
    let peer = env.peer().await?;
    super::tasks::urls_at_once(env, &[env.store().clone(), peer]).await
}
