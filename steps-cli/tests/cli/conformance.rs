//! The conformance suite and recorded scenarios, on a store that others use.

use std::fs;

use conformance_tests::recorded::BUILDBOT;
use serde_json::Value;

use crate::support::{Finished, Folder, finish};

/// A part of the cases, to keep the tests short.
const SOME: [&str; 3] = ["conformance", "--filter", "add_step::"];

fn scenario(ops: &str) -> String {
    format!(r#"{{"seed":7,"kind":"odd","builds":[1],"ops":[{ops}],"final":{{}}}}"#)
}

fn replayed(folder: &Folder, scenarios: &str, options: &[&str]) -> Finished {
    fs::write(folder.file("vectors.jsonl"), scenarios).unwrap();
    finish(folder.steps(["conformance", "--vectors", "vectors.jsonl"]).args(options))
}

/// The number of cases that [`SOME`] selects.
fn some_cases() -> usize {
    let all = include_str!("../../../conformance-tests/cases.txt");
    all.lines().filter(|case| case.starts_with("add_step::")).count()
}

#[test]
fn a_store_that_keeps_the_contract_passes_and_the_steps_of_others_stay() {
    let folder = Folder::new();
    folder.stdout_of(["run", "--build", "1", "--", "true"]);
    let before = folder.stdout_of(["show", "1", "--json"]);
    let finished = folder.finished(SOME);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let Finished { stdout, stderr, .. } = finished;
    assert!(stdout.contains("ADD_STEP") && stdout.contains("collision_takes_smallest_suffix"), "{stdout}");
    let cases = some_cases();
    let last = format!("sqlite: {cases} passed, 0 failed, 0 ignored; seed ");
    assert!(stdout.lines().next_back().unwrap().starts_with(&last), "{stdout}");
    let counted = format!("{cases} of {cases} cases\n");
    assert!(stderr.contains(&counted) && stderr.contains("builds are left in the store: "), "{stderr}");
    assert_eq!(folder.stdout_of(["show", "1", "--json"]), before);
    assert_eq!(folder.files(), ["steps.db"]);
}

#[test]
fn the_report_names_all_builds_that_are_left_behind() {
    let folder = Folder::new();
    let finished = finish(folder.steps(SOME).arg("--json"));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let counts = (&report["store"], &report["passed"], &report["failed"]);
    assert_eq!(counts, (&"sqlite".into(), &some_cases().into(), &0.into()));
    assert_eq!(report["cases"][0]["outcome"], "passed");
    let ranges: Vec<(i64, i64)> = serde_json::from_value(report["left_behind"]["ranges"].clone()).unwrap();
    let left = folder.builds();
    assert_eq!(report["left_behind"]["builds"], left.len());
    assert!(left.iter().all(|build| ranges.iter().any(|(first, last)| (first..=last).contains(&build))));
    assert!(left.iter().all(|build| *build > i64::MAX / 2), "{left:?}");
}

#[test]
fn a_missing_feature_is_skipped_with_its_reason_and_a_store_in_memory_leaves_nothing() {
    let folder = Folder::new();
    let finished = folder.finished(["conformance", "--store", "memory:", "--filter", "peers::"]);
    // No case ran, which is no success.
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stdout.contains("skipped: without peers: "), "{finished:?}");
    assert!(!finished.stderr.contains("left in the store"), "{finished:?}");
    assert_eq!(folder.files(), [""; 0]);
}

#[test]
fn a_store_that_cannot_be_written_to_is_1_with_one_error() {
    let folder = Folder::new();
    folder.stdout_of(["add", "--build", "1", "a"]);
    for (store, expected) in [("sqlite:steps.db?mode=ro", "read"), ("sqlite:missing/steps.db", "missing/steps.db")] {
        let finished = finish(folder.steps(SOME).args(["--store", store]));
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
        assert!(finished.stderr.starts_with("steps: error: ") && finished.stderr.contains(expected), "{finished:?}");
    }
}

#[test]
fn recorded_scenarios_agree_and_the_last_line_counts_them() {
    let folder = Folder::new();
    let finished = replayed(&folder, BUILDBOT, &[]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), "64 of 64 scenarios agree\n"), "{finished:?}");
    let finished = replayed(&folder, BUILDBOT, &["--json", "--store", "memory:"]);
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!((&report["scenarios"], &report["agree"]), (&64.into(), &64.into()), "{finished:?}");
    assert_eq!(report["disagreements"], Value::Array(vec![]));
}

#[test]
fn a_disagreement_names_scenario_operation_and_both_answers() {
    let folder = Folder::new();
    let add = |name: &str, number: u32| {
        format!(
            r#"{{"op":"add_step","build":1,"name":"{name}","state_string":"","out":{{"step":0,"number":{number},"name":"{name}"}}}}"#
        )
    };
    let long = "x".repeat(51);
    let finish = r#"{"op":"finish_step","step":0,"results":0,"hidden":false,"now":5,"out":null}"#;
    let wrong_time = r#"{"op":"get_step","step":0,"out":{"step":0,"build":1,"number":0,"name":"a","started_at":null,"locks_acquired_at":null,"complete_at":6,"state_string":"","results":0,"urls":[],"hidden":false}}"#;
    let missing = r#"{"op":"add_url","step":3,"name":"","url":"","out":null}"#;
    let scenarios = [
        scenario(&add("a", 0)),
        scenario(&add("a", 1)),
        scenario(&add(&long, 0)),
        scenario(&[add("a", 0), finish.into(), wrong_time.into()].join(",")),
        scenario(missing),
    ];
    for store in ["sqlite:steps.db", "memory:"] {
        let finished = replayed(&folder, &scenarios.join("\n"), &["--store", store]);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        let stdout = finished.stdout;
        assert!(stdout.ends_with("\n1 of 5 scenarios agree\n"), "{stdout}");
        for expected in [
            "---- odd_7, line 2 ----",
            "ops[0] add_step {\"build\":1,\"name\":\"a\",\"state_string\":\"\"}: answer.number\n  expected: 1\n       got: 0",
            "---- odd_7, line 3 ----",
            ": an input that the contract refuses",
            "invalid step name: 51 characters",
            "ops[2] get_step {\"step\":0}: answer.complete_at\n  expected: 6\n       got: 5",
            "it names the step 3, which the scenario does not have",
        ] {
            assert!(stdout.contains(expected), "{expected}: {stdout}");
        }
    }
    let finished = replayed(&folder, &scenarios.join("\n"), &["--json"]);
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let reasons: Vec<_> = report["disagreements"].as_array().unwrap().iter().map(|it| it["reason"].clone()).collect();
    assert_eq!(reasons, ["answer", "refused", "answer", "scenario"]);
    assert_eq!(
        report["disagreements"][1]["operation"].as_str().map(|it| it.starts_with("ops[0] add_step")),
        Some(true)
    );
}

#[test]
fn an_invalid_file_of_scenarios_is_2_and_touches_no_store() {
    let folder = Folder::new();
    let unknown = scenario(r#"{"op":"get_steps","build":1,"out":[],"nonsense":1}"#);
    for (text, expected) in [
        ("", "it holds no scenarios"),
        ("\n\n", "it holds no scenarios"),
        ("{}", "line 1: not a scenario: missing field"),
        ("\nnonsense", "line 2: not a scenario: expected"),
        (&unknown, "unknown field `nonsense`"),
    ] {
        let finished = replayed(&folder, text, &[]);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{finished:?}");
        assert!(finished.stderr.contains("vectors.jsonl") && finished.stderr.contains(expected), "{finished:?}");
    }
    fs::remove_file(folder.file("vectors.jsonl")).unwrap();
    for arguments in [
        &["conformance", "--vectors", "vectors.jsonl"][..],
        &["conformance", "--vectors", "."],
        &["conformance", "--vectors", "vectors.jsonl", "--seed", "1"],
        &["conformance", "--seed", "one"],
        &["conformance", "--cases", "-1"],
    ] {
        let finished = finish(&mut folder.steps(arguments));
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{arguments:?}");
    }
    let finished = finish(folder.steps(["conformance"]).env("STEPS_CONFORMANCE_SEED", "one"));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert_eq!(folder.files(), [""; 0]);
}
