//! Limits of a store (I4).

use steps_core::{BuildId, ErrorKind, StepNumber, StepSelector, StepsStore, StepsStoreExt};

use crate::{
    Clause,
    cases::{Needs, cases, values::named},
    compare::expect_found,
    failure::{CaseResult, expect_eq, expect_error},
    test_env::TestEnv,
};

cases! { Example limits:
    an_add_past_the_greatest_build_is_refused [I4] needs Needs::GreatestBuildId;
    reads_past_the_greatest_build_find_nothing [I4, I3] needs Needs::GreatestBuildId;
}

/// Builds past the limit of the store.
fn builds_past(env: &TestEnv) -> Vec<BuildId> {
    let limit = env.greatest_build_id().map_or(i64::MAX, BuildId::get);
    let past = [limit.checked_add(1), limit.checked_mul(2), Some(i64::MAX)];
    past.into_iter().flatten().filter(|id| *id > limit).filter_map(|id| BuildId::new(id).ok()).collect()
}

async fn an_add_past_the_greatest_build_is_refused(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    for build in builds_past(env) {
        for _ in 0..2 {
            let what = format!("an add to build {build}, past the limit");
            let error =
                expect_error(Clause::I4, what, store.add(build, "compile", "").await, ErrorKind::CapacityExceeded)?;
            let named = error.call().and_then(|call| call.build_id());
            expect_eq(Clause::D3, "the build that the error names", named, Some(build))?;
        }
    }
    let build = env.large_build();
    let added = store.add(build, "compile", "").await?;
    expect_eq(Clause::I4, "the number of an add to a build within the limit", added.number.get(), 0)
}

async fn reads_past_the_greatest_build_find_nothing(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    for build in builds_past(env) {
        let _ = store.add(build, "compile", "").await;
        expect_eq(Clause::I4, "the steps of a build past the limit", store.steps(build).await?, [])?;
        for selector in [StepSelector::number(build, StepNumber::FIRST), named(build, "compile")?] {
            let got = store.get_step(selector).await?;
            expect_found(Some(Clause::I4), "a step of a build past the limit", got.as_ref(), None)?;
        }
    }
    Ok(())
}
