use std::{fs, path::Path, process::ExitCode};

use conformance_tests::{
    Config, Report,
    recorded::{self, Scenarios},
};
use serde::Serialize;

use crate::{
    cli::Conformance,
    failure::{self, Failure},
    live::{LeftBehind, Live},
    output::{self, cases, json, progress::Watch, table::Look},
    store_url::StoreUrl,
};

/// What `--json` gives: of the suite its report with the counts, of a file what its replay came to.
#[derive(Debug, Serialize)]
struct Document<'a, T> {
    store: &'a str,
    #[serde(flatten)]
    result: T,
    left_behind: Option<LeftBehind>,
}

#[derive(Debug, Serialize)]
struct Counted<'a> {
    seed: u64,
    passed: usize,
    failed: usize,
    ignored: usize,
    cases: &'a [conformance_tests::CaseReport],
}

pub(super) async fn conformance(store: &StoreUrl, conformance: Conformance) -> Result<ExitCode, Failure> {
    let config = config(store, &conformance)?;
    match &conformance.vectors {
        Some(file) => replay(store, file, config, conformance.json).await,
        None => run(store, config, conformance.json).await,
    }
}

async fn run(store: &StoreUrl, config: Config, as_json: bool) -> Result<ExitCode, Failure> {
    let live = Live::reach(store).await?;
    let watch = Watch::new("cases");
    let report = conformance_tests::run_watched(live.clone(), config, move |progress| watch.ended(progress)).await;
    let left = left_behind(&live).await;
    if report.cases.is_empty() {
        return Err(Failure::Usage("no case has a name that contains the text of --filter".into()));
    }
    if as_json {
        let Report { seed, cases, .. } = &report;
        let [passed, failed, ignored] = [report.passed().count(), report.failed().count(), report.ignored().count()];
        let result = Counted { seed: *seed, passed, failed, ignored, cases };
        json::line(&Document { store: live.backend(), result, left_behind: left })?;
    } else {
        output::data(&cases::of_report(&report, Look::of_stdout()))?;
    }
    Ok(exit_code(report.is_success()))
}

async fn replay(store: &StoreUrl, file: &Path, config: Config, as_json: bool) -> Result<ExitCode, Failure> {
    let about = |what: String| Failure::Usage(format!("{}: {what}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| about(error.to_string()))?;
    let scenarios: Scenarios = text.parse().map_err(|error: recorded::ScenarioError| about(error.to_string()))?;
    if scenarios.is_empty() {
        return Err(about("it holds no scenarios".into()));
    }
    let live = Live::reach(store).await?;
    let watch = Watch::new("scenarios");
    let replayed = recorded::replay_watched(live.clone(), scenarios, config, |progress| watch.ended(progress)).await;
    drop(watch);
    let left = left_behind(&live).await;
    if as_json {
        json::line(&Document { store: live.backend(), result: &replayed, left_behind: left })?;
    } else {
        output::data(&format!("{}\n", cases::lines(&replayed.to_string())))?;
    }
    Ok(exit_code(replayed.is_success()))
}

fn config(store: &StoreUrl, conformance: &Conformance) -> Result<Config, Failure> {
    let mut config = Config::from_env().map_err(|error| Failure::Usage(error.to_string()))?;
    config.seed = conformance.seed.unwrap_or(config.seed);
    config.cases = conformance.cases.unwrap_or(config.cases);
    config.filter.clone_from(&conformance.filter);
    Ok(config.with_command(format!("steps conformance --store {} --filter {{case}}", store.for_a_command())))
}

/// Says which builds have steps now that had none before.
async fn left_behind(live: &Live) -> Option<LeftBehind> {
    match live.left_behind().await {
        Ok(left) => {
            if left.builds > 0 {
                let ranges: Vec<_> = left.ranges.iter().map(|(first, last)| range(first, last)).collect();
                output::note(&format!("{} builds are left in the store: {}", left.builds, ranges.join(", ")));
            }
            Some(left)
        }
        Err(error) => {
            output::warning(&format!("which builds are left in the store is not known\n{}", failure::chain(&error)));
            None
        }
    }
}

fn range(first: &steps::BuildId, last: &steps::BuildId) -> String {
    if first == last { first.to_string() } else { format!("{first} to {last}") }
}

fn exit_code(is_success: bool) -> ExitCode {
    if is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
