//! Everything that the program says: data on standard output, the rest on standard error.

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

use crate::failure::Failure;

/// Writes to standard output what the program was asked for.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// Says why the program does not do what it was asked to.
pub(crate) fn error(message: &str) {
    say("error: ", AnsiColor::Red, message);
}

/// Says what was left undone.
pub(crate) fn warning(message: &str) {
    say("warning: ", AnsiColor::Yellow, message);
}

/// Says what is good to know.
pub(crate) fn note(message: &str) {
    say("", AnsiColor::White, message);
}

fn say(label: &str, color: AnsiColor, message: &str) {
    let style = if label.is_empty() { Style::new() } else { Style::new().fg_color(Some(color.into())).bold() };
    let mut lines = message.lines().map(text::shown);
    let first = lines.next().unwrap_or_default();
    let mut said = format!("steps: {style}{label}{style:#}{first}\n");
    for line in lines {
        said.push_str("  because: ");
        said.push_str(&line);
        said.push('\n');
    }
    // Whether standard error shows colours, it finds out; where nobody reads it, nothing can be said.
    let _ = anstream::stderr().write_all(said.as_bytes());
}
