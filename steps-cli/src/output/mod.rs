//! All output of the program: data on standard output, the rest on standard error.

#[cfg(feature = "conformance")]
pub(crate) mod cases;
pub(crate) mod duration;
pub(crate) mod json;
pub(crate) mod layout;
pub(crate) mod lines;
#[cfg(feature = "conformance")]
pub(crate) mod progress;
pub(crate) mod screen;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod text;

use std::{
    env,
    ffi::OsStr,
    io::{self, BufWriter, Write},
    os::fd::AsFd,
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::layout::Lines;
use crate::command_error::CommandError;

/// The size of the buffer before standard output.
const BUFFER_BYTES: usize = 64 * 1024;
/// The time between checks whether standard output still has a reader.
const READER_INTERVAL: Duration = Duration::from_millis(250);

/// Writes data to standard output.
pub(crate) fn data(text: &str) -> Result<(), CommandError> {
    stream(|stdout| stdout.write_all(text.as_bytes()))
}

/// Writes the lines of a table to standard output.
pub(crate) fn table(write: impl FnOnce(Lines<'_>) -> io::Result<()>) -> Result<(), CommandError> {
    stream(|stdout| write(&mut |line| stdout.write_all(line.as_bytes()).and_then(|()| stdout.write_all(b"\n"))))
}

/// Writes data to standard output as it comes.
fn stream(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), CommandError> {
    let mut stdout = BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock());
    write(&mut stdout).and_then(|()| stdout.flush()).map_err(CommandError::Output)
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

/// Waits until standard output is a pipe, a socket or a terminal whose other end is closed.
///
/// A program that follows a build writes only when something changes, and would otherwise never notice.
pub(crate) async fn reader_is_gone() {
    loop {
        tokio::time::sleep(READER_INTERVAL).await;
        let stdout = io::stdout();
        // Without requested events, only errors and a closed other end are reported.
        let mut streams = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
        if poll(&mut streams, PollTimeout::ZERO).is_ok()
            && streams.iter().filter_map(PollFd::revents).any(|events| events.intersects(gone))
        {
            return;
        }
    }
}

/// Whether the terminal moves the cursor and shows colours. A terminal of an unknown type may not.
fn terminal_has_cursor() -> bool {
    env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != OsStr::new("dumb"))
}
