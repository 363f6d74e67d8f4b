//! Tables without borders: they cost width and get in the way when text is copied.
//!
//! A table is measured in a first pass over its rows and written in a second one, so that only one row is in memory.
//! The cost of a cell is linear in the length of its text.

use std::{
    borrow::Cow,
    io::{self, IsTerminal},
    iter,
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{Ansi256Color, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The blanks between two columns.
const SEPARATOR: usize = 2;
/// The width up to which a column is aligned without a terminal. A longer text only moves the rest of its own row, so
/// that one long text does not fill all other rows with blanks.
const MAX_ALIGNED: usize = 100;
/// The least width for the text of a column that wraps, before a narrow terminal costs a column.
const MIN_WRAPPED: usize = 8;

/// The width and the colours of the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// The number of columns; `None` without a limit.
    pub(crate) width: Option<usize>,
    /// Whether colours are shown.
    pub(crate) color: bool,
}

impl Look {
    /// The look of standard output.
    pub(crate) fn of_stdout() -> Self {
        let size = terminal_size::terminal_size_of(io::stdout()).filter(|_| io::stdout().is_terminal());
        let color = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        Self { width: size.map(|(width, _)| usize::from(width.0)), color }
    }
}

/// Receives the lines of a table.
pub(crate) type Lines<'a> = &'a mut dyn FnMut(&str) -> io::Result<()>;

/// A column of a table.
#[derive(Debug)]
pub(super) struct Column {
    title: Cow<'static, str>,
    is_right_aligned: bool,
    wraps: bool,
    /// The order in which a narrow terminal leaves out columns: the greatest first. 0 is never left out.
    dispensable: u8,
    /// The width of its widest cell.
    natural: usize,
    is_shown: bool,
}

impl Column {
    /// A column as wide as its widest cell.
    pub(super) fn new(title: impl Into<Cow<'static, str>>) -> Self {
        let title = title.into();
        let natural = width(&title);
        Self { title, is_right_aligned: false, wraps: false, dispensable: 0, natural, is_shown: true }
    }

    pub(super) fn right_aligned(mut self) -> Self {
        self.is_right_aligned = true;
        self
    }

    /// Wraps the texts on a narrow terminal.
    pub(super) fn wrapped(mut self) -> Self {
        self.wraps = true;
        self
    }

    /// Allows a narrow terminal to leave out the column, before columns with a smaller `order`.
    pub(super) fn dispensable(mut self, order: u8) -> Self {
        self.dispensable = order;
        self
    }
}

/// A cell of a table. Its text must be escaped already, except for the line feeds of a text of several lines.
#[derive(Clone, Debug)]
pub(super) struct Cell<'a> {
    text: Cow<'a, str>,
    style: Style,
    overflow: Overflow,
}

/// The shown part of a text that does not fit a terminal. Without a terminal all of it is shown.
#[derive(Clone, Copy, Debug)]
enum Overflow {
    /// All of it, wrapped.
    Wrapped,
    /// All of it, wider than the column: a url that is wrapped cannot be copied.
    Unwrapped,
    /// The first lines of the wrapped text.
    Start { limit: usize },
    /// The start and the end, on this number of lines.
    Ends { limit: usize },
    /// The first lines, each of them whole, and the number of the others.
    Counted { limit: usize },
}

/// The space for a cell.
#[derive(Clone, Copy, Debug)]
enum Space {
    /// No terminal.
    Unlimited,
    /// A column of a terminal that is as wide as its widest cell.
    Natural,
    /// A column of a terminal that has this width.
    Wrapping(usize),
}

impl<'a> Cell<'a> {
    pub(super) fn new(text: impl Into<Cow<'a, str>>) -> Self {
        Self { text: text.into(), style: Style::new(), overflow: Overflow::Wrapped }
    }

    pub(super) fn title(text: impl Into<Cow<'a, str>>) -> Self {
        Self { style: Style::new().bold(), ..Self::new(text) }
    }

    pub(super) fn colored(mut self, color: Option<Ansi256Color>) -> Self {
        self.style = Style::new().fg_color(color.map(Into::into));
        self
    }

    /// Shows each line whole, even if it is wider than the column.
    pub(super) fn unwrapped(mut self) -> Self {
        self.overflow = Overflow::Unwrapped;
        self
    }

    /// Shows the first `limit` lines on a terminal.
    pub(super) fn start(mut self, limit: usize) -> Self {
        self.overflow = Overflow::Start { limit };
        self
    }

    /// Shows both ends of a text that takes more than `limit` lines on a terminal. Texts that differ only in their end
    /// then stay different.
    pub(super) fn ends(mut self, limit: usize) -> Self {
        self.overflow = Overflow::Ends { limit };
        self
    }

    /// Shows at most `limit` lines on a terminal, the last of them with the number of the others.
    pub(super) fn counted(mut self, limit: usize) -> Self {
        self.overflow = Overflow::Counted { limit };
        self
    }

    fn lines(&self, space: Space) -> Vec<Cow<'_, str>> {
        let lines = || self.text.split('\n');
        match (space, self.overflow) {
            (Space::Natural | Space::Wrapping(_), Overflow::Counted { limit }) if lines().count() > limit => {
                let shown = limit.saturating_sub(1);
                let rest = format!("… {} more", lines().count() - shown);
                lines().take(shown).map(Cow::Borrowed).chain([rest.into()]).collect()
            }
            (Space::Wrapping(width), Overflow::Wrapped) => {
                lines().flat_map(|line| Wrapped::new(line, width)).map(Cow::Borrowed).collect()
            }
            (Space::Wrapping(width), Overflow::Start { limit }) => start(&self.text, width, limit),
            (Space::Wrapping(width), Overflow::Ends { limit }) => ends(&self.text, width, limit),
            _ => lines().map(Cow::Borrowed).collect(),
        }
    }
}

/// A table of which the rows are being measured.
#[derive(Debug)]
pub(super) struct Layout {
    columns: Vec<Column>,
    look: Look,
}

impl Layout {
    pub(super) fn new(look: Look, columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), look }
    }

    /// Makes the columns wide enough for this row.
    pub(super) fn measure(&mut self, row: &[Cell<'_>]) {
        for (column, cell) in self.columns.iter_mut().zip(row) {
            let widest = cell.text.split('\n').map(width).max().unwrap_or(0);
            let widest = if self.look.width.is_none() { widest.min(MAX_ALIGNED) } else { widest };
            column.natural = column.natural.max(widest);
        }
    }

    /// Hides a column.
    pub(super) fn hide(&mut self, index: usize) {
        if let Some(column) = self.columns.get_mut(index) {
            column.is_shown = false;
        }
    }

    /// Whether all columns fit without wrapping.
    pub(super) fn fits(&self) -> bool {
        let widths: usize = self.shown().map(|column| column.natural).sum();
        self.look.width.is_none_or(|width| widths + self.separators() <= width)
    }

    /// Distributes the width of the terminal over the columns. A narrow terminal leaves out columns first.
    pub(super) fn arranged(mut self) -> Arranged {
        let Some(width) = self.look.width else {
            let widths = self.columns.iter().map(|column| column.natural).collect();
            return Arranged { layout: self, widths };
        };
        while self.available(width) < self.shown_wrapping().map(|column| column.natural.min(MIN_WRAPPED)).sum() {
            let dispensable = self.columns.iter_mut().filter(|column| column.is_shown && column.dispensable > 0);
            let Some(column) = dispensable.max_by_key(|column| column.dispensable) else { break };
            column.is_shown = false;
        }
        // Each column gets an equal share of the width, unless it needs less.
        let mut available = self.available(width);
        let mut widths: Vec<_> = self.columns.iter().map(|column| column.natural).collect();
        let mut wrapping: Vec<_> = (0..widths.len()).filter(|index| self.wraps(*index)).collect();
        wrapping.sort_by_key(|index| widths[*index]);
        for (position, index) in wrapping.iter().enumerate() {
            let share = available / (wrapping.len() - position);
            widths[*index] = widths[*index].min(share).max(1);
            available = available.saturating_sub(widths[*index]);
        }
        Arranged { layout: self, widths }
    }

    fn shown(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.is_shown)
    }

    fn shown_wrapping(&self) -> impl Iterator<Item = &Column> {
        self.shown().filter(|column| column.wraps)
    }

    fn wraps(&self, index: usize) -> bool {
        self.columns.get(index).is_some_and(|column| column.is_shown && column.wraps)
    }

    fn separators(&self) -> usize {
        SEPARATOR * self.shown().count().saturating_sub(1)
    }

    /// The width that is left for the columns that wrap.
    fn available(&self, width: usize) -> usize {
        let fixed: usize = self.shown().filter(|column| !column.wraps).map(|column| column.natural).sum();
        width.saturating_sub(fixed + self.separators())
    }
}

/// A table with the widths of its columns.
#[derive(Debug)]
pub(super) struct Arranged {
    layout: Layout,
    widths: Vec<usize>,
}

impl Arranged {
    /// Writes the titles of the columns.
    pub(super) fn header(&self, lines: Lines<'_>) -> io::Result<()> {
        let titles: Vec<_> = self.layout.columns.iter().map(|column| Cell::title(&*column.title)).collect();
        self.row(&titles, lines)
    }

    /// Writes a row, which was measured before.
    pub(super) fn row(&self, row: &[Cell<'_>], lines: Lines<'_>) -> io::Result<()> {
        let columns = self.layout.columns.iter().zip(&self.widths).zip(row);
        let shown = columns.filter(|((column, _), _)| column.is_shown);
        let cells: Vec<_> = shown
            .map(|((column, width), cell)| (column, *width, cell.style, cell.lines(self.space(column, *width))))
            .collect();
        let height = cells.iter().map(|(.., shown)| shown.len()).max().unwrap_or(0);
        let mut line = String::new();
        for index in 0..height {
            line.clear();
            let mut blanks = 0;
            for (column, width, style, shown) in &cells {
                let text = shown.get(index).map_or("", |text| text);
                let padding = width.saturating_sub(self::width(text));
                let (before, after) = if column.is_right_aligned { (padding, 0) } else { (0, padding) };
                blanks += before;
                if !text.is_empty() {
                    line.extend(iter::repeat_n(' ', blanks));
                    blanks = 0;
                    self.push(&mut line, text, *style);
                }
                blanks += after + SEPARATOR;
            }
            lines(line.trim_end())?;
        }
        Ok(())
    }

    fn space(&self, column: &Column, width: usize) -> Space {
        match self.layout.look.width {
            None => Space::Unlimited,
            Some(_) if column.wraps => Space::Wrapping(width),
            Some(_) => Space::Natural,
        }
    }

    fn push(&self, line: &mut String, text: &str, style: Style) {
        if self.layout.look.color && !style.is_plain() {
            line.push_str(&format!("{style}{text}{style:#}"));
        } else {
            line.push_str(text);
        }
    }
}

/// The number of columns of a terminal that a text takes.
pub(super) fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

/// A text on lines of this width, broken at blanks if possible. A character that is wider has a line for itself.
pub(super) struct Wrapped<'a> {
    rest: Option<&'a str>,
    width: usize,
}

impl<'a> Wrapped<'a> {
    pub(super) fn new(text: &'a str, width: usize) -> Self {
        Self { rest: Some(text), width }
    }
}

impl<'a> Iterator for Wrapped<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest.take()?;
        let Some(end) = end_of_prefix(text.chars(), self.width) else { return Some(text) };
        // A line has as many bytes as its width allows, so that the search for a blank is short.
        let (line, rest) = match text[..end].rfind(' ') {
            _ if text[end..].starts_with(' ') => (&text[..end], &text[end + 1..]),
            Some(blank) if blank > 0 => (&text[..blank], &text[blank + 1..]),
            _ => text.split_at(end),
        };
        self.rest = Some(rest);
        Some(line)
    }
}

/// The length in bytes of the longest prefix that fits, but at least one character; `None` if all of the text fits. A
/// character without a width belongs to the one before.
fn end_of_prefix(text: impl Iterator<Item = char>, width: usize) -> Option<usize> {
    let mut end = 0;
    let mut used = 0;
    for c in text {
        used += c.width().unwrap_or(0) + usize::from(c == '\u{fe0f}');
        if used > width && end > 0 {
            return Some(end);
        }
        end += c.len_utf8();
    }
    None
}

/// The first lines of the wrapped text. An ellipsis marks that there are more.
fn start(text: &str, width: usize, limit: usize) -> Vec<Cow<'_, str>> {
    let mut lines: Vec<_> = Wrapped::new(text, width).take(limit + 1).map(Cow::Borrowed).collect();
    if lines.len() > limit {
        lines.truncate(limit);
        if let Some(last) = lines.last_mut() {
            let end = end_of_prefix(last.chars(), width.saturating_sub(1)).unwrap_or(last.len());
            *last = format!("{}…", &last[..end]).into();
        }
    }
    lines
}

/// The wrapped text if it fits `limit` lines, otherwise its start and its end around an ellipsis.
fn ends(text: &str, width: usize, limit: usize) -> Vec<Cow<'_, str>> {
    let lines: Vec<_> = Wrapped::new(text, width).take(limit + 1).map(Cow::Borrowed).collect();
    if lines.len() <= limit {
        return lines;
    }
    // The end of a line may stay empty before a wide character.
    let half = limit * width.saturating_sub(1) / 2;
    let head = end_of_prefix(text.chars(), half).unwrap_or(text.len());
    let tail = text.len() - end_of_prefix(text.chars().rev(), half).unwrap_or(text.len());
    let text = format!("{}…{}", &text[..head], &text[tail.max(head)..]);
    let mut rest = text.as_str();
    let next = || {
        let (line, other) = rest.split_at(end_of_prefix(rest.chars(), width).unwrap_or(rest.len()));
        rest = other;
        (!line.is_empty()).then(|| Cow::Owned(line.to_owned()))
    };
    iter::from_fn(next).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrapped(text: &str, width: usize) -> Vec<&str> {
        Wrapped::new(text, width).collect()
    }

    fn table(width: Option<usize>, columns: Vec<Column>, rows: &[&[Cell<'_>]]) -> String {
        let mut layout = Layout::new(Look { width, color: false }, columns);
        rows.iter().for_each(|row| layout.measure(row));
        let arranged = layout.arranged();
        let mut shown = String::new();
        let mut push = |line: &str| {
            shown.extend([line, "\n"]);
            Ok(())
        };
        arranged.header(&mut push).unwrap();
        rows.iter().for_each(|row| arranged.row(row, &mut push).unwrap());
        shown
    }

    #[test]
    fn text_is_broken_at_blanks_if_possible() {
        assert_eq!(wrapped("", 3), [""]);
        assert_eq!(wrapped("ab cd", 5), ["ab cd"]);
        assert_eq!(wrapped("ab cd", 4), ["ab", "cd"]);
        assert_eq!(wrapped("ab cd", 2), ["ab", "cd"]);
        assert_eq!(wrapped("abcde f", 3), ["abc", "de", "f"]);
        assert_eq!(wrapped("漢字é", 3), ["漢", "字é"]);
        assert_eq!(wrapped("漢", 1), ["漢"]);
        assert_eq!(wrapped("e\u{301}e\u{301}", 1), ["e\u{301}", "e\u{301}"]);
    }

    #[test]
    fn a_long_text_is_cut_at_its_end_and_a_name_in_its_middle() {
        assert_eq!(start("abcdef", 3, 2), ["abc", "def"]);
        assert_eq!(start("abcdefg", 3, 2), ["abc", "de…"]);
        assert_eq!(ends("abcdef", 3, 2), ["abc", "def"]);
        assert_eq!(ends("abcdefg", 3, 2), ["ab…", "fg"]);
        assert_eq!(ends("a b c d e f", 2, 2), ["a…", "f"]);
    }

    #[test]
    fn the_width_is_shared_and_a_narrow_terminal_leaves_out_columns() {
        let columns = || {
            vec![
                Column::new("NAME").wrapped(),
                Column::new("STATE").wrapped().dispensable(1),
                Column::new("TIME").right_aligned().dispensable(2),
            ]
        };
        let row = &[Cell::new("compile it all"), Cell::new("make -j4"), Cell::new("1m")][..];
        let wide = "NAME            STATE     TIME\ncompile it all  make -j4    1m\n";
        assert_eq!(table(None, columns(), &[row]), wide);
        assert_eq!(table(Some(30), columns(), &[row]), wide);
        let shared = "NAME        STATE     TIME\ncompile it  make -j4    1m\nall\n";
        assert_eq!(table(Some(26), columns(), &[row]), shared);
        assert_eq!(table(Some(20), columns(), &[row]), "NAME        STATE\ncompile it  make -j4\nall\n");
        assert_eq!(table(Some(17), columns(), &[row]), "NAME\ncompile it all\n");
        assert_eq!(table(Some(8), columns(), &[row]), "NAME\ncompile\nit all\n");
    }

    #[test]
    fn a_long_text_moves_only_its_own_row_without_a_terminal() {
        let long = "x".repeat(300);
        let columns = vec![Column::new("A"), Column::new("B")];
        let rows: [&[Cell<'_>]; 2] = [&[Cell::new(&*long), Cell::new("1")], &[Cell::new("y"), Cell::new("2")]];
        let shown = table(None, columns, &rows);
        let blank = |count| " ".repeat(count);
        assert_eq!(shown, format!("A{}B\n{long}  1\ny{}2\n", blank(101), blank(101)));
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_on_a_terminal_only() {
        let row = [Cell::new("a\nb\nc\nd").counted(3)];
        let columns = || vec![Column::new("URLS")];
        assert_eq!(table(Some(80), columns(), &[&row]), "URLS\na\nb\n… 2 more\n");
        assert_eq!(table(None, columns(), &[&row]), "URLS\na\nb\nc\nd\n");
    }

    proptest! {
        #[test]
        fn wrapped_lines_fit_and_lose_nothing_but_blanks(text in "[a-c 漢\u{301}]{0,60}", size in 2..12_usize) {
            let lines = wrapped(&text, size);
            prop_assert!(lines.iter().all(|line| width(line) <= size));
            prop_assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
        }
    }
}
