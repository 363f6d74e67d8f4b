//! Signals that reach `steps` while it runs a command: the command gets each of them exactly once.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, ChildStdout, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::support::{
    Finished, Folder, WAIT_FOR_GO, finish, finish_started, go, start, wait_until, wait_until_running,
};

/// All signals that end a process and can be caught, without SIGSEGV and the other reports of a fault.
#[cfg(target_os = "linux")]
const DEADLY: [Signal; 18] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGSTKFLT,
    Signal::SIGSYS,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGPIPE,
];

/// The time in which a second copy of a signal would have arrived.
const SECOND_COPY: Duration = Duration::from_millis(400);

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// A script that prints the signal that it gets.
fn trapping(signal: &str, code: i32) -> String {
    format!("trap 'echo got {signal}; exit {code}' {signal}; {WAIT_FOR_GO} echo got none")
}

/// A script that prints each of these signals as often as it gets them, until the file `go` exists.
fn counting(signals: &[&str]) -> String {
    let traps: Vec<_> = signals.iter().map(|signal| format!("trap 'echo got {signal}' {signal};")).collect();
    format!("{} touch running; while [ ! -e go ]; do sleep 0.02; done; exit 0", traps.join(" "))
}

fn signalled(folder: &Folder, signal: Signal, script: &str) -> Finished {
    let child = start(&mut folder.run_sh(&[], script));
    wait_until_running(folder);
    kill(pid(&child), signal).unwrap();
    finish_started(child)
}

/// Waits for the first signal that a script reports, and then for the time of a second copy.
fn next_signals(folder: &Folder, mut child: Child, signal: impl FnOnce(Pid)) -> Vec<String> {
    wait_until_running(folder);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    signal(pid(&child));
    let first = lines.next().unwrap().unwrap();
    sleep(SECOND_COPY);
    go(folder);
    let received = [first].into_iter().chain(lines.map(Result::unwrap)).collect();
    child.wait().unwrap();
    received
}

fn lines(child: &mut Child) -> std::io::Lines<BufReader<ChildStdout>> {
    BufReader::new(child.stdout.take().unwrap()).lines()
}

/// A command that runs `steps` under another program, with the same environment.
fn under<S: AsRef<OsStr>>(
    folder: &Folder,
    program: &str,
    arguments: impl IntoIterator<Item = S>,
    inner: &Command,
) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).arg(inner.get_program()).args(inner.get_args()).current_dir(folder.path());
    command.stdin(Stdio::null());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[test]
fn a_signal_to_steps_alone_is_forwarded_once() {
    for (signal, name) in [
        (Signal::SIGINT, "INT"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGUSR1, "USR1"),
    ] {
        let folder = Folder::new();
        let child = start(&mut folder.run_sh(&[], &counting(&[name])));
        let received = next_signals(&folder, child, |steps| kill(steps, signal).unwrap());
        assert_eq!(received, [format!("got {name}")]);
    }
}

#[test]
fn a_forwarded_signal_cancels_the_step_and_the_exit_code_is_the_commands() {
    for (signal, name) in
        [(Signal::SIGTERM, "TERM"), (Signal::SIGHUP, "HUP"), (Signal::SIGINT, "INT"), (Signal::SIGQUIT, "QUIT")]
    {
        let folder = Folder::new();
        let finished = signalled(&folder, signal, &trapping(name, 7));
        assert_eq!((finished.code, finished.stdout), (Some(7), format!("got {name}\n")));
        let step = folder.only_step();
        assert_eq!(step["results"], 6, "cancelled");
        assert!(step["complete_at"].is_string());
    }
}

#[test]
fn a_command_that_a_forwarded_signal_kills_is_cancelled() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGALRM] {
        let folder = Folder::new();
        let finished = signalled(&folder, signal, WAIT_FOR_GO);
        assert_eq!((finished.code, finished.signal), (None, Some(signal as i32)), "as the command");
        let step = folder.only_step();
        assert_eq!(step["results"], 6);
        let expected = format!("(killed by {signal})");
        assert!(step["state_string"].as_str().unwrap().ends_with(&expected), "{step}");
    }
}

#[test]
fn a_signal_that_does_not_ask_to_end_does_not_cancel_the_step() {
    let folder = Folder::new();
    let child = start(&mut folder.run_sh(&[], &counting(&["USR1"])));
    next_signals(&folder, child, |steps| kill(steps, Signal::SIGUSR1).unwrap());
    assert_eq!(folder.only_step()["results"], 0, "the command handled it and succeeded");
}

#[cfg(target_os = "linux")]
#[test]
fn every_signal_that_ends_a_process_is_forwarded_once() {
    let folder = Folder::new();
    let numbers = DEADLY.map(|signal| (signal as i32).to_string());
    let mut child = start(&mut folder.run_sh(&[], &counting(&numbers.each_ref().map(String::as_str))));
    wait_until_running(&folder);
    let steps = pid(&child);
    let mut lines = lines(&mut child);
    for signal in DEADLY {
        kill(steps, signal).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), format!("got {}", signal as i32), "{signal}");
    }
    sleep(SECOND_COPY);
    go(&folder);
    assert_eq!(lines.map(Result::unwrap).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(folder.only_step()["complete_at"].is_string());
}

#[cfg(target_os = "linux")]
#[test]
fn a_real_time_signal_is_forwarded() {
    for number in ["35", "64"] {
        let folder = Folder::new();
        let child = start(&mut folder.run_sh(&[], &counting(&[number])));
        let received = next_signals(&folder, child, |steps| {
            let status = Command::new("sh").args(["-c", &format!("kill -{number} {steps}")]).status().unwrap();
            assert!(status.success());
        });
        assert_eq!(received, [format!("got {number}")]);
        assert!(folder.only_step()["complete_at"].is_string());
    }
}

#[test]
fn a_signal_to_the_process_group_reaches_the_command_once() {
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGUSR2, "USR2"),
    ] {
        let folder = Folder::new();
        let child = start(folder.run_sh(&[], &counting(&[name])).process_group(0));
        let received = next_signals(&folder, child, |group| killpg(group, signal).unwrap());
        assert_eq!(received, [format!("got {name}")]);
        assert!(folder.only_step()["complete_at"].is_string());
    }
}

#[test]
fn each_signal_of_a_series_to_the_group_reaches_the_command_once() {
    let folder = Folder::new();
    let mut child = start(folder.run_sh(&[], &counting(&["TERM", "HUP"])).process_group(0));
    wait_until_running(&folder);
    let group = pid(&child);
    let mut lines = lines(&mut child);
    for (signal, name) in
        [(Signal::SIGTERM, "TERM"), (Signal::SIGHUP, "HUP"), (Signal::SIGTERM, "TERM"), (Signal::SIGTERM, "TERM")]
    {
        killpg(group, signal).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), format!("got {name}"));
        sleep(SECOND_COPY);
    }
    // To `steps` alone again.
    kill(group, Signal::SIGTERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "got TERM");
    go(&folder);
    assert_eq!(lines.map(Result::unwrap).collect::<Vec<_>>(), [""; 0]);
    child.wait().unwrap();
}

#[test]
fn a_group_signal_is_forwarded_to_a_command_in_another_group() {
    let folder = Folder::new();
    let script = format!("exec setsid sh -c '{}'", counting(&["TERM"]).replace('\'', r"'\''"));
    let child = start(folder.run_sh(&[], &script).process_group(0));
    let received = next_signals(&folder, child, |group| killpg(group, Signal::SIGTERM).unwrap());
    assert_eq!(received, ["got TERM"]);
}

/// `timeout` sends the signal to `steps` and then to the group.
#[cfg(target_os = "linux")]
#[test]
fn timeout_reaches_the_command_once() {
    for arguments in [&["2"][..], &["--foreground", "2"], &["-s", "INT", "2"]] {
        let folder = Folder::new();
        let name = if arguments.contains(&"INT") { "INT" } else { "TERM" };
        let child = start(&mut under(&folder, "timeout", arguments, &folder.run_sh(&[], &counting(&[name]))));
        let received = next_signals(&folder, child, |_| {});
        assert_eq!(received, [format!("got {name}")], "{arguments:?}");
    }
}

/// systemd sends the signal to each process of the control group, one after the other.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_to_each_process_reaches_the_command_once() {
    let folder = Folder::new();
    let script = format!("trap 'echo got TERM' TERM; echo $$ >pid; {WAIT_FOR_GO}");
    let child = start(&mut folder.run_sh(&[], &script));
    let command_pid = || Pid::from_raw(fs::read_to_string(folder.file("pid")).unwrap().trim().parse().unwrap());
    let received = next_signals(&folder, child, |steps| {
        let children = fs::read_to_string(format!("/proc/{steps}/task/{steps}/children")).unwrap();
        let children = children.split_whitespace().map(|id| Pid::from_raw(id.parse().unwrap()));
        let children: Vec<_> = children.collect();
        assert!(children.contains(&command_pid()));
        for process in [steps].into_iter().chain(children) {
            kill(process, Signal::SIGTERM).unwrap();
            sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(received, ["got TERM"]);
}

#[test]
fn a_terminals_interrupt_reaches_both() {
    let folder = Folder::new();
    let child = start(folder.run_sh(&[], &trapping("INT", 5)).process_group(0));
    wait_until_running(&folder);
    killpg(pid(&child), Signal::SIGINT).unwrap();
    let finished = finish_started(child);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(5), "got INT\n"));
    assert_eq!(folder.only_step()["results"], 6);

    let folder = Folder::new();
    let child = start(folder.run_sh(&[], WAIT_FOR_GO).process_group(0));
    wait_until_running(&folder);
    killpg(pid(&child), Signal::SIGINT).unwrap();
    assert_eq!(finish_started(child).signal, Some(2));
    assert_eq!(folder.only_step()["results"], 6);
}

/// The command runs on a terminal, whose session `steps` leads or not.
#[cfg(target_os = "linux")]
#[test]
fn a_key_or_the_end_of_a_terminal_reaches_the_command_once() {
    use std::{fs::File, io::Write, os::unix::fs::OpenOptionsExt};

    use nix::{
        fcntl::OFlag,
        pty::{grantpt, posix_openpt, ptsname_r, unlockpt},
    };

    for is_leader in [true, false] {
        for is_closed in [true, false] {
            let folder = Folder::new();
            let name = if is_closed { "HUP" } else { "INT" };
            // The shell gets the signals too. With its end as the leader, the kernel sends SIGHUP to the group.
            let outer = if is_leader { "exec \"$@\"" } else { "trap : INT; \"$@\"; true" };
            let script = format!("trap 'echo got {name} >>log' {name}; {WAIT_FOR_GO}");
            let arguments = ["-c", "sh", "-c", outer, "sh"];
            let mut command = under(&folder, "setsid", arguments, &folder.run_sh(&[], &script));
            // No process inherits the master, so that the drop closes the terminal.
            let mut master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
            grantpt(&master).unwrap();
            unlockpt(&master).unwrap();
            let mut options = File::options();
            options.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits());
            let slave = options.open(ptsname_r(&master).unwrap()).unwrap();
            let stream = || Stdio::from(slave.try_clone().unwrap());
            let mut child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
            drop(command);
            drop(slave);
            wait_until_running(&folder);
            if !is_closed {
                master.write_all(b"\x03").unwrap();
            }
            let master = (!is_closed).then_some(master);
            wait_until("the command gets the signal", || folder.file("log").exists());
            sleep(SECOND_COPY);
            go(&folder);
            child.wait().unwrap();
            let log = fs::read_to_string(folder.file("log")).unwrap();
            assert_eq!(log, format!("got {name}\n"), "leader: {is_leader}");
            drop(master);
            wait_until("the end is recorded", || folder.only_step()["complete_at"].is_string());
            assert_eq!(folder.only_step()["results"], 6);
        }
    }
}

#[test]
fn every_signal_is_forwarded_not_just_the_first() {
    let folder = Folder::new();
    let script = format!("trap 'echo got TERM' TERM; trap 'echo got HUP; exit 3' HUP; {WAIT_FOR_GO}");
    let mut child = start(&mut folder.run_sh(&[], &script));
    wait_until_running(&folder);
    let mut lines = lines(&mut child);
    for (signal, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGTERM, "TERM"), (Signal::SIGHUP, "HUP")] {
        kill(pid(&child), signal).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), format!("got {name}"));
    }
    assert_eq!(finish_started(child).code, Some(3));
}

#[test]
fn a_loop_in_a_shell_ends_with_an_interrupt() {
    let folder = Folder::new();
    let script =
        r#"for i in 1 2 3; do "$STEPS" run --build 1 -- sh -c "touch running; sleep 60"; done; echo not ended"#;
    let inner = folder.run_sh(&[], "");
    let mut command = Command::new("bash");
    command.args(["-c", script]).current_dir(folder.path()).env("STEPS", inner.get_program());
    if inner.get_program() == "env" {
        command.env("STEPS", env!("CARGO_BIN_EXE_steps"));
        command = under(&folder, "env", ["--default-signal"], &command);
    }
    let child = start(command.process_group(0));
    wait_until_running(&folder);
    killpg(pid(&child), Signal::SIGINT).unwrap();
    let finished = finish_started(child);
    assert_eq!((finished.signal, finished.stdout.as_str()), (Some(2), ""));
    assert_eq!(folder.only_step()["results"], 6, "recorded before `steps` ended");
}

#[test]
fn steps_dies_of_the_signal_that_killed_the_command() {
    for signal in ["HUP", "INT", "QUIT", "ABRT", "KILL", "SEGV", "TERM", "USR1", "XFSZ"] {
        let folder = Folder::new();
        let expected = format!("SIG{signal}").parse::<Signal>().unwrap();
        let finished = finish(&mut folder.run_sh(&[], &format!("kill -{signal} $$")));
        assert_eq!((finished.code, finished.signal), (None, Some(expected as i32)), "{finished:?}");
        let step = folder.only_step();
        assert_eq!(step["results"], 4, "{step}");
        assert!(!folder.files().iter().any(|file| file.starts_with("core")));
    }
}

/// Only Linux tells which signals a process inherited as ignored.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_is_ignored_stays_ignored_for_the_command() {
    for signal in ["HUP", "INT", "QUIT", "TERM", "USR1"] {
        let folder = Folder::new();
        let command = folder.run_sh(&[], &format!("kill -{signal} $$; echo survived"));
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("trap '' {signal}; exec \"$@\""), "sh"]);
        let arguments = command.get_args().skip_while(|argument| *argument != "run");
        shell.arg(env!("CARGO_BIN_EXE_steps")).args(arguments).current_dir(folder.path());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let finished = finish(&mut shell);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), "survived\n"), "{signal}: {finished:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_command_inherits_no_blocked_and_no_ignored_signal() {
    let folder = Folder::new();
    let arguments = ["-h", "^Sig[BI]", "/proc/self/status"];
    // The tests themselves may be run with a blocked or ignored signal.
    let without = finish(Command::new("env").args(["--default-signal=HUP,INT,QUIT,TERM,PIPE", "grep"]).args(arguments));
    let mut command = folder.steps(["run", "--build", "1", "--", "grep"]);
    assert_eq!(finish(command.args(arguments)).stdout, without.stdout);
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_before_the_command_leaves_no_step_unfinished() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let folder = Folder::new();
        finish(&mut folder.run_sh(&[], ":"));
        let lock = folder.lock();
        let child = start(&mut folder.run_sh(&[], "touch running"));
        let status = format!("/proc/{}/status", child.id());
        // The handler of the last real-time signal is installed last. A signal is lost while its handler is being
        // installed.
        wait_until("steps listens to signals", || {
            let status = fs::read_to_string(&status).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 63) != 0
        });
        kill(pid(&child), signal).unwrap();
        lock.release();
        let finished = finish_started(child);
        assert_eq!((finished.signal, finished.stderr.as_str()), (Some(signal as i32), ""));
        assert!(!folder.file("running").exists(), "the command was not run");
        let steps = folder.steps_of_build();
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[1]["results"], 6);
        assert!(steps[1]["complete_at"].is_string());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_program_that_steps_did_not_start_is_reaped() {
    let folder = Folder::new();
    let run = folder.run_sh(&[], WAIT_FOR_GO);
    let script = r#"sh -c 'touch orphan; sleep 0.1' & exec "$@""#;
    let child = start(&mut under(&folder, "sh", ["-c", script, "sh"], &run));
    wait_until_running(&folder);
    let steps = pid(&child);
    let zombies = || {
        let children = fs::read_to_string(format!("/proc/{steps}/task/{steps}/children")).unwrap();
        let is_zombie =
            |id: &&str| fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| stat.contains(") Z "));
        let count = children.split_whitespace().count();
        (count, children.split_whitespace().filter(is_zombie).count())
    };
    // The command and the probe of the process group are left.
    wait_until("the orphan is reaped", || zombies() == (2, 0));
    go(&folder);
    assert_eq!(finish_started(child).code, Some(0));
}

/// A signal must reach the command also in a container, whose first process `steps` is.
#[cfg(target_os = "linux")]
#[test]
fn as_the_first_process_steps_forwards_signals_and_reaps() {
    let arguments = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
    let probe = Command::new("unshare").args(arguments).arg("true").output().unwrap();
    assert!(probe.status.success(), "this test needs user namespaces; allow them: {probe:?}");
    let folder = Folder::new();
    let script = format!(
        "trap 'echo got INT; exit 7' INT; (sh -c 'exit 3' &); sleep 0.5; grep -l '^State:.Z' /proc/[0-9]*/status >zombies; \
         {WAIT_FOR_GO}"
    );
    let child = start(&mut under(&folder, "unshare", arguments, &folder.run_sh(&[], &script)));
    wait_until_running(&folder);
    let unshare = child.id();
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    kill(Pid::from_raw(children.trim().parse().unwrap()), Signal::SIGINT).unwrap();
    let finished = finish_started(child);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(7), "got INT\n"));
    assert_eq!(fs::read_to_string(folder.file("zombies")).unwrap(), "");
    assert_eq!(folder.only_step()["results"], 6);
}

/// The probe of the process group ends with `steps`, however `steps` ends.
#[cfg(target_os = "linux")]
#[test]
fn no_process_is_left_behind() {
    let folder = Folder::new();
    let mut child = start(&mut folder.run_sh(&[], WAIT_FOR_GO));
    wait_until_running(&folder);
    let steps = pid(&child);
    let children = fs::read_to_string(format!("/proc/{steps}/task/{steps}/children")).unwrap();
    assert_eq!(children.split_whitespace().count(), 2);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let probe = children.split_whitespace().next().unwrap();
    wait_until("the probe ends", || {
        fs::read_to_string(format!("/proc/{probe}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
    go(&folder);
}

/// A limit for the size of files is like a full disk: the command runs, with the default action for the signal.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_for_the_size_of_files_does_not_affect_the_command() {
    let folder = Folder::new();
    let limit = ["-c", "ulimit -f 16; exec \"$@\"", "sh"];
    let run = folder.run_sh(&[], "echo ran; kill -XFSZ $$; echo ignored");
    let finished = finish(&mut under(&folder, "sh", limit, &run));
    assert_eq!((finished.signal, finished.stdout.as_str()), (Some(Signal::SIGXFSZ as i32), "ran\n"), "{finished:?}");
    assert!(finished.stderr.starts_with("steps: warning: the step is not recorded"), "{finished:?}");

    let finished = finish(&mut under(&folder, "sh", limit, &folder.steps(["add", "--build", "1", "a"])));
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
    assert!(finished.stderr.starts_with("steps: error: "), "{finished:?}");
}
