//! The conventions of command-line programs: exit codes, streams, help, and safe output.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Folder, finish};

/// Text that tries to control the terminal.
const HOSTILE: &str = "a\u{1b}[31m\u{1b}]0;title\u{7}\r\u{9b}2J\u{7f}\u{202e}x\u{2066}\u{2028}é";

/// Characters that are not seen, or change the order of others.
const INVISIBLE: &str = "\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{ad}\u{feff}\u{3164}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\
                         \u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{e0001}\u{e0041}\u{e007f}";

fn is_harmless(text: &str) -> bool {
    !text.chars().any(|c| c != '\n' && (c.is_control() || INVISIBLE.contains(c)))
}

#[test]
fn the_store_is_named_before_or_after_the_command_or_in_the_environment() {
    let folder = Folder::new();
    assert_eq!(folder.stdout_of(["--store", "sqlite:before.db", "add", "--build", "1", "a"]), "1\n");
    assert_eq!(folder.stdout_of(["add", "--store", "sqlite:after.db", "--build", "1", "a"]), "1\n");
    let with_environment =
        |arguments: &[&str]| finish(folder.steps(arguments).env("STEPS_STORE", "sqlite:environment.db"));
    assert_eq!(with_environment(&["add", "--build", "1", "a"]).stdout, "1\n");
    for store in ["before", "after", "environment"] {
        assert!(folder.file(&format!("{store}.db")).exists());
    }
    // The option wins over the environment, before and after the command.
    assert_eq!(with_environment(&["--store", "sqlite:before.db", "add", "--build", "1", "b"]).stdout, "2\n");
    assert_eq!(with_environment(&["add", "--build", "1", "b", "--store", "sqlite:after.db"]).stdout, "2\n");
    assert_eq!(folder.stdout_of(["add", "--build", "1", "a"]), "1\n");
    assert!(folder.file("steps.db").exists(), "the default is in the current folder");
}

#[test]
fn usage_errors_are_2_and_touch_nothing() {
    let folder = Folder::new();
    for arguments in [
        &[][..],
        &["nonsense"],
        &["run", "--build", "1"],
        &["run", "--build", "1", "true"],
        &["run", "--", "true"],
        &["run", "--build", "0", "--", "true"],
        &["run", "--build", "1", "--url", "no-equals-sign", "--", "true"],
        &["run", "--build", "1", "--json", "--", "true"],
        &["add", "--build", "1", "a\tb"],
        &["add", "--build", "1", "a", "--key", ""],
        &["add", "a"],
        &["start", "--step", "-1"],
        &["start", "--step", "1", "--at", "yesterday"],
        &["state", "text"],
        &["url", "--step", "1", "log"],
        &["get"],
        &["get", "--build", "1"],
        &["get", "--number", "1"],
        &["get", "--step", "1", "--build", "1"],
        &["get", "--step", "1", "--name", "a"],
        &["get", "--build", "1", "--number", "1", "--name", "a"],
        &["show"],
        &["show", "1", "--until-done"],
        &["completions", "abacus"],
    ] {
        let finished = finish(&mut folder.steps(arguments));
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert_ne!(finished.stderr, "", "{arguments:?}");
    }
    assert_eq!(folder.files(), [""; 0]);
}

#[test]
fn version_help_and_completions_need_no_store() {
    let folder = Folder::new();
    let version = folder.stdout_of(["--version", "--store", "nonsense"]);
    assert_eq!(version, concat!("steps ", env!("CARGO_PKG_VERSION"), "\n"));
    assert!(folder.stdout_of(["help", "run"]).contains("128+n"));
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = folder.stdout_of(["completions", shell]);
        assert!(script.contains("until-done"), "{shell}");
    }
    assert_eq!(folder.files(), [""; 0]);
}

#[cfg(not(feature = "conformance"))]
#[test]
fn without_the_suite_the_command_names_the_missing_feature() {
    let folder = Folder::new();
    let finished = folder.finished(["conformance", "--filter", "add_step::", "--json"]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{finished:?}");
    assert!(finished.stderr.contains("feature `conformance`"), "{finished:?}");
    assert!(!folder.stdout_of(["--help"]).contains("conformance"));
    assert_eq!(folder.files(), [""; 0]);
}

#[test]
fn reading_and_changing_create_no_file() {
    let folder = Folder::new();
    for arguments in [
        &["show", "1"][..],
        &["show", "1", "--watch"],
        &["get", "--step", "1"],
        &["doctor"],
        &["start", "--step", "1"],
        &["state", "--step", "1", "text"],
        &["finish", "--step", "1", "success"],
    ] {
        let finished = finish(&mut folder.steps(arguments));
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(finished.stderr.contains("steps.db does not exist"), "{finished:?}");
        assert_eq!(folder.files(), [""; 0], "{arguments:?}");
    }
}

#[test]
fn a_url_with_a_mode_keeps_it() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "1", "a"]);
    let read_only = "sqlite:steps.db?mode=ro";
    assert!(folder.stdout_of(["show", "1", "--store", read_only]).contains('a'));
    let finished = folder.finished(["state", "--step", "1", "text", "--store", read_only]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert_eq!(folder.finished(["show", "1", "--store", "sqlite:other.db?mode=rwc"]).code, Some(0));
    assert!(folder.file("other.db").exists());
}

#[test]
fn no_password_is_shown() {
    let folder = Folder::new();
    for store in [
        "nonsense://ci:secret@host/db",
        "nonsense:secret",
        "secret",
        "memory:secret",
        "sqlite:x.db?password=secret",
        "sqlite://ci:42?secret=x@host/x.db",
    ] {
        for arguments in
            [&["doctor"][..], &["show", "1"], &["add", "--build", "1", "a"], &["help", "run"], &["doctor", "--json"]]
        {
            let finished = finish(folder.steps(arguments).env("STEPS_STORE", store));
            let output = format!("{}{}", finished.stdout, finished.stderr);
            assert!(!output.contains("secret"), "{arguments:?}: {output}");
        }
    }
}

#[test]
fn nothing_from_the_store_reaches_the_terminal_as_a_command() {
    let folder = Folder::new();
    let name = "n\u{202e}\u{2066}é";
    folder.stdout_of(["add", "--build", "1", name, "--state", HOSTILE]);
    folder.stdout_of(["url", "--step", "1", HOSTILE, HOSTILE]);
    folder.stdout_of(["finish", "--step", "1", "success"]);
    for arguments in [
        &["show", "1"][..],
        &["show", "1", "--json"],
        &["show", "1", "--watch", "--until-done"],
        &["get", "--step", "1"],
        &["get", "--step", "1", "--json"],
        &["add", "--build", "1", name, "--json"],
        &["get", "--build", "2", "--name", name],
        &["run", "--build", "1", "--show", "--name", name, "--", "./\u{1b}\u{202e}"],
        &["show", "1", "--store", "sqlite:\u{1b}\u{202e}.db"],
        &["doctor", "--store", "sqlite:\u{1b}\u{202e}.db"],
    ] {
        let finished = finish(&mut folder.steps(arguments));
        let output = format!("{}{}", finished.stdout, finished.stderr);
        assert!(output.contains("202e") && is_harmless(&output), "{arguments:?}: {output:?}");
    }
    let step: Value = serde_json::from_str(&folder.stdout_of(["get", "--step", "1", "--json"])).unwrap();
    assert_eq!((&step["state_string"], &step["urls"][0]["url"]), (&HOSTILE.into(), &HOSTILE.into()));
}

#[test]
fn names_that_differ_in_invisible_characters_look_different() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "1", "deploy", "--state", INVISIBLE]);
    folder.stdout_of(["url", "--step", "1", INVISIBLE, INVISIBLE]);
    for invisible in INVISIBLE.chars() {
        folder.stdout_of(["add", "--build", "1", &format!("dep{invisible}loy")]);
    }
    let table = folder.stdout_of(["show", "1"]);
    for invisible in INVISIBLE.chars() {
        assert!(table.contains(&format!("dep{}loy", invisible.escape_unicode())), "{invisible:?}: {table}");
    }
    for arguments in [
        &["show", "1"][..],
        &["show", "1", "--json"],
        &["get", "--step", "1"],
        &["get", "--build", "2", "--name", INVISIBLE],
        &["show", INVISIBLE],
        &["add", "--build", "1", &format!("{INVISIBLE}\u{1b}[31m")],
        &[INVISIBLE],
        &["doctor", "--store", &format!("sqlite:{INVISIBLE}.db")],
    ] {
        let finished = finish(&mut folder.steps(arguments));
        let output = format!("{}{}", finished.stdout, finished.stderr);
        assert!(output.contains("200b") && is_harmless(&output), "{arguments:?}: {output:?}");
    }
    let step: Value = serde_json::from_str(&folder.stdout_of(["get", "--step", "1", "--json"])).unwrap();
    assert_eq!((&step["state_string"], &step["urls"][0]["name"]), (&INVISIBLE.into(), &INVISIBLE.into()));
}

#[test]
fn a_command_that_reads_leaves_one_file_behind() {
    for arguments in [
        &["show", "1"][..],
        &["show", "1", "--watch", "--until-done"],
        &["get", "--step", "1"],
        &["doctor"],
        &["run", "--build", "1", "--show", "--", "true"],
    ] {
        let folder = Folder::new();
        folder.stdout_of(["run", "--build", "1", "--", "true"]);
        assert_eq!(finish(&mut folder.steps(arguments)).code, Some(0), "{arguments:?}");
        assert_eq!(folder.files(), ["steps.db"], "{arguments:?}");
    }
}

#[test]
fn a_closed_pipe_at_standard_output_is_no_error() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "1", "a"]);
    for arguments in [
        &["show", "1"][..],
        &["show", "1", "--watch"],
        &["show", "1", "--json"],
        &["get", "--step", "1"],
        &["doctor"],
        &["completions", "bash"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = folder.steps(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = folder.run_sh(&["--show"], "exit 3").stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_at_standard_output_is_an_error() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "1", "a"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = folder.steps(["show", "1"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output"));
}

#[test]
fn doctor_prints_the_promises_of_the_store() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "1", "a"]);
    let stdout = folder.stdout_of(["doctor"]);
    assert!(stdout.contains("reachable  yes") && stdout.contains("survives the death of the machine"), "{stdout}");

    let document: Value = serde_json::from_str(&folder.stdout_of(["doctor", "--json"])).unwrap();
    let mut keys: Vec<_> = document.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["backend", "format", "location", "promises", "reachable", "warnings"]);
    assert_eq!((&document["reachable"], &document["backend"]), (&json!(true), &json!("sqlite")));
    assert_eq!(document["warnings"], json!([]));

    let normal = folder.stdout_of(["doctor", "--store", "sqlite:steps.db?synchronous=normal"]);
    assert!(normal.contains("but ") && normal.contains("may take the last writes"), "{normal}");
    assert!(folder.stdout_of(["doctor", "--store", "memory:"]).contains("All data is lost"));
}

#[test]
fn doctor_gives_advice_for_a_store_that_cannot_be_used() {
    let folder = Folder::new();
    let finished = folder.finished(["doctor", "--json"]);
    assert_eq!(finished.code, Some(1));
    let document: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(document["reachable"], false);
    assert!(document["error"].as_str().unwrap().contains("steps.db does not exist"));
    assert!(document["advice"].as_str().unwrap().contains("--store"));
    assert!(finished.stderr.contains("cannot be used") && finished.stderr.contains("check --store"), "{finished:?}");

    std::fs::write(folder.file("empty.db"), "").unwrap();
    std::fs::write(folder.file("text.db"), "Not a database.").unwrap();
    for (file, expected) in [
        ("steps.db", "steps.db does not exist yet; mode=rwc makes it"),
        ("none/steps.db", "does not exist, nor does its folder; make the folder first"),
        ("empty.db", "the file is empty; mode=rwc makes a store of it"),
        ("text.db", "not a SQLite database; choose another file"),
    ] {
        let finished = folder.finished(["doctor", "--store", &format!("sqlite:{file}")]);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
        assert!(finished.stderr.contains(&format!("the store sqlite:{file} cannot be used\n")), "{}", finished.stderr);
        assert!(finished.stderr.contains(expected), "{}", finished.stderr);
    }
}
