//! `steps run`: the command, its environment, and the recorded step.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use crate::support::{Folder, finish, finish_with_input};

fn time(step: &Value, field: &str) -> String {
    step[field].as_str().unwrap_or_else(|| panic!("{field} of {step}")).to_owned()
}

#[test]
fn a_command_that_succeeds_is_a_success() {
    let folder = Folder::new();
    let finished = finish(&mut folder.run_sh(&["--url", "log=https://example.org/?a=b", "--url", "x=y"], "echo done"));
    assert_eq!((finished.code, finished.stdout.as_str(), finished.stderr.as_str()), (Some(0), "done\n", ""));

    let step = folder.only_step();
    assert_eq!(step["name"], "sh");
    assert_eq!(step["state_string"], "sh -c 'echo done'");
    assert_eq!(step["results"], 0);
    assert_eq!(step["hidden"], false);
    assert_eq!(step["urls"][0]["name"], "log");
    assert_eq!(step["urls"][0]["url"], "https://example.org/?a=b");
    assert_eq!(step["urls"][1]["name"], "x");
    assert_eq!(step["started_at"], step["locks_acquired_at"]);
    assert!(time(&step, "started_at") < time(&step, "complete_at"), "{step}");
}

#[test]
fn the_exit_code_is_that_of_the_command() {
    let folder = Folder::new();
    for code in [1, 3, 125, 126, 127, 128, 255] {
        assert_eq!(finish(&mut folder.run_sh(&[], &format!("exit {code}"))).code, Some(code));
    }
    assert!(folder.steps_of_build().iter().all(|step| step["results"] == 2), "all are failures");
}

#[test]
fn a_missing_command_is_127() {
    let folder = Folder::new();
    for missing in ["no-such-command", "./no-such-command", ""] {
        let finished = folder.finished(["run", "--build", "1", "--", missing]);
        assert_eq!(finished.code, Some(127));
        assert!(finished.stderr.contains("No such file or directory"), "{finished:?}");
    }
    let step = &folder.steps_of_build()[0];
    assert_eq!((&step["results"], &step["name"]), (&4.into(), &"no-such-command".into()));
    assert_eq!(step["state_string"], "no-such-command (not run: No such file or directory)");
    assert!(step["complete_at"].is_string());
}

#[test]
fn a_command_that_cannot_be_run_is_126() {
    let folder = Folder::new();
    fs::write(folder.file("plain"), "no program").unwrap();
    for not_runnable in ["./plain", "/"] {
        let finished = folder.finished(["run", "--build", "1", "--", not_runnable]);
        assert_eq!(finished.code, Some(126));
        assert!(finished.stderr.contains("Permission denied"), "{finished:?}");
    }
    assert!(folder.steps_of_build().iter().all(|step| step["results"] == 4));
}

#[test]
fn a_script_without_an_interpreter_is_run_by_sh() {
    let folder = Folder::new();
    fs::write(folder.file("script"), "echo \"script $1\"; exit 4").unwrap();
    fs::set_permissions(folder.file("script"), fs::Permissions::from_mode(0o755)).unwrap();
    let finished = folder.finished(["run", "--build", "1", "--", "./script", "a b"]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(4), "script a b\n"));

    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let finished = finish(folder.steps(["run", "--build", "1", "--", "script", "found"]).env("PATH", path));
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(4), "script found\n"));
}

#[test]
fn only_an_executable_file_is_run_by_sh() {
    let folder = Folder::new();
    let script = |path: &str, text: &str, mode| {
        fs::create_dir_all(folder.file(path).parent().unwrap()).unwrap();
        fs::write(folder.file(path), text).unwrap();
        fs::set_permissions(folder.file(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir_all(folder.file("folder/t")).unwrap();
    script("plain/t", "echo plain", 0o644);
    script("first/t", "echo \"first $1\"", 0o755);
    script("second/t", "echo second", 0o755);
    script("t", "echo here", 0o755);
    script("-c", "echo hyphen", 0o755);
    for (path, program, expected) in [
        ("none:folder:plain/t:plain:first:second:/bin", "t", "first a\n"),
        ("plain::first:/bin", "t", "here\n"),
        (":/bin", "-c", "hyphen\n"),
    ] {
        let mut command = folder.steps(["run", "--build", "1", "--", program, "a"]);
        let finished = finish(command.env("PATH", path));
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), expected), "{path}");
    }
    let finished = finish(folder.steps(["run", "--build", "1", "--", "t"]).env("PATH", "folder:plain"));
    assert_eq!(finished.code, Some(126), "{finished:?}");
}

#[test]
fn a_command_that_is_killed_is_an_exception() {
    let folder = Folder::new();
    assert_eq!(finish(&mut folder.run_sh(&[], "kill -KILL $$")).signal, Some(9));
    assert_eq!(finish(&mut folder.run_sh(&[], "kill -TERM $$")).signal, Some(15));
    let steps = folder.steps_of_build();
    assert!(steps.iter().all(|step| step["results"] == 4));
    assert_eq!(steps[0]["state_string"], "sh -c 'kill -KILL $$' (killed by SIGKILL)");
}

#[test]
fn input_and_output_are_passed_unchanged() {
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(300_000).collect();
    let folder = Folder::new();
    let output = finish_with_input(&mut folder.run_sh(&[], "tee /dev/stderr"), bytes.clone());
    assert!(output.stdout == bytes, "standard output differs");
    assert!(output.stderr == bytes, "standard error differs");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn arguments_are_passed_unchanged() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let folder = Folder::new();
    let arguments = ["run", "--build", "1", "--", "printf", "%s|"].map(OsStr::new);
    let strange = ["--", "--build", "a b", "$HOME", ""].map(OsStr::new);
    let not_utf8 = OsStr::from_bytes(b"\xff");
    let mut command = folder.steps(arguments.into_iter().chain(strange).chain([not_utf8]));
    assert_eq!(command.output().unwrap().stdout, b"--|--build|a b|$HOME||\xff|");
    assert_eq!(folder.only_step()["name"], "printf");
}

#[test]
fn the_command_can_change_its_step() {
    let folder = Folder::new();
    let script = r#""$STEPS" state "2 of 3" && "$STEPS" url log rel/path && "$STEPS" get --json >seen && exit 9"#;
    let finished = finish(&mut folder.run_sh(&[], script));
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(9), ""));
    let step = folder.only_step();
    assert_eq!(step["state_string"], "2 of 3", "the command's own state stays");
    assert_eq!(step["urls"][0]["url"], "rel/path");

    let seen: Value = serde_json::from_slice(&fs::read(folder.file("seen")).unwrap()).unwrap();
    assert!(seen["started_at"].is_string(), "the command sees its step as started: {seen}");
    assert_eq!(seen["complete_at"], Value::Null);
}

#[test]
fn the_command_finds_the_store_from_any_folder() {
    let folder = Folder::new();
    for (index, store) in ["sqlite:a%20b.db?synchronous=normal", "sqlite://a%20b.db", ""].into_iter().enumerate() {
        let mut command = folder.run_sh(&[], r#"cd / && "$STEPS" state "$STEPS_BUILD $STEPS_STEP""#);
        let finished = finish(command.env("STEPS_STORE", store));
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{store}");
        let store = if store.is_empty() { "sqlite:steps.db" } else { store };
        let number = if index == 1 { "1" } else { "0" };
        let step = folder.stdout_of(["get", "--store", store, "--build", "1", "--number", number, "--json"]);
        let step: Value = serde_json::from_str(&step).unwrap();
        assert_eq!(step["state_string"], format!("1 {}", step["id"]));
    }
    let mut files = folder.files();
    files.retain(|file| file.ends_with(".db"));
    files.sort();
    assert_eq!(files, ["a b.db", "steps.db"]);
}

#[test]
fn a_step_in_a_step_is_a_step_of_the_same_build() {
    let folder = Folder::new();
    let script = r#""$STEPS" run --name inner -- sh -c '"$STEPS" state inside'; "$STEPS" state outside"#;
    let finished = finish(&mut folder.run_sh(&["--name", "outer"], script));
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let steps = folder.steps_of_build();
    let states: Vec<_> = steps.iter().map(|step| (&step["name"], &step["state_string"])).collect();
    assert_eq!(states, [(&"outer".into(), &"outside".into()), (&"inner".into(), &"inside".into())]);
}

#[test]
fn name_state_and_hidden_are_set_by_options() {
    let folder = Folder::new();
    assert_eq!(
        finish(&mut folder.run_sh(&["--name", "tests", "--state", "secret arguments", "--hidden"], ":")).code,
        Some(0)
    );
    let step = folder.only_step();
    assert_eq!((&step["name"], &step["state_string"]), (&"tests".into(), &"secret arguments".into()));
    assert_eq!(step["hidden"], true);
}

#[test]
fn the_same_name_again_gets_a_suffix() {
    let folder = Folder::new();
    for _ in 0..2 {
        finish(&mut folder.run_sh(&[], ":"));
    }
    let names: Vec<_> = folder.steps_of_build().iter().map(|step| step["name"].clone()).collect();
    assert_eq!(names, ["sh", "sh_1"]);
}

#[test]
fn show_ends_with_the_builds_table() {
    let folder = Folder::new();
    finish(&mut folder.run_sh(&["--name", "first"], ":"));
    let finished = finish(&mut folder.run_sh(&["--name", "second", "--show"], "echo output; exit 2"));
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(2), ""));
    let lines: Vec<_> = finished.stdout.lines().collect();
    assert_eq!(lines[0], "output");
    assert!(lines[1].starts_with("#  NAME"), "{lines:?}");
    assert!(lines[2].contains("first") && lines[2].contains("success"), "{lines:?}");
    assert!(lines[3].contains("second") && lines[3].contains("failure"), "{lines:?}");

    let finished = finish(&mut folder.run_sh(&["--show", "--json"], ":"));
    let document: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(document["steps"].as_array().map(Vec::len), Some(3));
}

#[test]
fn an_invalid_name_is_a_usage_error_and_nothing_is_run() {
    let folder = Folder::new();
    let finished = finish(&mut folder.run_sh(&["--name", "unit\ttests"], "echo run"));
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""));
    assert!(finished.stderr.contains("control character '\\t' at position 4"), "{finished:?}");
    assert_eq!(folder.files(), [""; 0]);
}
