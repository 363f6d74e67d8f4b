//! `steps show`: the table, on a terminal and elsewhere, and `--watch`.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::support::{Folder, finish, finish_started, finish_timed, start, wait_until};

/// A build with one step of each kind.
fn build() -> Folder {
    let folder = Folder::new();
    for (name, state, results) in [
        ("compile", "cargo build --workspace --all-targets", Some("success")),
        ("integration_tests_on_postgresql", "cargo test --test conformance -- --nocapture", Some("failure")),
        ("secret", "hidden away", Some("warnings")),
        ("upload", "waiting for its turn", None),
    ] {
        let id = folder.stdout_of(["add", "--build", "1", name, "--state", state]);
        let id = id.trim();
        if let Some(results) = results {
            folder.stdout_of(["start", "--step", id, "--at", "2026-01-31T12:00:00Z"]);
            folder.stdout_of(["locks", "--step", id, "--at", "2026-01-31T12:01:02Z"]);
            folder.stdout_of([
                "url",
                "--step",
                id,
                "log",
                &format!("https://ci.example.org/builds/1/steps/{name}/log"),
            ]);
            let mut finish_step = folder.steps(["finish", "--step", id, results]);
            if name == "secret" {
                finish_step.arg("--hidden");
            }
            assert_eq!(finish(&mut finish_step).code, Some(0));
        }
    }
    folder
}

/// A pseudo-terminal with an emulator of its screen.
struct Terminal {
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
    raw: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let stream = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
        // Closed here, so that the reader below ends when the program exits.
        drop(command);
        drop(pty.slave);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows.try_into().unwrap(), columns.try_into().unwrap(), 0)));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let reader = std::thread::spawn({
            let screen = Arc::clone(&screen);
            let raw = Arc::clone(&raw);
            let mut master = File::from(pty.master);
            move || {
                let mut bytes = [0; 4096];
                // After the other end is closed, Linux returns an error and other systems the end of the file.
                while let Ok(read @ 1..) = master.read(&mut bytes) {
                    screen.lock().unwrap().process(&bytes[..read]);
                    raw.lock().unwrap().extend_from_slice(&bytes[..read]);
                }
            }
        });
        Self { child, screen, raw, reader }
    }

    fn contents(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn wait_for(&self, text: &str) {
        wait_until(text, || self.contents().contains(text));
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    fn is_restored(&self) -> bool {
        let parser = self.screen.lock().unwrap();
        !parser.screen().alternate_screen() && !parser.screen().hide_cursor()
    }

    /// Waits for the end and returns the exit code, the text on the screen, and all output.
    fn finish(mut self) -> (Option<i32>, String, String) {
        let code = self.child.wait().unwrap().code();
        self.reader.join().unwrap();
        let contents = self.screen.lock().unwrap().screen().contents();
        let raw = String::from_utf8(self.raw.lock().unwrap().clone()).unwrap();
        (code, contents, raw)
    }
}

fn on_terminal(command: Command, columns: u16) -> (String, String) {
    let (code, contents, raw) = Terminal::start(command, columns, 50).finish();
    assert_eq!(code, Some(0));
    (contents, raw)
}

#[test]
fn json_is_the_build_with_all_its_steps() {
    let folder = build();
    let answer = folder.stdout_of(["show", "1", "--json"]);
    assert_eq!(answer.lines().count(), 1);
    let document: Value = serde_json::from_str(&answer).unwrap();
    let object = document.as_object().unwrap();
    assert_eq!((object.len(), &object["buildid"]), (2, &json!(1)));
    let names: Vec<_> = object["steps"].as_array().unwrap().iter().map(|step| &step["name"]).collect();
    assert_eq!(names, ["compile", "integration_tests_on_postgresql", "secret", "upload"]);
    let step: Value = serde_json::from_str(&folder.stdout_of(["get", "--step", "3", "--json"])).unwrap();
    assert_eq!(object["steps"][2], step);
}

#[test]
fn the_table_has_a_line_for_each_step_that_is_not_hidden() {
    let folder = build();
    let finished = folder.finished(["show", "1"]);
    let lines: Vec<_> = finished.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[0], ["#", "NAME", "STATE", "RESULT", "TIME", "WAITED", "URLS"]);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(lines[1][..2], ["0", "compile"]);
    let url = "https://ci.example.org/builds/1/steps/compile/log";
    assert_eq!(lines[1][lines[1].len() - 4..], ["1m", "02s", "log:", url]);
    assert!(lines[1].contains(&"success") && lines[2].contains(&"failure") && lines[3].contains(&"pending"));
    assert_eq!(finished.stderr, "steps: 1 hidden step is not shown; --all shows it\n");

    let all = folder.stdout_of(["show", "1", "--all"]);
    assert_eq!(all.lines().count(), 5);
    assert!(all.contains("secret (hidden)"), "{all}");
}

#[test]
fn an_unknown_build_has_no_steps() {
    let folder = build();
    let finished = folder.finished(["show", "2"]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), ""));
    assert_eq!(finished.stderr, "steps: build 2 has no steps\n");
    assert_eq!(folder.stdout_of(["show", "2", "--json"]), "{\"buildid\":2,\"steps\":[]}\n");
}

#[test]
fn only_a_line_with_a_url_is_wider_than_the_terminal() {
    let folder = build();
    for columns in [50, 60, 80, 100, 200] {
        let (contents, _) = on_terminal(folder.steps(["show", "1", "--all"]), columns);
        let lines: Vec<_> = contents.lines().collect();
        let position = |name: &str| lines[0].find(name).unwrap_or_else(|| panic!("{columns}: {contents}"));
        for name in ["NAME", "STATE", "RESULT", "TIME", "WAITED"] {
            let start = position(name);
            assert!(start + name.len() <= usize::from(columns));
        }
        // A row begins with its number, and wrapped text stays in its column.
        let rows = lines.iter().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count();
        let urls_apart = columns < 180;
        assert_eq!(rows, if urls_apart { 4 + 3 } else { 4 }, "{columns}: {contents}");
        // No word of the fixed columns is wrapped, and no url.
        let unwrapped = contents.replace('\n', "");
        for whole in ["success", "failure", "warnings", "pending", "1m 02s"] {
            assert!(contents.contains(whole), "{columns}: {contents}");
        }
        assert!(unwrapped.contains("https://ci.example.org/builds/1/steps/integration_tests_on_postgresql/log"));
    }
}

#[test]
fn results_have_colours_on_a_terminal_unless_they_are_turned_off() {
    const GREEN: &str = "\u{1b}[38;5;2m";
    let folder = build();
    let (_, raw) = on_terminal(folder.steps(["show", "1"]), 100);
    assert!(raw.contains(&format!("{GREEN} success")) || raw.contains(&format!("{GREEN}success")), "{raw:?}");

    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let mut command = folder.steps(["show", "1"]);
        command.env(name, value);
        let (contents, raw) = on_terminal(command, 100);
        assert!(contents.contains("success"));
        assert!(!raw.contains('\u{1b}'), "{name}: {raw:?}");
    }
    assert!(!folder.finished(["show", "1"]).stdout.contains('\u{1b}'), "nor in a pipe");
    let mut failing = folder.steps(["get", "--step", "99"]);
    failing.env("NO_COLOR", "1");
    let (_, _, raw) = Terminal::start(failing, 100, 50).finish();
    assert!(!raw.contains('\u{1b}'), "{raw:?}");
}

#[test]
fn watching_gives_a_line_for_each_change() {
    let folder = Folder::new();
    let id = folder.stdout_of(["add", "--build", "1", "compile", "--state", "queued"]);
    let id = id.trim();
    let mut child = start(&mut folder.steps(["show", "1", "--watch", "--until-done"]));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().map(Result::unwrap);
    assert_eq!(next().unwrap(), "0 compile: pending, queued");
    folder.stdout_of(["start", "--step", id, "--locks-acquired"]);
    assert_eq!(next().unwrap(), "0 compile: running, queued");
    folder.stdout_of(["url", "--step", id, "log", "a/b"]);
    assert_eq!(next().unwrap(), "0 compile: running, queued, log: a/b");
    folder.stdout_of(["finish", "--step", id, "failure"]);
    let last = next().unwrap();
    assert!(last.starts_with("0 compile: failure in ") && last.ends_with("s, queued, log: a/b"), "{last}");
    assert_eq!(next(), None);
    assert_eq!(finish_started(child).code, Some(0), "the build is done, whatever its results");
}

#[test]
fn watching_as_json_gives_the_build_on_each_change() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "2", "other"]);
    let mut child = start(&mut folder.steps(["show", "1", "--watch", "--until-done", "--json"]));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    // A build without steps is not done.
    assert_eq!(next(), json!({"buildid": 1, "steps": []}));
    folder.stdout_of(["add", "--build", "1", "a"]);
    assert_eq!(next()["steps"][0]["name"], "a");
    folder.stdout_of(["finish", "--step", "2", "success"]);
    assert_eq!(next()["steps"][0]["results"], 0);
    assert_eq!(finish_started(child).code, Some(0));
}

#[test]
fn watching_on_a_terminal_is_in_place() {
    let folder = build();
    // Narrow, so that the table is as wide as the terminal.
    let terminal = Terminal::start(folder.steps(["show", "1", "--watch", "--until-done"]), 80, 30);
    terminal.wait_for("waiting for its turn");
    let table = terminal.contents();
    assert!(table.lines().next().unwrap().trim_end().ends_with("WAITED"), "no column is cut off: {table}");
    assert_eq!(table.matches("1m 02s").count(), 2, "{table}");
    assert!(terminal.screen.lock().unwrap().screen().alternate_screen());
    folder.stdout_of(["state", "--step", "4", "sending"]);
    terminal.wait_for("sending");
    assert_eq!(terminal.contents().matches("upload").count(), 1, "{}", terminal.contents());
    folder.stdout_of(["finish", "--step", "4", "success"]);
    let screen = Arc::clone(&terminal.screen);
    let (code, contents, _) = terminal.finish();
    assert_eq!(code, Some(0));
    let screen = screen.lock().unwrap();
    assert!(!screen.screen().alternate_screen() && !screen.screen().hide_cursor(), "the terminal is restored");
    assert!(contents.contains("upload") && contents.contains("compile"), "the last table stays: {contents}");
    assert!(!contents.contains("pending"));
}

#[test]
fn a_build_longer_than_the_terminal_shows_its_end() {
    let folder = Folder::new();
    for number in 0..12 {
        folder.stdout_of(["add", "--build", "1", &format!("step-{number}")]);
    }
    let terminal = Terminal::start(folder.steps(["show", "1", "--watch"]), 80, 8);
    terminal.wait_for("step-11");
    let contents = terminal.contents();
    assert!(contents.trim_start().starts_with("#  NAME"), "the header stays: {contents}");
    assert!(contents.contains("… 6 lines …") && !contents.contains("step-5"), "{contents}");
    assert_eq!(contents.lines().count(), 8);
    kill(terminal.pid(), Signal::SIGINT).unwrap();
    let screen = Arc::clone(&terminal.screen);
    let (code, _, raw) = terminal.finish();
    assert_eq!(code, Some(130));
    assert!(!screen.lock().unwrap().screen().alternate_screen(), "the terminal is restored");
    assert_eq!(raw.matches("step-5").count(), 1, "the last table has all steps");
}

#[test]
fn a_stopped_program_gives_the_terminal_back() {
    let folder = build();
    let terminal = Terminal::start(folder.steps(["show", "1", "--watch"]), 80, 30);
    let pid = terminal.pid();
    for _ in 0..2 {
        terminal.wait_for("waiting for its turn");
        assert!(!terminal.is_restored());
        // As the terminal does on Ctrl-Z.
        kill(pid, Signal::SIGTSTP).unwrap();
        let status = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(status, WaitStatus::Stopped(..)), "{status:?}");
        wait_until("the terminal is restored", || terminal.is_restored());
        assert!(!terminal.contents().contains("waiting for its turn"), "{}", terminal.contents());
        // As the shell does on `fg`.
        kill(pid, Signal::SIGCONT).unwrap();
    }
    terminal.wait_for("waiting for its turn");
    // A stop that cannot be caught leaves the screen as it is, and the program draws it anew.
    kill(pid, Signal::SIGSTOP).unwrap();
    waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    terminal.screen.lock().unwrap().process(b"\x1b[?1049l\x1b[?25h$ fg\r\n");
    kill(pid, Signal::SIGCONT).unwrap();
    wait_until("the screen is taken again", || !terminal.is_restored());
    terminal.wait_for("waiting for its turn");
    kill(pid, Signal::SIGINT).unwrap();
    let screen = Arc::clone(&terminal.screen);
    assert_eq!(terminal.finish().0, Some(130));
    assert!(!screen.lock().unwrap().screen().alternate_screen());
}

#[test]
fn watching_an_idle_build_ends_when_its_reader_has_gone() {
    let folder = build();
    for options in [&[][..], &["--json"]] {
        let mut child = start(folder.steps(["show", "1", "--watch"]).args(options));
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        drop(stdout);
        wait_until("the program ends", || child.try_wait().unwrap().is_some());
        let finished = finish_started(child);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{options:?}");
    }
    // A build without steps prints nothing.
    let mut child = start(&mut folder.steps(["show", "2", "--watch"]));
    drop(child.stdout.take());
    wait_until("the program ends", || child.try_wait().unwrap().is_some());
    // A file has no reader that could go.
    let file = File::create(folder.file("out")).unwrap();
    let mut child = folder.steps(["show", "1", "--watch"]).stdout(file).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(child.try_wait().unwrap(), None);
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn the_time_for_a_long_text_is_linear_in_its_length() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "1", "a"]);
    folder.stdout_of(["url", "--step", "1", "log", "b"]);
    folder.execute(
        "UPDATE steps SET state_string = replace(hex(zeroblob(500000)), '0', 'x');
         UPDATE step_urls SET name = replace(hex(zeroblob(30000)), '0', 'y')",
    );
    for arguments in [&["get", "--step", "1"][..], &["show", "1"], &["show", "1", "--watch", "--until-done"]] {
        let (finished, time) = finish_timed(folder.steps(["finish", "--step", "1", "success"]).stdin(Stdio::null()));
        assert_eq!(finished.code, Some(0), "{time:?}");
        let start = std::time::Instant::now();
        let terminal = Terminal::start(folder.steps(arguments), 100, 50);
        let (code, ..) = terminal.finish();
        assert_eq!(code, Some(0));
        assert!(start.elapsed() < Duration::from_secs(20), "{arguments:?}: {:?}", start.elapsed());
    }
}

#[test]
fn nothing_is_cut_without_a_terminal() {
    let folder = Folder::new();
    let state = "make -j4 ".repeat(100);
    folder.stdout_of(["add", "--build", "1", "a", "--state", &state]);
    let url = |number: i32| format!("https://ci.example.org/{number}");
    for number in 0..9 {
        folder.stdout_of(["url", "--step", "1", "log", &url(number)]);
    }
    let table = folder.stdout_of(["show", "1"]);
    assert!(table.contains(state.trim_end()), "{table}");
    for number in 0..9 {
        assert!(table.contains(&url(number)), "{table}");
    }
    assert_eq!(table.lines().count(), 10, "{table}");
}

#[test]
fn each_url_is_whole_or_counted_on_a_terminal() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "1", "a"]);
    let url = |number: i32| format!("https://ci.example.org/{number}/{}", "x".repeat(50));
    for number in 0..9 {
        folder.stdout_of(["url", "--step", "1", "", &url(number)]);
    }
    let shown = |contents: &str| (0..9).filter(|number| contents.replace('\n', "").contains(&url(*number))).count();
    let (contents, _) = on_terminal(folder.steps(["show", "1"]), 150);
    assert_eq!((shown(&contents), contents.contains("… 4 more")), (5, true), "{contents}");
    for arguments in [["show", "1"], ["get", "--step=1"]] {
        let (contents, _) = on_terminal(folder.steps(arguments), 60);
        assert_eq!(shown(&contents), 9, "{contents}");
    }
    folder.stdout_of(["finish", "--step", "1", "success"]);
    for (columns, rows) in [(150, 20), (60, 20), (60, 8), (60, 3)] {
        let terminal = Terminal::start(folder.steps(["show", "1", "--watch"]), columns, rows);
        wait_until("each url is shown or counted", || {
            let contents = terminal.contents().replace('\n', "");
            let counted =
                |n: &usize| contents.contains(&format!("… {n} more")) || contents.contains(&format!("… {n} urls"));
            shown(&contents) + (1..=9).find(counted).unwrap_or(0) == 9
        });
        kill(terminal.pid(), Signal::SIGTERM).unwrap();
        terminal.finish();
    }
}

#[test]
fn a_long_build_takes_little_more_memory_than_its_steps() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "2", "a"]);
    folder.execute(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 199999)
         INSERT INTO steps (build_id, number, name, state_string, started_at, locks_acquired_at, complete_at, results)
         SELECT 1, i, 'step_' || i, 'cargo test --workspace', 0, 1000000, 2000000, 0 FROM n",
    );
    for options in [&[][..], &["--json"], &["--watch", "--until-done"]] {
        // In KiB. The steps take 75 MB, the program and its libraries another 300 MB of addresses.
        let script = "ulimit -v 560000; exec \"$STEPS\" show 1 \"$@\"";
        let mut command = folder.steps(["--version"]);
        let mut limited = Command::new("sh");
        limited.args(["-c", script, "sh"]).args(options).current_dir(folder.path());
        limited.envs(command.stdin(Stdio::null()).get_envs().filter_map(|(name, value)| Some((name, value?))));
        limited.env_remove("STEPS_STORE").env_remove("STEPS_BUILD");
        let finished = finish(&mut limited);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{options:?}");
        assert!(finished.stdout.contains("step_199999"), "{options:?}");
    }
}

#[test]
fn a_terminal_of_an_unknown_type_gets_lines() {
    let folder = build();
    for term in [None, Some(""), Some("dumb")] {
        let mut command = folder.steps(["show", "1", "--watch"]);
        match term {
            Some(term) => command.env("TERM", term),
            None => command.env_remove("TERM"),
        };
        let terminal = Terminal::start(command, 200, 30);
        terminal.wait_for("3 upload: pending, waiting for its turn");
        kill(terminal.pid(), Signal::SIGTERM).unwrap();
        let (code, _, raw) = terminal.finish();
        assert_eq!((code, raw.contains('\u{1b}')), (Some(143), false), "{term:?}: {raw:?}");
    }
}

#[test]
fn long_names_that_differ_in_their_end_are_told_apart() {
    let folder = Folder::new();
    // The longest names, and as wide as characters are.
    let name = |end: &str| format!("{}{end}", "漢".repeat(49));
    for end in ["a", "b"] {
        folder.stdout_of(["add", "--build", "1", &name(end), "--state", "cargo build --workspace --all-targets"]);
    }
    for columns in [40, 60, 100] {
        let (contents, _) = on_terminal(folder.steps(["show", "1"]), columns);
        assert!(contents.contains("漢a") && contents.contains("漢b"), "{columns}: {contents}");
        let is_wide = |line: &str| line.chars().count() > usize::from(columns);
        assert!(!contents.lines().any(is_wide), "{columns}: {contents}");
    }
}

#[test]
fn a_negative_duration_is_marked() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "1", "a"]);
    folder.stdout_of(["start", "--step", "1", "--at", "2026-01-31T12:00:00Z"]);
    folder.stdout_of(["locks", "--step", "1", "--at", "2026-01-31T11:00:00Z"]);
    let waited = folder.stdout_of(["get", "--step", "1"]);
    assert!(waited.lines().any(|line| line.split_whitespace().eq(["waited", "0ms?"])), "{waited}");
}
