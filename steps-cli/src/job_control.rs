use std::{future, io};

use nix::{
    sys::signal::{self, Signal},
    unistd,
};
use tokio::signal::unix::{self, SignalKind};

use crate::signals;

/// Listens for the signals with which a shell stops and continues its jobs: Ctrl-Z, `fg` and `bg`.
///
/// SIGTSTP no longer stops the program from then on, so that it can restore the terminal first.
#[derive(Debug)]
pub(crate) struct JobControl {
    stop: Option<unix::Signal>,
    resume: unix::Signal,
}

/// A request of the shell's job control.
#[derive(Clone, Copy, Debug)]
pub(crate) enum JobEvent {
    /// Ctrl-Z: restore the terminal and [`stop`].
    Stop,
    /// The program runs again after a stop of any cause, in the foreground or in the background.
    Continue,
}

impl JobControl {
    /// Starts to listen. A SIGTSTP that this process inherited as ignored stays ignored.
    pub(crate) fn listen() -> io::Result<Self> {
        let is_ignored = signals::ignored() & signals::bit(Signal::SIGTSTP as i32) != 0;
        let stop = if is_ignored { None } else { Some(listen(Signal::SIGTSTP)?) };
        Ok(Self { stop, resume: listen(Signal::SIGCONT)? })
    }

    /// Waits for the next request.
    pub(crate) async fn next(&mut self) -> JobEvent {
        let stop = async {
            match &mut self.stop {
                Some(stop) => stop.recv().await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            _ = stop => JobEvent::Stop,
            _ = self.resume.recv() => JobEvent::Continue,
        }
    }
}

fn listen(signal: Signal) -> io::Result<unix::Signal> {
    unix::signal(SignalKind::from_raw(signal as i32))
}

/// Stops this process until the shell continues it.
pub(crate) fn stop() {
    // This process may send signals to itself.
    let _ = signal::raise(Signal::SIGSTOP);
}

/// Whether a shell can continue this process after a stop. The program of a terminal window or of a container has none
/// above it, and a stop would last for ever.
pub(crate) fn is_resumable() -> bool {
    // The process group of the session's first process. The terminal of another session says nothing.
    unistd::tcgetpgrp(io::stdout()).is_err() || unistd::getsid(None) != Ok(unistd::getpgrp())
}

/// Whether this process may draw on the terminal: its process group has it.
pub(crate) fn is_in_foreground() -> bool {
    unistd::tcgetpgrp(io::stdout()).map_or(true, |group| group == unistd::getpgrp())
}
