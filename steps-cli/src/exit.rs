use std::process::{self, ExitCode};

use crate::child;

/// How the program ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Exit {
    Code(ExitCode),
    /// By a signal, as the command did: a shell stops a loop only if the command died of SIGINT.
    Signal(i32),
}

impl From<ExitCode> for Exit {
    fn from(code: ExitCode) -> Self {
        Self::Code(code)
    }
}

impl Exit {
    /// Returns the exit code, or ends the program with the signal.
    pub(crate) fn apply(self) -> ExitCode {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => {
                // The first process of a container cannot end by a signal of its own.
                if process::id() != 1 {
                    die_of(signal);
                }
                ExitCode::from(child::exit_code_of_signal(signal))
            }
        }
    }
}

/// Ends the program, unless the signal has no name or no default action.
fn die_of(signal: i32) {
    // Only the command leaves a core file.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
    let _ = signal_hook::low_level::emulate_default_handler(signal);
}
