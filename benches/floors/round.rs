//! One round: callers at once, each with its calls one after the other.

use std::{
    fmt,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::{runtime::Handle, sync::Barrier, task::JoinSet};

use crate::{
    subject::{Call, Subject},
    support::payload::{STEPS, has_url, name, state, url},
};

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Operation {
    AddStep,
    AddUrl,
    SetStepStateString,
    FinishStep,
    GetStep,
    #[serde(rename = "get_steps_100")]
    #[value(name = "get_steps_100")]
    GetSteps,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Load {
    /// Each caller has a build of its own.
    Spread,
    /// All callers, of all processes, have one build.
    Hot,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddStep => "add_step",
            Self::AddUrl => "add_url",
            Self::SetStepStateString => "set_step_state_string",
            Self::FinishStep => "finish_step",
            Self::GetStep => "get_step",
            Self::GetSteps => "get_steps_100",
        })
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Spread { "spread" } else { "hot" })
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Round {
    pub(crate) operation: Operation,
    pub(crate) callers: usize,
    pub(crate) load: Load,
    /// Of each caller.
    pub(crate) calls: usize,
    /// Each round has a number that no other has, in all processes the same.
    pub(crate) number: usize,
    /// Which process, from 0 on.
    pub(crate) process: usize,
    /// Whether each caller has a thread of its own.
    pub(crate) threads: bool,
}

/// Builds per round at most: processes times callers.
const BUILDS: usize = 1024;

/// Builds of 100 steps with a url at every third, for all but adds.
pub(crate) struct Fixture {
    /// Of each build, the ids of its steps.
    builds: Vec<(i64, Vec<i64>)>,
}

impl Fixture {
    pub(crate) const BUILDS: usize = 8;

    pub(crate) async fn fill(subject: &impl Subject) -> Self {
        let mut builds = Vec::new();
        for build in 1..=Self::BUILDS as i64 {
            let mut ids = Vec::new();
            for number in 0..STEPS {
                let add = Call::AddStep { build, number, name: name(0, number) };
                let id = subject.run(0, subject.prepare(add)).await;
                if has_url(number) {
                    subject.run(0, subject.prepare(Call::AddUrl { id, url: url(number) })).await;
                }
                ids.push(id);
            }
            builds.push((build, ids));
        }
        Self { builds }
    }
}

impl Round {
    /// The calls of one caller.
    fn calls<'a>(&'a self, caller: usize, fixture: Option<&'a Fixture>) -> impl Iterator<Item = Call> + 'a {
        let caller_of_all = self.process * self.callers + caller;
        let fresh_build =
            Fixture::BUILDS + self.number * BUILDS + if self.load == Load::Hot { 0 } else { caller_of_all };
        let of_fixture = move |call: usize| {
            let builds = &fixture.expect("this operation needs steps that are there").builds;
            // Callers begin at different steps, on a hot load of one build.
            let (build, ids) = &builds[if self.load == Load::Hot { 0 } else { caller % builds.len() }];
            (*build, ids[(caller + call) % ids.len()])
        };
        (0..self.calls).map(move |call| match self.operation {
            Operation::AddStep => Call::AddStep {
                build: fresh_build as i64 + 1,
                number: if self.load == Load::Hot { caller_of_all * 1_000_000 + call } else { call },
                name: name(caller_of_all, call),
            },
            Operation::AddUrl => {
                let number = (self.number * self.callers + caller) * self.calls + call;
                Call::AddUrl { id: of_fixture(call).1, url: url(1_000 + number) }
            }
            Operation::SetStepStateString => {
                Call::SetStepStateString { id: of_fixture(call).1, state: state(self.number + call) }
            }
            Operation::FinishStep => {
                Call::FinishStep { id: of_fixture(call).1, results: ((self.number + call) % 7) as i32 }
            }
            Operation::GetStep => Call::GetStep { id: of_fixture(call).1 },
            Operation::GetSteps => Call::GetSteps { build: of_fixture(call).0 },
        })
    }

    /// Prepares the round for a subject. It begins when `start` is waited for by all.
    pub(crate) fn prepare<S: Subject>(&self, subject: &Arc<S>, fixture: Option<&Fixture>) -> Prepared {
        let (mut callers, start) = (JoinSet::new(), Arc::new(Barrier::new(self.callers + 1)));
        let expected = if self.operation == Operation::GetSteps { STEPS as i64 } else { 1 };
        for caller in 0..self.callers {
            let calls: Vec<_> = self.calls(caller, fixture).map(|call| subject.prepare(call)).collect();
            let (subject, start) = (Arc::clone(subject), Arc::clone(&start));
            let caller = async move {
                start.wait().await;
                for call in calls {
                    let answer = black_box(subject.run(caller, call).await);
                    assert!(answer >= expected, "an answer of {answer}, and not of {expected}");
                }
            };
            if self.threads {
                callers.spawn_blocking(move || Handle::current().block_on(caller));
            } else {
                callers.spawn(caller);
            }
        }
        Prepared { callers, start }
    }
}

pub(crate) struct Prepared {
    callers: JoinSet<()>,
    start: Arc<Barrier>,
}

impl Prepared {
    /// Runs the round to its end, and gives its time.
    pub(crate) async fn run(self) -> Duration {
        // The time before the barrier opens, which is when the last waits for it.
        let start = Instant::now();
        self.start.wait().await;
        self.callers.join_all().await;
        start.elapsed()
    }
}
