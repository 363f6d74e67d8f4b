use std::{
    env,
    io::{self, IsTerminal, Write},
};

use crossterm::{cursor, execute, queue, terminal};

use crate::command_error::CommandError;

/// The alternate screen of the terminal at standard output. The drop restores the terminal.
#[derive(Debug)]
pub(crate) struct Screen(());

impl Screen {
    /// Enters the alternate screen. Returns `None` if standard output is not a terminal, or one without cursor
    /// control.
    pub(crate) fn enter() -> Result<Option<Self>, CommandError> {
        if !io::stdout().is_terminal() || env::var_os("TERM").is_some_and(|term| term == "dumb") {
            return Ok(None);
        }
        execute!(io::stdout(), terminal::EnterAlternateScreen, terminal::DisableLineWrap, cursor::Hide)
            .map_err(CommandError::Output)?;
        Ok(Some(Self(())))
    }

    /// Draws a table, and under it `rest` if all of it fits. A table with too many lines is cut to its header and
    /// its last lines, since the last steps of a running build change.
    pub(crate) fn draw(&self, table: &str, rest: &str) -> Result<(), CommandError> {
        let height =
            terminal_size::terminal_size_of(io::stdout()).map_or(24, |(_, height)| usize::from(height.0)).max(3);
        let mut stdout = io::stdout().lock();
        let lines = fit(table, rest, height);
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
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A write fails if the terminal is gone; then there is nothing to restore.
        let _ = execute!(io::stdout(), cursor::Show, terminal::EnableLineWrap, terminal::LeaveAlternateScreen);
    }
}

fn fit(table: &str, rest: &str, height: usize) -> Vec<String> {
    let table_lines: Vec<_> = table.lines().collect();
    let rest_lines: Vec<_> = rest.lines().collect();
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    if table_lines.len() + rest_lines.len() <= height {
        return owned(&[table_lines, rest_lines].concat());
    }
    if table_lines.len() <= height {
        return owned(&table_lines);
    }
    // The header, a line with the number of omitted lines, and the last lines.
    let omitted = table_lines.len() - (height - 1);
    let line = format!("… {omitted} lines …");
    [owned(&table_lines[..1]), vec![line], owned(&table_lines[omitted + 1..])].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_too_long_keeps_its_header_and_its_end() {
        assert_eq!(fit("a\nb\nc\n", "", 3), ["a", "b", "c"]);
        assert_eq!(fit("a\nb\nc\nd\ne\n", "", 4), ["a", "… 2 lines …", "d", "e"]);
    }

    #[test]
    fn the_rest_is_drawn_if_all_of_it_fits() {
        assert_eq!(fit("a\nb\n", "\nc\n", 4), ["a", "b", "", "c"]);
        assert_eq!(fit("a\nb\n", "\nc\n", 3), ["a", "b"]);
    }
}
