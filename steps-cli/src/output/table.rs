//! The table of a build's steps, and the table of one step.

use std::{borrow::Cow, io};

use steps::{Step, Timestamp};

use super::{
    duration,
    layout::{Arranged, Cell, Column, Layout, Lines, Look},
    status::Status,
    text,
};

/// The length at which a state string is cut on a terminal; `steps get` prints all of it.
const STATE_CHARACTERS: usize = 300;
/// The most lines of a row on a terminal.
const ROW_LINES: usize = 6;
/// The index of the column with the urls.
const URLS: usize = 6;

/// The table of a build's steps, with hidden steps marked.
///
/// The urls are a column if the table then fits the width. Otherwise they follow the table, a line each, so that no url
/// is wrapped.
#[derive(Debug)]
pub(crate) struct StepsTable<I> {
    steps: I,
    now: Timestamp,
    look: Look,
    arranged: Arranged,
    has_urls_apart: bool,
}

impl<'a, I: Iterator<Item = &'a Step> + Clone> StepsTable<I> {
    /// Measures the steps. `now` is the end of the duration of a running step.
    pub(crate) fn new(steps: I, now: Timestamp, look: Look) -> Self {
        let mut layout = Layout::new(
            look,
            [
                Column::new("#").right_aligned(),
                Column::new("NAME").wrapped(),
                Column::new("STATE").wrapped().dispensable(1),
                Column::new("RESULT"),
                Column::new("TIME").right_aligned().dispensable(2),
                Column::new("WAITED").right_aligned().dispensable(3),
                Column::new("URLS"),
            ],
        );
        let mut has_urls = false;
        for step in steps.clone() {
            layout.measure(&cells(step, now, look));
            has_urls |= !step.urls.is_empty();
        }
        let has_urls_apart = !layout.fits();
        if has_urls_apart {
            layout.hide(URLS);
        }
        Self { steps, now, look, arranged: layout.arranged(), has_urls_apart: has_urls_apart && has_urls }
    }

    /// Writes the header and the rows.
    pub(crate) fn rows(&self, lines: Lines<'_>) -> io::Result<()> {
        self.arranged.header(lines)?;
        self.steps.clone().try_for_each(|step| self.arranged.row(&cells(step, self.now, self.look), lines))
    }

    /// Whether the urls are not a column of the table.
    pub(crate) fn has_urls_apart(&self) -> bool {
        self.has_urls_apart
    }

    /// Writes the urls if they are not a column of the table, after an empty line.
    pub(crate) fn urls(&self, lines: Lines<'_>) -> io::Result<()> {
        if !self.has_urls_apart {
            return Ok(());
        }
        let columns = [Column::new("#").right_aligned(), Column::new("URLS")];
        let mut layout = Layout::new(Look { width: None, ..self.look }, columns);
        let rows = || {
            let urls = self.steps.clone().flat_map(|step| step.urls.iter().map(move |one| (step.number, one)));
            urls.map(|(number, one)| [Cell::new(number.to_string()), Cell::new(url(one))])
        };
        rows().for_each(|row| layout.measure(&row));
        let arranged = layout.arranged();
        lines("")?;
        arranged.header(lines)?;
        rows().try_for_each(|row| arranged.row(&row, lines))
    }
}

fn cells(step: &Step, now: Timestamp, look: Look) -> [Cell<'_>; 7] {
    let status = Status::of(step);
    let state = step.state_string.as_str();
    let state = if look.width.is_some() { text::shown_start(state, STATE_CHARACTERS) } else { text::shown(state) };
    [
        Cell::new(step.number.to_string()),
        Cell::new(name(step)).ends(ROW_LINES),
        Cell::new(state).start(ROW_LINES),
        Cell::new(status.name()).colored(status.color()),
        duration_cell(duration::of_step(step, now)),
        duration_cell(duration::of_waiting(step, now)),
        urls_cell(step).counted(ROW_LINES),
    ]
}

/// Writes the table of one step, a line for each field, without cuts.
pub(crate) fn of_step(step: &Step, now: Timestamp, look: Look, lines: Lines<'_>) -> io::Result<()> {
    let time = |time: Option<Timestamp>| Cell::new(time.map(|time| time.to_string()).unwrap_or_default());
    let status = Status::of(step);
    let result = match step.results {
        Some(results) if results.name().is_some() => format!("{results} ({})", results.code()).into(),
        _ => status.name(),
    };
    let fields = [
        ("id", Cell::new(step.id.to_string())),
        ("build", Cell::new(step.build_id.to_string())),
        ("number", Cell::new(step.number.to_string())),
        ("name", Cell::new(text::shown(step.name.as_str()))),
        ("state", Cell::new(text::shown(step.state_string.as_str()))),
        ("result", Cell::new(result).colored(status.color())),
        ("started", time(step.started_at)),
        ("locks acquired", time(step.locks_acquired_at)),
        ("complete", time(step.complete_at)),
        ("time", duration_cell(duration::of_step(step, now))),
        ("waited", duration_cell(duration::of_waiting(step, now))),
        ("urls", urls_cell(step).unwrapped()),
        ("hidden", Cell::new(if step.hidden { "yes" } else { "no" })),
    ];
    of_cells(fields, look, lines)
}

/// Writes a table with a name and a text in each line. The texts must be escaped already.
pub(crate) fn of_fields<'a>(
    fields: impl IntoIterator<Item = (&'a str, String)>,
    look: Look,
    lines: Lines<'_>,
) -> io::Result<()> {
    of_cells(fields.into_iter().map(|(name, text)| (name, Cell::new(text))), look, lines)
}

fn of_cells<'a>(fields: impl IntoIterator<Item = (&'a str, Cell<'a>)>, look: Look, lines: Lines<'_>) -> io::Result<()> {
    let rows: Vec<_> = fields.into_iter().map(|(name, cell)| [Cell::title(name), cell]).collect();
    let mut layout = Layout::new(look, [Column::new(""), Column::new("").wrapped()]);
    rows.iter().for_each(|row| layout.measure(row));
    let arranged = layout.arranged();
    rows.iter().try_for_each(|row| arranged.row(row, lines))
}

/// A url with its name.
pub(crate) fn url(url: &steps::StepUrl) -> String {
    match (url.name(), url.url()) {
        ("", url) => text::shown(url).into_owned(),
        (name, url) => format!("{}: {}", text::shown(name), text::shown(url)),
    }
}

/// The name of a step, with a mark if the step is hidden.
pub(crate) fn name(step: &Step) -> Cow<'_, str> {
    let name = text::shown(step.name.as_str());
    if step.hidden { format!("{name} (hidden)").into() } else { name }
}

fn urls_cell(step: &Step) -> Cell<'static> {
    Cell::new(step.urls.iter().map(url).collect::<Vec<_>>().join("\n"))
}

fn duration_cell(duration: Option<duration::Duration>) -> Cell<'static> {
    Cell::new(duration.map(|duration| duration.to_string()).unwrap_or_default())
}
