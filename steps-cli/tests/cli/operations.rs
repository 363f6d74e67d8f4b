//! The commands for single operations of the store.

use serde_json::{Value, json};

use crate::support::{Folder, finish};

fn get(folder: &Folder, step: &str) -> Value {
    serde_json::from_str(&folder.stdout_of(["get", "--step", step, "--json"])).unwrap()
}

#[test]
fn a_step_from_its_add_to_its_end() {
    let folder = Folder::new();
    assert_eq!(folder.stdout_of(["add", "--build", "7", "compile"]), "1\n");
    let new = json!({
        "id": 1, "number": 0, "name": "compile", "buildid": 7, "started_at": null, "locks_acquired_at": null,
        "complete_at": null, "state_string": "", "results": null, "urls": [], "hidden": false,
    });
    assert_eq!(get(&folder, "1"), new);

    folder.stdout_of(["start", "--step", "1", "--at", "2026-01-31T12:00:00Z"]);
    folder.stdout_of(["locks", "--step", "1", "--at", "2026-01-31T13:00:01.5+01:00"]);
    folder.stdout_of(["state", "--step", "1", "-v is no option"]);
    folder.stdout_of(["url", "--step", "1", "log", "https://example.org/"]);
    folder.stdout_of(["finish", "--step", "1", "--hidden", "warnings"]);
    let mut step = get(&folder, "1");
    assert!(step["complete_at"].take().is_string());
    let complete = json!({
        "id": 1, "number": 0, "name": "compile", "buildid": 7, "started_at": "2026-01-31T12:00:00.000000Z",
        "locks_acquired_at": "2026-01-31T12:00:01.500000Z", "complete_at": null, "state_string": "-v is no option",
        "results": 1, "urls": [{"name": "log", "url": "https://example.org/"}], "hidden": true,
    });
    assert_eq!(step, complete);
}

#[test]
fn an_add_answers_with_id_number_and_name() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "7", "compile", "--state", "waiting for a worker"]);
    let mut added: Value =
        serde_json::from_str(&folder.stdout_of(["add", "--build", "7", "compile", "--json"])).unwrap();
    // A name that is taken may cost an id (I1).
    let id = added["id"].take();
    assert!(id.as_i64() > Some(1), "{id}");
    assert_eq!(added, json!({"id": null, "number": 1, "name": "compile_1"}));
    assert_eq!(get(&folder, &id.to_string())["name"], "compile_1");
    assert_eq!(get(&folder, "1")["state_string"], "waiting for a worker");
}

#[test]
fn the_same_key_adds_once() {
    let folder = Folder::new();
    let add = ["add", "--build", "7", "compile", "--key", "job 3"];
    assert_eq!((folder.stdout_of(add), folder.stdout_of(add)), ("1\n".to_owned(), "1\n".to_owned()));
}

#[test]
fn results_are_given_by_name_or_number() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "1", "a"]);
    for (given, code, shown) in [("cancelled", 6, "cancelled (6)"), ("2", 2, "failure (2)"), ("-7", -7, "-7")] {
        folder.stdout_of(["finish", "--step", "1", given]);
        assert_eq!(get(&folder, "1")["results"], code);
        let step = folder.stdout_of(["get", "--step", "1"]);
        let line = step.lines().find(|line| line.starts_with("result")).unwrap();
        assert_eq!(line.trim_start_matches("result").trim(), shown);
    }
    assert_eq!(folder.finished(["finish", "--step", "1", "splendid"]).code, Some(2));
}

#[test]
fn a_start_says_whether_the_locks_are_acquired() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "1", "a"]);
    folder.stdout_of(["start", "--step", "1"]);
    assert!(get(&folder, "1")["locks_acquired_at"].is_null());
    folder.stdout_of(["start", "--step", "1", "--locks-acquired"]);
    let step = get(&folder, "1");
    assert_eq!(step["locks_acquired_at"], step["started_at"]);
    assert!(step["started_at"].is_string());
}

#[test]
fn step_and_build_come_from_the_environment_too() {
    let folder = Folder::new();
    let with = |name, value, arguments: &[&str]| finish(folder.steps(arguments).env(name, value));
    assert_eq!(with("STEPS_BUILD", "7", &["add", "a"]).stdout, "1\n");
    assert_eq!(with("STEPS_STEP", "1", &["state", "from there"]).code, Some(0));
    assert_eq!(get(&folder, "1")["state_string"], "from there");
    for (name, value, arguments) in [
        ("STEPS_STEP", "1", &["get", "--json"][..]),
        ("STEPS_BUILD", "7", &["get", "--name", "a", "--json"]),
        ("STEPS_BUILD", "7", &["get", "--number", "0", "--json"]),
        // As inside `steps run`: STEPS_STEP does not prevent the selection of another step.
        ("STEPS_STEP", "5", &["get", "--build", "7", "--name", "a", "--json"]),
        ("STEPS_STEP", "5", &["get", "--step", "1", "--json"]),
    ] {
        let finished = with(name, value, arguments);
        let step: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"));
        assert_eq!(step["name"], "a", "{arguments:?}");
    }
    assert_eq!(with("STEPS_STEP", "one", &["get"]).code, Some(2));
}

#[test]
fn a_missing_step_is_1() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "7", "a"]);
    for (arguments, expected) in [
        (&["get", "--step", "2"][..], "there is no step 2"),
        (&["get", "--build", "7", "--number", "1"], "build 7 has no step number 1"),
        (&["get", "--build", "7", "--name", "b", "--json"], "build 7 has no step named b"),
        (&["state", "--step", "2", "text"], "there is no such step"),
        (&["url", "--step", "2", "log", "url"], "there is no such step"),
        (&["start", "--step", "2"], "there is no such step"),
        (&["locks", "--step", "2"], "there is no such step"),
        (&["finish", "--step", "2", "success"], "there is no such step"),
    ] {
        let finished = finish(&mut folder.steps(arguments));
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""));
        assert!(finished.stderr.starts_with("steps: error: ") && finished.stderr.contains(expected), "{finished:?}");
    }
}

#[test]
fn get_prints_every_field() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "7", "compile", "--state", "two\nlines"]);
    folder.stdout_of(["start", "--step", "1", "--at", "2026-01-31T12:00:00Z"]);
    folder.stdout_of(["locks", "--step", "1", "--at", "2026-01-31T12:01:02Z"]);
    folder.stdout_of(["url", "--step", "1", "log", "https://example.org/"]);
    folder.stdout_of(["url", "--step", "1", "", "https://example.org/2"]);
    let expected = r"
id              1
build           7
number          0
name            compile
state           two\nlines
result          running
started         2026-01-31T12:00:00.000000Z
locks acquired  2026-01-31T12:01:02.000000Z
complete
waited          1m 02s
urls            log: https://example.org/
                https://example.org/2
hidden          no
";
    // The duration of the running step changes, so only its presence is checked.
    let answer = folder.stdout_of(["get", "--step", "1"]);
    let (time, rest): (Vec<_>, Vec<_>) = answer.lines().partition(|line| line.starts_with("time "));
    assert!(time.len() == 1 && time[0].contains('d'), "{time:?}");
    assert_eq!(rest, expected.trim().lines().collect::<Vec<_>>());
}
