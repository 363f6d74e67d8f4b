//! What people expect of a program on the command line.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Place, finish};

/// Written by somebody who means harm.
const HOSTILE: &str = "a\u{1b}[31m\u{1b}]0;title\u{7}\r\u{9b}2J\u{7f}\u{202e}x\u{2066}\u{2028}é";

fn is_harmless(text: &str) -> bool {
    !text.chars().any(|c| c != '\n' && (c.is_control() || "\u{202e}\u{2066}\u{2028}".contains(c)))
}

#[test]
fn the_store_is_named_before_or_after_the_command_or_in_the_environment() {
    let place = Place::new();
    assert_eq!(place.answer(["--store", "sqlite:before.db", "add", "--build", "1", "a"]), "1\n");
    assert_eq!(place.answer(["add", "--store", "sqlite:after.db", "--build", "1", "a"]), "1\n");
    let environment = |arguments: &[&str]| finish(place.steps(arguments).env("STEPS_STORE", "sqlite:environment.db"));
    assert_eq!(environment(&["add", "--build", "1", "a"]).stdout, "1\n");
    for store in ["before", "after", "environment"] {
        assert!(place.file(&format!("{store}.db")).exists());
    }
    // What is said wins, before and after.
    assert_eq!(environment(&["--store", "sqlite:before.db", "add", "--build", "1", "b"]).stdout, "2\n");
    assert_eq!(environment(&["add", "--build", "1", "b", "--store", "sqlite:after.db"]).stdout, "2\n");
    assert_eq!(place.answer(["add", "--build", "1", "a"]), "1\n");
    assert!(place.file("steps.db").exists(), "otherwise it is in the current folder");
}

#[test]
fn usage_errors_are_2_and_touch_nothing() {
    let place = Place::new();
    for arguments in [
        &[][..],
        &["nonsense"],
        &["run", "--build", "1"],
        &["run", "--build", "1", "true"],
        &["run", "--", "true"],
        &["run", "--build", "0", "--", "true"],
        &["run", "--build", "1", "--url", "no-equals-sign", "--", "true"],
        &["run", "--build", "1", "--json", "--", "true"],
        &["add", "--build", "1", "7zip"],
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
        let finished = finish(&mut place.steps(arguments));
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert_ne!(finished.stderr, "", "{arguments:?}");
    }
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn version_help_and_completions_need_no_store() {
    let place = Place::new();
    let version = place.answer(["--version", "--store", "nonsense"]);
    assert_eq!(version, concat!("steps ", env!("CARGO_PKG_VERSION"), "\n"));
    assert!(place.answer(["help", "run"]).contains("128+n"));
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = place.answer(["completions", shell]);
        assert!(script.contains("until-done"), "{shell}");
    }
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn reading_and_changing_create_no_file() {
    let place = Place::new();
    for arguments in [
        &["show", "1"][..],
        &["show", "1", "--watch"],
        &["get", "--step", "1"],
        &["doctor"],
        &["start", "--step", "1"],
        &["state", "--step", "1", "text"],
        &["finish", "--step", "1", "success"],
    ] {
        let finished = finish(&mut place.steps(arguments));
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(finished.stderr.contains("steps.db does not exist"), "{finished:?}");
        assert_eq!(place.files(), [""; 0], "{arguments:?}");
    }
}

#[test]
fn a_url_with_a_mode_keeps_it() {
    let place = Place::new();
    place.answer(["add", "--build", "1", "a"]);
    let read_only = "sqlite:steps.db?mode=ro";
    assert!(place.answer(["show", "1", "--store", read_only]).contains('a'));
    let finished = place.finished(["state", "--step", "1", "text", "--store", read_only]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert_eq!(place.finished(["show", "1", "--store", "sqlite:other.db?mode=rwc"]).code, Some(0));
    assert!(place.file("other.db").exists());
}

#[test]
fn no_password_is_shown() {
    let place = Place::new();
    for store in ["nonsense://ci:secret@host/db", "nonsense:secret", "secret", "sqlite:x.db?password=secret"] {
        for arguments in
            [&["doctor"][..], &["show", "1"], &["add", "--build", "1", "a"], &["help", "run"], &["doctor", "--json"]]
        {
            let finished = finish(place.steps(arguments).env("STEPS_STORE", store));
            let said = format!("{}{}", finished.stdout, finished.stderr);
            assert!(!said.contains("secret"), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn nothing_from_the_store_reaches_the_terminal_as_a_command() {
    let place = Place::new();
    let name = "n\u{202e}\u{2066}é";
    place.answer(["add", "--build", "1", name, "--state", HOSTILE]);
    place.answer(["url", "--step", "1", HOSTILE, HOSTILE]);
    place.answer(["finish", "--step", "1", "success"]);
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
        let finished = finish(&mut place.steps(arguments));
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(said.contains("202e") && is_harmless(&said), "{arguments:?}: {said:?}");
    }
    let step: Value = serde_json::from_str(&place.answer(["get", "--step", "1", "--json"])).unwrap();
    assert_eq!((&step["state_string"], &step["urls"][0]["url"]), (&HOSTILE.into(), &HOSTILE.into()));
}

#[test]
fn what_reads_leaves_one_file_behind() {
    for arguments in [
        &["show", "1"][..],
        &["show", "1", "--watch", "--until-done"],
        &["get", "--step", "1"],
        &["doctor"],
        &["run", "--build", "1", "--show", "--", "true"],
    ] {
        let place = Place::new();
        place.answer(["run", "--build", "1", "--", "true"]);
        assert_eq!(finish(&mut place.steps(arguments)).code, Some(0), "{arguments:?}");
        assert_eq!(place.files(), ["steps.db"], "{arguments:?}");
    }
}

#[test]
fn nobody_reading_is_no_error() {
    let place = Place::new();
    place.answer(["add", "--build", "1", "a"]);
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
        let output = place.steps(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = place.run_sh(&["--show"], "exit 3").stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_at_standard_output_is_an_error() {
    let place = Place::new();
    place.answer(["add", "--build", "1", "a"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = place.steps(["show", "1"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output"));
}

#[test]
fn doctor_says_what_the_store_promises() {
    let place = Place::new();
    place.answer(["add", "--build", "1", "a"]);
    let said = place.answer(["doctor"]);
    assert!(said.contains("reachable  yes") && said.contains("survives the death of the machine"), "{said}");

    let document: Value = serde_json::from_str(&place.answer(["doctor", "--json"])).unwrap();
    let mut keys: Vec<_> = document.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["backend", "format", "location", "promises", "reachable", "warnings"]);
    assert_eq!((&document["reachable"], &document["backend"]), (&json!(true), &json!("sqlite")));
    assert_eq!(document["warnings"], json!([]));

    let normal = place.answer(["doctor", "--store", "sqlite:steps.db?synchronous=normal"]);
    assert!(normal.contains("but ") && normal.contains("may take the last writes"), "{normal}");
    assert!(place.answer(["doctor", "--store", "memory:"]).contains("All data is lost"));
}

#[test]
fn doctor_says_what_to_do_about_a_store_that_cannot_be_used() {
    let place = Place::new();
    let finished = place.finished(["doctor", "--json"]);
    assert_eq!(finished.code, Some(1));
    let document: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(document["reachable"], false);
    assert!(document["error"].as_str().unwrap().contains("steps.db does not exist"));
    assert!(document["advice"].as_str().unwrap().contains("--store"));
    assert!(finished.stderr.contains("cannot be used") && finished.stderr.contains("check --store"), "{finished:?}");

    std::fs::write(place.file("empty.db"), "").unwrap();
    std::fs::write(place.file("text.db"), "What is no database.").unwrap();
    for (file, said) in [
        ("steps.db", "steps.db does not exist yet; mode=rwc makes it"),
        ("none/steps.db", "does not exist, nor does its folder; make the folder first"),
        ("empty.db", "the file is empty; mode=rwc makes a store of it"),
        ("text.db", "not a SQLite database; choose another file"),
    ] {
        let finished = place.finished(["doctor", "--store", &format!("sqlite:{file}")]);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
        assert!(finished.stderr.contains(&format!("the store sqlite:{file} cannot be used\n")), "{}", finished.stderr);
        assert!(finished.stderr.contains(said), "{}", finished.stderr);
    }
}
