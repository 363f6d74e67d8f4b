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

    /// Draws `text` over what is there. Of a text with too many lines, the first, which is the header,
    /// and the last ones are drawn, where a build that runs has its news.
    pub(crate) fn draw(&self, text: &str) -> Result<(), Failure> {
        let height =
            terminal_size::terminal_size_of(io::stdout()).map_or(24, |(_, height)| usize::from(height.0)).max(3);
        let mut stdout = io::stdout().lock();
        let lines = fit(text, height);
        let draw = |stdout: &mut io::StdoutLock<'_>| {
            queue!(stdout, terminal::BeginSynchronizedUpdate, cursor::MoveTo(0, 0))?;
            for (index, line) in lines.iter().enumerate() {
                if index > 0 {
                    write!(stdout, "\r\n")?;
                }
                write!(stdout, "{line}")?;
                queue!(stdout, terminal::Clear(terminal::ClearType::UntilNewLine))?;
            }
            queue!(stdout, terminal::Clear(terminal::ClearType::FromCursorDown), terminal::EndSynchronizedUpdate)?;
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

fn fit(text: &str, height: usize) -> Vec<String> {
    let lines: Vec<_> = text.lines().collect();
    if lines.len() <= height {
        return lines.into_iter().map(str::to_owned).collect();
    }
    let left_out = lines.len() - (height - 1);
    let left_out_line = format!("… {left_out} lines …");
    let last = lines[left_out + 1..].iter().map(|line| (*line).to_owned());
    [lines[0].to_owned(), left_out_line].into_iter().chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_keeps_its_header_and_its_end() {
        assert_eq!(fit("a\nb\nc\n", 3), ["a", "b", "c"]);
        assert_eq!(fit("a\nb\nc\nd\ne\n", 4), ["a", "… 2 lines …", "d", "e"]);
    }
}
