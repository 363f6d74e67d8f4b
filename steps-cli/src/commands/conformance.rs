use std::{fs, path::Path, process::ExitCode};

use conformance_tests::{
    Config,
    recorded::{self, Scenarios},
};
use serde::Serialize;

use crate::{
    cli::Conformance,
    command_error::{self, CommandError},
    live_store::{Leftovers, LiveStore},
    output::{self, cases, json, layout::Look, progress::Watch, text},
    store_url::StoreUrl,
};

/// The output of `--json`: the report of the suite with its counts, or the result of a replay.
#[derive(Debug, Serialize)]
struct Document<'a, T> {
    store: &'a str,
    #[serde(flatten)]
    result: T,
    left_behind: Option<Leftovers>,
}

#[derive(Debug, Serialize)]
struct Counted<'a> {
    seed: u64,
    passed: usize,
    failed: usize,
    ignored: usize,
    cases: &'a [conformance_tests::CaseReport],
}

pub(super) async fn conformance(store: &StoreUrl, conformance: Conformance) -> Result<ExitCode, CommandError> {
    let config = config(store, &conformance)?;
    match &conformance.vectors {
        Some(file) => replay(store, file, config, conformance.json).await,
        None => run(store, config, conformance.json).await,
    }
}

async fn run(store: &StoreUrl, config: Config, as_json: bool) -> Result<ExitCode, CommandError> {
    let live = LiveStore::probe(store).await?;
    let watch = Watch::new("cases");
    let report = conformance_tests::run_watched(live.clone(), config, move |progress| watch.ended(progress)).await;
    let leftovers = report_leftovers(&live).await;
    if report.cases.is_empty() {
        return Err(CommandError::Usage("no case name contains the text of --filter".into()));
    }
    if as_json {
        let result = Counted {
            seed: report.seed,
            passed: report.passed().count(),
            failed: report.failed().count(),
            ignored: report.ignored().count(),
            cases: &report.cases,
        };
        json::line(&Document { store: live.backend(), result, left_behind: leftovers })?;
    } else {
        output::table(|lines| cases::of_report(&report, Look::of_stdout(), lines))?;
    }
    Ok(exit_code(report.is_success()))
}

async fn replay(store: &StoreUrl, file: &Path, config: Config, as_json: bool) -> Result<ExitCode, CommandError> {
    let invalid = |reason: String| CommandError::Usage(format!("{}: {reason}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| invalid(error.to_string()))?;
    let scenarios: Scenarios = text.parse().map_err(|error: recorded::ScenarioError| invalid(error.to_string()))?;
    if scenarios.is_empty() {
        return Err(invalid("it holds no scenarios".into()));
    }
    let live = LiveStore::probe(store).await?;
    let watch = Watch::new("scenarios");
    let replayed = recorded::replay_watched(live.clone(), scenarios, config, |progress| watch.ended(progress)).await;
    drop(watch);
    let leftovers = report_leftovers(&live).await;
    if as_json {
        json::line(&Document { store: live.backend(), result: &replayed, left_behind: leftovers })?;
    } else {
        let report = replayed.to_string();
        output::table(|lines| report.lines().try_for_each(|line| lines(&text::shown(line))))?;
    }
    Ok(exit_code(replayed.is_success()))
}

fn config(store: &StoreUrl, conformance: &Conformance) -> Result<Config, CommandError> {
    let mut config = Config::from_env().map_err(|error| CommandError::Usage(error.to_string()))?;
    config.seed = conformance.seed.unwrap_or(config.seed);
    config.cases = conformance.cases.unwrap_or(config.cases);
    config.filter.clone_from(&conformance.filter);
    Ok(config.with_command(format!("steps conformance --store {} --filter {{case}}", store.shell_argument())))
}

/// Reports which builds have steps of the suite.
async fn report_leftovers(live: &LiveStore) -> Option<Leftovers> {
    match live.leftovers().await {
        Ok(leftovers) => {
            if leftovers.builds > 0 {
                let ranges: Vec<_> = leftovers.ranges.iter().map(|(first, last)| range(first, last)).collect();
                output::note(&format!("{} builds are left in the store: {}", leftovers.builds, ranges.join(", ")));
            }
            Some(leftovers)
        }
        Err(error) => {
            output::warning(&format!(
                "cannot find out which builds are left in the store\n{}",
                command_error::chain(&error)
            ));
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
