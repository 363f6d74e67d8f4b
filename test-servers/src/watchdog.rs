use std::{
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

/// The file in a server's folder that names its process.
pub(crate) const PID_FILE: &str = "pid";

/// Removes a server's folder, and ends the server that runs in it, once this process lets go of it or dies.
///
/// A signal on the death of the parent would not do: it comes when the *thread* that started the server ends,
/// and a test's thread ends with the test.
#[derive(Debug)]
pub(crate) struct Watchdog(Child);

/// `$1` is the folder, `$2` the file in it with the process to end. The folder is moved away first: a server
/// that is about to start then cannot say who it is, and does not start.
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
            // The terminal's Ctrl-C is for the tests: the watchdog goes after them.
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
