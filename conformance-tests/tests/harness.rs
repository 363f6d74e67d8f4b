//! Guarantees of the suite itself: whatever a factory or a store does, the suite returns a report of it.

use std::{sync::Arc, thread, time::Duration};

use async_trait::async_trait;
use conformance_tests::{
    BoxError, CaseContext, Config, Feature, Fixture, Outcome, Profile, Report, StoreFactory, recorded, run, trials,
};
use steps_core::{Clock, ManualClock, Timestamp};
use steps_memory::{MemoryOptions, MemoryStore};

/// A factory of stores in memory whose parts the tests replace.
#[derive(Clone)]
struct Factory {
    profile: Profile,
    create: fn(&CaseContext) -> Result<Fixture, BoxError>,
}

impl Factory {
    fn new() -> Self {
        let reason = "the data is lost with the store";
        let profile = [Feature::Reopen, Feature::Peers, Feature::Processes, Feature::Faults]
            .into_iter()
            .fold(Profile::strict(), |profile, feature| profile.without(feature, reason));
        Self { profile, create: |case| Ok(Fixture::new(memory(case.clock()))) }
    }
}

fn memory(clock: Arc<dyn Clock>) -> MemoryStore {
    MemoryStore::with_options(MemoryOptions::new().with_clock(clock))
}

#[async_trait]
impl StoreFactory for Factory {
    fn name(&self) -> &str {
        "memory"
    }

    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        (self.create)(case)
    }
}

const EXAMPLE: &str = "add_step::collision_takes_smallest_suffix";

async fn report(factory: &Factory, filter: &str) -> Report {
    run(factory.clone(), Config::new().with_filter(filter)).await
}

/// Expects that the only case failed, and returns its message.
fn failure(report: &Report) -> String {
    assert!(!report.is_success());
    assert_eq!((report.cases.len(), report.failed().count()), (1, 1), "{report}");
    report.cases[0].to_string()
}

#[tokio::test]
async fn a_store_that_cannot_be_created_fails_every_case_and_blames_no_clause() {
    let mut factory = Factory::new();
    factory.create = |_| Err("install postgresql-15".into());
    let text = failure(&report(&factory, EXAMPLE).await);
    assert!(text.contains("install postgresql-15") && !text.contains("clause"), "{text}");
    factory.create = |_| panic!("no such server");
    let text = failure(&report(&factory, EXAMPLE).await);
    assert!(text.contains("no such server"), "{text}");
}

#[tokio::test]
async fn a_feature_that_is_claimed_and_missing_fails() {
    let factory = Factory { profile: Profile::strict(), ..Factory::new() };
    let text = failure(&report(&factory, "profile::claims").await);
    assert!(text.contains("the feature reopen, which the profile claims"), "{text}");
    let text = failure(&report(&factory, "reopen::keys_hold").await);
    assert!(text.contains("`with_reopen`"), "{text}");
}

#[tokio::test]
async fn a_feature_that_is_opted_out_of_is_skipped_with_the_reason_and_is_no_success() {
    let report = report(&Factory::new(), "reopen::keys_hold").await;
    assert!(
        matches!(&report.cases[0].outcome, Outcome::Skipped { reason, .. } if reason.contains("lost with the store"))
    );
    assert!(!report.is_success(), "nothing ran");
    assert!(report.to_string().ends_with(&format!("0 passed, 0 failed, 1 ignored; seed {}", report.seed)), "{report}");
}

#[tokio::test]
async fn a_known_failure_is_ignored_while_it_fails_and_fails_when_it_passes() {
    let known = Profile::strict().with_known_failure(EXAMPLE, "issue 17");
    let mut factory = Factory { profile: known, ..Factory::new() };
    let text = failure(&report(&factory, EXAMPLE).await);
    assert!(text.contains("it passes: take it out of the profile"), "{text}");
    factory.create = |_| Err("broken".into());
    let report = report(&factory, EXAMPLE).await;
    assert!(matches!(&report.cases[0].outcome, Outcome::KnownFailure { reason, .. } if reason == "issue 17"));
}

#[tokio::test]
async fn a_known_failure_of_no_case_is_a_mistake() {
    let profile = Factory::new().profile.with_known_failure("add_step::colision", "issue 17");
    let text = failure(&report(&Factory { profile, ..Factory::new() }, "profile::has_no_mistakes").await);
    assert!(text.contains("add_step::colision is not a case of the suite"), "{text}");
}

/// A clock that blocks its thread, like a store that waits for a lock synchronously.
#[derive(Debug)]
struct Blocking;

impl Clock for Blocking {
    fn now(&self) -> Timestamp {
        loop {
            thread::park();
        }
    }
}

/// A clock that panics.
#[derive(Debug)]
struct Panicking;

impl Clock for Panicking {
    fn now(&self) -> Timestamp {
        panic!("no time")
    }
}

#[tokio::test]
async fn a_call_that_blocks_its_thread_ends_as_a_failure_that_names_it() {
    let factory = Factory { create: |_| Ok(Fixture::new(memory(Arc::new(Blocking)))), ..Factory::new() };
    let config = Config::new().with_filter("lifecycle::finish_sets").with_case_timeout(Duration::from_millis(300));
    let text = failure(&run(factory, config).await);
    assert!(text.contains("clause D4") && text.contains("finish_step(step_0.id"), "{text}");
}

/// A clock that takes time to read.
#[derive(Debug)]
struct Slow(Arc<ManualClock>);

impl Clock for Slow {
    fn now(&self) -> Timestamp {
        thread::sleep(Duration::from_millis(200));
        self.0.now()
    }
}

#[tokio::test]
async fn a_slow_store_does_not_time_out_while_the_case_makes_progress() {
    let factory = Factory { create: |case| Ok(Fixture::new(memory(Arc::new(Slow(case.clock()))))), ..Factory::new() };
    let scenario = recorded::BUILDBOT.lines().max_by_key(|line| line.matches("finish_step").count()).unwrap();
    let config = Config::new().with_case_timeout(Duration::from_secs(2));
    let (replayed, report) = tokio::join!(
        recorded::replay(factory.clone(), scenario, config.clone()),
        run(factory, config.with_filter("recorded::lifecycle_62")),
    );
    assert!(replayed.as_ref().unwrap().is_success() && report.is_success(), "{replayed:?}; {report}");
}

#[tokio::test]
async fn a_call_that_panics_is_a_failure_that_names_it() {
    let factory = Factory { create: |_| Ok(Fixture::new(memory(Arc::new(Panicking)))), ..Factory::new() };
    let text = failure(&report(&factory, "lifecycle::finish_sets").await);
    assert!(text.contains("clause L4") && text.contains("a panic: no time"), "{text}");
}

#[tokio::test]
async fn a_property_runs_at_least_one_case() {
    let factory = Factory { create: |_| Ok(Fixture::new(memory(Arc::new(Panicking)))), ..Factory::new() };
    let mut config = Config::new().with_cases(0).with_filter("histories::of_tasks");
    assert_eq!(config.cases, 1);
    config.cases = 0;
    let text = failure(&run(factory, config).await);
    assert!(text.contains("a panic: no time"), "{text}");
}

#[tokio::test]
async fn a_report_is_json_too() {
    let factory = Factory { create: |_| Err("broken".into()), ..Factory::new() };
    let json = serde_json::to_value(report(&factory, EXAMPLE).await).unwrap();
    assert_eq!(json["store"], "memory");
    assert_eq!(json["cases"][0]["name"], EXAMPLE);
    assert_eq!(json["cases"][0]["clauses"][0], "N3");
    assert_eq!(json["cases"][0]["outcome"], "failed");
    assert_eq!(json["cases"][0]["failure"]["got"], "broken");
}

#[test]
fn the_cases_are_trials_under_their_names() {
    let trials = trials(Factory::new(), Config::new());
    assert!(trials.iter().any(|trial| trial.name() == EXAMPLE));
    assert_eq!(trials.iter().filter(|trial| trial.name().starts_with("recorded::")).count(), 80);
}

#[tokio::test]
async fn a_file_of_scenarios_is_replayed_and_counted() {
    let with_mark = format!("\u{feff}{}", recorded::BUILDBOT);
    let replayed = recorded::replay(Factory::new(), &with_mark, Config::new()).await.unwrap();
    assert_eq!(replayed.to_string(), "64 of 64 scenarios agree");
    assert!(replayed.is_success());
}

#[tokio::test]
async fn a_disagreement_says_where_and_the_rest_is_still_replayed() {
    let good = recorded::BUILDBOT.lines().next().unwrap();
    let bad = good.replacen(r#""number":0"#, r#""number":7"#, 1);
    let replayed = recorded::replay(Factory::new(), &format!("{bad}\n{good}\n"), Config::new()).await.unwrap();
    assert_eq!((replayed.scenarios, replayed.agree), (2, 1));
    assert!(!replayed.is_success());
    let text = replayed.to_string();
    assert!(text.contains("answer.number\n  expected: 7\n       got: 0"), "{text}");
    assert!(text.ends_with("1 of 2 scenarios agree"), "{text}");
}

#[tokio::test]
async fn an_invalid_file_is_refused_and_an_empty_one_is_not_a_success() {
    assert!(recorded::replay(Factory::new(), "{}", Config::new()).await.is_err());
    let replayed = recorded::replay(Factory::new(), "", Config::new()).await.unwrap();
    assert!(!replayed.is_success());
}

/// A factory that ignores the clock of the case.
#[tokio::test]
async fn a_store_with_another_clock_is_caught() {
    let other = |_: &CaseContext| Ok(Fixture::new(memory(Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH)))));
    let text = failure(&report(&Factory { create: other, ..Factory::new() }, "lifecycle::finish_takes").await);
    assert!(text.contains("complete_at, by the clock of the handle"), "{text}");
}
