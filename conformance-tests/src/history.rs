//! Random histories: operations on a few builds, with few names that collide.
//!
//! An operation names its build and its step by a small number, so that a history still makes sense when
//! shrinking takes operations out of it. What an operation is once it is called, and how it is written as code, is in
//! [`calls`](crate::calls).

use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any},
    prop_oneof,
    sample::select,
};
use steps_core::{FinishStep, Results, StartStep, Timestamp};

/// How many builds a history has.
pub(crate) const BUILDS: usize = 2;

/// One operation, and which handle it goes through.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    /// Through a second handle, where there are some.
    pub(crate) by_peer: bool,
    pub(crate) operation: Operation,
}

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Add {
        build: usize,
        name: String,
        state: String,
        key: Option<u8>,
    },
    Start(Target, StartStep),
    Locks(Target, Timestamp),
    State(Target, String),
    /// With what the clock says.
    Finish(Target, FinishStep, Timestamp),
    Url(Target, String, String),
    GetById(Target),
    GetByNumber {
        build: usize,
        number: u32,
    },
    GetByName {
        build: usize,
        name: String,
    },
    GetSteps {
        build: usize,
    },
    /// The handle ends, and the store is opened again.
    Reopen {
        close: bool,
    },
}

/// A step of the history.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// The `n`th that was added, or the last where there are fewer, so that a target still means the same
    /// step when adds that do not matter are taken out. None if there is none yet.
    Added(usize),
    /// One that no store has.
    Missing,
}

/// What a history may do besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    pub(crate) reopen: bool,
    pub(crate) peers: bool,
}

/// Histories of up to this many operations.
pub(crate) fn histories(longest: usize, abilities: Abilities) -> impl Strategy<Value = Vec<Turn>> {
    let by_peer = if abilities.peers { any::<bool>().boxed() } else { Just(false).boxed() };
    let reopen = any::<bool>().prop_map(|close| Operation::Reopen { close });
    let operation = if abilities.reopen { prop_oneof![30 => calls(), 1 => reopen].boxed() } else { calls().boxed() };
    let turn = (by_peer, operation).prop_map(|(by_peer, operation)| Turn { by_peer, operation });
    vec(turn, 1..=longest)
}

fn calls() -> impl Strategy<Value = Operation> {
    let build = || 0..BUILDS;
    let start = (times(), any::<bool>()).prop_map(|(at, locks)| StartStep::new(at).with_locks_acquired(locks));
    let finish = (results(), any::<bool>()).prop_map(|(results, hidden)| FinishStep::new(results).with_hidden(hidden));
    prop_oneof![
        14 => adds(names()),
        2 => (targets(), start).prop_map(|(step, start)| Operation::Start(step, start)),
        2 => (targets(), times()).prop_map(|(step, at)| Operation::Locks(step, at)),
        2 => (targets(), texts()).prop_map(|(step, state)| Operation::State(step, state)),
        2 => (targets(), finish, times()).prop_map(|(step, finish, now)| Operation::Finish(step, finish, now)),
        4 => urls(targets()),
        1 => targets().prop_map(Operation::GetById),
        1 => (build(), 0..20_u32).prop_map(|(build, number)| Operation::GetByNumber { build, number }),
        1 => (build(), names()).prop_map(|(build, name)| Operation::GetByName { build, name }),
        1 => build().prop_map(|build| Operation::GetSteps { build }),
    ]
}

/// Adds that ask for such names.
pub(crate) fn adds(names: impl Strategy<Value = String>) -> impl Strategy<Value = Operation> {
    let key = option::weighted(0.2, 0..4_u8);
    (0..BUILDS, names, texts(), key).prop_map(|(build, name, state, key)| Operation::Add { build, name, state, key })
}

/// Urls of such steps: few enough that pairs come again.
pub(crate) fn urls(targets: impl Strategy<Value = Target>) -> impl Strategy<Value = Operation> {
    let names = select(vec!["log", "", "l", "logo", "Log", "é", "e\u{301}"]);
    let links = select(vec!["a", "", "b", "og", "A", "https://example.org/?q=%20", "🚀"]);
    (targets, names, links).prop_map(|(step, name, link)| Operation::Url(step, name.into(), link.into()))
}

/// Mostly steps that are there.
fn targets() -> impl Strategy<Value = Target> {
    // Most of them among the first few, so that one step sees several changes.
    let added = prop_oneof![0..3_usize, 0..16_usize].prop_map(Target::Added);
    prop_oneof![19 => added, 1 => Just(Target::Missing)]
}

/// Names that collide: the same few, those with a suffix already, and long ones that are cut to the same.
pub(crate) fn names() -> impl Strategy<Value = String> {
    let suffixed = ("[ab]", 1..4_u8).prop_map(|(name, k)| format!("{name}_{k}"));
    let strange = select(vec!["A", "é", "e\u{301}", "_", "-", "a_01", "a_10", "a_", "a_1_1", "\u{a0}", "a\u{a0}"]);
    prop_oneof![
        4 => "[ab]",
        2 => suffixed,
        1 => strange.prop_map(str::to_owned),
        3 => long_names(),
    ]
}

/// Names as long as a name can be, or almost: one character over and over, and an end. There are few enough
/// that they collide.
pub(crate) fn long_names() -> impl Strategy<Value = String> {
    let end = select(vec!["", "ab", "_1", "_2", "_10", "\u{301}"]);
    (select(vec!['x', '🚀']), 48..=50_usize, end).prop_map(|(character, length, end)| {
        let start = length - end.chars().count();
        character.to_string().repeat(start) + end
    })
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => select(vec!["", "ok", "it's \"done\"\\", "é\u{301}🚀", "\u{1}\u{7f}\n", "%s {} $1 '; --"]).prop_map(str::to_owned),
        1 => "[^\u{0}]{0,8}",
    ]
}

fn times() -> impl Strategy<Value = Timestamp> {
    let turns = vec![Timestamp::UNIX_EPOCH, Timestamp::MIN, Timestamp::MAX];
    let any = Timestamp::MIN.unix_micros()..=Timestamp::MAX.unix_micros();
    let near = 0..2_000_000_000_000_000_i64;
    let of = |micros| Timestamp::from_unix_micros(micros).expect("it is in range");
    prop_oneof![1 => select(turns), 2 => near.prop_map(of), 1 => any.prop_map(of)]
}

fn results() -> impl Strategy<Value = Results> {
    prop_oneof![3 => 0..7_i32, 1 => any::<i32>()].prop_map(Results::new)
}
