//! Concurrent tasks on one handle.

use std::collections::BTreeSet;

use steps_core::{ErrorKind, Results, StepSelector, StepsStore, StepsStoreExt};

use crate::{
    Clause,
    cases::{cases, concurrently::concurrently, values::missing_ids},
    compare::expect_found,
    failure::{CaseResult, expect, expect_eq, expect_error, expect_some, expect_text},
    handle::Handle,
    test_env::TestEnv,
};

cases! { Example tasks:
    adds_at_once_leave_no_gap [I2, N3];
    adds_at_once_to_several_builds_are_kept_apart [I2, I3];
    urls_at_once_are_neither_lost_nor_doubled [U3];
    changes_at_once_of_missing_steps_are_not_found [L6];
    reads_at_once_find_what_each_asked_for [R1];
    reads_beside_adds_see_one_snapshot [R2, R3];
}

async fn adds_at_once_leave_no_gap(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let answers = concurrently((0..8).map(|_| {
        let store = store.clone();
        async move {
            let mut answers = Vec::new();
            for _ in 0..25 {
                answers.push(store.add(build, "compile", "").await?);
            }
            Ok(answers)
        }
    }))
    .await?;
    for answers in &answers {
        let got: Vec<_> = answers.iter().map(|added| (added.number.get(), added.id.get())).collect();
        let grow = got.is_sorted_by(|one, next| one.0 < next.0 && one.1 < next.1);
        let what = "the numbers and ids of the adds of one task, in order";
        expect(Clause::I2, what, got, "each greater than the one before", grow)?;
    }
    let numbers: BTreeSet<_> = answers.iter().flatten().map(|added| added.number.get()).collect();
    expect_eq(Clause::I2, "the numbers that the adds returned", numbers, (0..200).collect::<BTreeSet<_>>())?;
    for step in store.steps(build).await? {
        let k = step.number.get();
        let expected = if k == 0 { "compile".into() } else { format!("compile_{k}") };
        expect_text(Clause::N3, format!("the name of the step number {k}"), step.name.as_str(), &expected)?;
    }
    Ok(())
}

async fn adds_at_once_to_several_builds_are_kept_apart(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let builds = [env.build(), env.build(), env.build(), env.build()];
    concurrently((0..80).map(|number: usize| {
        let store = store.clone();
        let build = builds[number % builds.len()];
        async move { Ok(store.add(build, "compile", build.to_string()).await?) }
    }))
    .await?;
    for build in builds {
        let steps = store.steps(build).await?;
        let numbers: Vec<_> = steps.iter().map(|step| step.number.get()).collect();
        expect_eq(Clause::I2, "the numbers of the build's steps", numbers, (0..20).collect::<Vec<_>>())?;
        for step in steps {
            let what = "the state string, which names the build it was added to";
            expect_text(Clause::I3, what, step.state_string.as_str(), &build.to_string())?;
        }
    }
    Ok(())
}

async fn urls_at_once_are_neither_lost_nor_doubled(env: &mut TestEnv) -> CaseResult {
    urls_at_once(env, &[env.store().clone()]).await
}

/// Adds urls to one step in 8 tasks: urls of each task, and urls that all tasks add.
pub(super) async fn urls_at_once(env: &TestEnv, handles: &[Handle]) -> CaseResult {
    let step = handles[0].add(env.build(), "compile", "").await?;
    concurrently((0..8).map(|task: usize| {
        let handle = handles[task % handles.len()].clone();
        async move {
            for number in 0..15 {
                handle.add_named_url(step.id, format!("task {task}"), format!("{number:02}")).await?;
                handle.add_named_url(step.id, "shared", format!("{number:02}")).await?;
            }
            Ok(())
        }
    }))
    .await?;
    let urls = expect_some(Clause::U3, "the step with the urls", handles[0].step(step.id).await?)?.urls;
    let distinct: BTreeSet<_> = urls.iter().collect();
    expect_eq(Clause::U3, "how many urls there are, each once", (urls.len(), distinct.len()), (9 * 15, 9 * 15))?;
    for task in 0..8 {
        let own = urls.iter().filter(|url| url.name() == format!("task {task}")).map(|url| url.url().to_owned());
        let expected: Vec<_> = (0..15).map(|number| format!("{number:02}")).collect();
        expect_eq(Clause::U1, "the urls of one task, in their order", own.collect::<Vec<_>>(), expected)?;
    }
    Ok(())
}

/// A store may batch the changes of several callers, so existing and missing steps are mixed here.
async fn changes_at_once_of_missing_steps_are_not_found(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let mut steps = missing_ids()?.map(|id| (id, false)).to_vec();
    for _ in 0..8 {
        steps.push((store.add(build, "compile", "").await?.id, true));
    }
    concurrently(steps.into_iter().cycle().take(110).map(|(id, exists)| {
        let store = store.clone();
        async move {
            let changes = [
                store.state(id, "running").await,
                store.finish(id, Results::SUCCESS).await,
                store.add_named_url(id, "log", "url").await,
            ];
            for change in changes {
                if exists {
                    change?;
                } else {
                    let what = "a change of a missing step, beside concurrent changes";
                    expect_error(Clause::L6, what, change, ErrorKind::NotFound)?;
                }
            }
            Ok(())
        }
    }))
    .await?;
    for id in missing_ids()? {
        expect_eq(Clause::L6, "the missing step, after changes of it", store.step(id).await?, None)?;
    }
    for step in store.steps(build).await? {
        let got = (step.state_string.as_str(), step.results, step.urls.len());
        expect_eq(
            Clause::L6,
            "a step that was changed beside missing steps",
            got,
            ("running", Some(Results::SUCCESS), 1),
        )?;
    }
    Ok(())
}

/// A store may batch the reads of several callers, so steps with few and many urls, missing steps and all three
/// selectors are mixed here.
async fn reads_at_once_find_what_each_asked_for(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let mut expected = Vec::new();
    for urls in 0..20 {
        let added = store.add(build, "compile", "").await?;
        for url in 0..urls {
            store.add_named_url(added.id, "log", format!("{url:02}")).await?;
        }
        let step = expect_some(Clause::R1, "the step, read by a single call", store.step(added.id).await?)?;
        expect_eq(Clause::U1, "how many urls it has", step.urls.len(), urls)?;
        expected.extend([
            (StepSelector::Id(step.id), Some(step.clone())),
            (StepSelector::number(build, step.number), Some(step.clone())),
            (StepSelector::name(build, step.name.clone()), Some(step)),
        ]);
    }
    for id in missing_ids()? {
        expected.push((StepSelector::Id(id), None));
    }
    concurrently(expected.into_iter().cycle().take(200).map(|(selector, step)| {
        let store = store.clone();
        async move {
            for _ in 0..3 {
                let what = format!("{selector:?}, beside concurrent reads");
                let got = store.get_step(selector.clone()).await?;
                expect_found(Some(Clause::R1), what, got.as_ref(), step.as_ref())?;
            }
            Ok(())
        }
    }))
    .await?;
    Ok(())
}

async fn reads_beside_adds_see_one_snapshot(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    concurrently((0..6).map(|task| {
        let store = store.clone();
        async move {
            let mut seen = 0;
            for _ in 0..25 {
                if task < 3 {
                    seen = seen.max(store.add(build, "compile", "").await?.number.get() as usize + 1);
                }
                let steps = store.steps(build).await?;
                let numbers: Vec<_> = steps.iter().map(|step| step.number.get()).collect();
                expect_eq(Clause::R2, "the numbers of a read", numbers, (0..).take(steps.len()).collect::<Vec<u32>>())?;
                let expected = format_args!("at least {seen}, which an earlier call returned");
                expect(Clause::R3, "how many steps a read has", steps.len(), expected, steps.len() >= seen)?;
                seen = steps.len();
            }
            Ok(())
        }
    }))
    .await?;
    expect_eq(Clause::R3, "how many steps the build has", store.steps(build).await?.len(), 75)
}
