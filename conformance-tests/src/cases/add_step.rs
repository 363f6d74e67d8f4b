//! Adding: numbers (I1 to I3), names (N1 to N4) and what a new step is (L1).

use std::collections::HashSet;

use steps_core::{BuildId, Step, StepsStore, StepsStoreExt};
use tokio::task::JoinSet;

use crate::{
    Clause,
    cases::{
        cases,
        values::{name, new_step},
    },
    compare::expect_step,
    failure::{Checked, expect, expect_eq, expect_some},
    handle::Handle,
    stage::Stage,
};

cases! { Example add_step:
    a_new_step_has_its_state_string_and_nothing_else [L1];
    collision_takes_smallest_suffix [N3];
}

async fn a_new_step_has_its_state_string_and_nothing_else(stage: &mut Stage) -> Checked {
    let (store, build) = (stage.store(), stage.build());
    let added = store.add(build, "compile", "waiting for locks").await?;
    let got = expect_some(Clause::L1, "the step just added", store.step(added.id).await?)?;
    let expected = Step::builder(added.id, build, added.number, name("compile")?, "waiting for locks".parse()?).build();
    expect_step(Some(Clause::L1), "the step just added", &got, &expected)
}

async fn collision_takes_smallest_suffix(stage: &mut Stage) -> Checked {
    names_become(stage, &["foo", "foo", "foo"], &["foo", "foo_1", "foo_2"]).await
}

/// Adds steps to a build that ask for these names, one after the other, and expects what they become.
async fn names_become(stage: &Stage, requested: &[&str], expected: &[&str]) -> Checked {
    let (store, build) = (stage.store(), stage.build());
    for (place, (requested, expected)) in requested.iter().zip(expected).enumerate() {
        let added = store.add(build, *requested, "").await?;
        let clause = if requested == expected { Clause::N2 } else { Clause::N3 };
        let what = format!("the name that add number {place} answers");
        crate::failure::expect_text(clause, what, added.name.as_str(), expected)?;
    }
    let got: Vec<_> = store.steps(build).await?.into_iter().map(|step| step.name.into_string()).collect();
    expect_eq(Clause::N3, "the names of the build's steps", got, expected)
}
