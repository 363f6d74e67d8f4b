use std::{
    collections::VecDeque,
    io::{self, IsTerminal, Write},
};

use crossterm::{cursor, execute, queue, terminal};
use steps::Step;

use super::{
    layout::{Look, Wrapped},
    table::StepsTable,
};
use crate::command_error::CommandError;

/// The alternate screen of the terminal at standard output. The drop restores the terminal.
#[derive(Debug)]
pub(crate) struct Screen {
    is_entered: bool,
}

impl Screen {
    /// Enters the alternate screen. Returns `None` if standard output is not a terminal, or one without cursor
    /// control.
    pub(crate) fn open() -> Result<Option<Self>, CommandError> {
        if !io::stdout().is_terminal() || !super::terminal_has_cursor() {
            return Ok(None);
        }
        let mut screen = Self { is_entered: false };
        screen.enter()?;
        Ok(Some(screen))
    }

    /// Enters the alternate screen again.
    pub(crate) fn enter(&mut self) -> Result<(), CommandError> {
        self.leave();
        execute!(io::stdout(), terminal::EnterAlternateScreen, terminal::DisableLineWrap, cursor::Hide)
            .map_err(CommandError::Output)?;
        self.is_entered = true;
        Ok(())
    }

    /// Restores the terminal.
    pub(crate) fn leave(&mut self) {
        if self.is_entered {
            // A write fails if the terminal is gone; then there is nothing to restore.
            let _ = execute!(io::stdout(), cursor::Show, terminal::EnableLineWrap, terminal::LeaveAlternateScreen);
            self.is_entered = false;
        }
    }

    /// Draws the table of a build's steps. A table with too many lines is cut to its header and its last lines, since
    /// the last steps of a running build change. The urls that do not fit under it are counted.
    pub(crate) fn draw<'a, I: Iterator<Item = &'a Step> + Clone>(
        &self,
        table: &StepsTable<I>,
    ) -> Result<(), CommandError> {
        let (width, height) = size();
        self.draw_lines(&fit(table, width, height).map_err(CommandError::Output)?, height)
    }

    /// Draws a message.
    pub(crate) fn draw_message(&self, message: &str) -> Result<(), CommandError> {
        let (width, height) = size();
        let lines: Vec<_> = Wrapped::new(message, width).take(height).map(str::to_owned).collect();
        self.draw_lines(&lines, height)
    }

    fn draw_lines(&self, lines: &[String], height: usize) -> Result<(), CommandError> {
        if !self.is_entered {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        let draw = |stdout: &mut io::StdoutLock<'_>| {
            queue!(stdout, terminal::BeginSynchronizedUpdate, cursor::MoveTo(0, 0))?;
            for (index, line) in lines.iter().enumerate() {
                if index > 0 {
                    write!(stdout, "\r\n")?;
                }
                // Cleared before the line is written: after a line as wide as the terminal, clearing would erase
                // its last character.
                queue!(stdout, terminal::Clear(terminal::ClearType::UntilNewLine))?;
                write!(stdout, "{line}")?;
            }
            if lines.len() < height {
                write!(stdout, "\r\n")?;
                queue!(stdout, terminal::Clear(terminal::ClearType::FromCursorDown))?;
            }
            queue!(stdout, terminal::EndSynchronizedUpdate)?;
            stdout.flush()
        };
        draw(&mut stdout).map_err(CommandError::Output)
    }

    /// The look of a table on the screen.
    pub(crate) fn look(&self) -> Look {
        Look { width: Some(size().0), ..Look::of_stdout() }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The width and the height of the terminal.
fn size() -> (usize, usize) {
    let size = terminal_size::terminal_size_of(io::stdout());
    size.map_or((80, 24), |(width, height)| (usize::from(width.0).max(1), usize::from(height.0).max(3)))
}

/// The header and the last lines of a table.
#[derive(Debug)]
struct Tail {
    height: usize,
    header: Option<String>,
    last: VecDeque<String>,
    omitted: usize,
}

impl Tail {
    fn new(height: usize) -> Self {
        Self { height, header: None, last: VecDeque::new(), omitted: 0 }
    }

    fn push(&mut self, line: &str) {
        if self.header.is_none() {
            self.header = Some(line.to_owned());
            return;
        }
        self.last.push_back(line.to_owned());
        // One line is the header and, from the first omitted line on, another one their number.
        let room = self.height.saturating_sub(if self.omitted == 0 { 1 } else { 2 });
        if self.last.len() > room {
            if self.omitted == 0 {
                self.last.pop_front();
                self.omitted += 1;
            }
            self.last.pop_front();
            self.omitted += 1;
        }
    }

    fn lines(self) -> Vec<String> {
        let omitted = (self.omitted > 0).then(|| format!("… {} lines …", self.omitted));
        self.header.into_iter().chain(omitted).chain(self.last).collect()
    }
}

/// The urls under a table, as many as fit, and the number of the others.
#[derive(Debug)]
struct Urls {
    width: usize,
    height: usize,
    used: usize,
    /// The lines of each: the empty line before the header, the header, and the urls.
    shown: Vec<Vec<String>>,
    seen: usize,
}

impl Urls {
    /// The number of lines before the first url.
    const HEADER: usize = 2;

    fn new(width: usize, height: usize) -> Self {
        Self { width, height, used: 0, shown: Vec::new(), seen: 0 }
    }

    fn push(&mut self, line: &str) {
        let is_first_omitted = self.shown.len() == self.seen;
        self.seen += 1;
        // The screen does not wrap lines, and a cut url is of no use.
        let lines: Vec<_> = match self.seen {
            ..=Self::HEADER => vec![line.to_owned()],
            _ => Wrapped::new(line, self.width).map(str::to_owned).collect(),
        };
        if is_first_omitted && self.used + lines.len() <= self.height {
            self.used += lines.len();
            self.shown.push(lines);
        }
    }

    fn lines(mut self) -> Vec<String> {
        let urls = self.seen.saturating_sub(Self::HEADER);
        if self.shown.len() < self.seen {
            while self.used >= self.height
                && let Some(lines) = self.shown.pop()
            {
                self.used -= lines.len();
            }
            let omitted = match self.shown.len().saturating_sub(Self::HEADER) {
                0 => {
                    self.shown.clear();
                    format!("… {urls} {}", if urls == 1 { "url" } else { "urls" })
                }
                shown => format!("… {} more", urls - shown),
            };
            self.shown.push(vec![omitted]);
        }
        self.shown.into_iter().flatten().collect()
    }
}

fn fit<'a, I: Iterator<Item = &'a Step> + Clone>(
    table: &StepsTable<I>,
    width: usize,
    height: usize,
) -> io::Result<Vec<String>> {
    // A line is left for the number of the urls.
    let mut tail = Tail::new(height - usize::from(table.has_urls_apart()));
    table.rows(&mut |line| {
        tail.push(line);
        Ok(())
    })?;
    let mut lines = tail.lines();
    let mut urls = Urls::new(width, height - lines.len());
    table.urls(&mut |line| {
        urls.push(line);
        Ok(())
    })?;
    lines.append(&mut urls.lines());
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(lines: &[&str], height: usize) -> Vec<String> {
        let mut tail = Tail::new(height);
        lines.iter().for_each(|line| tail.push(line));
        tail.lines()
    }

    fn urls(lines: &[&str], width: usize, height: usize) -> Vec<String> {
        let mut urls = Urls::new(width, height);
        ["", "URLS"].iter().chain(lines).for_each(|line| urls.push(line));
        urls.lines()
    }

    #[test]
    fn a_table_that_is_too_long_keeps_its_header_and_its_end() {
        assert_eq!(tail(&["a", "b", "c"], 3), ["a", "b", "c"]);
        assert_eq!(tail(&["a", "b", "c", "d", "e"], 4), ["a", "… 2 lines …", "d", "e"]);
        assert_eq!(tail(&["a", "b", "c"], 2), ["a", "… 2 lines …"]);
    }

    #[test]
    fn each_url_is_shown_whole_or_counted() {
        assert_eq!(urls(&["a", "b"], 9, 4), ["", "URLS", "a", "b"]);
        assert_eq!(urls(&["a", "b"], 9, 3), ["… 2 urls"]);
        assert_eq!(urls(&["a", "b", "c"], 9, 4), ["", "URLS", "a", "… 2 more"]);
        assert_eq!(urls(&["a"], 9, 1), ["… 1 url"]);
        assert_eq!(urls(&["abcdef", "b"], 3, 5), ["", "URLS", "abc", "def", "b"]);
        assert_eq!(urls(&["a", "bcdefg"], 3, 4), ["", "URLS", "a", "… 1 more"]);
        assert_eq!(urls(&["abcdef", "b"], 3, 4), ["… 2 urls"]);
    }
}
