//! A store that fails or hangs before, while and after a command runs: the command does not notice.

use std::{fs, time::Duration};

use crate::support::{
    Finished, Place, WAIT_FOR_GO, finish, finish_started, finish_timed, go, start, wait_until_running,
};

/// Two seconds before and two after are what a store may cost; the rest is for a busy machine.
const BOUND: Duration = Duration::from_secs(12);

/// The command ran and ended with 3, and the user heard of the store once.
fn assert_warned_once(finished: &Finished) {
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(3), "ran\n"), "{finished:?}");
    assert_eq!(finished.stderr.matches("steps: ").count(), 1, "{finished:?}");
    assert!(finished.stderr.starts_with("steps: warning: "), "{finished:?}");
}

#[test]
fn a_store_that_cannot_be_opened_costs_one_warning() {
    let foreign = Place::new();
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
    assert_eq!(foreign.files(), ["foreign.db"], "and nothing is made");
    assert_eq!(fs::read(foreign.file("foreign.db")).unwrap(), "no database ".repeat(1000).as_bytes());
}

#[test]
fn a_store_that_hangs_before_holds_the_command_up_for_two_seconds() {
    let place = Place::new();
    finish(&mut place.run_sh(&[], ":"));
    let lock = place.lock();
    let (finished, time) = finish_timed(&mut place.run_sh(&["--url", "a=b"], "echo ran; exit 3"));
    assert_warned_once(&finished);
    assert!(finished.stderr.contains("locked"), "it says why: {finished:?}");
    assert!(time < BOUND, "{time:?}");
    lock.release();
    assert_eq!(place.steps_of_build().len(), 1, "what was not added is not there later");
}

#[test]
fn a_store_that_cannot_be_opened_in_time_holds_the_command_up_for_two_seconds() {
    let place = Place::new();
    finish(&mut place.run_sh(&[], ":"));
    let lock = place.lock_out();
    let (finished, time) = finish_timed(&mut place.run_sh(&["--show"], "echo ran; exit 3"));
    assert_warned_once(&finished);
    assert!(time < BOUND, "{time:?}");
    lock.release();
    assert_eq!(place.steps_of_build().len(), 1);
}

#[test]
fn a_store_that_hangs_after_is_waited_for_no_longer_than_two_seconds() {
    let place = Place::new();
    let child = start(&mut place.run_sh(&[], &format!("{WAIT_FOR_GO} echo ran; exit 3")));
    wait_until_running(&place);
    let lock = place.lock();
    let (finished, time) = {
        let begin = std::time::Instant::now();
        go(&place);
        (finish_started(child), begin.elapsed())
    };
    assert_warned_once(&finished);
    assert!(finished.stderr.contains("the end of the step is not recorded"), "{finished:?}");
    assert!(time < BOUND, "{time:?}");
    lock.release();
}

#[test]
fn a_store_that_hangs_while_the_command_runs_is_not_noticed() {
    let place = Place::new();
    let child = start(&mut place.run_sh(&[], &format!("{WAIT_FOR_GO} echo ran; exit 3")));
    wait_until_running(&place);
    // Nobody but this has it while the command runs, so that the lock is there to be had.
    place.lock().release();
    go(&place);
    let finished = finish_started(child);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(3), ""));
    assert_eq!(place.only_step()["results"], 2);
}

#[test]
fn a_step_that_could_not_be_started_is_finished() {
    let place = Place::new();
    finish(&mut place.run_sh(&[], ":"));
    place.execute(
        "CREATE TRIGGER no_start BEFORE UPDATE ON steps WHEN NEW.started_at IS NOT OLD.started_at
         BEGIN SELECT raise(ABORT, 'not today'); END",
    );
    let finished = finish(&mut place.run_sh(&[], "echo ran; exit 3"));
    assert_warned_once(&finished);
    assert!(finished.stderr.contains("not today"), "{finished:?}");
    let step = &place.steps_of_build()[1];
    assert!(step["started_at"].is_null() && step["complete_at"].is_string(), "{step}");
    assert_eq!(step["results"], 2);
}

#[test]
fn a_store_that_is_gone_after_the_command_changes_nothing() {
    let place = Place::new();
    let finished = finish(&mut place.run_sh(&["--show"], "rm steps.db*; echo ran; exit 3"));
    assert_eq!(finished.code, Some(3));
    assert!(finished.stdout.starts_with("ran\n"), "{finished:?}");

    let place = Place::new();
    let finished =
        finish(&mut place.run_sh(&["--show"], "for f in steps.db*; do echo broken >$f; done; echo ran; exit 3"));
    assert_eq!(finished.code, Some(3));
    assert!(finished.stdout.starts_with("ran\n"), "{finished:?}");
    assert!(finished.stderr.matches("steps: ").count() <= 1, "{finished:?}");
}

#[test]
fn without_a_step_the_command_has_none_in_its_environment() {
    let place = Place::new();
    let mut command = place.run_sh(&["--store", "sqlite:no/folder.db"], "echo \"$STEPS_BUILD ${STEPS_STEP-none}\"");
    let finished = finish(command.env("STEPS_STEP", "77"));
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), "1 none\n"));
}

#[test]
fn strict_runs_nothing_that_it_cannot_record() {
    let place = Place::new();
    let finished = finish(&mut place.run_sh(&["--strict", "--store", "sqlite:no/folder.db"], "echo ran"));
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(125), ""));
    assert!(finished.stderr.starts_with("steps: error: the step is not recorded: sqlite: connect"), "{finished:?}");

    finish(&mut place.run_sh(&[], ":"));
    let lock = place.lock();
    let (finished, time) = finish_timed(&mut place.run_sh(&["--strict"], "echo ran"));
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(125), ""));
    assert!(time < BOUND, "{time:?}");
    lock.release();
}

#[test]
fn strict_ends_with_125_when_the_end_of_a_success_is_not_recorded() {
    for (code, expected) in [(0, 125), (3, 3)] {
        let place = Place::new();
        let child = start(&mut place.run_sh(&["--strict"], &format!("{WAIT_FOR_GO} exit {code}")));
        wait_until_running(&place);
        let lock = place.lock();
        go(&place);
        let finished = finish_started(child);
        assert_eq!(finished.code, Some(expected), "{finished:?}");
        assert!(finished.stderr.starts_with("steps: error: the end of the step is not recorded"), "{finished:?}");
        lock.release();
    }
}

#[test]
fn strict_changes_nothing_when_all_goes_well() {
    let place = Place::new();
    for code in [0, 3] {
        assert_eq!(finish(&mut place.run_sh(&["--strict"], &format!("exit {code}"))).code, Some(code));
    }
    assert_eq!(place.steps_of_build().len(), 2);
}
