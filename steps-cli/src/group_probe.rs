//! A process that tells which signals went to the whole process group.
//!
//! A command that `steps` runs is in the process group of `steps`, so that it can use the terminal and the keys for
//! job control. A terminal, `kill -- -PGID`, `timeout` and systemd send a signal to both; `kill PID` and supervisors
//! send it to `steps` alone. The signal itself does not tell. The probe is a third process in the group: a signal
//! that the probe got too was sent to the command as well, and must not be forwarded.

use std::{
    env,
    io::{self, Read, Write},
    iter,
    os::{
        fd::AsFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::Pid,
};

use crate::signals;

/// The name under which the program runs as a probe.
const NAME: &str = "steps: signal probe";

/// The time for an answer of the probe, which is late only if it was stopped.
const MAX_WAIT_MILLIS: u16 = 1000;

/// The signals that a probe got, bit n - 1 for signal n.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct GroupSignals(u64);

/// A running probe. The drop ends it.
#[derive(Debug)]
pub(crate) struct GroupProbe {
    /// `None` if the probe does not work.
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
}

impl GroupProbe {
    pub(crate) fn start() -> Self {
        Self { process: Process::start().ok() }
    }

    /// The process id, while the probe was not reaped.
    pub(crate) fn id(&self) -> Option<Pid> {
        let id = self.process.as_ref()?.child.id();
        i32::try_from(id).ok().map(Pid::from_raw)
    }

    /// The signals that the process group got since the last call. `None` if that is unknown.
    pub(crate) fn take(&mut self) -> Option<GroupSignals> {
        let process = self.process.as_mut()?;
        let taken = process.take();
        if taken.is_none_or(|signals| signals == GroupSignals::ALL) {
            // The probe was killed, or is stopped.
            let is_killed = taken.is_some();
            self.process = None;
            if is_killed {
                *self = Self::start();
            }
        }
        taken
    }
}

impl GroupSignals {
    const ALL: Self = Self(u64::MAX);

    pub(crate) const fn contains(self, signal: i32) -> bool {
        self.0 & signals::bit(signal) != 0
    }
}

impl Process {
    fn start() -> io::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg0(NAME)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let requests = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let answers = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, requests, answers })
    }

    fn take(&mut self) -> Option<GroupSignals> {
        // The write fails if the probe was killed; then the pipe for the answer is closed as well.
        let _ = self.requests.write_all(&[0]);
        let mut ready = [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut ready, PollTimeout::from(MAX_WAIT_MILLIS)) {
                Ok(0) => return None,
                Err(Errno::EINTR) => {}
                _ => break,
            }
        }
        let mut answer = [0; 8];
        match self.answers.read_exact(&mut answer) {
            Ok(()) => Some(GroupSignals(u64::from_ne_bytes(answer))),
            // A signal that the probe does not block killed it: a real-time signal, or one during its start. Other
            // signals of the same moment had the same receivers, as far as that can be told.
            Err(_) => self.child.wait().ok()?.signal().map(|_| GroupSignals::ALL),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Reaped here, since the first process of a container may not reap the orphans that it gets.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this process was started as a probe.
pub(crate) fn is_probe() -> bool {
    let mut arguments = env::args_os();
    arguments.next().is_some_and(|name| name == NAME) && arguments.next().is_none()
}

/// Answers requests until the other end of the pipe is closed.
pub(crate) fn serve() -> ExitCode {
    let mut take = taker();
    let mut stdin = io::stdin().lock();
    let mut stdout = io::stdout().lock();
    let mut request = [0];
    while let Ok(1) = stdin.read(&mut request) {
        if stdout.write_all(&take().to_ne_bytes()).and_then(|()| stdout.flush()).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// Blocks the signals, so that they stay pending until they are taken. On other systems than Linux, a signal kills
/// the probe, which also tells that it arrived.
#[cfg(target_os = "linux")]
fn taker() -> impl FnMut() -> u64 {
    use nix::sys::{
        prctl,
        signal::SigSet,
        signalfd::{SfdFlags, SignalFd},
    };

    // A probe that dies of a signal leaves no core file.
    let _ = prctl::set_dumpable(false);
    let set: SigSet = signals::deadly().collect();
    let blocked = set.thread_block().and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK));
    move || {
        let Ok(blocked) = &blocked else { return 0 };
        let read = || blocked.read_signal().ok().flatten();
        let signals = iter::from_fn(read).filter_map(|info| i32::try_from(info.ssi_signo).ok());
        signals.fold(0, |taken, signal| taken | signals::bit(signal))
    }
}

#[cfg(not(target_os = "linux"))]
fn taker() -> impl FnMut() -> u64 {
    || 0
}
