//! Idempotency keys (I5).

use steps_core::{AddedStep, FinishStep, IdempotencyKey, Results, StepsStore, StepsStoreExt};

use crate::{
    Clause,
    cases::{
        cases,
        concurrently::add_concurrently,
        values::{keyed, new_step},
    },
    compare::expect_steps,
    failure::{CaseResult, expect_eq},
    test_env::TestEnv,
};

cases! { Example keys:
    a_repeated_add_gets_the_first_answer [I5];
    a_repeated_add_changes_nothing [I5];
    a_repeated_add_uses_up_no_number_and_no_name [I5, I2, N3];
    a_repeated_add_gets_the_first_answer_after_changes [I5];
    a_key_holds_in_its_build_alone [I5];
    keys_differ_when_their_characters_do [I5];
    a_key_is_no_name [I5, N2];
    an_add_without_a_key_is_never_a_repetition [I5];
    repeated_adds_at_once_add_one_step [I5, I2];
}

async fn a_repeated_add_gets_the_first_answer(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    store.add(build, "compile", "").await?;
    let first = store.add_step(keyed(build, "compile", "k")?).await?;
    for name in ["compile", "compile_1", "other"] {
        expect_same(&first, store.add_step(keyed(build, name, "k")?).await?)?;
    }
    Ok(())
}

async fn a_repeated_add_changes_nothing(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let key = IdempotencyKey::new("k")?;
    store.add_step(new_step(build, "compile", "first")?.with_idempotency_key(key.clone())).await?;
    let before = store.steps(build).await?;
    store.add_step(new_step(build, "other", "second")?.with_idempotency_key(key)).await?;
    expect_steps(Some(Clause::I5), "after the repeated add", &store.steps(build).await?, &before)
}

async fn a_repeated_add_uses_up_no_number_and_no_name(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    for _ in 0..3 {
        store.add_step(keyed(build, "compile", "k")?).await?;
        store.add_step(keyed(build, "test", "k")?).await?;
    }
    for (requested, number, name) in [("compile", 1, "compile_1"), ("test", 2, "test")] {
        let added = store.add(build, requested, "").await?;
        let got = (added.number.get(), added.name.into_string());
        expect_eq(Clause::I5, "number and name of the next add", got, (number, name.to_owned()))?;
    }
    Ok(())
}

async fn a_repeated_add_gets_the_first_answer_after_changes(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let first = store.add_step(keyed(build, "compile", "k")?).await?;
    store.add(build, "compile", "").await?;
    store.state(first.id, "done").await?;
    store.add_named_url(first.id, "log", "u").await?;
    store.finish_step(first.id, FinishStep::new(Results::FAILURE).with_hidden(true)).await?;
    let before = store.steps(build).await?;
    expect_same(&first, store.add_step(keyed(build, "compile", "k")?).await?)?;
    expect_steps(Some(Clause::I5), "after the repeated add", &store.steps(build).await?, &before)
}

async fn a_key_holds_in_its_build_alone(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let builds = [env.build(), env.build()];
    let first = store.add_step(keyed(builds[0], "compile", "k")?).await?;
    store.add(builds[1], "compile", "").await?;
    let other = store.add_step(keyed(builds[1], "compile", "k")?).await?;
    let got = (other.number.get(), other.name.as_str().to_owned());
    expect_eq(Clause::I5, "number and name of an add to another build", got, (1, "compile_1".to_owned()))?;
    expect_same(&first, store.add_step(keyed(builds[0], "x", "k")?).await?)?;
    expect_same(&other, store.add_step(keyed(builds[1], "x", "k")?).await?)
}

async fn keys_differ_when_their_characters_do(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let longest = "~".repeat(64);
    let other = format!("{}!", "~".repeat(63));
    let keys = [
        "k",
        "K",
        " k",
        "k ",
        "k  ",
        " ",
        "  ",
        "0",
        "00",
        "-0",
        "1",
        "1.0",
        "1e0",
        "'",
        "\"",
        "''",
        "\\",
        "\\\\",
        "\\n",
        "%",
        "_",
        "?",
        "$1",
        "{}",
        "{k}",
        "}",
        "{",
        ":",
        "k:k",
        "[]",
        ";",
        "--",
        "*",
        "NULL",
        "null",
        "nil",
        "#",
        "/",
        "@",
        &longest,
        &longest[1..],
        &other,
    ];
    let mut answers = Vec::new();
    for (number, key) in (0..).zip(keys) {
        let added = store.add_step(keyed(build, "compile", key)?).await?;
        expect_eq(Clause::I5, format!("the number of the first add under {key:?}"), added.number.get(), number)?;
        answers.push(added);
    }
    for (key, first) in keys.into_iter().zip(&answers) {
        expect_same(first, store.add_step(keyed(build, "compile", key)?).await?)?;
    }
    Ok(())
}

async fn a_key_is_no_name(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    store.add_step(keyed(build, "a", "b")?).await?;
    store.add_step(keyed(build, "b", "a")?).await?;
    store.add_step(keyed(build, "c", "0")?).await?;
    let names: Vec<_> = store.steps(build).await?.into_iter().map(|step| step.name.into_string()).collect();
    expect_eq(Clause::N2, "the names, all of them free", names, ["a", "b", "c"])
}

async fn an_add_without_a_key_is_never_a_repetition(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let new = new_step(build, "compile", "same")?;
    for number in 0..3 {
        let added = store.add_step(new.clone()).await?;
        expect_eq(Clause::I5, "the number of an add without a key", added.number.get(), number)?;
    }
    Ok(())
}

async fn repeated_adds_at_once_add_one_step(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let new = (0..40).map(|number| keyed(build, "compile", format!("k{}", number % 4)));
    let answers = add_concurrently(store, new.collect::<Result<_, _>>()?).await?;
    for (index, answer) in answers.iter().enumerate() {
        expect_same(&answers[index % 4], answer.clone())?;
    }
    let steps = store.steps(build).await?;
    expect_eq(Clause::I5, "how many steps 40 adds under 4 keys make", steps.len(), 4)?;
    let names: Vec<_> = steps.into_iter().map(|step| step.name.into_string()).collect();
    expect_eq(Clause::N3, "their names", names, ["compile", "compile_1", "compile_2", "compile_3"])
}

fn expect_same(first: &AddedStep, got: AddedStep) -> CaseResult {
    expect_eq(Clause::I5, "the result of an add that repeats a key", got, first.clone())
}
