//! Store and floor in turns.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::{
    bench::{self, Bench, Pair},
    peer::Peer,
    round::{Load, Operation, Round},
    support::{
        places::{Backend, Place},
        statistics::{median, micros},
    },
};

/// How long to measure.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) repetitions: usize,
    /// About how long a round of the store takes.
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

/// What a line measures.
#[derive(Clone, Copy)]
struct Case {
    operation: Operation,
    callers: usize,
    load: Load,
    processes: usize,
}

impl Comparison {
    pub(crate) async fn new(backend: Backend, place: &Place, effort: Effort) -> Self {
        let bench = bench::open(backend, &place.urls, true).await;
        let peer = if bench.is_shared() { Some(Peer::start(backend, &place.urls).await) } else { None };
        Self { backend, bench, peer, effort, rounds: 0 }
    }

    /// Measures all, or these operations only.
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
                    // One caller alone has one build in any case.
                    if load == Load::Spread || callers * processes > 1 {
                        cases.push(Case { operation: Operation::AddStep, callers, load, processes });
                    }
                }
            }
        }
        // Reads first: what comes after them changes the steps that they read.
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
        let (mut ratios, mut store, mut floor) = (Vec::new(), Vec::new(), Vec::new());
        for repetition in 0..self.effort.repetitions {
            let (of_store, of_floor);
            // Each as often the first.
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

    /// How many calls of each caller make a round of about the right length. Finding out warms both sides up.
    async fn calls(&mut self, case: Case, pair: Pair) -> usize {
        // A caller numbers its steps below this.
        const MOST: usize = 1_000_000;
        let mut calls = 1;
        loop {
            let time = self.round(case, pair.measured, calls).await;
            self.round(case, pair.floor, calls).await;
            let aim = self.effort.round / if self.bench.never_waits() { 10 } else { 1 };
            if time * 2 > aim {
                let scaled = calls as f64 * aim.as_secs_f64() / time.as_secs_f64();
                return (scaled as usize).clamp(1, MOST);
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
