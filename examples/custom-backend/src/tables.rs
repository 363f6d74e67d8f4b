//! The tables of the file. redb stores each table in the order of its keys.

use redb::{ReadableTable, TableDefinition};
use steps_core::{BuildId, InputError, Results, StateString, Step, StepId, StepName, StepNumber, StepUrl, Timestamp};

/// A stored step without its urls: build, number, name, state string, the three times in microseconds (T2), results,
/// hidden.
pub(crate) type Row<'a> = (i64, u32, &'a str, &'a str, Option<i64>, Option<i64>, Option<i64>, Option<i32>, bool);

/// The steps, by id.
pub(crate) const STEPS: TableDefinition<i64, Row<'static>> = TableDefinition::new("steps");
/// The id of a step, by build and number: the steps of a build are adjacent and in order (R2).
pub(crate) const NUMBERS: TableDefinition<(i64, u32), i64> = TableDefinition::new("numbers");
/// The id of a step, by build and name, compared byte by byte (N4).
pub(crate) const NAMES: TableDefinition<(i64, &str), i64> = TableDefinition::new("names");
/// The first suffix that may be free, by build, truncated prefix and number of digits (N5). All smaller suffixes with
/// as many digits are taken.
pub(crate) const SUFFIXES: TableDefinition<(i64, &str, u32), u64> = TableDefinition::new("suffixes");
/// The id of the step that was added with a key, by build and key (I5).
pub(crate) const KEYS: TableDefinition<(i64, &str), i64> = TableDefinition::new("keys");
/// Name and url, by step and position (U1). Each url has its own row, so that the cost of an add stays the same (U5).
pub(crate) const URLS: TableDefinition<(i64, u32), (&str, &str)> = TableDefinition::new("urls");
/// The digests of a step's urls (U2).
pub(crate) const DIGESTS: TableDefinition<(i64, [u8; 32]), ()> = TableDefinition::new("digests");
/// The version of this format, and the last id that was assigned (I1).
pub(crate) const META: TableDefinition<&str, i64> = TableDefinition::new("steps_meta");

pub(crate) const FORMAT: &str = "format";
pub(crate) const LAST_ID: &str = "last_id";

/// The reason why a step cannot be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    Storage(redb::StorageError),
    /// A value breaks the rules of its type: another program wrote it.
    Input(InputError),
}

impl From<redb::StorageError> for ReadError {
    fn from(error: redb::StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<InputError> for ReadError {
    fn from(error: InputError) -> Self {
        Self::Input(error)
    }
}

/// Reads the step with this id. The constructors of its types check each value.
pub(crate) fn step(
    id: i64,
    steps: &impl ReadableTable<i64, Row<'static>>,
    urls: &impl ReadableTable<(i64, u32), (&'static str, &'static str)>,
) -> Result<Option<Step>, ReadError> {
    let Some(row) = steps.get(id)? else { return Ok(None) };
    let (build, number, name, state, started_at, locks_acquired_at, complete_at, results, hidden) = row.value();
    let time = |micros: Option<i64>| micros.map(Timestamp::from_unix_micros).transpose();
    let mut step_urls = Vec::new();
    for url in urls.range((id, 0)..=(id, u32::MAX))? {
        let (_, url) = url?;
        let (name, url) = url.value();
        step_urls.push(StepUrl::new(name, url)?);
    }
    let id = StepId::new(id)?;
    let build = BuildId::new(build)?;
    let step = Step::builder(id, build, StepNumber::new(number), StepName::new(name)?, StateString::new(state)?)
        .started_at(time(started_at)?)
        .locks_acquired_at(time(locks_acquired_at)?)
        .complete_at(time(complete_at)?)
        .results(results.map(Results::new))
        .urls(step_urls)
        .hidden(hidden);
    Ok(Some(step.build()))
}
