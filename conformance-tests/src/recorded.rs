//! Replays recorded scenarios, such as those of Buildbot, on a store.
//!
//! A file contains JSON lines, one scenario per line. `buildbot.db.steps` of Buildbot recorded this one (wrapped here):
//!
//! ```json
//! {"seed":0,"kind":"mix","builds":[1],
//!  "ops":[{"op":"add_step","build":1,"name":"a","state_string":"","out":{"step":0,"number":0,"name":"a"}}],
//!  "final":{"1":[]}}
//! ```
//!
//! - `builds` are numbers within the scenario. The replay uses a fresh build for each.
//! - `ops` are the operations in order. Each has its inputs and `out`, the exact answer. Steps are named by their index
//!   0, 1, 2, … in the order of the adds.
//! - `final` is the answer of `get_steps` for each build at the end.
//! - Times are whole seconds since 1970, or null. `now` is the time of the clock.
//! - An unknown field is an error, since it would be an input that the replay ignores.
//!
//! [`BUILDBOT`] and [`BUILDBOT_PLAIN_NAMES`] hold 80 scenarios of Buildbot 4.3.0, which are cases of the suite.
//! [`replay`] replays any file.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize, de};
use serde_json::{Map, Value, json};
use steps_core::{
    BuildId, Error, FinishStep, InputError, NewStep, Request, Response, Results, StartStep, StateString, Step, StepId,
    StepName, StepNumber, StepSelector, StepUrl, Timestamp,
};

use crate::{
    Clause, Config, Failure, Progress, StoreFactory,
    failure::{CaseResult, shortened},
    harness::Suite,
    replay_pool::ReplayPool,
    test_env::TestEnv,
};

/// The scenarios that were recorded from Buildbot 4.3.0, with names that are identifiers.
pub const BUILDBOT: &str = include_str!("../vectors/buildbot.jsonl");

/// Scenarios that were recorded from Buildbot 4.3.0 with names as people write them: blanks, dots, slashes, leading
/// digits.
pub const BUILDBOT_PLAIN_NAMES: &str = include_str!("../vectors/buildbot-plain-names.jsonl");

/// One line of a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    seed: u64,
    kind: String,
    builds: Vec<i64>,
    ops: Vec<RecordedOp>,
    r#final: BTreeMap<String, Value>,
}

/// An operation with its recorded answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
struct RecordedOp {
    op: Op,
    out: Value,
}

/// Written by hand, since serde cannot deny unknown fields together with `flatten`.
impl TryFrom<Map<String, Value>> for RecordedOp {
    type Error = serde_json::Error;

    fn try_from(mut fields: Map<String, Value>) -> Result<Self, Self::Error> {
        let out = fields.remove("out").ok_or_else(|| de::Error::missing_field("out"))?;
        Ok(Self { op: serde_json::from_value(fields.into())?, out })
    }
}

/// An operation with raw inputs. It is not a [`Request`], since the contract may refuse an input.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Op {
    AddStep { build: i64, name: String, state_string: String },
    StartStep { step: usize, started_at: i64, locks_acquired: bool },
    SetStepLocksAcquiredAt { step: usize, locks_acquired_at: i64 },
    SetStepStateString { step: usize, state_string: String },
    FinishStep { step: usize, results: i32, hidden: bool, now: i64 },
    AddUrl { step: usize, name: String, url: String },
    GetStep(Selected),
    GetSteps { build: i64 },
}

/// The inputs of a `get_step`. Absent ones are not serialised.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Selected {
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

/// First mismatch between the store and a scenario.
pub(crate) struct Mismatch {
    pub(crate) reason: Reason,
    pub(crate) operation: Option<String>,
    pub(crate) failure: Box<Failure>,
}

impl Mismatch {
    /// The store failed, panicked or did not answer.
    pub(crate) fn error(failure: Failure) -> Self {
        Self::new(Reason::Error, failure)
    }

    /// Adds the scenario and its line in the file.
    pub(crate) fn of(self, scenario: String, line: usize) -> Disagreement {
        let Self { reason, operation, failure } = self;
        Disagreement { scenario, line, reason, operation, failure: *failure }
    }

    fn new(reason: Reason, failure: Failure) -> Self {
        Self { reason, operation: None, failure: Box::new(failure) }
    }

    /// Adds the operation and its recorded answer.
    fn at(mut self, operation: impl Into<String>, out: &Value) -> Self {
        let operation = operation.into();
        match self.reason {
            Reason::Answer => self.failure.what = format!("{operation}: {}", self.failure.what),
            Reason::Error => self.failure.what = format!("{operation}: the call"),
            Reason::Refused | Reason::Scenario => {
                self.failure.what = format!("{operation}: {}", self.failure.what);
                self.failure.expected = Some(shortened(&Plain(out)));
            }
        }
        self.operation = Some(operation);
        self
    }
}

/// The store did not answer with `Ok`.
impl From<Error> for Mismatch {
    fn from(error: Error) -> Self {
        Self::new(Reason::Error, error.into())
    }
}

/// The contract refuses an input.
impl From<InputError> for Mismatch {
    fn from(error: InputError) -> Self {
        Self::new(Reason::Refused, Failure::new("an input that the contract refuses").got(error.to_string()))
    }
}

impl Scenario {
    /// The scenarios of [`BUILDBOT`] and [`BUILDBOT_PLAIN_NAMES`].
    pub(crate) fn buildbot() -> Vec<Self> {
        let files = [BUILDBOT, BUILDBOT_PLAIN_NAMES];
        let scenarios = files.into_iter().flat_map(|file| file.parse::<Scenarios>().expect("a test parses the file").0);
        scenarios.map(|(_, scenario)| scenario).collect()
    }

    /// The name, such as `mix_0`.
    pub(crate) fn name(&self) -> String {
        format!("{}_{}", self.kind.replace('-', "_"), self.seed)
    }

    /// Replays the scenario in fresh builds and compares every answer.
    pub(crate) async fn replay(&self, env: &TestEnv) -> CaseResult {
        self.run(env).await.map_err(|mismatch| *mismatch.failure)
    }

    pub(crate) async fn run(&self, env: &TestEnv) -> Result<(), Mismatch> {
        let builds = self.builds.iter().map(|build| (*build, env.build())).collect();
        let mut replay = Replay { env, builds, steps: Vec::new() };
        for (index, RecordedOp { op, out }) in self.ops.iter().enumerate() {
            let result = replay.run(op).await.and_then(|got| expect_same(op.clause(), &got, out));
            result.map_err(|mismatch| mismatch.at(format!("ops[{index}] {op}"), out))?;
        }
        for (build, steps) in &self.r#final {
            let result = async {
                let id = build.parse().map_err(|_| unknown(format_args!("the build {build:?}")))?;
                let got = replay.run(&Op::GetSteps { build: id }).await?;
                expect_same(Clause::R2, &got, steps)
            };
            result.await.map_err(|mismatch| mismatch.at(format!("final get_steps {{\"build\":{build}}}"), steps))?;
        }
        Ok(())
    }
}

/// The name and the inputs, such as `get_steps {"build":1}`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(Value::Object(mut inputs)) = serde_json::to_value(self) else { return Err(fmt::Error) };
        let name = inputs.remove("op").unwrap_or_default();
        write!(f, "{} {}", name.as_str().unwrap_or_default(), shortened(&Plain(&inputs.into())))
    }
}

impl Op {
    /// The clause that a differing answer breaks, unless the differing field has its own clause.
    const fn clause(&self) -> Clause {
        match self {
            Self::AddStep { .. } => Clause::N3,
            Self::StartStep { .. } => Clause::L2,
            Self::SetStepLocksAcquiredAt { .. } | Self::SetStepStateString { .. } => Clause::L3,
            Self::FinishStep { .. } => Clause::L4,
            Self::AddUrl { .. } => Clause::U1,
            Self::GetStep(_) => Clause::R1,
            Self::GetSteps { .. } => Clause::R2,
        }
    }
}

/// State of a replay.
struct Replay<'a> {
    env: &'a TestEnv,
    builds: BTreeMap<i64, BuildId>,
    /// The steps by index.
    steps: Vec<StepId>,
}

impl Replay<'_> {
    /// Makes the call and converts its response to the recorded form.
    async fn run(&mut self, op: &Op) -> Result<Value, Mismatch> {
        let request = self.request(op)?;
        let _clock = match op {
            Op::FinishStep { now, .. } => Some(self.env.lock_clock(time(*now)?).await),
            _ => None,
        };
        Ok(match request.send(self.env.store()).await? {
            Response::Done => Value::Null,
            Response::Added(added) => {
                let index = self.steps.len();
                self.steps.push(added.id);
                json!({"step": index, "number": added.number.get(), "name": added.name.as_str()})
            }
            Response::Step(step) => step.map_or(Value::Null, |step| self.recorded(&step)),
            Response::Steps(steps) => steps.iter().map(|step| self.recorded(step)).collect(),
        })
    }

    fn request(&self, op: &Op) -> Result<Request, Mismatch> {
        Ok(match op {
            Op::AddStep { build, name, state_string } => {
                let state = StateString::new(state_string)?;
                Request::AddStep(NewStep::new(self.build(*build)?, StepName::new(name)?, state))
            }
            Op::StartStep { step, started_at, locks_acquired } => {
                let start = StartStep::new(time(*started_at)?).with_locks_acquired(*locks_acquired);
                Request::StartStep(self.step(*step)?, start)
            }
            Op::SetStepLocksAcquiredAt { step, locks_acquired_at } => {
                Request::SetStepLocksAcquiredAt(self.step(*step)?, time(*locks_acquired_at)?)
            }
            Op::SetStepStateString { step, state_string } => {
                Request::SetStepStateString(self.step(*step)?, StateString::new(state_string)?)
            }
            Op::FinishStep { step, results, hidden, .. } => {
                let finish = FinishStep::new(Results::new(*results)).with_hidden(*hidden);
                Request::FinishStep(self.step(*step)?, finish)
            }
            Op::AddUrl { step, name, url } => Request::AddUrl(self.step(*step)?, StepUrl::new(name, url)?),
            Op::GetStep(selected) => Request::GetStep(self.selector(selected)?),
            Op::GetSteps { build } => Request::GetSteps(self.build(*build)?),
        })
    }

    fn selector(&self, selected: &Selected) -> Result<StepSelector, Mismatch> {
        let Selected { step, build, number, name } = selected;
        Ok(match (step, build, number, name) {
            (Some(step), None, None, None) => self.step(*step)?.into(),
            (None, Some(build), Some(number), None) => {
                StepSelector::number(self.build(*build)?, StepNumber::new(*number))
            }
            (None, Some(build), None, Some(name)) => StepSelector::name(self.build(*build)?, StepName::new(name)?),
            _ => {
                let failure = Failure::new("its inputs are none of: step, build and number, build and name");
                return Err(Mismatch::new(Reason::Scenario, failure));
            }
        })
    }

    fn build(&self, build: i64) -> Result<BuildId, Mismatch> {
        self.builds.get(&build).copied().ok_or_else(|| unknown(format_args!("the build {build}")))
    }

    fn step(&self, index: usize) -> Result<StepId, Mismatch> {
        self.steps.get(index).copied().ok_or_else(|| unknown(format_args!("the step {index}")))
    }

    /// The recorded form of a step.
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

fn time(seconds: i64) -> Result<Timestamp, InputError> {
    Timestamp::from_unix_micros(seconds.saturating_mul(1_000_000))
}

/// The recorded form of a time. A time with a fraction of a second, which no recording has, becomes text.
fn seconds(time: Option<Timestamp>) -> Value {
    match time.map(Timestamp::unix_micros) {
        None => Value::Null,
        Some(micros) if micros % 1_000_000 == 0 => (micros / 1_000_000).into(),
        Some(micros) => format!("{micros} µs").into(),
    }
}

fn unknown(what: impl fmt::Display) -> Mismatch {
    Mismatch::new(Reason::Scenario, Failure::new(format_args!("it names {what}, which the scenario does not have")))
}

/// Compares an answer with the recorded one. The mismatch names the first difference.
fn expect_same(clause: Clause, got: &Value, expected: &Value) -> Result<(), Mismatch> {
    let Some(Difference { path, got, expected }) = difference(String::new(), got, expected) else { return Ok(()) };
    let shown = |value: Option<&Value>| value.map_or_else(|| "nothing".into(), |value| shortened(&Plain(value)));
    let clause = clause_of(&path).unwrap_or(clause);
    let failure = Failure::of(clause, format_args!("answer{path}")).expected(shown(expected)).got(shown(got));
    Err(Mismatch::new(Reason::Answer, failure))
}

/// The clause of the last field on the path that has one.
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
            .find_map(|index| inner(format!("{path}[{index}]"), got.get(index), expected.get(index))),
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

/// Formats a JSON value as JSON.
struct Plain<'a>(&'a Value);

impl fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)
    }
}

/// The scenarios of a file, in order.
///
/// Parses from the text of the file. Empty lines are skipped.
#[derive(Clone, Debug)]
pub struct Scenarios(Vec<(usize, Scenario)>);

impl Scenarios {
    /// The number of scenarios.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no scenarios.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Scenarios {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Some editors write a byte order mark, which JSON does not allow.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let scenario = |(line, text)| match serde_json::from_str(text) {
            Ok(scenario) => Ok((line, scenario)),
            Err(source) => Err(ScenarioError { line, source }),
        };
        lines.map(scenario).collect::<Result<_, _>>().map(Self)
    }
}

/// Result of a replay. Displays as the disagreements and a line such as `64 of 64 scenarios agree`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Replayed {
    /// The number of scenarios in the file.
    pub scenarios: usize,
    /// The number of scenarios whose recorded answers the store returns.
    pub agree: usize,
    /// The other scenarios.
    pub disagreements: Vec<Disagreement>,
}

/// A scenario in which the store does not answer as recorded.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Disagreement {
    /// The kind and the seed of the scenario, such as `mix_0`.
    pub scenario: String,
    /// The line in the file, from 1.
    pub line: usize,
    /// The kind of the disagreement.
    pub reason: Reason,
    /// The first operation with another answer, with its index and inputs, such as `ops[3] get_steps {"build":1}`.
    pub operation: Option<String>,
    /// The difference. The recorded answer is the expected one.
    pub failure: Failure,
}

/// Kind of a [`Disagreement`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The store gave another answer.
    Answer,
    /// The store returned an error, panicked, did not answer in time, or could not be created.
    Error,
    /// The contract refuses an input of the scenario, such as a name of 51 code points (N1), before the store is
    /// called. The recorded system is laxer than the contract, so no store can agree.
    Refused,
    /// The scenario names a step or a build that it does not have, so it is not a valid recording.
    Scenario,
}

impl Replayed {
    /// Whether there is at least one scenario, and all agree.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.scenarios > 0 && self.agree == self.scenarios
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Disagreement { scenario, line, failure, .. } in &self.disagreements {
            writeln!(f, "---- {scenario}, line {line} ----\n{failure}\n")?;
        }
        write!(f, "{} of {} scenarios agree", self.agree, self.scenarios)
    }
}

/// A line of a file that is not a scenario.
#[derive(Debug)]
pub struct ScenarioError {
    line: usize,
    source: serde_json::Error,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: not a scenario: {}", self.line, self.source)
    }
}

impl std::error::Error for ScenarioError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Replays the scenarios of a file, in the format of this module, on stores of the factory.
///
/// Scenarios run concurrently on a few stores (or on a few handles, if the factory returns the same store each time),
/// each in its own builds. As in every case, a handle must use the [clock](crate::CaseContext::clock) from its call of
/// the factory, since scenarios set that clock. If a store cannot be created, each of its scenarios is a disagreement.
///
/// # Errors
/// When a line is not a scenario. Nothing is replayed then.
pub async fn replay(factory: impl StoreFactory, text: &str, config: Config) -> Result<Replayed, ScenarioError> {
    Ok(replay_watched(factory, text.parse()?, config, |_| {}).await)
}

/// As [`replay`], with parsed scenarios, and calls `watch` at the end of each scenario.
pub async fn replay_watched(
    factory: impl StoreFactory,
    scenarios: Scenarios,
    config: Config,
    watch: impl FnMut(Progress<'_>),
) -> Replayed {
    let total = scenarios.len();
    let disagreements = ReplayPool::new(Suite::new(factory, config), scenarios.0).run(watch).await;
    Replayed { scenarios: total, agree: total - disagreements.len(), disagreements }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_scenarios_are_80_with_distinct_names() {
        let names: std::collections::HashSet<_> = Scenario::buildbot().iter().map(Scenario::name).collect();
        assert_eq!(names.len(), 80);
    }

    #[test]
    fn the_error_names_the_line_that_is_not_a_scenario() {
        let error = "\n{\"seed\": 1}\n".parse::<Scenarios>().unwrap_err();
        assert!(error.to_string().starts_with("line 2: not a scenario: missing field"), "{error}");
    }

    #[test]
    fn an_unknown_or_missing_field_is_refused() {
        for op in [
            r#"{"op":"get_steps","build":1,"out":[],"hidden":true}"#,
            r#"{"op":"get_step","step":0,"out":null,"id":7}"#,
            r#"{"op":"get_steps","build":1}"#,
            r#"{"op":"close","out":null}"#,
        ] {
            let line = format!(r#"{{"seed":0,"kind":"mix","builds":[1],"ops":[{op}],"final":{{}}}}"#);
            assert!(line.parse::<Scenarios>().is_err(), "{op}");
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let got = json!([{"urls": [1, 2], "name": "a"}]);
        let expected = json!([{"urls": [1], "name": "a"}]);
        let failure = expect_same(Clause::R1, &got, &expected).map_err(|mismatch| mismatch.failure).unwrap_err();
        assert_eq!(failure.clause, Some(Clause::U2));
        assert_eq!(failure.what, "answer[0].urls[1]");
        assert_eq!((failure.expected.as_deref(), failure.got.as_deref()), (Some("nothing"), Some("2")));
    }
}
