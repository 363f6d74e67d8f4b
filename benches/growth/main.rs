//! What a call costs as that grows which should not matter to it.
//!
//! `cargo bench -p steps --features full --bench growth -- [BACKEND…] [--quick] [--json FILE] [--svg FILE]`. With
//! `--buildbot PYTHON`, an interpreter that has Buildbot, its own connector is measured too.

mod measure;
mod plot;
#[path = "../support/mod.rs"]
mod support;

use std::{fs, path::PathBuf};

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde::Serialize;

use crate::{
    measure::{Operation, Sizes},
    support::{
        buildbot::Buildbot,
        places::{Backend, Place, or_all},
        statistics::readable,
    },
};

/// Measures what calls cost as builds, steps and the store grow.
#[derive(Parser)]
struct Arguments {
    /// The backends to measure; without any, all
    backends: Vec<Backend>,
    /// Measure small sizes for a moment only, to see that it works
    #[arg(long)]
    quick: bool,
    /// Write the figures into this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the cost of adds and urls into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Measure Buildbot too, with this Python interpreter, which has it
    #[arg(long, value_name = "PYTHON")]
    buildbot: Option<PathBuf>,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
}

/// A line of the table, and an object of the JSON.
#[derive(Serialize)]
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
    let sizes = if arguments.quick { Sizes::quick() } else { Sizes::full() };
    println!(
        "The time of one call of one caller, the median of {}, in microseconds; sizes take turns.\n{}",
        sizes.calls,
        Operation::legend(),
    );
    let mut figures = Vec::new();
    for &backend in or_all(&arguments.backends) {
        let place = Place::new(backend);
        println!("\n{backend} ({})", place.durability);
        let mut found = Vec::new();
        for operation in Operation::ALL {
            let times = measure::of_store(place.url(), operation, &sizes).await;
            found.extend(figures_of(&backend.to_string(), operation, &times));
        }
        println!("{}", table(&found));
        figures.extend(found);
        if let Some(python) = &arguments.buildbot
            && let Some(mut buildbot) = Buildbot::start(python, backend, &place).await
        {
            let name = format!("buildbot-{backend}");
            let mut found = Vec::new();
            for operation in [Operation::AddStepSameName, Operation::AddUrl] {
                let times = measure::of_buildbot(&mut buildbot, operation, &sizes).await;
                found.extend(figures_of(&name, operation, &times));
            }
            println!("{}", table(&found));
            figures.extend(found);
        }
    }
    if let Some(file) = arguments.json {
        let json = serde_json::to_string_pretty(&figures).expect("figures are written as JSON");
        fs::write(file, json + "\n").expect("the file of the figures is written");
    }
    if let Some(file) = arguments.svg {
        fs::write(file, plot::svg(&figures)).expect("the file of the plot is written");
    }
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
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["operation", "size", "us", "over the smallest"]);
    for figure in figures {
        let over = format!("{:.2}", figure.over_smallest);
        table.add_row([figure.operation.to_string(), figure.size.to_string(), readable(figure.us), over]);
    }
    for column in 1..4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
