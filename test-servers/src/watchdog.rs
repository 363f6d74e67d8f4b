use std::{
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Name of the file with the process id, in the folder of a server.
pub(crate) const PID_FILE: &str = "pid";

/// Ends a server and removes its folder once the watchdog is dropped or this process dies.
///
/// A parent-death signal (`PR_SET_PDEATHSIG`) does not work: the kernel sends it at the end of the *thread* that
/// started the server, and the thread of a test ends with the test.
#[derive(Debug)]
pub(crate) struct Watchdog(Child);

/// `$1` is the folder, `$2` the name of the file with the process id. The folder is renamed first: a server that is
/// about to start then fails to write its process id, and does not start.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
read -r _
mv "$1" "$1.ended"
if pid=$(head -n 1 "$1.ended/$2" 2>/dev/null) && [ -n "$pid" ]; then
    kill -QUIT "$pid" 2>/dev/null
    for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1.ended"
"#;

impl Watchdog {
    pub(crate) fn start(folder: &Path) -> io::Result<Self> {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "watchdog"])
            .arg(folder)
            .arg(PID_FILE)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C in the terminal must not kill the watchdog, which ends after the tests.
            .process_group(0)
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
