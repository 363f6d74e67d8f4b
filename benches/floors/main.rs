//! The cost of the stores compared with their floors. A floor is the plainest correct code with the bare driver.
//!
//! `cargo bench -p steps --features full --bench floors -- [BACKEND…] [--quick] [--json FILE]`
//!
//! Store and floor run in turns, in rounds of the same calls; the result is the ratio of their times. The floors
//! are in the module of each backend, the measurement is in `round` and `compare`.

mod bench;
mod compare;
mod memory;
mod peer;
mod postgres;
mod redis;
mod round;
mod sqlite;
mod subject;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::time::Duration;

use clap::Parser;

use crate::{
    compare::{Comparison, Effort},
    support::{figures, locations::Location},
};

/// Compares the stores with the plainest correct use of the bare driver.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: support::arguments::Common,
    /// Measure these operations only
    #[arg(long, value_enum, value_name = "OPERATION")]
    only: Vec<round::Operation>,
    /// Run as the second process, on the stores at these URLs
    #[arg(long, hide = true, value_name = "URL")]
    peer_at: Vec<String>,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    if let ([_, ..], [backend]) = (&*arguments.peer_at, arguments.common.backends()) {
        return peer::serve(*backend, &arguments.peer_at).await;
    }
    let effort = if arguments.common.quick {
        Effort { repetitions: 7, round: Duration::from_millis(10) }
    } else {
        Effort { repetitions: 15, round: Duration::from_millis(100) }
    };
    print!("{}", table::introduction(effort));
    let mut all = Vec::new();
    for backend in arguments.common.backends() {
        let location = Location::new(*backend);
        let found = Comparison::new(*backend, &location, effort).await.run(&arguments.only).await;
        println!("\n{backend} ({})\n{}", location.durability, table::table(&found));
        all.extend(found);
    }
    if let Some(file) = arguments.common.json {
        figures::write_json(&file, &all);
    }
}
