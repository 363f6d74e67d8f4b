//! The table of a build's steps, and the table of one step.

use std::io;

use anstream::{AutoStream, ColorChoice};
use comfy_table::{Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, TableStyle, presets};
use steps::{Step, Timestamp};

use super::{duration, status::Status, text};

/// The length at which a state string is cut in the table; `steps get` prints all of it.
const STATE_CHARACTERS: usize = 300;
/// The most lines of a row on a narrow terminal.
const ROW_LINES: usize = 6;

/// The width and the colours of the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// The number of columns; `None` without a limit.
    pub(crate) width: Option<u16>,
    /// Whether colours are shown.
    pub(crate) color: bool,
}

impl Look {
    /// The look of standard output.
    pub(crate) fn of_stdout() -> Self {
        let width = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0);
        let color = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        Self { width, color }
    }

    pub(super) fn table(self) -> Table {
        let mut table = Table::new();
        table.force_no_tty().load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic);
        if let Some(width) = self.width {
            table.set_width(width);
        }
        if self.color {
            table.enforce_styling();
        }
        table
    }
}

/// No borders: they cost width and get in the way when text is copied.
const STYLE: TableStyle = presets::NOTHING;

/// The steps of a build.
#[derive(Debug)]
pub(crate) struct Steps {
    /// The table.
    pub(crate) table: String,
    /// The urls to print under the table, if they are no column of it.
    pub(crate) urls: String,
}

/// The table of a build's steps, with hidden steps marked.
///
/// The urls are a column if the table then fits the width. Otherwise they follow the table, a line each, so that
/// no url is wrapped.
pub(crate) fn of_steps<'a>(steps: impl Iterator<Item = &'a Step> + Clone, now: Timestamp, look: Look) -> Steps {
    let with_urls = steps_table(steps.clone(), now, look, true);
    if fits(&with_urls, look) {
        return Steps { table: lines(&with_urls), urls: String::new() };
    }
    let table = lines(&steps_table(steps.clone(), now, look, false));
    let has_urls = steps.clone().any(|step| !step.urls.is_empty());
    Steps { table, urls: if has_urls { format!("\n{}", lines(&urls_table(steps, look))) } else { String::new() } }
}

fn steps_table<'a>(steps: impl Iterator<Item = &'a Step>, now: Timestamp, look: Look, urls: bool) -> Table {
    let mut table = look.table();
    let headers = ["#", "NAME", "STATE", "RESULT", "TIME", "WAITED", "URLS"];
    table.set_header(headers.iter().take(if urls { 7 } else { 6 }).map(header));
    for step in steps {
        let status = Status::of(step);
        let mut result = Cell::new(status.name());
        if let Some(color) = status.color() {
            result = result.fg(color);
        }
        let mut cells = vec![
            Cell::new(step.number),
            Cell::new(name(step)),
            Cell::new(text::shown_start(step.state_string.as_str(), STATE_CHARACTERS)),
            result,
            duration_cell(duration::of_step(step, now)),
            duration_cell(duration::of_waiting(step, now)),
        ];
        if urls {
            cells.push(Cell::new(step.urls.iter().map(url).collect::<Vec<_>>().join("\n")));
        }
        let mut row = comfy_table::Row::from(cells);
        row.max_height(ROW_LINES);
        table.add_row(row);
    }
    separate_columns(&mut table);
    for (index, column) in table.column_iter_mut().enumerate() {
        if matches!(index, 0 | 4 | 5) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if !matches!(index, 1 | 2) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table
}

fn urls_table<'a>(steps: impl Iterator<Item = &'a Step>, look: Look) -> Table {
    // Without a limit of width: a url is not wrapped.
    let mut table = Look { width: None, ..look }.table();
    table.set_header(["#", "URLS"].iter().map(header));
    for step in steps {
        for one in &step.urls {
            table.add_row([step.number.to_string(), url(one)]);
        }
    }
    separate_columns(&mut table);
    if let Some(numbers) = table.column_mut(0) {
        numbers.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The table of one step, a line for each field, without cuts.
pub(crate) fn of_step(step: &Step, now: Timestamp, look: Look) -> String {
    let mut table = look.table();
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    let duration =
        |duration: Option<duration::Duration>| duration.map(|duration| duration.to_string()).unwrap_or_default();
    let status = Status::of(step);
    let mut result = Cell::new(match step.results {
        Some(results) if results.name().is_some() => format!("{results} ({})", results.code()),
        _ => status.name().into_owned(),
    });
    if let Some(color) = status.color() {
        result = result.fg(color);
    }
    for (name, value) in [
        ("id", Cell::new(step.id)),
        ("build", Cell::new(step.build_id)),
        ("number", Cell::new(step.number)),
        ("name", Cell::new(text::shown(step.name.as_str()))),
        ("state", Cell::new(text::shown(step.state_string.as_str()))),
        ("result", result),
        ("started", Cell::new(time(step.started_at))),
        ("locks acquired", Cell::new(time(step.locks_acquired_at))),
        ("complete", Cell::new(time(step.complete_at))),
        ("time", Cell::new(duration(duration::of_step(step, now)))),
        ("waited", Cell::new(duration(duration::of_waiting(step, now)))),
        ("urls", Cell::new(step.urls.iter().map(url).collect::<Vec<_>>().join("\n"))),
        ("hidden", Cell::new(if step.hidden { "yes" } else { "no" })),
    ] {
        table.add_row([header(&name), value]);
    }
    separate_columns(&mut table);
    if let Some(names) = table.column_mut(0) {
        names.set_constraint(ColumnConstraint::ContentWidth);
    }
    lines(&table)
}

/// A table with a name and a text in each line. The texts must be escaped already.
pub(crate) fn of_fields<'a>(fields: impl IntoIterator<Item = (&'a str, String)>, look: Look) -> String {
    let mut table = look.table();
    for (name, value) in fields {
        table.add_row([header(&name), Cell::new(value)]);
    }
    separate_columns(&mut table);
    if let Some(names) = table.column_mut(0) {
        names.set_constraint(ColumnConstraint::ContentWidth);
    }
    lines(&table)
}

/// A url with its name.
pub(crate) fn url(url: &steps::StepUrl) -> String {
    match (url.name(), url.url()) {
        ("", url) => text::shown(url).into_owned(),
        (name, url) => format!("{}: {}", text::shown(name), text::shown(url)),
    }
}

/// The name of a step, with a mark if the step is hidden.
pub(crate) fn name(step: &Step) -> String {
    let name = text::shown(step.name.as_str());
    if step.hidden { format!("{name} (hidden)") } else { name.into_owned() }
}

pub(super) fn header(name: &&str) -> Cell {
    Cell::new(name).add_attribute(Attribute::Bold)
}

fn duration_cell(duration: Option<duration::Duration>) -> Cell {
    Cell::new(duration.map(|duration| duration.to_string()).unwrap_or_default())
}

/// Pads all columns but the last with two blanks.
pub(super) fn separate_columns(table: &mut Table) {
    let last = table.column_count().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding(if index == last { (0, 0) } else { (0, 2) });
    }
}

/// Whether all columns fit without wrapping.
fn fits(table: &Table, look: Look) -> bool {
    let columns = table.column_iter().zip(table.column_max_content_widths());
    let natural: usize = columns.map(|(column, width)| usize::from(width) + usize::from(column.padding_width())).sum();
    look.width.is_none_or(|width| natural <= usize::from(width))
}

pub(super) fn lines(table: &Table) -> String {
    let mut shown = String::new();
    for line in table.lines() {
        shown.push_str(line.trim_end());
        shown.push('\n');
    }
    shown
}
