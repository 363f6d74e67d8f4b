//! Adds: ids and numbers (I1 to I3), names (N1 to N4) and the initial fields (L1).

use std::collections::HashSet;

use steps_core::{BuildId, Step, StepsStore, StepsStoreExt};

use crate::{
    Clause,
    cases::{
        cases,
        concurrently::add_concurrently,
        values::{name, named, new_step},
    },
    compare::{expect_found, expect_step},
    failure::{CaseResult, expect, expect_eq, expect_some, expect_text},
    model::names_of,
    test_env::TestEnv,
};

cases! { Example add_step:
    a_new_step_has_its_state_string_and_nothing_else [L1];
    answers_what_is_then_read [I1, I2, N2];
    numbers_count_from_zero [I2];
    numbers_are_counted_for_each_build_alone [I2, I3];
    ids_are_unique_and_grow_within_a_build [I1];
    great_builds_are_told_apart [I3];
    a_free_name_is_used_as_it_is [N2];
    a_free_name_that_looks_like_a_suffix_is_used_as_it_is [N2];
    the_same_name_is_free_in_another_build [N2, I3];
    collision_takes_smallest_suffix [N3];
    a_suffix_is_appended_to_the_name_as_requested [N3];
    gaps_are_filled [N3];
    explicit_names_in_the_way_are_stepped_over [N3];
    a_suffix_with_a_leading_zero_is_no_suffix [N3];
    long_names_are_cut_to_fit [N3];
    long_names_share_the_suffixes_of_their_cut_prefix [N3];
    a_cut_prefix_may_be_a_name_of_its_own [N3];
    the_cut_counts_code_points [N3];
    the_cut_may_part_what_belongs_together [N3];
    suffixes_of_three_digits [N3];
    suffixes_of_four_digits [N3];
    many_long_names_share_suffixes_of_two_digits [N3];
    names_at_the_edges_of_the_rule [N1];
    names_differ_when_their_code_points_do [N4];
    names_that_differ_in_case_have_suffixes_of_their_own [N3, N4];
    an_underscore_is_no_wildcard [N4];
}

async fn a_new_step_has_its_state_string_and_nothing_else(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    for state in ["waiting for locks", ""] {
        let added = store.add(build, "compile", state).await?;
        let got = expect_some(Clause::L1, "the step just added", store.step(added.id).await?)?;
        let expected = Step::builder(added.id, build, added.number, added.name, state.parse()?).build();
        expect_step(Some(Clause::L1), "the step just added", &got, &expected)?;
    }
    Ok(())
}

async fn answers_what_is_then_read(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    for (number, expected) in (0..).zip(["compile", "compile_1", "test"]) {
        let added = store.add(build, expected.trim_end_matches("_1"), "").await?;
        expect_eq(Clause::I2, "the number that the add returned", added.number.get(), number)?;
        expect_text(Clause::N3, "the name that the add returned", added.name.as_str(), expected)?;
        let got = expect_some(Clause::I1, "the step with the id that the add returned", store.step(added.id).await?)?;
        let step = Step::builder(added.id, build, number.into(), name(expected)?, "".parse()?).build();
        expect_step(None, "the step with the id that the add returned", &got, &step)?;
    }
    Ok(())
}

async fn numbers_count_from_zero(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    for number in 0..25 {
        // Every other name collides. A collision must not use up a number.
        let added = store.add(build, if number % 2 == 0 { "same".into() } else { format!("own-{number}") }, "").await?;
        expect_eq(Clause::I2, "the number that the add returned", added.number.get(), number)?;
    }
    let numbers: Vec<_> = store.steps(build).await?.iter().map(|step| step.number.get()).collect();
    expect_eq(Clause::I2, "the numbers of the build's steps", numbers, (0..25).collect::<Vec<_>>())
}

async fn numbers_are_counted_for_each_build_alone(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let builds = [env.build(), env.build(), env.build()];
    for number in 0..5 {
        for build in builds {
            let added = store.add(build, "compile", "").await?;
            expect_eq(Clause::I2, "the number that the add returned", added.number.get(), number)?;
        }
    }
    for build in builds {
        let steps = store.steps(build).await?;
        expect_eq(Clause::I2, "how many steps the build has", steps.len(), 5)?;
        for step in steps {
            expect_eq(Clause::I3, "the build of a step", step.build_id, build)?;
        }
    }
    Ok(())
}

async fn ids_are_unique_and_grow_within_a_build(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let builds = [env.build(), env.build(), env.build()];
    let mut ids = HashSet::new();
    let mut last = [0; 3];
    for turn in 0..30 {
        let index = turn * 7 % builds.len();
        let id = store.add(builds[index], "compile", "").await?.id;
        let what = "the id that an add returned";
        expect(Clause::I1, what, id, "an id that no other step has", ids.insert(id))?;
        let expected = format_args!("an id greater than {}, the last one of the build", last[index]);
        expect(Clause::I1, what, id, expected, id.get() > last[index])?;
        last[index] = id.get();
    }
    Ok(())
}

async fn great_builds_are_told_apart(env: &mut TestEnv) -> CaseResult {
    // Neighbours above 2^53 are equal in floating point.
    let large = env.large_build();
    let neighbours = (-2..=2).filter_map(|by| BuildId::new(large.get() + by).ok());
    let within = |build: &BuildId| env.greatest_build_id().is_none_or(|greatest| *build <= greatest);
    let builds: Vec<_> = neighbours.filter(within).collect();
    let store = env.store();
    for build in &builds {
        let added = store.add(*build, "compile", "").await?;
        expect_eq(Clause::I3, format!("the number in the fresh build {build}"), added.number.get(), 0)?;
    }
    for build in builds {
        let steps = store.steps(build).await?;
        expect_eq(Clause::I3, format!("how many steps build {build} has"), steps.len(), 1)?;
        expect_eq(Clause::I3, "the build of the step", steps[0].build_id, build)?;
    }
    Ok(())
}

async fn a_free_name_is_used_as_it_is(env: &mut TestEnv) -> CaseResult {
    let x50 = "x".repeat(50);
    let rocket = "🚀".repeat(50);
    become_themselves(env, Clause::N2, &["compile", "a", "A-b_c9", "-", "_", "übersetzen", &x50, &rocket]).await
}

async fn a_free_name_that_looks_like_a_suffix_is_used_as_it_is(env: &mut TestEnv) -> CaseResult {
    let long = format!("{}_1", "x".repeat(48));
    become_themselves(env, Clause::N2, &["foo_1", "foo", "foo_3", "_1", "__1", "_", "-_9", &long]).await
}

async fn the_same_name_is_free_in_another_build(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let builds = [env.build(), env.build()];
    for expected in ["compile", "compile_1"] {
        for build in builds {
            let added = store.add(build, "compile", "").await?;
            let clause = if expected == "compile" { Clause::N2 } else { Clause::N3 };
            expect_text(clause, "the name that the add returned", added.name.as_str(), expected)?;
        }
    }
    Ok(())
}

async fn collision_takes_smallest_suffix(env: &mut TestEnv) -> CaseResult {
    names_become(env, &["foo", "foo", "foo", "bar", "foo"], &["foo", "foo_1", "foo_2", "bar", "foo_3"]).await
}

async fn a_suffix_is_appended_to_the_name_as_requested(env: &mut TestEnv) -> CaseResult {
    names_become(
        env,
        &["foo", "foo", "foo_1", "foo_1", "foo_1_1", "foo"],
        &["foo", "foo_1", "foo_1_1", "foo_1_2", "foo_1_1_1", "foo_2"],
    )
    .await
}

async fn gaps_are_filled(env: &mut TestEnv) -> CaseResult {
    names_become(
        env,
        &["new", "new_2", "new_4", "new", "new", "new", "new_3"],
        &["new", "new_2", "new_4", "new_1", "new_3", "new_5", "new_3_1"],
    )
    .await
}

async fn explicit_names_in_the_way_are_stepped_over(env: &mut TestEnv) -> CaseResult {
    // Explicit suffixes are added after the first search. A store that remembers the end of a search must skip them.
    names_become(
        env,
        &["new", "new", "new_7", "new_2", "new_3", "new", "new", "new", "new", "new_9", "new", "new"],
        &["new", "new_1", "new_7", "new_2", "new_3", "new_4", "new_5", "new_6", "new_8", "new_9", "new_10", "new_11"],
    )
    .await
}

async fn a_suffix_with_a_leading_zero_is_no_suffix(env: &mut TestEnv) -> CaseResult {
    names_become(env, &["foo", "foo_01", "foo_0", "foo", "foo_01"], &["foo", "foo_01", "foo_0", "foo_1", "foo_01_1"])
        .await
}

async fn long_names_are_cut_to_fit(env: &mut TestEnv) -> CaseResult {
    for length in 46..=50 {
        let requested = format!("{}yz", "x".repeat(length - 2));
        let first: String = requested.chars().take(48).collect::<String>() + "_1";
        let second: String = requested.chars().take(48).collect::<String>() + "_2";
        names_become(env, &[&requested; 3], &[&requested, &first, &second]).await?;
    }
    Ok(())
}

async fn long_names_share_the_suffixes_of_their_cut_prefix(env: &mut TestEnv) -> CaseResult {
    let prefix = "x".repeat(48);
    let [a, b, c] = ["aa", "bb", "c"].map(|end| format!("{prefix}{end}"));
    let [first, second, third, fourth] = [1, 2, 3, 4].map(|k| format!("{prefix}_{k}"));
    names_become(env, &[&a, &b, &c, &a, &b, &c, &a], &[&a, &b, &c, &first, &second, &third, &fourth]).await
}

async fn a_cut_prefix_may_be_a_name_of_its_own(env: &mut TestEnv) -> CaseResult {
    // A name that fits with its suffix, and a longer one with the same truncated prefix.
    let prefix = "x".repeat(48);
    let long = format!("{prefix}ab");
    let [first, second, third] = [1, 2, 3].map(|k| format!("{prefix}_{k}"));
    names_become(
        env,
        &[&prefix, &long, &prefix, &long, &first, &prefix],
        &[
            &prefix,
            &long,
            &first,
            &second,
            // The request has 50 code points, so it is truncated before a suffix is appended.
            &third,
            &format!("{prefix}_4"),
        ],
    )
    .await
}

async fn the_cut_counts_code_points(env: &mut TestEnv) -> CaseResult {
    for character in ["é", "中", "🚀", "\u{a0}", "\u{10ffff}"] {
        let requested = character.repeat(50);
        let prefix = character.repeat(48);
        names_become(env, &[&requested; 3], &[&requested, &format!("{prefix}_1"), &format!("{prefix}_2")]).await?;
    }
    Ok(())
}

async fn the_cut_may_part_what_belongs_together(env: &mut TestEnv) -> CaseResult {
    // Truncation may split a letter from its accent, an emoji from its joiner, and the two letters of a flag.
    for pair in ["e\u{301}", "👩\u{200d}", "🇩🇪"] {
        let characters: Vec<char> = pair.chars().cycle().skip(1).take(50).collect();
        let start: String = std::iter::once('x').chain(characters.iter().copied()).take(50).collect();
        let prefix: String = start.chars().take(48).collect();
        names_become(env, &[&start; 3], &[&start, &format!("{prefix}_1"), &format!("{prefix}_2")]).await?;
    }
    Ok(())
}

async fn suffixes_of_three_digits(env: &mut TestEnv) -> CaseResult {
    names_at_once_become(env, &vec!["é".repeat(50); 300]).await
}

async fn suffixes_of_four_digits(env: &mut TestEnv) -> CaseResult {
    // The suffixes up to 999 are requested explicitly, because 999 collisions are slow in a store with a linear search.
    let store = env.store();
    let build = env.build();
    let long = "x".repeat(47);
    let suffixed = |k: usize| format!("{}_{k}", &long[..long.len().min(49 - k.to_string().len())]);
    let explicit = (1..1_000).map(|k| new_step(build, suffixed(k), ""));
    add_concurrently(store, explicit.collect::<Result<_, _>>()?).await?;
    for expected in [long.clone(), suffixed(1_000), suffixed(1_001), suffixed(1_002)] {
        let added = store.add(build, &long, "").await?;
        expect_text(Clause::N3, "the name that the last add returned", added.name.as_str(), &expected)?;
    }
    expect_eq(Clause::I2, "how many steps the build has", store.steps(build).await?.len(), 1_003)
}

async fn many_long_names_share_suffixes_of_two_digits(env: &mut TestEnv) -> CaseResult {
    // 40 names, twice each: the second ones share a truncated prefix, which is shorter from `_10` on.
    let names: Vec<_> = (0..80).map(|number| format!("{}-{:02}", "x".repeat(47), number % 40)).collect();
    names_at_once_become(env, &names).await
}

async fn names_at_the_edges_of_the_rule(env: &mut TestEnv) -> CaseResult {
    let longest = ["x", "9", "_", "-", "é", "🚀", "\u{a0}", "\u{10ffff}"].map(|text| format!("a{}", text.repeat(49)));
    let longest = longest.iter().map(String::as_str);
    let short = ["a", "z", "A", "Z", "_", "-", "\u{a0}", "\u{ad}", "\u{d7ff}", "\u{e000}", "\u{ffff}", "\u{10000}"];
    let strange = [
        "a\u{a0}",
        "\u{2028}",
        "\u{2029}",
        "\u{feff}",
        "\u{fffe}",
        "\u{fdd0}",
        "\u{fffd}",
        "\u{200b}",
        "\u{202e}abc",
        "\u{301}",
        "a\u{301}",
        "\u{5d0}\u{5d1}",
        "\u{1f469}\u{200d}\u{1f52c}",
        "\u{10ffff}",
        "中文",
        "NULL",
        "null",
        "None",
        "undefined",
        "nan",
        "true",
        "select",
        "-1",
        "--",
        "-e",
        "__proto__",
        "_id",
        "x0",
        // Names as people write them. Buildbot identifiers exclude them, and Buildbot stores them.
        " ",
        "~",
        "7",
        "7zip",
        "a.b",
        "a/b",
        "unit tests",
        " leading",
        "trailing ",
        "trailing",
        "Run tests",
        "Build (release)",
        "git-https://example.org/x",
        "cargo test --all -- --nocapture",
        "100 %",
        "$(id)",
        "a\"b'c`d\\e",
    ];
    let names: Vec<&str> = short.into_iter().chain(strange).chain(longest).collect();
    become_themselves(env, Clause::N1, &names).await
}

async fn names_differ_when_their_code_points_do(env: &mut TestEnv) -> CaseResult {
    let names = [
        "straße",
        "strasse",
        "STRASSE",
        "Straße",
        "é",
        "e\u{301}",
        "É",
        "E",
        "e",
        "\u{e5}",
        "\u{212b}",
        "a\u{30a}",
        "k",
        "K",
        "\u{212a}",
        "s",
        "\u{17f}",
        "i",
        "I",
        "\u{131}",
        "\u{130}",
        "\u{ff41}",
        "a",
        "\u{430}",
        "x",
        "x\u{a0}",
        "x\u{2003}",
        "x\u{200b}",
        "x\u{ad}",
        "x\u{feff}",
        "\u{feff}x",
        "x\u{fe0f}",
        "\u{3a3}",
        "\u{3c3}",
        "\u{3c2}",
        "\u{fb01}",
        "fi",
        "\u{b2}",
        "x2",
        "x\u{b2}",
        "\u{ac00}",
        "\u{1100}\u{1161}",
    ];
    become_themselves(env, Clause::N4, &names).await
}

async fn names_that_differ_in_case_have_suffixes_of_their_own(env: &mut TestEnv) -> CaseResult {
    // Each pair is equal in a case-insensitive or normalizing comparison. The second name is added after the first one
    // has suffixes.
    for (one, other) in [("compile", "COMPILE"), ("é", "É"), ("é", "e\u{301}")] {
        let requested = [one, one, one, other, other, other];
        let expected = [one, other].map(|name| [name.to_owned(), format!("{name}_1"), format!("{name}_2")]);
        names_become(env, &requested, expected.as_flattened()).await?;
    }
    Ok(())
}

async fn an_underscore_is_no_wildcard(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    for name in ["axb", "foo", "foox1"] {
        store.add(build, name, "").await?;
    }
    let got = store.get_step(named(build, "a_b")?).await?;
    expect_found(Some(Clause::N4), "the step named a_b, where only axb exists", got.as_ref(), None)?;
    for (requested, clause, expected) in [("a_b", Clause::N2, "a_b"), ("foo", Clause::N3, "foo_1")] {
        let added = store.add(build, requested, "").await?;
        expect_text(clause, "the name that the last add returned", added.name.as_str(), expected)?;
    }
    Ok(())
}

/// Adds steps with these names to a fresh build, sequentially, and expects the resulting names.
async fn names_become(env: &TestEnv, requested: &[impl AsRef<str>], expected: &[impl AsRef<str>]) -> CaseResult {
    let store = env.store();
    let build = env.build();
    for (requested, expected) in requested.iter().map(AsRef::as_ref).zip(expected.iter().map(AsRef::as_ref)) {
        let added = store.add(build, requested, "").await?;
        let clause = if requested == expected { Clause::N2 } else { Clause::N3 };
        expect_text(clause, "the name that the last add returned", added.name.as_str(), expected)?;
    }
    expect_names(env, build, expected).await
}

/// Adds steps with distinct names to a fresh build, and expects that each keeps its name.
async fn become_themselves(env: &TestEnv, clause: Clause, names: &[&str]) -> CaseResult {
    let store = env.store();
    let build = env.build();
    for name in names {
        let added = store.add(build, *name, "").await?;
        expect_text(clause, "the name that the last add returned", added.name.as_str(), name)?;
    }
    for (number, name) in (0..).zip(names) {
        let got = store.get_step(named(build, *name)?).await?;
        let got = expect_some(clause, "the step with this name", got)?;
        expect_eq(clause, "the number of the step with this name", got.number.get(), number)?;
        expect_text(clause, "the name of the step with this name", got.name.as_str(), name)?;
    }
    expect_names(env, build, names).await
}

/// Adds steps with these names to a fresh build, concurrently, and expects the names that follow from the order of the
/// numbers.
async fn names_at_once_become(env: &TestEnv, requested: &[String]) -> CaseResult {
    let store = env.store();
    let build = env.build();
    // The state string records the requested name.
    let new = requested.iter().map(|name| new_step(build, name, name)).collect::<Result<Vec<_>, _>>()?;
    add_concurrently(store, new).await?;
    let steps = store.steps(build).await?;
    expect_eq(Clause::I2, "how many steps the build has", steps.len(), requested.len())?;
    let expected = names_of(steps.iter().map(|step| step.state_string.as_str()));
    for (step, expected) in steps.iter().zip(&expected) {
        let what = format!("the name of the step number {}, requested as {:?}", step.number, step.state_string);
        expect_text(Clause::N3, what, step.name.as_str(), expected)?;
    }
    Ok(())
}

async fn expect_names(env: &TestEnv, build: BuildId, expected: &[impl AsRef<str>]) -> CaseResult {
    let steps = env.store().steps(build).await?;
    for (step, expected) in steps.iter().zip(expected) {
        let what = format!("the name of the step number {}, read back", step.number);
        expect_text(Clause::N3, what, step.name.as_str(), expected.as_ref())?;
    }
    expect_eq(Clause::I2, "how many steps the build has", steps.len(), expected.len())
}
