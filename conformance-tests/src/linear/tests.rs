//! The search accepts linearizable histories and rejects others, and rejected ones are shrunk.

use std::time::Duration;

use steps_core::{
    AddedStep, BuildId, FinishStep, IdempotencyKey, NewStep, Request, Response, Results, StateString, Step, StepId,
    StepName, StepUrl, Timestamp,
};

use super::{Event, History, Outcome};
use crate::Clause;

fn build() -> BuildId {
    BuildId::new(7).unwrap()
}

fn id(number: u32) -> StepId {
    StepId::new(i64::from(number) + 100).unwrap()
}

fn url(url: &str) -> StepUrl {
    StepUrl::new("log", url).unwrap()
}

fn new(name: &str, state: &str) -> NewStep {
    NewStep::new(build(), StepName::new(name).unwrap(), StateString::new(state).unwrap())
}

fn step(number: u32, name: &str, state: &str, urls: &[&str]) -> Step {
    let state = StateString::new(state).unwrap();
    let urls = urls.iter().copied().map(url).collect();
    Step::builder(id(number), build(), number.into(), StepName::new(name).unwrap(), state).urls(urls).build()
}

/// Builder of a history: each line has the times of call and answer, the request and the response.
struct Lines(Vec<Event>);

impl Lines {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn call(self, called: u64, answered: u64, request: Request, response: Response) -> Self {
        self.open(called, request, Outcome::Answered(Duration::from_micros(answered), response))
    }

    fn open(mut self, called: u64, request: Request, outcome: Outcome) -> Self {
        let called = Duration::from_micros(called);
        self.0.push(Event { caller: self.0.len().to_string(), request, called, outcome });
        self
    }

    fn add(self, called: u64, answered: u64, name: &str, number: u32, got: &str) -> Self {
        let added = AddedStep::new(id(number), number.into(), StepName::new(got).unwrap());
        self.call(called, answered, Request::AddStep(new(name, "")), Response::Added(added))
    }

    fn url(self, called: u64, answered: u64, number: u32, text: &str) -> Self {
        self.call(called, answered, Request::AddUrl(id(number), url(text)), Response::Done)
    }

    fn state(self, called: u64, answered: u64, number: u32, text: &str) -> Self {
        let request = Request::SetStepStateString(id(number), StateString::new(text).unwrap());
        self.call(called, answered, request, Response::Done)
    }

    fn read(self, called: u64, answered: u64, steps: Vec<Step>) -> Self {
        self.call(called, answered, Request::GetSteps(build()), Response::Steps(steps))
    }

    fn history(self) -> History {
        History { build: build(), now: Timestamp::UNIX_EPOCH, initial: Vec::new(), events: self.0 }
    }

    fn passes(self) {
        if let Err(failure) = self.history().check() {
            panic!("{failure}");
        }
    }

    /// Asserts a rejection with this clause and this many lines.
    fn fails(self, clause: Clause, lines: usize) -> String {
        let failure = self.history().check().expect_err("it is not linearizable");
        let text = failure.to_string();
        assert_eq!(failure.clause, Some(clause), "{text}");
        let shown = failure.history.map(String::from).unwrap_or_default();
        assert_eq!(shown.lines().count(), 1 + lines, "{text}");
        shown
    }
}

#[test]
fn concurrent_calls_may_come_in_any_order() {
    for read in [vec![], vec![step(0, "a", "", &[])], vec![step(0, "a", "", &[]), step(1, "a_1", "", &[])]] {
        Lines::new().add(0, 10, "a", 0, "a").add(0, 10, "a", 1, "a_1").read(5, 6, read).passes();
    }
    for urls in [&["x", "y"], &["y", "x"]] {
        let lines = Lines::new().add(0, 1, "a", 0, "a").url(2, 10, 0, "x").url(3, 9, 0, "y");
        lines.read(11, 12, vec![step(0, "a", "", urls)]).passes();
    }
}

#[test]
fn sequential_calls_come_in_their_order() {
    let lines = Lines::new().add(0, 1, "a", 0, "a").add(0, 1, "b", 1, "b");
    lines.read(2, 3, vec![step(0, "a", "", &[])]).fails(Clause::R3, 3);
    Lines::new().add(0, 1, "a", 1, "a").add(2, 3, "b", 0, "b").fails(Clause::R3, 1);
    let lines = Lines::new().add(0, 1, "a", 0, "a").url(2, 3, 0, "x").url(4, 5, 0, "y");
    lines.read(6, 7, vec![step(0, "a", "", &["y", "x"])]).fails(Clause::R3, 3);
    let lines = Lines::new().add(0, 1, "a", 0, "a").state(2, 3, 0, "x").state(4, 5, 0, "y");
    lines.read(6, 7, vec![step(0, "a", "x", &[])]).fails(Clause::R3, 3);
}

#[test]
fn a_later_read_is_not_older() {
    let before = vec![step(0, "a", "", &[])];
    let after = vec![step(0, "a", "x", &[])];
    let write = Lines::new().add(0, 1, "a", 0, "a").state(2, 20, 0, "x");
    write.read(3, 4, before.clone()).read(5, 6, after.clone()).passes();
    let write = Lines::new().add(0, 1, "a", 0, "a").state(2, 20, 0, "x");
    let shown = write.read(3, 4, after).read(5, 6, before).fails(Clause::R3, 3);
    assert!(shown.contains("1: state of step 0: \"x\"") && shown.contains("get all → step 0: \"\""), "{shown}");
}

#[test]
fn a_read_is_of_one_instant() {
    // Two steps change one after the other, and the read returns only the later change.
    let lines = Lines::new().add(0, 1, "a", 0, "a").add(2, 3, "b", 1, "b");
    let lines = lines.state(4, 5, 0, "x").state(6, 7, 1, "y");
    let torn = vec![step(0, "a", "", &[]), step(1, "b", "y", &[])];
    let shown = lines.read(3, 8, torn).fails(Clause::R3, 3);
    assert!(!shown.contains("add"), "{shown}");
}

#[test]
fn an_open_call_takes_effect_at_any_later_time_or_never() {
    let state = || Request::SetStepStateString(id(0), StateString::new("x").unwrap());
    for (later, is_fine) in [("x", true), ("", true), ("y", false)] {
        let lines = Lines::new().add(0, 1, "a", 0, "a").open(2, state(), Outcome::Open);
        let lines = lines.read(3, 4, vec![step(0, "a", "", &[])]).read(9, 10, vec![step(0, "a", later, &[])]);
        if is_fine { lines.passes() } else { drop(lines.fails(Clause::R3, 1)) }
    }
    // The open add took the number 0, since the next add got 1.
    Lines::new().open(0, Request::AddStep(new("a", "s")), Outcome::Open).add(1, 2, "a", 1, "a_1").passes();
    Lines::new().open(3, Request::AddStep(new("a", "s")), Outcome::Open).add(1, 2, "a", 1, "a_1").fails(Clause::R3, 1);
}

#[test]
fn a_call_that_was_not_applied_is_not_seen() {
    let state = Request::SetStepStateString(id(0), StateString::new("x").unwrap());
    let lines = Lines::new().add(0, 1, "a", 0, "a").open(2, state, Outcome::Refused);
    let failure = lines.read(3, 4, vec![step(0, "a", "x", &[])]).history().check().unwrap_err();
    assert_eq!(failure.clause, Some(Clause::D3), "{failure}");
}

#[test]
fn the_clause_is_named_where_it_is_plain() {
    Lines::new().add(0, 9, "a", 0, "a").add(0, 9, "b", 0, "b").fails(Clause::I2, 2);
    Lines::new().add(0, 9, "a", 0, "a").add(0, 9, "a", 1, "a").fails(Clause::N3, 2);
    Lines::new().add(0, 9, "a", 0, "a").add(0, 9, "a", 1, "a_2").fails(Clause::N3, 2);
    let lines = Lines::new().add(0, 1, "a", 0, "a").url(2, 9, 0, "x").url(2, 9, 0, "y");
    lines.read(10, 11, vec![step(0, "a", "", &["x"])]).fails(Clause::U3, 3);
    let lines = Lines::new().add(0, 1, "a", 0, "a").url(2, 9, 0, "x").url(2, 9, 0, "x");
    lines.read(10, 11, vec![step(0, "a", "", &["x", "x"])]).fails(Clause::U3, 3);
    let keyed = || Request::AddStep(new("a", "").with_idempotency_key(IdempotencyKey::new("k").unwrap()));
    let added =
        |number: u32, name| Response::Added(AddedStep::new(id(number), number.into(), StepName::new(name).unwrap()));
    let lines = Lines::new().call(0, 9, keyed(), added(0, "a")).call(0, 9, keyed(), added(0, "a"));
    lines.passes();
    let lines = Lines::new().call(0, 9, keyed(), added(0, "a")).call(0, 9, keyed(), added(1, "a_1"));
    lines.fails(Clause::I5, 2);
}

#[test]
fn an_end_is_written_whole() {
    let finish = Request::FinishStep(id(0), FinishStep::new(Results::new(2)).with_hidden(true));
    let mut whole = step(0, "a", "", &[]);
    whole.complete_at = Some(Timestamp::UNIX_EPOCH);
    whole.results = Some(Results::new(2));
    whole.hidden = true;
    let mut half = whole.clone();
    half.hidden = false;
    let lines = || Lines::new().add(0, 1, "a", 0, "a").call(2, 9, finish.clone(), Response::Done);
    lines().read(3, 4, vec![whole]).passes();
    lines().read(3, 4, vec![half]).fails(Clause::R3, 2);
}

/// As many concurrent calls as the cases make, without reads in between.
#[test]
fn many_concurrent_calls_are_checked_quickly() {
    let mut lines = Lines::new().add(0, 1, "a", 0, "a");
    for n in 0..16 {
        lines = lines.url(2, 1_000 + n, 0, &n.to_string());
    }
    let urls: Vec<_> = (0..16).rev().map(|n| n.to_string()).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    lines.read(2_000, 2_001, vec![step(0, "a", "", &urls)]).passes();

    let mut lines = Lines::new().add(0, 1, "a", 0, "a");
    for n in 0..12 {
        lines = lines.state(2, 1_000 + n, 0, &n.to_string());
    }
    lines.read(2_000, 2_001, vec![step(0, "a", "0", &[])]).passes();
}
