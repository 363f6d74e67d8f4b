//! All output of the program: data on standard output, the rest on standard error.

#[cfg(feature = "conformance")]
pub(crate) mod cases;
pub(crate) mod duration;
pub(crate) mod json;
pub(crate) mod lines;
#[cfg(feature = "conformance")]
pub(crate) mod progress;
pub(crate) mod screen;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod text;

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use crate::command_error::CommandError;

/// Writes data to standard output.
pub(crate) fn data(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(CommandError::Output)
}

/// Reports why a command fails.
pub(crate) fn error(message: &str) {
    print("error: ", AnsiColor::Red, message);
}

/// Reports a problem that does not fail the command.
pub(crate) fn warning(message: &str) {
    print("warning: ", AnsiColor::Yellow, message);
}

/// Reports something that is no problem.
pub(crate) fn note(message: &str) {
    print("", AnsiColor::White, message);
}

fn print(label: &str, color: AnsiColor, message: &str) {
    let style = if label.is_empty() { Style::new() } else { Style::new().fg_color(Some(color.into())).bold() };
    let mut lines = message.lines().map(text::shown);
    let first = lines.next().unwrap_or_default();
    let mut output = format!("steps: {style}{label}{style:#}{first}\n");
    for line in lines {
        output.push_str("  because: ");
        output.push_str(&line);
        output.push('\n');
    }
    // anstream strips the colours where they are not supported. If standard error is closed, the error has no reader.
    let _ = anstream::stderr().write_all(output.as_bytes());
}
