//! One round: concurrent callers, each with its calls one after the other.

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
    subject::{RawCall, Subject},
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
    /// All callers of all processes share one build.
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
    /// The calls of each caller.
    pub(crate) calls: usize,
    /// The number of the round, unique and the same in all processes.
    pub(crate) number: usize,
    /// The number of the process, from 0.
    pub(crate) process: usize,
    /// Whether each caller has a thread of its own.
    pub(crate) threads: bool,
}

/// Builds per round at most: processes times callers.
const BUILDS: usize = 1024;

/// Builds of 100 steps with a url at every third, for all but adds.
pub(crate) struct Fixture {
    /// Each build with the ids of its steps.
    builds: Vec<(i64, Vec<i64>)>,
}

impl Fixture {
    pub(crate) const BUILDS: usize = 8;

    pub(crate) async fn fill(subject: &impl Subject) -> Self {
        let mut builds = Vec::new();
        for build in 1..=Self::BUILDS as i64 {
            let mut ids = Vec::new();
            for number in 0..STEPS {
                let add = RawCall::AddStep { build, number, name: name(0, number) };
                let id = subject.run(0, subject.prepare(add)).await;
                if has_url(number) {
                    subject.run(0, subject.prepare(RawCall::AddUrl { id, url: url(number) })).await;
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
    fn calls<'a>(&'a self, caller: usize, fixture: Option<&'a Fixture>) -> impl Iterator<Item = RawCall> + 'a {
        let caller_of_all = self.process * self.callers + caller;
        let fresh_build =
            Fixture::BUILDS + self.number * BUILDS + if self.load == Load::Hot { 0 } else { caller_of_all };
        let of_fixture = move |call: usize| {
            let builds = &fixture.expect("this operation needs existing steps").builds;
            // Callers begin at different steps, under a hot load of one build.
            let (build, ids) = &builds[if self.load == Load::Hot { 0 } else { caller % builds.len() }];
            (*build, ids[(caller + call) % ids.len()])
        };
        (0..self.calls).map(move |call| match self.operation {
            Operation::AddStep => RawCall::AddStep {
                build: fresh_build as i64 + 1,
                number: if self.load == Load::Hot { caller_of_all * 1_000_000 + call } else { call },
                name: name(caller_of_all, call),
            },
            Operation::AddUrl => {
                let number = (self.number * self.callers + caller) * self.calls + call;
                RawCall::AddUrl { id: of_fixture(call).1, url: url(1_000 + number) }
            }
            Operation::SetStepStateString => {
                RawCall::SetStepStateString { id: of_fixture(call).1, state: state(self.number + call) }
            }
            Operation::FinishStep => {
                RawCall::FinishStep { id: of_fixture(call).1, results: ((self.number + call) % 7) as i32 }
            }
            Operation::GetStep => RawCall::GetStep { id: of_fixture(call).1 },
            Operation::GetSteps => RawCall::GetSteps { build: of_fixture(call).0 },
        })
    }

    /// Prepares the round for a subject. It begins once all callers and [`Prepared::run`] wait at `start`.
    pub(crate) fn prepare<S: Subject>(&self, subject: &Arc<S>, fixture: Option<&Fixture>) -> Prepared {
        let mut callers = JoinSet::new();
        let start = Arc::new(Barrier::new(self.callers + 1));
        let expected = if self.operation == Operation::GetSteps { STEPS as i64 } else { 1 };
        for caller in 0..self.callers {
            let calls: Vec<_> = self.calls(caller, fixture).map(|call| subject.prepare(call)).collect();
            let subject = Arc::clone(subject);
            let start = Arc::clone(&start);
            let task = async move {
                start.wait().await;
                for call in calls {
                    let answer = black_box(subject.run(caller, call).await);
                    assert!(answer >= expected, "an answer of {answer}, and not of {expected}");
                }
            };
            if self.threads {
                callers.spawn_blocking(move || Handle::current().block_on(task));
            } else {
                callers.spawn(task);
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
    /// Runs the round to its end and returns its time.
    pub(crate) async fn run(self) -> Duration {
        // Taken before the barrier, which opens once the last caller waits at it.
        let start = Instant::now();
        self.start.wait().await;
        self.callers.join_all().await;
        start.elapsed()
    }
}
