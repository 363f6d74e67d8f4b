//! What the stores cost beside their floors: the plainest correct thing that one would write with the bare driver.
//!
//! `cargo bench -p steps --features full --bench floors -- [BACKEND…] [--quick] [--json FILE]`
//!
//! Store and floor run in turns, in rounds of the same calls, and what counts is the ratio of their times. The
//! floors are in the module of each backend; what is measured, and how, is in `round` and `compare`.

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
    support::{figures, places::Place},
};

/// Measures the stores beside the plainest correct use of the bare driver.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: support::arguments::Common,
    /// Measure these operations only
    #[arg(long, value_enum, value_name = "OPERATION")]
    only: Vec<round::Operation>,
    /// Be the second process at the place with these URLs
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
        let place = Place::new(*backend);
        let found = Comparison::new(*backend, &place, effort).await.run(&arguments.only).await;
        println!("\n{backend} ({})\n{}", place.durability, table::table(&found));
        all.extend(found);
    }
    if let Some(file) = arguments.common.json {
        figures::write_json(&file, &all);
    }
}
