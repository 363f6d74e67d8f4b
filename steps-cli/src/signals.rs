use std::{fs, future, io};

use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind};

/// Listens for the signals that ask `steps` to end.
///
/// They no longer end the program from then on, so that `steps run` can record the end of the command.
#[derive(Debug)]
pub(crate) struct Signals {
    streams: [(Signal, Option<unix::Signal>); 4],
}

impl Signals {
    /// Starts to listen, except for a signal that this process inherited as ignored, such as SIGHUP from `nohup`:
    /// with a handler installed, the command would not inherit it as ignored.
    pub(crate) fn listen() -> io::Result<Self> {
        let ignored = ignored();
        let stream = |signal: Signal| {
            let number = signal as i32;
            let stream = match ignored & (1 << (number - 1)) {
                0 => Some(unix::signal(SignalKind::from_raw(number))?),
                _ => None,
            };
            io::Result::Ok((signal, stream))
        };
        Ok(Self {
            streams: [
                stream(Signal::SIGINT)?,
                stream(Signal::SIGQUIT)?,
                stream(Signal::SIGTERM)?,
                stream(Signal::SIGHUP)?,
            ],
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        let [(sigint, interrupt), (sigquit, quit), (sigterm, terminate), (sighup, hang_up)] = &mut self.streams;
        tokio::select! {
            () = receive(interrupt) => *sigint,
            () = receive(quit) => *sigquit,
            () = receive(terminate) => *sigterm,
            () = receive(hang_up) => *sighup,
        }
    }

    /// The next signal, if one has arrived already.
    pub(crate) async fn pending(&mut self) -> Option<Signal> {
        // The runtime polls for signals only when the task yields.
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            signal = self.next() => Some(signal),
            () = future::ready(()) => None,
        }
    }
}

async fn receive(stream: &mut Option<unix::Signal>) {
    if let Some(stream) = stream
        && stream.recv().await.is_some()
    {
        return;
    }
    future::pending().await
}

/// The signals that this process inherited as ignored, bit n - 1 for signal n. Read from `/proc` on Linux; empty
/// on other systems, where reading them takes unsafe code.
pub(crate) fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    parse_ignored(&status).unwrap_or(0)
}

fn parse_ignored(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ignored_signals_are_parsed_from_the_status() {
        assert_eq!(parse_ignored("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"), Some(0x1001));
        assert_eq!(parse_ignored("Name:\tsteps\n"), None);
    }
}
