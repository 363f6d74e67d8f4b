//! Urls (U1 to U4).

use steps_core::{StepUrl, StepsStore, StepsStoreExt};

use crate::{
    Clause,
    cases::{cases, values::url},
    failure::{CaseResult, expect_eq, expect_some, expect_text},
    test_env::TestEnv,
};

cases! { Example add_url:
    urls_are_read_in_the_order_in_which_they_were_added [U1];
    many_urls_keep_their_order [U1, U2];
    a_pair_that_is_there_is_ignored [U2];
    a_pair_that_is_there_is_ignored_wherever_it_stands [U2];
    the_same_name_with_another_url_is_kept [U2];
    the_same_url_with_another_name_is_kept [U2];
    name_and_url_are_told_apart [U2];
    pairs_differ_when_their_code_points_do [U2];
    long_pairs_differ_in_their_last_character [U2, T1];
    the_same_pair_is_kept_on_each_step [U2];
    any_text_is_a_url [U4];
    the_empty_text_is_a_url [U4];
}

/// Adds urls to a new step and expects the resulting urls, in order.
async fn urls_become(env: &TestEnv, clause: Clause, added: &[(&str, &str)], expected: &[(&str, &str)]) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let step = store.add(build, "compile", "").await?;
    for (name, url) in added {
        store.add_named_url(step.id, *name, *url).await?;
    }
    let got = expect_some(clause, "the step with the urls", store.step(step.id).await?)?.urls;
    expect_urls(clause, &got, expected)?;
    // Stores often read the steps of a build with another statement than a single step.
    let steps = store.steps(build).await?;
    expect_urls(clause, &expect_some(clause, "the step with the urls", steps.first())?.urls, expected)
}

fn expect_urls(clause: Clause, got: &[StepUrl], expected: &[(&str, &str)]) -> CaseResult {
    for (index, (got, (name, url))) in got.iter().zip(expected).enumerate() {
        expect_text(clause, format!("the name of the url number {index}"), got.name(), name)?;
        expect_text(clause, format!("the url number {index}"), got.url(), url)?;
    }
    expect_eq(clause, "how many urls the step has", got.len(), expected.len())
}

async fn urls_are_read_in_the_order_in_which_they_were_added(env: &mut TestEnv) -> CaseResult {
    let urls = [("log", "z"), ("page", "a"), ("about", "m"), ("log", "b"), ("Log", "b"), ("", ""), ("a", "z")];
    urls_become(env, Clause::U1, &urls, &urls).await
}

async fn many_urls_keep_their_order(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let step = store.add(build, "compile", "").await?;
    // Neither names nor urls are sorted, and every third add is followed by a duplicate.
    let urls: Vec<_> = (0..150).map(|n| (format!("log {}", n * 37 % 101), format!("u{}", n * 53 % 97))).collect();
    for (index, (name, link)) in urls.iter().enumerate() {
        store.add_named_url(step.id, name, link).await?;
        if index % 3 == 0 {
            let (name, link) = &urls[index / 2];
            store.add_named_url(step.id, name, link).await?;
        }
    }
    let got = expect_some(Clause::U1, "the step with the urls", store.step(step.id).await?)?.urls;
    let expected: Vec<_> = urls.iter().map(|(name, link)| (name.as_str(), link.as_str())).collect();
    expect_urls(Clause::U1, &got, &expected)
}

async fn a_pair_that_is_there_is_ignored(env: &mut TestEnv) -> CaseResult {
    urls_become(env, Clause::U2, &[("log", "a"), ("log", "a"), ("log", "a")], &[("log", "a")]).await
}

async fn a_pair_that_is_there_is_ignored_wherever_it_stands(env: &mut TestEnv) -> CaseResult {
    let [a, b, c] = [("log", "a"), ("log", "b"), ("page", "c")];
    urls_become(env, Clause::U2, &[a, b, a, c, b, a, c], &[a, b, c]).await
}

async fn the_same_name_with_another_url_is_kept(env: &mut TestEnv) -> CaseResult {
    let urls = [("log", "a"), ("log", "b"), ("log", "")];
    urls_become(env, Clause::U2, &urls, &urls).await
}

async fn the_same_url_with_another_name_is_kept(env: &mut TestEnv) -> CaseResult {
    let urls = [("log", "a"), ("page", "a"), ("", "a")];
    urls_become(env, Clause::U2, &urls, &urls).await
}

async fn name_and_url_are_told_apart(env: &mut TestEnv) -> CaseResult {
    let urls = [
        ("a", "bc"),
        ("ab", "c"),
        ("abc", ""),
        ("", "abc"),
        ("x", "y"),
        ("y", "x"),
        ("a\n", "b"),
        ("a", "\nb"),
        ("a,b", "c"),
        ("a", "b,c"),
        ("a\t", "b"),
        ("a", "\tb"),
        ("\"a\"", "b"),
        ("a\u{1f}b", "c"),
        ("a", "b\u{1f}c"),
        ("1:a", "b"),
        ("1", "a:b"),
        ("a|b", "c"),
        ("a", "b|c"),
        ("a b", "c"),
        ("a", "b c"),
    ];
    urls_become(env, Clause::U2, &urls, &urls).await
}

async fn pairs_differ_when_their_code_points_do(env: &mut TestEnv) -> CaseResult {
    let urls = [
        ("log", "a"),
        ("Log", "a"),
        ("log", "A"),
        ("log ", "a"),
        (" log", "a"),
        ("log", "a "),
        ("log", "a/"),
        ("é", "a"),
        ("e\u{301}", "a"),
        ("log", "é"),
        ("log", "e\u{301}"),
        ("log", "%61"),
        ("log", "\u{ff41}"),
        ("log", "a\u{200b}"),
        ("log", "\u{feff}a"),
        ("ß", "a"),
        ("ss", "a"),
        ("log", "a\u{1}"),
        ("log", "0"),
        ("log", "00"),
    ];
    urls_become(env, Clause::U2, &urls, &urls).await
}

async fn long_pairs_differ_in_their_last_character(env: &mut TestEnv) -> CaseResult {
    let long = "x".repeat(64 * 1024 - 1);
    let [a, b] = ["a", "b"].map(|end| format!("{long}{end}"));
    let urls = [(a.as_str(), a.as_str()), (&a, &b), (&b, &a), (&b, &b), (&long, &a)];
    urls_become(env, Clause::U2, &[urls, urls].concat(), &urls).await
}

async fn the_same_pair_is_kept_on_each_step(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let first = store.add(build, "compile", "").await?;
    let second = store.add(build, "test", "").await?;
    for id in [first.id, second.id, first.id] {
        store.add_url(id, url("log", "a")?).await?;
    }
    for step in store.steps(build).await? {
        expect_urls(Clause::U2, &step.urls, &[("log", "a")])?;
    }
    Ok(())
}

async fn any_text_is_a_url(env: &mut TestEnv) -> CaseResult {
    let urls = [
        ("log", "not a url"),
        ("log", "http://"),
        ("log", "javascript:alert(1)"),
        ("log", "//x"),
        ("log", "../.."),
        ("two words", "https://example.org/a b?c=d&e=\"f\"#g"),
        ("<b>", "<a href='x'>"),
        ("\n", "\r\n"),
        ("log", "http://[::1"),
        ("日本", "https://例え.jp/パス"),
        ("log", "mailto:a@b"),
        ("log", "file:///C:\\x"),
        ("log", "%zz"),
    ];
    urls_become(env, Clause::U4, &urls, &urls).await
}

async fn the_empty_text_is_a_url(env: &mut TestEnv) -> CaseResult {
    let urls = [("", ""), ("", "a"), ("a", ""), (" ", ""), ("", " ")];
    urls_become(env, Clause::U4, &[urls, urls].concat(), &urls).await
}
