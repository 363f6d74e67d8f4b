use std::{
    fs, future, io,
    pin::Pin,
    process,
    sync::{Arc, atomic::AtomicBool},
};

use futures_util::Stream;
use nix::sys::signal::Signal;
use signal_hook::iterator::exfiltrator::{WithOrigin, origin::Origin};
use signal_hook_tokio::SignalsInfo;

/// The signals that ask a program to end.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP];

/// Listens for signals, which no longer end the program from then on.
pub(crate) struct Signals(SignalsInfo<WithOrigin>);

/// A signal that this process got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Caught {
    pub(crate) signal: i32,
    /// Whether the kernel sent it, for example because of a key on the terminal.
    pub(crate) is_from_kernel: bool,
}

impl Signals {
    /// Listens for the signals that ask a program to end.
    pub(crate) fn listen() -> io::Result<Self> {
        Self::listen_to(ENDING.map(|signal| signal as i32))
    }

    /// Listens for every signal that ends a program by default and can be caught.
    pub(crate) fn listen_to_all() -> io::Result<Self> {
        Self::listen_to(deadly().map(|signal| signal as i32).chain(real_time()))
    }

    fn listen_to(signals: impl IntoIterator<Item = i32>) -> io::Result<Self> {
        let ignored = ignored();
        let signals = signals.into_iter().filter(|signal| ignored & bit(*signal) == 0);
        SignalsInfo::with_exfiltrator(signals, WithOrigin::default()).map(Self)
    }

    /// Waits for the next signal that this process did not cause itself.
    pub(crate) async fn next(&mut self) -> Caught {
        loop {
            match future::poll_fn(|context| Pin::new(&mut self.0).poll_next(context)).await {
                Some(origin) if is_own(&origin) => {}
                Some(origin) => {
                    return Caught { signal: origin.signal, is_from_kernel: is_from_kernel(&origin) };
                }
                None => return future::pending().await,
            }
        }
    }

    /// The next signal, if one has arrived already.
    pub(crate) async fn pending(&mut self) -> Option<Caught> {
        // The runtime polls for signals only when the task yields.
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            caught = self.next() => Some(caught),
            () = future::ready(()) => None,
        }
    }
}

/// Whether a signal asks a program to end. A step whose command gets such a signal is cancelled.
pub(crate) fn is_ending(signal: i32) -> bool {
    ENDING.iter().any(|ending| *ending as i32 == signal)
}

/// The signals that end a process by default and can be caught, apart from the real-time signals.
///
/// Signals that report a fault of a program, such as SIGSEGV, are not among them: their handler would return to the
/// fault.
pub(crate) fn deadly() -> impl Iterator<Item = Signal> {
    use Signal::{
        SIGBUS, SIGCHLD, SIGCONT, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG,
        SIGWINCH,
    };
    Signal::iterator().filter(|signal| match signal {
        SIGKILL | SIGSTOP => false,
        // By default these stop a process, let it continue, or do nothing.
        SIGTSTP | SIGTTIN | SIGTTOU | SIGCONT | SIGCHLD | SIGURG | SIGWINCH => false,
        #[cfg(any(target_os = "macos", target_os = "freebsd"))]
        Signal::SIGINFO => false,
        SIGBUS | SIGFPE | SIGILL | SIGSEGV => false,
        _ => true,
    })
}

/// The bit of a signal in a set of signals.
pub(crate) const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Makes a write past the limit for the size of a file (`ulimit -f`) fail like one to a full disk. Without a handler,
/// the signal would end the process. A handler is not inherited by a command.
pub(crate) fn catch_file_size_signal() {
    let signal = Signal::SIGXFSZ as i32;
    if ignored() & bit(signal) == 0 {
        // If this fails, a write past the limit ends the program.
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
}

#[cfg(target_os = "linux")]
fn real_time() -> impl Iterator<Item = i32> {
    nix::libc::SIGRTMIN()..=nix::libc::SIGRTMAX()
}

#[cfg(not(target_os = "linux"))]
fn real_time() -> impl Iterator<Item = i32> {
    std::iter::empty()
}

/// Whether this process caused the signal, for example by a write to a closed pipe, or by its use of CPU time.
fn is_own(origin: &Origin) -> bool {
    let own_id = i32::try_from(process::id()).ok();
    own_id == origin.process.map(|process| process.pid)
        || (is_from_kernel(origin) && [Signal::SIGXCPU as i32, Signal::SIGXFSZ as i32].contains(&origin.signal))
}

fn is_from_kernel(origin: &Origin) -> bool {
    origin.cause == signal_hook::low_level::siginfo::Cause::Kernel
}

/// The signals that this process inherited as ignored. Read from `/proc` on Linux; empty on other systems, where
/// reading them takes unsafe code.
///
/// With a handler installed, the command would not inherit such a signal, for example SIGHUP from `nohup`, as
/// ignored. SIGPIPE is left out: the Rust runtime ignores it in each program, and resets it in a command.
pub(crate) fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    parse_ignored(&status).unwrap_or(0) & !bit(Signal::SIGPIPE as i32)
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

    #[test]
    fn signals_that_do_not_end_a_process_are_not_caught() {
        let deadly: Vec<_> = deadly().collect();
        for signal in [Signal::SIGTSTP, Signal::SIGCONT, Signal::SIGCHLD, Signal::SIGWINCH, Signal::SIGKILL] {
            assert!(!deadly.contains(&signal), "{signal}");
        }
        for signal in [Signal::SIGUSR1, Signal::SIGALRM, Signal::SIGABRT, Signal::SIGIO, Signal::SIGXCPU] {
            assert!(deadly.contains(&signal), "{signal}");
        }
    }
}
