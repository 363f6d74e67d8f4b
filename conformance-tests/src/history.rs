//! Generators of random histories: operations on a few builds, with few names, so that names collide.
//!
//! An [`Operation`] is not a [`Request`](steps_core::Request), since it names builds and steps by index: a history must
//! still make sense after shrinking removes operations.

use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any},
    prop_oneof,
    sample::select,
};
use steps_core::{FinishStep, Results, StartStep, Timestamp};

/// Number of builds of a history.
pub(crate) const BUILDS: usize = 2;

/// An operation and its handle.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    /// Whether the operation goes through a second handle, if the store has peers.
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
    /// With the time of the clock.
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
    /// Closes or drops the handle, and opens the store again.
    Reopen {
        close: bool,
    },
}

/// A step of the history.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// The step of the `n`th add, or of the last one if there are fewer. So a target often means the same step after
    /// shrinking removes adds. No step if there was no add yet.
    Added(usize),
    /// A step that does not exist.
    Missing,
}

/// Optional features that a history may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    pub(crate) reopen: bool,
    pub(crate) peers: bool,
}

/// Histories of up to `max_length` operations.
pub(crate) fn histories(max_length: usize, abilities: Abilities) -> impl Strategy<Value = Vec<Turn>> {
    let by_peer = if abilities.peers { any::<bool>().boxed() } else { Just(false).boxed() };
    let reopen = any::<bool>().prop_map(|close| Operation::Reopen { close });
    let operation = if abilities.reopen { prop_oneof![30 => calls(), 1 => reopen].boxed() } else { calls().boxed() };
    let turn = (by_peer, operation).prop_map(|(by_peer, operation)| Turn { by_peer, operation });
    vec(turn, 1..=max_length)
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

/// Adds with names of this strategy.
pub(crate) fn adds(names: impl Strategy<Value = String>) -> impl Strategy<Value = Operation> {
    let key = option::weighted(0.2, 0..4_u8);
    (0..BUILDS, names, texts(), key).prop_map(|(build, name, state, key)| Operation::Add { build, name, state, key })
}

/// Adds of urls to these steps. There are few urls, so that they repeat.
pub(crate) fn urls(targets: impl Strategy<Value = Target>) -> impl Strategy<Value = Operation> {
    let names = select(vec!["log", "", "l", "logo", "Log", "é", "e\u{301}"]);
    let links = select(vec!["a", "", "b", "og", "A", "https://example.org/?q=%20", "🚀"]);
    (targets, names, links).prop_map(|(step, name, link)| Operation::Url(step, name.into(), link.into()))
}

/// Mostly steps that exist.
fn targets() -> impl Strategy<Value = Target> {
    // Mostly among the first few, so that one step gets several changes.
    let added = prop_oneof![0..3_usize, 0..16_usize].prop_map(Target::Added);
    prop_oneof![19 => added, 1 => Just(Target::Missing)]
}

/// Names that collide: a few short ones, names that already have a suffix, and long names with a common cut prefix.
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

/// Names of the maximum length or almost: a repeated character and an ending. There are few, so that they collide.
pub(crate) fn long_names() -> impl Strategy<Value = String> {
    let end = select(vec!["", "ab", "_1", "_2", "_10", "\u{301}"]);
    (select(vec!['x', '🚀']), 48..=50_usize, end).prop_map(|(character, length, end)| {
        let start = length - end.chars().count();
        character.to_string().repeat(start) + end
    })
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => select(vec!["", "ok", "it's \"done\"\\", "é\u{301}🚀", "\u{1}\u{7f}\n", "%s {} $1 '; --"])
            .prop_map(str::to_owned),
        1 => "[^\u{0}]{0,8}",
    ]
}

fn times() -> impl Strategy<Value = Timestamp> {
    let edges = vec![Timestamp::UNIX_EPOCH, Timestamp::MIN, Timestamp::MAX];
    let any = Timestamp::MIN.unix_micros()..=Timestamp::MAX.unix_micros();
    let near = 0..2_000_000_000_000_000_i64;
    let of = |micros| Timestamp::from_unix_micros(micros).expect("it is in range");
    prop_oneof![1 => select(edges), 2 => near.prop_map(of), 1 => any.prop_map(of)]
}

fn results() -> impl Strategy<Value = Results> {
    prop_oneof![3 => 0..7_i32, 1 => any::<i32>()].prop_map(Results::new)
}
