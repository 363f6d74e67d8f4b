//! Reads (R1 to R3).

use steps_core::{BuildId, FinishStep, Results, StartStep, Step, StepNumber, StepSelector, StepsStore, StepsStoreExt};

use crate::{
    Clause,
    cases::{
        cases,
        values::{missing_ids, named, numbered, time_number as at},
    },
    compare::{expect_found, expect_step},
    failure::{CaseResult, expect_eq, expect_some, expect_text},
    handle::Handle,
    test_env::TestEnv,
};

cases! { Example reads:
    a_step_is_found_three_ways [R1];
    what_is_absent_is_none [R1];
    a_name_is_looked_up_as_it_became [R1, N3];
    names_and_numbers_are_looked_up_in_their_build [R1];
    a_build_without_steps_is_empty [I3];
    steps_are_ordered_by_number [R2];
    hidden_steps_are_read_too [R2];
    many_steps_are_read [R2];
    what_was_answered_is_seen_by_every_read [R3];
}

/// Expects the step when it is read by id, by number, by name and with its build.
async fn expect_everywhere(store: &Handle, clause: Clause, expected: &Step) -> CaseResult {
    let selectors = [
        ("by its id", StepSelector::Id(expected.id)),
        ("by its number", StepSelector::number(expected.build_id, expected.number)),
        ("by its name", StepSelector::name(expected.build_id, expected.name.clone())),
    ];
    for (way, selector) in selectors {
        let got = store.get_step(selector).await?;
        let got = expect_some(clause, format!("the step read {way}"), got)?;
        expect_step(Some(clause), format!("read {way}"), &got, expected)?;
    }
    let steps = store.steps(expected.build_id).await?;
    let got = steps.iter().find(|step| step.id == expected.id);
    let got = expect_some(clause, "the step among the steps of its build", got)?;
    expect_step(Some(clause), "read with its build", got, expected)
}

async fn a_step_is_found_three_ways(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    for name in ["compile", "compile", "test", "übersetzen"] {
        let added = store.add(build, name, "running").await?;
        store.start_with_locks(added.id, at(1)).await?;
        store.add_named_url(added.id, "log", "u").await?;
        let step = expect_some(Clause::R1, "the step read by its id", store.step(added.id).await?)?;
        expect_eq(Clause::R1, "the id of the step read by its id", step.id, added.id)?;
        expect_everywhere(store, Clause::R1, &step).await?;
    }
    Ok(())
}

async fn what_is_absent_is_none(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let empty = env.build();
    store.add(build, "compile", "").await?;
    store.add(build, "compile", "").await?;
    let mut absent: Vec<StepSelector> = missing_ids()?.map(StepSelector::Id).into();
    absent.extend([2, 3, 255, 65_536, 1 << 20].map(|number| numbered(build, number)));
    absent.extend([i32::MAX.unsigned_abs(), 1 << 31, u32::MAX].map(|n| StepSelector::number(build, n.into())));
    absent.push(StepSelector::number(empty, StepNumber::FIRST));
    for name in ["compil", "compile_2", "compile_", "compile_01", "Compile", "compile\u{a0}", "-", "_1"] {
        absent.push(named(build, name)?);
    }
    absent.push(named(empty, "compile")?);
    for selector in absent {
        let what = format!("{selector:?}");
        expect_found(Some(Clause::R1), what, store.get_step(selector).await?.as_ref(), None)?;
    }
    Ok(())
}

async fn a_name_is_looked_up_as_it_became(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let long = "x".repeat(50);
    for name in ["foo", "foo", "foo_1", &long, &long] {
        store.add(build, name, "").await?;
    }
    let cut = format!("{}_1", "x".repeat(48));
    for (number, name) in (0..).zip(["foo", "foo_1", "foo_1_1", &long, &cut]) {
        let got = store.get_step(named(build, name)?).await?;
        let got = expect_some(Clause::R1, format!("the step named {name}"), got)?;
        expect_eq(Clause::R1, format!("the number of the step named {name}"), got.number.get(), number)?;
        expect_text(Clause::R1, "the name of the step with that name", got.name.as_str(), name)?;
    }
    Ok(())
}

async fn names_and_numbers_are_looked_up_in_their_build(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let builds = [env.build(), env.build()];
    for name in ["a", "b"] {
        for build in builds {
            store.add(build, name, build.to_string()).await?;
        }
    }
    for build in builds {
        for selector in [numbered(build, 1), named(build, "b")?] {
            let got = store.get_step(selector).await?;
            let got = expect_some(Clause::R1, "the second step of each build", got)?;
            expect_eq(Clause::R1, "its build", got.build_id, build)?;
            expect_text(Clause::R1, "its state string", got.state_string.as_str(), &build.to_string())?;
        }
    }
    Ok(())
}

async fn a_build_without_steps_is_empty(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    for _ in 0..2 {
        expect_eq(Clause::I3, "how many steps a fresh build has", store.steps(build).await?.len(), 0)?;
        expect_found(Some(Clause::I3), "its first step", store.step_numbered(build, 0).await?.as_ref(), None)?;
    }
    let added = store.add(build, "compile", "").await?;
    expect_eq(Clause::I3, "the number of the first add after reads of the build", added.number.get(), 0)?;
    // The smallest and the largest build may have steps of other users. Reading them is not an error.
    for build in [1, i64::MAX] {
        let build = BuildId::new(build)?;
        let steps = store.get_steps(build).await?;
        expect_eq(Clause::I3, "the builds of steps", steps.iter().find(|step| step.build_id != build), None)?;
    }
    Ok(())
}

async fn steps_are_ordered_by_number(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let mut ids = Vec::new();
    for number in 0..12 {
        // The order of the names is neither the order of the numbers nor the order of the adds.
        ids.push(store.add(build, format!("{}{number}", ["z", "a", "M"][number % 3]), "").await?.id);
    }
    for id in ids.iter().rev() {
        store.state(*id, "changed").await?;
        store.finish(*id, Results::SUCCESS).await?;
    }
    let got: Vec<_> = store.steps(build).await?.iter().map(|step| (step.number.get(), step.id)).collect();
    expect_eq(Clause::R2, "numbers and ids of the build's steps", got, (0..).zip(ids).collect::<Vec<_>>())
}

async fn hidden_steps_are_read_too(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    for hidden in [true, false, true] {
        let added = store.add(build, "compile", "").await?;
        store.finish_step(added.id, FinishStep::new(Results::SKIPPED).with_hidden(hidden)).await?;
    }
    let steps = store.steps(build).await?;
    let hidden: Vec<_> = steps.iter().map(|step| step.hidden).collect();
    expect_eq(Clause::R2, "which of the build's steps are hidden", hidden, [true, false, true])?;
    for step in steps {
        expect_everywhere(store, Clause::R2, &step).await?;
    }
    Ok(())
}

async fn many_steps_are_read(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let new = (0..300).map(|number| super::values::new_step(build, format!("s{number}"), format!("state {number}")));
    super::concurrently::add_concurrently(store, new.collect::<Result<_, _>>()?).await?;
    let steps = store.steps(build).await?;
    let numbers: Vec<_> = steps.iter().map(|step| step.number.get()).collect();
    expect_eq(Clause::R2, "the numbers of the build's steps", numbers, (0..300).collect::<Vec<_>>())?;
    for step in steps {
        let expected = step.name.as_str().replace('s', "state ");
        expect_text(Clause::R2, "the state string of a step", step.state_string.as_str(), &expected)?;
    }
    Ok(())
}

async fn what_was_answered_is_seen_by_every_read(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    // Reads before the add, so that a cached result would be noticed.
    expect_eq(Clause::R3, "the step before it is added", store.get_step(named(build, "compile")?).await?, None)?;
    let added = store.add(build, "compile", "waiting").await?;
    let mut expected = Step::builder(added.id, build, added.number, added.name, "waiting".parse()?).build();
    expect_everywhere(store, Clause::R3, &expected).await?;
    for n in 0..3 {
        store.start_step(added.id, StartStep::new(at(n))).await?;
        expected.started_at = Some(at(n));
        expect_everywhere(store, Clause::R3, &expected).await?;
        store.set_step_locks_acquired_at(added.id, at(n + 10)).await?;
        expected.locks_acquired_at = Some(at(n + 10));
        expect_everywhere(store, Clause::R3, &expected).await?;
        store.state(added.id, format!("state {n}")).await?;
        expected.state_string = format!("state {n}").parse()?;
        expect_everywhere(store, Clause::R3, &expected).await?;
        let url = super::values::url("log", n.to_string())?;
        store.add_url(added.id, url.clone()).await?;
        expected.urls.push(url);
        expect_everywhere(store, Clause::R3, &expected).await?;
        env.set_clock(at(n + 20));
        store.finish(added.id, Results::new(7)).await?;
        (expected.complete_at, expected.results) = (Some(at(n + 20)), Some(Results::new(7)));
        expect_everywhere(store, Clause::R3, &expected).await?;
    }
    Ok(())
}
