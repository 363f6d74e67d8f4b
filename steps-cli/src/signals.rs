use std::{fs, future, io};

use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind};

/// The signals that ask `steps` to end, which it outlives to record how the command ended.
///
/// While this is there they do not end the program.
#[derive(Debug)]
pub(crate) struct Signals {
    streams: [(Signal, Option<unix::Signal>); 4],
}

impl Signals {
    /// Listens from now on, except to a signal that whoever started `steps` wants ignored, as `nohup`
    /// does: a signal that is listened to would no longer be ignored in the command either.
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

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Signal {
        let [(a, interrupt), (b, quit), (c, terminate), (d, hang_up)] = &mut self.streams;
        tokio::select! {
            () = receive(interrupt) => *a,
            () = receive(quit) => *b,
            () = receive(terminate) => *c,
            () = receive(hang_up) => *d,
        }
    }

    /// The next one, if it has come already.
    pub(crate) async fn pending(&mut self) -> Option<Signal> {
        // What came in the meantime is seen once the runtime has looked.
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

/// The signals that this process was started to ignore, bit n - 1 for signal n. Linux tells; of other
/// systems nothing is known without unsafe code.
fn ignored() -> u64 {
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
    fn the_ignored_signals_are_read_from_the_status() {
        assert_eq!(parse_ignored("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"), Some(0x1001));
        assert_eq!(parse_ignored("Name:\tsteps\n"), None);
    }
}
