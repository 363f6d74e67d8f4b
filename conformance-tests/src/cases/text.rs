//! Text is returned unchanged (T1), even if it has a meaning in JSON, Lua, SQL or a terminal.

use steps_core::{StepsStore, StepsStoreExt, limits};

use crate::{
    Clause,
    cases::{
        cases,
        concurrently::add_concurrently,
        values::{name, new_step, url},
    },
    failure::{CaseResult, expect_eq, expect_some, expect_text},
    test_env::TestEnv,
};

cases! { Example text:
    state_strings_come_back_as_given [T1];
    urls_come_back_as_given [T1, U4];
    names_come_back_as_given [T1, N4];
    control_characters_come_back [T1];
    every_plane_of_unicode_comes_back [T1];
    the_longest_state_strings [T1];
    the_longest_urls [T1];
    several_longest_state_strings_in_one_build [T1, R2];
}

/// Texts that a layer of a store might interpret, normalize or truncate.
const SPECIAL: &[&str] = &[
    "",
    " ",
    "  ",
    " leading",
    "trailing ",
    "\u{a0}",
    "\t",
    "\n",
    "\r\n",
    "a\nb\rc\td",
    "\u{85}",
    "\u{2028}\u{2029}",
    "'",
    "''",
    "\"",
    "\"\"",
    "`",
    "\\",
    "\\\\",
    "\\'",
    "\\\"",
    "\\n",
    "\\0",
    "\\u0000",
    "\\u{0}",
    "\\x00",
    "'); DROP TABLE steps; --",
    "%",
    "%%",
    "%s",
    "%d",
    "%n",
    "_",
    "%_%",
    "?",
    "?1",
    "$1",
    "$$",
    ":name",
    "@p",
    "{}",
    "{0}",
    "{{}}",
    "{",
    "}",
    "}{",
    "a{b}c",
    "[",
    "]",
    "[[",
    "]]",
    "--",
    "/*",
    "*/",
    ";",
    "#",
    "&amp;",
    "<script>",
    "&#0;",
    "=1+1",
    "\u{1b}[31mred\u{1b}[0m",
    "null",
    "NULL",
    "nil",
    "None",
    "true",
    "false",
    "0",
    "00",
    "1",
    "1.0",
    "1e5",
    "-1",
    "NaN",
    "Infinity",
    "0x10",
    "9007199254740993",
    "9223372036854775808",
    "[]",
    "{\"a\":1}",
    "\"text\"",
    "\u{7f}",
    "\u{80}",
    "\u{9f}",
    "\u{feff}",
    "\u{feff}a",
    "a\u{feff}",
    "\u{fffd}",
    "\u{fffe}",
    "\u{ffff}",
    "\u{fdd0}",
    "\u{1fffe}",
    "\u{10ffff}",
    "\u{d7ff}\u{e000}",
    "e\u{301}",
    "\u{e9}",
    "\u{301}",
    "\u{301}\u{302}a",
    "\u{212b}",
    "\u{c5}",
    "ﬁ",
    "ß",
    "İ",
    "ı",
    "\u{200b}",
    "\u{200d}",
    "\u{200e}\u{200f}",
    "\u{202e}desrever\u{202c}",
    "\u{2066}x\u{2069}",
    "אבג",
    "مرحبا",
    "日本語",
    "한글",
    "ไทย",
    "🚀",
    "👩\u{200d}🔬",
    "🇩🇪",
    "\u{1d11e}",
    "a\u{1f}b",
    "\u{1e}",
    "\u{1c}",
    "+OK\r\n",
    "$-1\r\n",
    "*0\r\n",
];

async fn state_strings_come_back_as_given(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let changed = store.add(build, "changed", "").await?;
    for text in SPECIAL {
        let added = store.add(build, "added", *text).await?;
        let got = expect_some(Clause::T1, "the step just added", store.step(added.id).await?)?;
        expect_text(Clause::T1, "the state string of the step just added", got.state_string.as_str(), text)?;
        store.state(changed.id, *text).await?;
        let got = expect_some(Clause::T1, "the step just changed", store.step(changed.id).await?)?;
        expect_text(Clause::T1, "the state string just set", got.state_string.as_str(), text)?;
    }
    let steps = store.steps(build).await?;
    for (step, text) in steps.iter().skip(1).zip(SPECIAL) {
        expect_text(Clause::T1, "a state string, read with its build", step.state_string.as_str(), text)?;
    }
    expect_eq(Clause::R2, "how many steps the build has", steps.len(), SPECIAL.len() + 1)
}

async fn urls_come_back_as_given(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let step = store.add(build, "compile", "").await?;
    for text in SPECIAL {
        store.add_named_url(step.id, *text, "u").await?;
        store.add_named_url(step.id, "n", *text).await?;
        // A duplicate. The comparison must match this url only.
        store.add_named_url(step.id, *text, "u").await?;
    }
    let one = expect_some(Clause::T1, "the step with the urls", store.step(step.id).await?)?.urls;
    let all = store.steps(build).await?.swap_remove(0).urls;
    for urls in [one, all] {
        expect_eq(Clause::T1, "how many urls the step has", urls.len(), 2 * SPECIAL.len())?;
        for (pair, text) in urls.chunks(2).zip(SPECIAL) {
            expect_text(Clause::T1, "the name of a url", pair[0].name(), text)?;
            expect_text(Clause::T1, "a url", pair[1].url(), text)?;
        }
    }
    Ok(())
}

async fn names_come_back_as_given(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    // The allowed characters of each text.
    let mut names: Vec<String> = Vec::new();
    for text in SPECIAL {
        let name: String = text.chars().filter(|character| !character.is_control()).take(50).collect();
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    for requested in &names {
        let added = store.add(build, requested, "").await?;
        expect_text(Clause::T1, "the name that the add returned", added.name.as_str(), requested)?;
        let got = store.step_named(build, requested).await?;
        let got = expect_some(Clause::N4, "the step with this name", got)?;
        expect_text(Clause::T1, "the name of the step with this name", got.name.as_str(), requested)?;
    }
    Ok(())
}

async fn control_characters_come_back(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let step = store.add(build, "compile", "").await?;
    let all: String = ('\u{1}'..='\u{a0}').collect();
    let each = all.chars().map(String::from).chain([all.clone()]);
    for text in each {
        store.state(step.id, &text).await?;
        store.add_named_url(step.id, &text, &text).await?;
        let got = expect_some(Clause::T1, "the step just changed", store.step(step.id).await?)?;
        expect_text(Clause::T1, "the state string just set", got.state_string.as_str(), &text)?;
        let last = expect_some(Clause::T1, "the url just added", got.urls.last())?;
        expect_text(Clause::T1, "the name of the url just added", last.name(), &text)?;
        expect_text(Clause::T1, "the url just added", last.url(), &text)?;
    }
    Ok(())
}

async fn every_plane_of_unicode_comes_back(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let step = store.add(build, "compile", "").await?;
    for plane in 0..=16_u32 {
        // 2,000 code points of each plane: the first 500, the last 500, and 1,000 between them.
        let places = (0..500).chain((500..65_036).step_by(65)).chain(65_036..65_536);
        let text: String =
            places.filter_map(|index| char::from_u32(plane << 16 | index)).filter(|c| *c != '\0').collect();
        store.state(step.id, &text).await?;
        let got = expect_some(Clause::T1, "the step just changed", store.step(step.id).await?)?;
        expect_text(Clause::T1, format!("a text of plane {plane}"), got.state_string.as_str(), &text)?;
    }
    Ok(())
}

/// Texts of exactly this many bytes: ASCII, four-byte characters, and characters that most formats escape.
fn longest(bytes: usize) -> [String; 4] {
    ["x", "🚀", "\"\\\u{1}'", "\u{7f}\n}{"].map(|unit| {
        let text = unit.repeat(bytes / unit.len());
        let rest = bytes - text.len();
        text + &"y".repeat(rest)
    })
}

async fn the_longest_state_strings(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    for text in longest(limits::STATE_STRING_BYTES) {
        let added = store.add(build, "compile", &text).await?;
        let got = expect_some(Clause::T1, "the step just added", store.step(added.id).await?)?;
        expect_text(Clause::T1, "the state string of the step just added", got.state_string.as_str(), &text)?;
        store.state(added.id, "").await?;
        store.state(added.id, &text).await?;
        let got = expect_some(Clause::T1, "the step just changed", store.step(added.id).await?)?;
        expect_text(Clause::T1, "the state string just set", got.state_string.as_str(), &text)?;
    }
    Ok(())
}

async fn the_longest_urls(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    for text in longest(limits::URL_BYTES) {
        let step = store.add(build, "compile", "").await?;
        let urls = [url(&text, &text)?, url(&text, "")?, url("", &text)?];
        for url in urls.iter().chain(&urls) {
            store.add_url(step.id, url.clone()).await?;
        }
        let got = expect_some(Clause::T1, "the step with the urls", store.step(step.id).await?)?.urls;
        expect_eq(Clause::U2, "how many urls the step has", got.len(), urls.len())?;
        for (got, expected) in got.iter().zip(&urls) {
            expect_text(Clause::T1, "the name of a url", got.name(), expected.name())?;
            expect_text(Clause::T1, "a url", got.url(), expected.url())?;
        }
    }
    Ok(())
}

async fn several_longest_state_strings_in_one_build(env: &mut TestEnv) -> CaseResult {
    let store = env.store();
    let build = env.build();
    let texts = [longest(limits::STATE_STRING_BYTES), longest(limits::STATE_STRING_BYTES)].concat();
    let new = texts.iter().zip('a'..).map(|(text, letter)| new_step(build, letter, text));
    let added = add_concurrently(store, new.collect::<Result<_, _>>()?).await?;
    let steps = store.steps(build).await?;
    for (added, text) in added.iter().zip(&texts) {
        let got = steps.iter().find(|step| step.id == added.id);
        let got = expect_some(Clause::R2, "a step with the longest state string", got)?;
        expect_eq(Clause::N2, "its name", &got.name, &name(added.name.as_str())?)?;
        expect_text(Clause::T1, "its state string", got.state_string.as_str(), text)?;
    }
    expect_eq(Clause::R2, "how many steps the build has", steps.len(), texts.len())
}
