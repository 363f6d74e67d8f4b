//! The load of a CI system: concurrent builds that add, update and read their steps.
//!
//! `cargo bench -p steps --features full --bench lifecycle -- [BACKEND…] [--quick] [--json FILE]`. With
//! `--buildbot PYTHON`, an interpreter that has Buildbot, Buildbot's own connector runs the same load on the same
//! kind of database in turns: `benches/buildbot/compare` installs one.

mod life;
#[path = "../support/mod.rs"]
mod support;

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use comfy_table::Table;
use serde::Serialize;
use serde_json::json;

use crate::{
    life::Lives,
    support::{
        buildbot::Buildbot,
        figures,
        locations::{Backend, Location},
        payload::{STATE, URL_NAME},
        statistics::{median, readable},
    },
};

/// Measures whole lives of steps, in concurrent builds.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: support::arguments::Common,
    /// Measure Buildbot too, with this Python interpreter that has it
    #[arg(long, value_name = "PYTHON")]
    buildbot: Option<PathBuf>,
}

/// A line of the table, and an object of the JSON.
#[derive(Serialize)]
struct Figure {
    system: &'static str,
    backend: String,
    in_flight: usize,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Figure {
    /// The medians of all repetitions.
    fn new(system: &'static str, backend: Backend, in_flight: usize, lives: &[Lives]) -> Self {
        let of_all = |value: fn(&Lives) -> f64| median(&lives.iter().map(value).collect::<Vec<_>>());
        Self {
            system,
            backend: backend.to_string(),
            in_flight,
            per_second: of_all(|lives| lives.per_second),
            p50_us: of_all(|lives| lives.p50_us),
            p99_us: of_all(|lives| lives.p99_us),
        }
    }
}

const IN_FLIGHT: [usize; 3] = [1, 16, 128];

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let repetitions = if arguments.common.quick { 1 } else { 3 };
    let time = if arguments.common.quick { Duration::from_millis(100) } else { Duration::from_secs(2) };
    println!(
        "The life of a step: add, start, locks, 3 state strings, 2 urls, finish; then its build is read. A build has {}
steps, one after the other; builds in flight run concurrently. The times are of whole lives, the median and the 99th
percentile; the figures are the medians of {repetitions} repetitions of about {time:?} each, in turns.",
        life::STEPS,
    );
    let mut all = Vec::new();
    for &backend in arguments.common.backends() {
        let location = Location::new(backend);
        println!("\n{backend} ({})", location.durability);
        let store = steps::connect(location.url()).await.expect("the store opens");
        let mut buildbot = match &arguments.buildbot {
            Some(python) => Buildbot::start(python, backend, &location).await,
            None => None,
        };
        let mut found = Vec::new();
        for in_flight in IN_FLIGHT {
            let mut ours = Vec::new();
            let mut theirs = Vec::new();
            for _ in 0..repetitions {
                ours.push(life::run(&store, in_flight, time).await);
                if let Some(buildbot) = &mut buildbot {
                    let order = json!({
                        "do": "lifecycle", "in_flight": in_flight, "seconds": time.as_secs_f64(),
                        "steps": life::STEPS, "state": STATE, "url_name": URL_NAME,
                    });
                    theirs.push(buildbot.execute(order).await);
                }
            }
            found.push(Figure::new("steps", backend, in_flight, &ours));
            if !theirs.is_empty() {
                found.push(Figure::new("buildbot", backend, in_flight, &theirs));
            }
        }
        store.close().await.expect("the store closes");
        println!("{}", table(&found));
        all.extend(found);
    }
    if let Some(file) = arguments.common.json {
        figures::write_json(&file, &all);
    }
}

fn table(figures: &[Figure]) -> Table {
    let row = |figure: &Figure| {
        let other = figures.iter().find(|it| it.in_flight == figure.in_flight && it.system != figure.system);
        let times = other.filter(|_| figure.system == "steps").map(|it| figure.per_second / it.per_second);
        [
            figure.system.to_owned(),
            figure.in_flight.to_string(),
            readable(figure.per_second),
            readable(figure.p50_us),
            readable(figure.p99_us),
            times.map(readable).unwrap_or_default(),
        ]
    };
    let header = ["system", "builds in flight", "steps a second", "p50 us", "p99 us", "times as many"];
    figures::table(header, 1..6, figures.iter().map(row))
}
