//! Signals that reach `steps` while it runs a command.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::support::{
    Finished, Folder, WAIT_FOR_GO, finish, finish_started, go, start, wait_until, wait_until_running,
};

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// A script that prints the signal that it gets.
fn trapping(signal: &str, code: i32) -> String {
    format!("trap 'echo got {signal}; exit {code}' {signal}; {WAIT_FOR_GO} echo got none")
}

fn signalled(folder: &Folder, signal: Signal, script: &str) -> Finished {
    let child = start(&mut folder.run_sh(&[], script));
    wait_until_running(folder);
    kill(pid(&child), signal).unwrap();
    finish_started(child)
}

#[test]
fn sigterm_and_sighup_are_forwarded() {
    for (signal, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGHUP, "HUP")] {
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
    let folder = Folder::new();
    let finished = signalled(&folder, Signal::SIGTERM, WAIT_FOR_GO);
    assert_eq!(finished.code, Some(143));
    let step = folder.only_step();
    assert_eq!(step["results"], 6);
    assert!(step["state_string"].as_str().unwrap().ends_with("(killed by SIGTERM)"), "{step}");
}

#[test]
fn sigint_and_sigquit_are_not_forwarded() {
    for (signal, name) in [(Signal::SIGINT, "INT"), (Signal::SIGQUIT, "QUIT")] {
        let folder = Folder::new();
        let child = start(&mut folder.run_sh(&[], &trapping(name, 7)));
        wait_until_running(&folder);
        kill(pid(&child), signal).unwrap();
        go(&folder);
        let finished = finish_started(child);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), "got none\n"));
        assert_eq!(folder.only_step()["results"], 6, "steps itself was interrupted");
    }
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
    assert_eq!(finish_started(child).code, Some(130));
    assert_eq!(folder.only_step()["results"], 6);
}

#[test]
fn every_signal_is_forwarded_not_just_the_first() {
    let folder = Folder::new();
    let script = format!("trap 'echo got TERM' TERM; trap 'echo got HUP; exit 3' HUP; {WAIT_FOR_GO}");
    let mut child = start(&mut folder.run_sh(&[], &script));
    wait_until_running(&folder);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for (signal, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGTERM, "TERM"), (Signal::SIGHUP, "HUP")] {
        kill(pid(&child), signal).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), format!("got {name}"));
    }
    assert_eq!(finish_started(child).code, Some(3));
}

/// Only Linux tells which signals a process inherited as ignored.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_is_ignored_stays_ignored_for_the_command() {
    for signal in ["HUP", "INT", "QUIT", "TERM"] {
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
fn a_signal_before_the_command_leaves_no_step_unfinished() {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let folder = Folder::new();
        finish(&mut folder.run_sh(&[], ":"));
        let lock = folder.lock();
        let child = start(&mut folder.run_sh(&[], "touch running"));
        let status = format!("/proc/{}/status", child.id());
        // The handler of SIGHUP is installed last. A signal is lost while its handler is being installed.
        wait_until("steps listens to signals", || {
            let status = fs::read_to_string(&status).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (Signal::SIGHUP as i32 - 1)) != 0
        });
        kill(pid(&child), signal).unwrap();
        lock.release();
        let finished = finish_started(child);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(code), ""));
        assert!(!folder.file("running").exists(), "the command was not run");
        let steps = folder.steps_of_build();
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[1]["results"], 6);
        assert!(steps[1]["complete_at"].is_string());
    }
}
