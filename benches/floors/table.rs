//! The printed table and its introduction.

use comfy_table::Table;

use crate::{
    compare::{Effort, Figure},
    support::{figures, statistics::readable},
};

pub(crate) fn introduction(effort: Effort) -> String {
    let build =
        if cfg!(debug_assertions) { "This build is not optimised: its figures say nothing about speed.\n" } else { "" };
    format!(
        "Each store compared with its floor, the plainest correct use of the bare driver, with the same durability.
ratio   time of the store over time of the floor; less is better, and 1 is as fast as the floor. Both run in
        turns, {} times each, in rounds of about {:?}: the median, the least and the greatest ratio.
us      the time of a round divided by its calls, in microseconds: with many callers, the inverse of the throughput.
load    spread: each caller has a build of its own; hot: all callers add to one build.
{build}",
        effort.repetitions, effort.round,
    )
}

pub(crate) fn table(figures: &[Figure]) -> Table {
    let header =
        ["operation", "callers", "load", "processes", "store us", "floor us", "ratio", "least", "greatest", "floor"];
    let row = |figure: &Figure| {
        [
            figure.operation.to_string(),
            figure.callers.to_string(),
            figure.load.to_string(),
            figure.processes.to_string(),
            readable(figure.store_us),
            readable(figure.floor_us),
            format!("{:.2}", figure.ratio),
            format!("{:.2}", figure.ratio_min),
            format!("{:.2}", figure.ratio_max),
            figure.floor.to_owned(),
        ]
    };
    figures::table(header, [1, 3, 4, 5, 6, 7, 8], figures.iter().map(row))
}
