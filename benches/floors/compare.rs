//! Compares store and floor, in turns.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::{
    bench::{self, Bench, Pair},
    peer::Peer,
    round::{Load, Operation, Round},
    support::{
        locations::{Backend, Location},
        statistics::{median, micros},
    },
};

/// The number and the length of the rounds.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) repetitions: usize,
    /// The approximate length of a round of the store.
    pub(crate) round: Duration,
}

/// A line of the table, and an object of the JSON.
#[derive(Serialize)]
pub(crate) struct Figure {
    pub(crate) backend: String,
    pub(crate) operation: Operation,
    pub(crate) callers: usize,
    pub(crate) load: Load,
    pub(crate) processes: usize,
    pub(crate) floor: &'static str,
    pub(crate) ratio: f64,
    pub(crate) ratio_min: f64,
    pub(crate) ratio_max: f64,
    pub(crate) store_us: f64,
    pub(crate) floor_us: f64,
}

pub(crate) struct Comparison {
    backend: Backend,
    bench: Box<dyn Bench>,
    /// The second process.
    peer: Option<Peer>,
    effort: Effort,
    rounds: usize,
}

/// The measurement of one line of the table.
#[derive(Clone, Copy)]
struct Case {
    operation: Operation,
    callers: usize,
    load: Load,
    processes: usize,
}

impl Comparison {
    pub(crate) async fn new(backend: Backend, location: &Location, effort: Effort) -> Self {
        let bench = bench::open(backend, &location.urls, true).await;
        let peer = if bench.is_shared() { Some(Peer::start(backend, &location.urls).await) } else { None };
        Self { backend, bench, peer, effort, rounds: 0 }
    }

    /// Measures all operations, or only those in `only`.
    pub(crate) async fn run(mut self, only: &[Operation]) -> Vec<Figure> {
        let mut figures = Vec::new();
        for case in self.cases() {
            if !only.is_empty() && !only.contains(&case.operation) {
                continue;
            }
            for pair in self.bench.pairs(case.operation, case.callers) {
                figures.push(self.figure(case, pair).await);
            }
        }
        figures
    }

    fn cases(&self) -> Vec<Case> {
        let callers = self.bench.callers();
        let processes = if self.bench.is_shared() { 1..=2 } else { 1..=1 };
        let mut cases = Vec::new();
        for &callers in callers {
            for load in [Load::Spread, Load::Hot] {
                for processes in processes.clone() {
                    // The loads of a single caller are the same: one build.
                    if load == Load::Spread || callers * processes > 1 {
                        cases.push(Case { operation: Operation::AddStep, callers, load, processes });
                    }
                }
            }
        }
        // Reads first: the other operations change the steps that they read.
        for operation in [
            Operation::GetStep,
            Operation::GetSteps,
            Operation::SetStepStateString,
            Operation::FinishStep,
            Operation::AddUrl,
        ] {
            for &callers in callers {
                cases.push(Case { operation, callers, load: Load::Spread, processes: 1 });
            }
        }
        cases
    }

    async fn figure(&mut self, case: Case, pair: Pair) -> Figure {
        let calls = self.calls(case, pair).await;
        let all_calls = (calls * case.callers * case.processes) as f64;
        let mut ratios = Vec::new();
        let mut store = Vec::new();
        let mut floor = Vec::new();
        for repetition in 0..self.effort.repetitions {
            let of_store;
            let of_floor;
            // The order alternates, since the first run may be slower.
            if repetition % 2 == 0 {
                of_store = self.round(case, pair.measured, calls).await;
                of_floor = self.round(case, pair.floor, calls).await;
            } else {
                of_floor = self.round(case, pair.floor, calls).await;
                of_store = self.round(case, pair.measured, calls).await;
            }
            ratios.push(of_store.as_secs_f64() / of_floor.as_secs_f64());
            store.push(micros(of_store) / all_calls);
            floor.push(micros(of_floor) / all_calls);
        }
        Figure {
            backend: self.backend.to_string(),
            operation: case.operation,
            callers: case.callers,
            load: case.load,
            processes: case.processes,
            floor: pair.name,
            ratio: median(&ratios),
            ratio_min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            ratio_max: ratios.iter().copied().fold(0.0, f64::max),
            store_us: median(&store),
            floor_us: median(&floor),
        }
    }

    /// The number of calls of each caller for a round of about the right length. Its search warms both sides up.
    async fn calls(&mut self, case: Case, pair: Pair) -> usize {
        // The numbers of a caller's steps are below this limit.
        const MAX: usize = 1_000_000;
        let mut calls = 1;
        loop {
            let time = self.round(case, pair.measured, calls).await;
            self.round(case, pair.floor, calls).await;
            let aim = self.effort.round / if self.bench.never_waits() { 10 } else { 1 };
            if time * 2 > aim {
                let scaled = calls as f64 * aim.as_secs_f64() / time.as_secs_f64();
                return (scaled as usize).clamp(1, MAX);
            }
            calls *= 2;
        }
    }

    async fn round(&mut self, case: Case, side: &str, calls: usize) -> Duration {
        self.rounds += 1;
        let Case { operation, callers, load, processes } = case;
        let threads = self.bench.never_waits();
        let round = Round { operation, callers, load, calls, number: self.rounds, process: 0, threads };
        match &mut self.peer {
            Some(peer) if processes == 2 => {
                peer.prepare(side, &Round { process: 1, ..round }).await;
                let prepared = self.bench.prepare(side, &round);
                let start = Instant::now();
                peer.go().await;
                prepared.run().await;
                peer.wait().await;
                start.elapsed()
            }
            _ => self.bench.prepare(side, &round).run().await,
        }
    }
}
