//! The cost of a call as its build, its step or the store grows, which should not matter.
//!
//! `cargo bench -p steps --features full --bench growth -- [BACKEND…] [--quick] [--json FILE] [--svg FILE]`. With
//! `--buildbot PYTHON`, an interpreter that has Buildbot, Buildbot's own connector is measured too.

mod measure;
mod plot;
#[path = "../support/mod.rs"]
mod support;

use std::{fs, path::PathBuf};

use clap::Parser;
use comfy_table::Table;
use serde::{Deserialize, Serialize};

use crate::{
    measure::{Operation, Sizes},
    support::{buildbot::Buildbot, figures, locations::Location, statistics::readable},
};

/// Measures the cost of calls as builds, steps and the store grow.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: support::arguments::Common,
    /// Draw the cost of adds and urls to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Measure nothing, and read the figures from these files that `--json` wrote, to draw several runs in one plot
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
    /// Measure Buildbot too, with this Python interpreter that has it
    #[arg(long, value_name = "PYTHON")]
    buildbot: Option<PathBuf>,
}

/// A line of the table, and an object of the JSON.
#[derive(Deserialize, Serialize)]
struct Figure {
    backend: String,
    operation: Operation,
    size: usize,
    us: f64,
    over_smallest: f64,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let all = if arguments.from.is_empty() { measure(&arguments).await } else { read(&arguments.from) };
    if let Some(file) = arguments.common.json {
        figures::write_json(&file, &all);
    }
    if let Some(file) = arguments.svg {
        fs::write(file, plot::svg(&all)).expect("the file of the plot is written");
    }
}

fn read(files: &[PathBuf]) -> Vec<Figure> {
    let read = |file: &PathBuf| -> Vec<Figure> {
        let json = fs::read_to_string(file).expect("the file of the figures is read");
        serde_json::from_str(&json).expect("it has figures of this bench")
    };
    files.iter().flat_map(read).collect()
}

async fn measure(arguments: &Arguments) -> Vec<Figure> {
    let sizes = if arguments.common.quick { Sizes::quick() } else { Sizes::full() };
    println!(
        "The time of one call of one caller, the median of {}, in microseconds; sizes take turns.\n{}",
        sizes.calls,
        Operation::legend(),
    );
    let mut figures = Vec::new();
    for &backend in arguments.common.backends() {
        let location = Location::new(backend);
        println!("\n{backend} ({})", location.durability);
        let mut of_store = Vec::new();
        for operation in Operation::ALL {
            let times = measure::of_store(location.url(), operation, &sizes).await;
            of_store.extend(figures_of(&backend.to_string(), operation, &times));
        }
        println!("{}", table(&of_store));
        figures.extend(of_store);
        if let Some(python) = &arguments.buildbot
            && let Some(mut buildbot) = Buildbot::start(python, backend, &location).await
        {
            let name = format!("buildbot-{backend}");
            let mut of_buildbot = Vec::new();
            for operation in [Operation::AddStepSameName, Operation::AddUrl] {
                let times = measure::of_buildbot(&mut buildbot, operation, &sizes).await;
                of_buildbot.extend(figures_of(&name, operation, &times));
            }
            println!("{}", table(&of_buildbot));
            figures.extend(of_buildbot);
        }
    }
    figures
}

fn figures_of(backend: &str, operation: Operation, times: &[(usize, f64)]) -> Vec<Figure> {
    let smallest = times[0].1;
    let figure = |&(size, us): &(usize, f64)| Figure {
        backend: backend.to_owned(),
        operation,
        size,
        us,
        over_smallest: us / smallest,
    };
    times.iter().map(figure).collect()
}

fn table(figures: &[Figure]) -> Table {
    let row = |figure: &Figure| {
        let over = format!("{:.2}", figure.over_smallest);
        [figure.operation.to_string(), figure.size.to_string(), readable(figure.us), over]
    };
    figures::table(["operation", "size", "us", "over the smallest"], 1..4, figures.iter().map(row))
}
