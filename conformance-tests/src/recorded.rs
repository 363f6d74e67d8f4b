//! Recorded scenarios: what Buildbot itself answered, replayed on a store.
//!
//! A file has one scenario a line, a JSON object, as Buildbot's own `buildbot.db.steps` answered it:
//!
//! ```json
//! {"seed":0,"kind":"mix","builds":[1],"ops":[{"op":"add_step","build":1,"name":"a","state_string":"","out":{"step":0,"number":0,"name":"a"}}],"final":{"1":[]}}
//! ```
//!
//! - `builds` are numbers of the scenario's own; each becomes a fresh build.
//! - `ops` come in order, each with its inputs and `out`, the exact answer. Steps are named by their index:
//!   0, 1, 2, … in the order of the adds.
//! - `final` is what `get_steps` answers for each build in the end.
//! - Times are whole seconds since 1970, or null; `now` is what the clock says.
//!
//! [`BUILDBOT`] holds 64 scenarios of Buildbot 4.3.0, which are cases of the suite; [`replay`] plays any file.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use steps_core::{
    BuildId, FinishStep, NewStep, Results, StartStep, StateString, Step, StepId, StepName, StepNumber, StepSelector,
    StepUrl, StepsStore, Timestamp,
};

use crate::{
    Clause, Config, Failure, StoreFactory,
    failure::{Checked, shortened},
    handle::caught,
    harness::Suite,
    stage::{Setup, Stage},
};

/// The scenarios that were recorded from Buildbot 4.3.0.
pub const BUILDBOT: &str = include_str!("../vectors/buildbot.jsonl");

/// What one line of a file holds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    seed: u64,
    kind: String,
    builds: Vec<i64>,
    ops: Vec<Recorded>,
    r#final: BTreeMap<String, Value>,
}

/// An operation with the answer that was recorded.
#[derive(Clone, Debug, Deserialize)]
struct Recorded {
    #[serde(flatten)]
    op: Op,
    out: Value,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Op {
    AddStep { build: i64, name: String, state_string: String },
    StartStep { step: usize, started_at: i64, locks_acquired: bool },
    SetStepLocksAcquiredAt { step: usize, locks_acquired_at: i64 },
    SetStepStateString { step: usize, state_string: String },
    FinishStep { step: usize, results: i32, hidden: bool, now: i64 },
    AddUrl { step: usize, name: String, url: String },
    GetStep { step: Option<usize>, build: Option<i64>, number: Option<u32>, name: Option<String> },
    GetSteps { build: i64 },
}

impl Scenario {
    /// The scenarios of a file, in their order. Empty lines are skipped.
    fn all(text: &str) -> Result<Vec<Self>, ScenarioError> {
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        lines.map(|(line, text)| serde_json::from_str(text).map_err(|source| ScenarioError { line, source })).collect()
    }

    /// The scenarios of [`BUILDBOT`].
    pub(crate) fn buildbot() -> Vec<Self> {
        Self::all(BUILDBOT).expect("the file was checked when it was recorded")
    }

    /// Its name, such as `mix_0`.
    pub(crate) fn name(&self) -> String {
        format!("{}_{}", self.kind, self.seed)
    }

    /// Plays it in fresh builds and compares every answer.
    pub(crate) async fn replay(&self, stage: &Stage) -> Checked {
        let builds = self.builds.iter().map(|build| (*build, stage.build())).collect();
        let mut replay = Replay { stage, builds, steps: Vec::new() };
        for (place, Recorded { op, out }) in self.ops.iter().enumerate() {
            let got = replay.answer(op).await?;
            expect_same(format_args!("the answer of ops[{place}]"), op.clause(), &got, out)?;
        }
        for (build, steps) in &self.r#final {
            let id = build.parse().ok().and_then(|build| replay.builds.get(&build).copied());
            let id = id.ok_or_else(|| unknown(format_args!("the build {build} of `final`")))?;
            let got = replay.steps_of(id).await?;
            expect_same(format_args!("the steps of build {build} in the end"), Clause::R2, &got, steps)?;
        }
        Ok(())
    }
}

impl Op {
    /// The clause that is to blame when the answer differs, and nothing in it says better.
    const fn clause(&self) -> Clause {
        match self {
            Self::AddStep { .. } => Clause::N3,
            Self::StartStep { .. } => Clause::L2,
            Self::SetStepLocksAcquiredAt { .. } | Self::SetStepStateString { .. } => Clause::L3,
            Self::FinishStep { .. } => Clause::L4,
            Self::AddUrl { .. } => Clause::U1,
            Self::GetStep { .. } => Clause::R1,
            Self::GetSteps { .. } => Clause::R2,
        }
    }
}

/// A scenario while it is played.
struct Replay<'a> {
    stage: &'a Stage,
    builds: BTreeMap<i64, BuildId>,
    /// By index.
    steps: Vec<StepId>,
}

impl Replay<'_> {
    /// Calls the store and gives its answer as it would have been recorded.
    async fn answer(&mut self, op: &Op) -> Checked<Value> {
        let store = self.stage.store();
        match op {
            Op::AddStep { build, name, state_string } => {
                let state = StateString::new(state_string)?;
                let added = store.add_step(NewStep::new(self.build(*build)?, StepName::new(name)?, state)).await?;
                self.steps.push(added.id);
                let step = self.steps.len() - 1;
                return Ok(json!({"step": step, "number": added.number.get(), "name": added.name.as_str()}));
            }
            Op::StartStep { step, started_at, locks_acquired } => {
                let start = StartStep::new(time(*started_at)?).with_locks_acquired(*locks_acquired);
                store.start_step(self.step(*step)?, start).await?;
            }
            Op::SetStepLocksAcquiredAt { step, locks_acquired_at } => {
                store.set_step_locks_acquired_at(self.step(*step)?, time(*locks_acquired_at)?).await?;
            }
            Op::SetStepStateString { step, state_string } => {
                store.set_step_state_string(self.step(*step)?, StateString::new(state_string)?).await?;
            }
            Op::FinishStep { step, results, hidden, now } => {
                self.stage.set_clock(time(*now)?);
                let finish = FinishStep::new(Results::new(*results)).with_hidden(*hidden);
                store.finish_step(self.step(*step)?, finish).await?;
            }
            Op::AddUrl { step, name, url } => {
                store.add_url(self.step(*step)?, StepUrl::new(name, url)?).await?;
            }
            Op::GetStep { step, build, number, name } => {
                let selector = match (step, build, number, name) {
                    (Some(step), None, None, None) => self.step(*step)?.into(),
                    (None, Some(build), Some(number), None) => {
                        StepSelector::number(self.build(*build)?, StepNumber::new(*number))
                    }
                    (None, Some(build), None, Some(name)) => {
                        StepSelector::name(self.build(*build)?, StepName::new(name)?)
                    }
                    _ => return Err(unknown("a get_step that selects in none of the three ways")),
                };
                let step = store.get_step(selector).await?;
                return Ok(step.map_or(Value::Null, |step| self.recorded(&step)));
            }
            Op::GetSteps { build } => return self.steps_of(self.build(*build)?).await,
        }
        Ok(Value::Null)
    }

    async fn steps_of(&self, build: BuildId) -> Checked<Value> {
        let steps = self.stage.store().get_steps(build).await?;
        Ok(steps.iter().map(|step| self.recorded(step)).collect())
    }

    fn build(&self, build: i64) -> Checked<BuildId> {
        self.builds.get(&build).copied().ok_or_else(|| unknown(format_args!("the build {build}")))
    }

    fn step(&self, index: usize) -> Checked<StepId> {
        self.steps.get(index).copied().ok_or_else(|| unknown(format_args!("the step {index}")))
    }

    /// A step as it would have been recorded.
    fn recorded(&self, step: &Step) -> Value {
        let index = self.steps.iter().position(|id| *id == step.id);
        let build = self.builds.iter().find(|(_, id)| **id == step.build_id).map(|(build, _)| *build);
        let urls: Value = step.urls.iter().map(|url| json!({"name": url.name(), "url": url.url()})).collect();
        json!({
            "step": index,
            "build": build,
            "number": step.number.get(),
            "name": step.name.as_str(),
            "started_at": seconds(step.started_at),
            "locks_acquired_at": seconds(step.locks_acquired_at),
            "complete_at": seconds(step.complete_at),
            "state_string": step.state_string.as_str(),
            "results": step.results.map(Results::code),
            "urls": urls,
            "hidden": step.hidden,
        })
    }
}

fn time(seconds: i64) -> Checked<Timestamp> {
    Ok(Timestamp::from_unix_micros(seconds.saturating_mul(1_000_000))?)
}

/// A time as it would have been recorded; one that could not have been is written in full.
fn seconds(time: Option<Timestamp>) -> Value {
    match time.map(Timestamp::unix_micros) {
        None => Value::Null,
        Some(micros) if micros % 1_000_000 == 0 => (micros / 1_000_000).into(),
        Some(micros) => format!("{micros} µs").into(),
    }
}

fn unknown(what: impl fmt::Display) -> Failure {
    Failure::new(format_args!("the scenario names {what}, which it does not have"))
}

/// Compares an answer with the recorded one and names the first place where they part.
fn expect_same(what: impl fmt::Display, clause: Clause, got: &Value, expected: &Value) -> Checked {
    let Some(Difference { path, got, expected }) = difference(String::new(), got, expected) else { return Ok(()) };
    let shown = |value: Option<&Value>| value.map_or_else(|| "nothing".into(), |value| shortened(&Plain(value)));
    let clause = clause_of(&path).unwrap_or(clause);
    Err(Failure::of(clause, format_args!("{what}{path}")).expected(shown(expected)).got(shown(got)))
}

/// The clause that the last field on a path is under.
fn clause_of(path: &str) -> Option<Clause> {
    let fields = path.split('.').rev().map(|field| field.split('[').next().unwrap_or_default());
    fields.into_iter().find_map(|field| match field {
        "number" => Some(Clause::I2),
        "build" => Some(Clause::I3),
        "started_at" | "locks_acquired_at" => Some(Clause::L2),
        "state_string" => Some(Clause::L3),
        "complete_at" | "results" | "hidden" => Some(Clause::L4),
        "urls" => Some(Clause::U2),
        _ => None,
    })
}

struct Difference<'a> {
    path: String,
    got: Option<&'a Value>,
    expected: Option<&'a Value>,
}

fn difference<'a>(path: String, got: &'a Value, expected: &'a Value) -> Option<Difference<'a>> {
    match (got, expected) {
        (Value::Object(got), Value::Object(expected)) => {
            let keys = expected.keys().chain(got.keys().filter(|key| !expected.contains_key(*key)));
            keys.into_iter().find_map(|key| inner(format!("{path}.{key}"), got.get(key), expected.get(key)))
        }
        (Value::Array(got), Value::Array(expected)) => (0..got.len().max(expected.len()))
            .find_map(|place| inner(format!("{path}[{place}]"), got.get(place), expected.get(place))),
        _ if got == expected => None,
        _ => Some(Difference { path, got: Some(got), expected: Some(expected) }),
    }
}

fn inner<'a>(path: String, got: Option<&'a Value>, expected: Option<&'a Value>) -> Option<Difference<'a>> {
    match (got, expected) {
        (Some(got), Some(expected)) => difference(path, got, expected),
        _ => Some(Difference { path, got, expected }),
    }
}

/// A value of JSON, shown as JSON.
struct Plain<'a>(&'a Value);

impl fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)
    }
}

/// What replaying a file came to. It is shown as the disagreements and a line such as `64 of 64 scenarios agree`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Replayed {
    /// How many scenarios the file has.
    pub scenarios: usize,
    /// How many of them the store answers as they were recorded.
    pub agree: usize,
    /// The others.
    pub disagreements: Vec<Disagreement>,
}

/// A scenario that a store answers otherwise.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Disagreement {
    /// The scenario's kind and seed, such as `mix_0`.
    pub scenario: String,
    /// Where they part.
    pub failure: Failure,
}

impl Replayed {
    /// Whether there are scenarios, and all of them agree.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.scenarios > 0 && self.agree == self.scenarios
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Disagreement { scenario, failure } in &self.disagreements {
            writeln!(f, "---- {scenario} ----\n{failure}\n")?;
        }
        write!(f, "{} of {} scenarios agree", self.agree, self.scenarios)
    }
}

/// A line of a file that is no scenario.
#[derive(Debug)]
pub struct ScenarioError {
    line: usize,
    source: serde_json::Error,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: it is no scenario: {}", self.line, self.source)
    }
}

impl std::error::Error for ScenarioError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Replays the scenarios of a file, in the format of this module, on one store of the factory.
///
/// It runs on the caller's runtime, and each scenario in builds of its own. The store must take the time from the
/// [clock](crate::CaseContext::clock) that the factory is given, as for every case: the scenarios set it. A store that
/// cannot be made is a disagreement of each scenario.
///
/// # Errors
/// When a line is no scenario; nothing is replayed then.
pub async fn replay(factory: impl StoreFactory, text: &str, config: Config) -> Result<Replayed, ScenarioError> {
    let scenarios = Scenario::all(text)?;
    let setup = Setup::new(Arc::new(Suite::new(factory, config)), "recorded");
    let mut replayed = Replayed { scenarios: scenarios.len(), agree: 0, disagreements: Vec::new() };
    let mut stage = None;
    for scenario in scenarios {
        let name = scenario.name();
        let result = async {
            // A store that panicked or hung is made anew.
            let stage: &mut Stage = match &mut stage {
                Some(stage) => stage,
                none => none.insert(setup.stage().await?),
            };
            setup.log.clear();
            let result = caught(scenario.replay(stage)).await;
            stage.judged(result.unwrap_or_else(|panic| Err(Failure::new(format_args!("a panic: {panic}")))))
        };
        match result.await {
            Ok(()) => replayed.agree += 1,
            Err(failure) => {
                replayed.disagreements.push(Disagreement { scenario: name, failure });
                if setup.log.fatal().is_some() {
                    setup.log.reset();
                    stage = None;
                }
            }
        }
    }
    if let Some(stage) = stage {
        let _ = stage.end(Ok(())).await;
    }
    Ok(replayed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_scenarios_are_64_with_names_of_their_own() {
        let names: std::collections::HashSet<_> = Scenario::buildbot().iter().map(Scenario::name).collect();
        assert_eq!(names.len(), 64);
    }

    #[test]
    fn a_line_that_is_no_scenario_is_named() {
        let error = Scenario::all("\n{\"seed\": 1}\n").unwrap_err();
        assert!(error.to_string().starts_with("line 2: it is no scenario: missing field"), "{error}");
    }

    #[test]
    fn the_first_difference_is_named() {
        let (got, expected) = (json!([{"urls": [1, 2], "name": "a"}]), json!([{"urls": [1], "name": "a"}]));
        let failure = expect_same("the answer", Clause::R1, &got, &expected).unwrap_err();
        assert_eq!(failure.clause, Some(Clause::U2));
        assert_eq!(failure.what, "the answer[0].urls[1]");
        assert_eq!((failure.expected.as_deref(), failure.got.as_deref()), (Some("nothing"), Some("2")));
    }
}
