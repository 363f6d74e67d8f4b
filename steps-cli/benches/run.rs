//! The cost of recording a command: `steps run -- true` on a SQLite file compared with `true`, each as a whole
//! process, in turns.
//!
//! `cargo bench -p steps-cli --bench run`. The difference is the cost of three writes (add, start, finish), each
//! of which waits for the disk, and of one more process.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const REPETITIONS: usize = 101;

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the database");
    let store = format!("sqlite:{}", folder.path().join("steps.db").display());
    let mut differences = Vec::new();
    let mut recorded = Vec::new();
    let mut bare = Vec::new();
    for repetition in 0..=REPETITIONS {
        let with = time(
            Command::new(env!("CARGO_BIN_EXE_steps")).args(["--store", &store, "run", "--build", "1", "--", "true"]),
        );
        let without = time(&mut Command::new("true"));
        // The first repetition creates the file.
        if repetition > 0 {
            differences.push(with.as_secs_f64() * 1e3 - without.as_secs_f64() * 1e3);
            recorded.push(with.as_secs_f64() * 1e3);
            bare.push(without.as_secs_f64() * 1e3);
        }
    }
    println!(
        "steps run -- true, on SQLite with synchronous=FULL, and true; the median of {REPETITIONS} in turns, in ms"
    );
    println!("steps run -- true: {:.2}", median(&mut recorded));
    println!("true:              {:.2}", median(&mut bare));
    differences.sort_by(f64::total_cmp);
    let least = differences[0];
    let greatest = differences[REPETITIONS - 1];
    println!("the difference:    {:.2} ({least:.2} to {greatest:.2})", differences[REPETITIONS / 2]);
}

fn time(command: &mut Command) -> Duration {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).status().expect("the program starts");
    let time = start.elapsed();
    assert!(status.success(), "{command:?} failed");
    time
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
