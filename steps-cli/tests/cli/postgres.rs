//! The program on a PostgreSQL server.

use serde_json::Value;
use test_servers::shared_postgres;

use crate::support::{Folder, finish};

#[test]
fn a_build_on_a_server_is_run_shown_and_diagnosed() {
    let folder = Folder::new();
    let schema = shared_postgres().unwrap();
    let url = schema.url_with_schema();
    let on_server = |arguments: &[&str]| finish(folder.steps(arguments).env("STEPS_STORE", &url));

    for reading in
        [&["show", "1"][..], &["get", "--build", "1", "--number", "0"], &["doctor"], &["state", "--step", "1", "x"]]
    {
        let done = on_server(reading);
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{reading:?} created a store: {}", done.stderr);
        assert!(done.stderr.contains("there is no store in the schema"), "{reading:?}: {}", done.stderr);
    }

    let doctor = on_server(&["doctor"]);
    assert!(
        doctor.stderr.contains("the store postgres:… cannot be used\n"),
        "the server is reachable: {}",
        doctor.stderr
    );
    assert!(doctor.stderr.contains(" yet; mode=rwc makes one"), "{}", doctor.stderr);

    let run = |name: &str, script: &str| on_server(&["run", "--build", "1", "--name", name, "--", "sh", "-c", script]);
    assert_eq!(run("compile", "\"$STEPS\" url log https://ci.example.org/log").code, Some(0));
    assert_eq!(run("compile", "exit 3").code, Some(3));
    assert_eq!(folder.files(), [""; 0], "no file is created");

    let table = on_server(&["show", "1"]);
    assert_eq!((table.code, table.stderr.as_str()), (Some(0), ""));
    assert!(table.stdout.contains("compile_1"), "{}", table.stdout);
    let document: Value = serde_json::from_str(&on_server(&["show", "1", "--json"]).stdout).unwrap();
    let steps = document["steps"].as_array().unwrap();
    let results: Vec<_> = steps.iter().map(|step| step["results"].as_i64()).collect();
    assert_eq!(results, [Some(0), Some(2)], "{document}");
    assert_eq!(steps[0]["urls"].as_array().map(Vec::len), Some(1), "{document}");

    let doctor = on_server(&["doctor"]);
    assert_eq!((doctor.code, doctor.stderr.as_str()), (Some(0), ""));
    for expected in ["PostgreSQL", schema.name(), "survives", "reachable"] {
        assert!(doctor.stdout.contains(expected), "{expected}: {}", doctor.stdout);
    }
    let doctor = finish(folder.steps(["doctor"]).env("STEPS_STORE", "postgres://ci:secret@127.0.0.1:1/ci"));
    assert_eq!((doctor.code, doctor.stdout.as_str()), (Some(1), ""));
    assert!(doctor.stderr.contains("the store postgres:… is not reachable\n"), "{}", doctor.stderr);
    assert!(doctor.stderr.contains("the server cannot be reached"), "{}", doctor.stderr);
    assert!(!doctor.stderr.contains("secret"), "{}", doctor.stderr);
}
