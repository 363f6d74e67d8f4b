use std::{
    env,
    io::{self, IsTerminal, Write},
};

use crossterm::{cursor, execute, queue, terminal};

use crate::failure::Failure;

/// The terminal at standard output, drawn on in place until this is dropped: what was on it before
/// comes back then.
#[derive(Debug)]
pub(crate) struct Screen(());

impl Screen {
    /// Takes the terminal, if there is one that can be drawn on.
    pub(crate) fn take() -> Result<Option<Self>, Failure> {
        if !io::stdout().is_terminal() || env::var_os("TERM").is_some_and(|term| term == "dumb") {
            return Ok(None);
        }
        execute!(io::stdout(), terminal::EnterAlternateScreen, terminal::DisableLineWrap, cursor::Hide)
            .map_err(Failure::Output)?;
        Ok(Some(Self(())))
    }

    /// Draws a table over what is there, and under it the rest if there is room for all of it. Of a table
    /// with too many lines, the first, which is the header, and the last ones are drawn, where a build that
    /// runs has its news.
    pub(crate) fn draw(&self, table: &str, rest: &str) -> Result<(), Failure> {
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
                // Before the line: after one as wide as the terminal, its last character would go too.
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
        draw(&mut stdout).map_err(Failure::Output)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = execute!(io::stdout(), cursor::Show, terminal::EnableLineWrap, terminal::LeaveAlternateScreen);
    }
}

fn fit(table: &str, rest: &str, height: usize) -> Vec<String> {
    let (table, rest): (Vec<_>, Vec<_>) = (table.lines().collect(), rest.lines().collect());
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    if table.len() + rest.len() <= height {
        return owned(&[table, rest].concat());
    }
    if table.len() <= height {
        return owned(&table);
    }
    // The header, the line that says so, and as many as there is room for.
    let left_out = table.len() - (height - 1);
    let line = format!("… {left_out} lines …");
    [owned(&table[..1]), vec![line], owned(&table[left_out + 1..])].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_keeps_its_header_and_its_end() {
        assert_eq!(fit("a\nb\nc\n", "", 3), ["a", "b", "c"]);
        assert_eq!(fit("a\nb\nc\nd\ne\n", "", 4), ["a", "… 2 lines …", "d", "e"]);
    }

    #[test]
    fn what_stands_under_it_is_there_if_there_is_room() {
        assert_eq!(fit("a\nb\n", "\nc\n", 4), ["a", "b", "", "c"]);
        assert_eq!(fit("a\nb\n", "\nc\n", 3), ["a", "b"]);
    }
}
