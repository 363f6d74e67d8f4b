//! A store that fails or hangs before, during or after a command does not affect the command.

use std::{fs, time::Duration};

use crate::support::{
    Finished, Folder, WAIT_FOR_GO, finish, finish_started, finish_timed, go, start, wait_until, wait_until_running,
};

/// The limit for a delay of two seconds before the command and two after it, with room for a busy machine.
const MAX_TIME: Duration = Duration::from_secs(12);

/// Asserts that the command ran and ended with 3, and that there is one warning.
fn assert_warned_once(finished: &Finished) {
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(3), "ran\n"), "{finished:?}");
    assert_eq!(finished.stderr.matches("steps: ").count(), 1, "{finished:?}");
    assert!(finished.stderr.starts_with("steps: warning: "), "{finished:?}");
}

#[test]
fn a_store_that_cannot_be_opened_costs_one_warning() {
    let foreign = Folder::new();
    fs::write(foreign.file("foreign.db"), "no database ".repeat(1000)).unwrap();
    for store in [
        "sqlite:no/such/folder/steps.db",
        "sqlite:/",
        "sqlite:foreign.db",
        "sqlite:steps.db?mode=rw",
        "sqlite:steps.db?mode=ro",
        "sqlite:steps.db?mode=wrong",
        "nonsense://host",
        "nonsense",
    ] {
        let finished = finish(&mut foreign.run_sh(&["--store", store, "--show"], "echo ran; exit 3"));
        assert_warned_once(&finished);
        assert!(finished.stderr.contains("the step is not recorded"), "{finished:?}");
    }
    assert_eq!(foreign.files(), ["foreign.db"], "no file is created");
    assert_eq!(fs::read(foreign.file("foreign.db")).unwrap(), "no database ".repeat(1000).as_bytes());
}

#[test]
fn a_store_that_hangs_before_holds_the_command_up_for_two_seconds() {
    let folder = Folder::new();
    finish(&mut folder.run_sh(&[], ":"));
    let lock = folder.lock();
    let (finished, time) = finish_timed(&mut folder.run_sh(&["--url", "a=b"], "echo ran; exit 3"));
    assert_warned_once(&finished);
    assert!(finished.stderr.contains("locked"), "the warning names the cause: {finished:?}");
    assert!(time < MAX_TIME, "{time:?}");
    lock.release();
    assert_eq!(folder.steps_of_build().len(), 1, "the add was not applied later");
}

#[test]
fn a_store_that_cannot_be_opened_in_time_holds_the_command_up_for_two_seconds() {
    let folder = Folder::new();
    finish(&mut folder.run_sh(&[], ":"));
    let lock = folder.lock_out();
    let (finished, time) = finish_timed(&mut folder.run_sh(&["--show"], "echo ran; exit 3"));
    assert_warned_once(&finished);
    assert!(time < MAX_TIME, "{time:?}");
    lock.release();
    assert_eq!(folder.steps_of_build().len(), 1);
}

#[test]
fn a_store_that_comes_back_while_the_command_runs_gets_the_step() {
    for lasts in [true, false] {
        let folder = Folder::new();
        finish(&mut folder.run_sh(&[], ":"));
        let lock = folder.lock();
        let child = start(&mut folder.run_sh(&["--url", "a=b"], &format!("{WAIT_FOR_GO} exit 3")));
        wait_until_running(&folder);
        lock.release();
        if lasts {
            wait_until("the step is recorded", || folder.steps_of_build().len() == 2);
            assert!(folder.steps_of_build()[1]["complete_at"].is_null());
        }
        go(&folder);
        let finished = finish_started(child);
        assert_eq!(finished.code, Some(3));
        assert!(finished.stderr.starts_with("steps: warning: the step is not recorded yet: "), "{finished:?}");
        assert_eq!(finished.stderr.matches("steps: ").count(), 1, "{finished:?}");
        let step = &folder.steps_of_build()[1];
        assert_eq!((&step["results"], &step["urls"][0]["url"]), (&2.into(), &"b".into()));
        assert!(step["started_at"].is_string() && step["complete_at"].is_string(), "{step}");
    }
}

#[test]
fn a_store_that_hangs_after_is_waited_for_no_longer_than_two_seconds() {
    let folder = Folder::new();
    let child = start(&mut folder.run_sh(&[], &format!("{WAIT_FOR_GO} echo ran; exit 3")));
    wait_until_running(&folder);
    let lock = folder.lock();
    let (finished, time) = {
        let begin = std::time::Instant::now();
        go(&folder);
        (finish_started(child), begin.elapsed())
    };
    assert_warned_once(&finished);
    assert!(finished.stderr.contains("the end of the step is not recorded"), "{finished:?}");
    assert!(time < MAX_TIME, "{time:?}");
    lock.release();
}

#[test]
fn a_store_that_hangs_while_the_command_runs_is_not_noticed() {
    let folder = Folder::new();
    let child = start(&mut folder.run_sh(&[], &format!("{WAIT_FOR_GO} echo ran; exit 3")));
    wait_until_running(&folder);
    // `steps` holds no lock while the command runs, so this gets the lock at once.
    folder.lock().release();
    go(&folder);
    let finished = finish_started(child);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(3), ""));
    assert_eq!(folder.only_step()["results"], 2);
}

#[test]
fn a_step_that_could_not_be_started_is_finished() {
    let folder = Folder::new();
    finish(&mut folder.run_sh(&[], ":"));
    folder.execute(
        "CREATE TRIGGER no_start BEFORE UPDATE ON steps WHEN NEW.started_at IS NOT OLD.started_at
         BEGIN SELECT raise(ABORT, 'not today'); END",
    );
    let finished = finish(&mut folder.run_sh(&[], "echo ran; exit 3"));
    assert_warned_once(&finished);
    assert!(finished.stderr.contains("not today"), "{finished:?}");
    let step = &folder.steps_of_build()[1];
    assert!(step["started_at"].is_null() && step["complete_at"].is_string(), "{step}");
    assert_eq!(step["results"], 2);
}

#[test]
fn a_store_that_was_removed_during_the_command_changes_nothing() {
    let folder = Folder::new();
    let finished = finish(&mut folder.run_sh(&["--show"], "rm steps.db*; echo ran; exit 3"));
    assert_eq!(finished.code, Some(3));
    assert!(finished.stdout.starts_with("ran\n"), "{finished:?}");

    let folder = Folder::new();
    let finished =
        finish(&mut folder.run_sh(&["--show"], "for f in steps.db*; do echo broken >$f; done; echo ran; exit 3"));
    assert_eq!(finished.code, Some(3));
    assert!(finished.stdout.starts_with("ran\n"), "{finished:?}");
    assert!(finished.stderr.matches("steps: ").count() <= 1, "{finished:?}");
}

#[test]
fn without_a_step_the_command_has_none_in_its_environment() {
    let folder = Folder::new();
    let mut command = folder.run_sh(&["--store", "sqlite:no/folder.db"], "echo \"$STEPS_BUILD ${STEPS_STEP-none}\"");
    let finished = finish(command.env("STEPS_STEP", "77"));
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), "1 none\n"));
}

#[test]
fn strict_does_not_run_a_command_that_cannot_be_recorded() {
    let folder = Folder::new();
    let finished = finish(&mut folder.run_sh(&["--strict", "--store", "sqlite:no/folder.db"], "echo ran"));
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(125), ""));
    assert!(finished.stderr.starts_with("steps: error: the step is not recorded: sqlite: connect"), "{finished:?}");

    finish(&mut folder.run_sh(&[], ":"));
    let lock = folder.lock();
    let (finished, time) = finish_timed(&mut folder.run_sh(&["--strict"], "echo ran"));
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(125), ""));
    assert!(time < MAX_TIME, "{time:?}");
    lock.release();
}

#[test]
fn strict_ends_with_125_when_the_end_of_a_success_is_not_recorded() {
    for (code, expected) in [(0, 125), (3, 3)] {
        let folder = Folder::new();
        let child = start(&mut folder.run_sh(&["--strict"], &format!("{WAIT_FOR_GO} exit {code}")));
        wait_until_running(&folder);
        let lock = folder.lock();
        go(&folder);
        let finished = finish_started(child);
        assert_eq!(finished.code, Some(expected), "{finished:?}");
        assert!(finished.stderr.starts_with("steps: error: the end of the step is not recorded"), "{finished:?}");
        lock.release();
    }
}

#[test]
fn strict_changes_nothing_when_all_goes_well() {
    let folder = Folder::new();
    for code in [0, 3] {
        assert_eq!(finish(&mut folder.run_sh(&["--strict"], &format!("exit {code}"))).code, Some(code));
    }
    assert_eq!(folder.steps_of_build().len(), 2);
}

#[test]
fn a_change_inside_a_command_is_a_warning_if_the_store_is_away() {
    let away = "STEPS_STORE=sqlite:no/folder.db";
    let strict = r#"env "$0" "$STEPS" state --strict text; echo $?"#;
    for (store, expected) in [(&[][..], away), (&["--store", "sqlite:no/folder.db"], "A=b")] {
        let folder = Folder::new();
        for change in ["start", "locks", "state text", "url log url", "finish success"] {
            let script = format!(r#"env "$0" "$STEPS" {change} && echo ran"#);
            let mut command = folder.run_sh(store, &script);
            let finished = finish(command.arg(expected));
            assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), "ran\n"), "{change}: {finished:?}");
            assert!(finished.stderr.contains("steps: warning: the change is not recorded: "), "{finished:?}");
        }
        let finished = finish(folder.run_sh(store, strict).arg(expected));
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), "1\n"), "{finished:?}");
        assert!(finished.stderr.contains("steps: error: "), "{finished:?}");
    }
}

#[test]
fn a_change_to_another_step_or_outside_of_a_command_fails_if_the_store_is_away() {
    let folder = Folder::new();
    let script = r#"STEPS_STORE=sqlite:no/folder.db "$STEPS" state --step 77 text"#;
    assert_eq!(finish(&mut folder.run_sh(&[], script)).code, Some(1));
    let folder = Folder::new();
    assert_eq!(finish(folder.steps(["state", "text"]).env("STEPS_STEP", "1")).code, Some(1));
    let finished = folder.finished(["state", "text"]);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("--step"), "{finished:?}");
}
