//! The worker of a reading connection: a batch is one statement for each kind of read, each with a snapshot of its own.
//!
//! The worker returns the rows undecoded, and each caller decodes its own, so a large build does not delay other reads.

use std::{collections::HashMap, sync::Arc};

use sqlx::{
    Arguments, Row,
    error::BoxDynError,
    postgres::{PgArguments, PgRow},
};
use steps_batch::{BatchError, Read, ReadResponse, Worker, first_occurrence_indices};
use steps_core::{
    BuildId, ErrorKind, InputError, Results, StateString, Step, StepId, StepName, StepNumber, StepSelector, StepUrl,
    Timestamp,
};

use crate::{
    BACKEND,
    connection::{ConnectionFactory, ManagedConnection},
    error::{statement_error, undecodable_step},
    time::Time,
};

#[derive(Debug)]
pub(crate) struct Reader(ManagedConnection);

impl Reader {
    pub(crate) fn new(factory: ConnectionFactory) -> Self {
        Self(ManagedConnection::new(factory, None))
    }

    /// Runs a lookup, and appends its rows to those of the requests that they answer.
    async fn fetch(&mut self, sql: &'static str, lookup: Lookup, rows: &mut [Vec<PgRow>]) -> Result<(), BatchError> {
        if lookup.indices.is_empty() {
            return Ok(());
        }
        let arguments = lookup.arguments.map_err(|error| {
            BatchError::new(ErrorKind::InvalidInput, format!("the driver cannot encode a value: {error}"))
        })?;
        for row in self.0.run(sql, arguments).await? {
            let key: i64 = row.try_get(0).map_err(statement_error)?;
            if let Some(rows) = lookup.indices.get(&key).and_then(|index| rows.get_mut(*index)) {
                rows.push(row);
            }
        }
        Ok(())
    }
}

impl Worker for Reader {
    type Request = Read;
    type Response = RawRows;

    const BACKEND: &'static str = BACKEND;
    const BATCH: usize = 64;

    fn size(_: &Read) -> usize {
        0
    }

    async fn connect(&mut self) -> Result<(), BatchError> {
        self.0.connect().await
    }

    async fn run(&mut self, requests: &[Read]) -> Result<Vec<Result<RawRows, BatchError>>, BatchError> {
        let mut ids = Vec::new();
        let mut of_builds = BuildLookup::default();
        let mut builds = Vec::new();
        // Equal requests share the rows of the first one.
        let first_indices = first_occurrence_indices(requests);
        for (index, request) in requests.iter().enumerate() {
            if first_indices[index] != index {
                continue;
            }
            match request {
                Read::Step(StepSelector::Id(id)) => ids.push((id.get(), index)),
                Read::Step(StepSelector::Number { build_id, number }) => {
                    of_builds.push(index, *build_id, Some(i64::from(number.get())), None);
                }
                Read::Step(StepSelector::Name { build_id, name }) => {
                    of_builds.push(index, *build_id, None, Some(name.as_str()));
                }
                Read::Steps(build_id) => builds.push((build_id.get(), index)),
            }
        }
        let mut rows: Vec<Vec<PgRow>> = requests.iter().map(|_| Vec::new()).collect();
        self.fetch(include_str!("sql/get_step_by_id.sql"), Lookup::by_key(ids), &mut rows).await?;
        self.fetch(include_str!("sql/get_step_of_build.sql"), of_builds.into_lookup(), &mut rows).await?;
        self.fetch(include_str!("sql/get_steps.sql"), Lookup::by_key(builds), &mut rows).await?;
        let answers: Vec<RawRows> = rows.into_iter().map(|rows| RawRows(Arc::new(rows))).collect();
        Ok(first_indices.into_iter().map(|index| Ok(answers[index].clone())).collect())
    }

    async fn close(&mut self) {
        self.0.close().await;
    }
}

/// The requests of a batch that one statement answers.
struct Lookup {
    arguments: Result<PgArguments, BoxDynError>,
    /// The index of the request, by the first column of its rows.
    indices: HashMap<i64, usize>,
}

impl Lookup {
    /// A lookup by keys only, given as pairs of key and index.
    fn by_key(requests: Vec<(i64, usize)>) -> Self {
        let keys: Vec<i64> = requests.iter().map(|(key, _)| *key).collect();
        let mut arguments = PgArguments::default();
        let added = arguments.add(keys);
        Self { arguments: added.map(|()| arguments), indices: requests.into_iter().collect() }
    }
}

/// The arguments of `get_step_of_build.sql`.
#[derive(Default)]
struct BuildLookup<'a> {
    indices: Vec<usize>,
    builds: Vec<i64>,
    numbers: Vec<Option<i64>>,
    names: Vec<Option<&'a str>>,
}

impl<'a> BuildLookup<'a> {
    fn push(&mut self, index: usize, build_id: BuildId, number: Option<i64>, name: Option<&'a str>) {
        self.indices.push(index);
        self.builds.push(build_id.get());
        self.numbers.push(number);
        self.names.push(name);
    }

    fn into_lookup(self) -> Lookup {
        let mut arguments = PgArguments::default();
        let added = arguments
            .add(self.builds)
            .and_then(|()| arguments.add(self.numbers))
            .and_then(|()| arguments.add(self.names));
        Lookup { arguments: added.map(|()| arguments), indices: (1..).zip(self.indices).collect() }
    }
}

/// The rows that answer a request, not decoded yet. Their columns are a key and those of the view `whole_steps`.
#[derive(Clone, Debug)]
pub(crate) struct RawRows(Arc<Vec<PgRow>>);

impl ReadResponse for RawRows {
    fn into_steps(self) -> Result<Vec<Step>, BatchError> {
        let rows = self.0.iter().map(UrlRow::new).collect::<sqlx::Result<Vec<UrlRow<'_>>>>();
        let mut rows = rows.map_err(statement_error)?;
        // U1, R2
        rows.sort_by_key(|row| (row.number, row.position));
        rows.chunk_by(|one, other| one.number == other.number).map(decode_step).collect()
    }
}

/// A row with the columns that order the rows of an answer.
struct UrlRow<'a> {
    number: i64,
    /// The position of the url in this row, if the row has one.
    position: Option<i32>,
    row: &'a PgRow,
}

impl<'a> UrlRow<'a> {
    fn new(row: &'a PgRow) -> sqlx::Result<Self> {
        Ok(Self { number: row.try_get(3)?, position: row.try_get(12)?, row })
    }
}

/// Decodes the step of these rows, at least one.
fn decode_step(rows: &[UrlRow<'_>]) -> Result<Step, BatchError> {
    let columns = Columns::new(rows).map_err(statement_error)?;
    let id = columns.id;
    if usize::try_from(columns.url_count) != Ok(columns.urls.len()) {
        return Err(undecodable_step(id, "its number of urls differs from its url count"));
    }
    columns.into_step().map_err(|error| undecodable_step(id, error))
}

/// The columns of a step, as the database has them.
struct Columns {
    id: i64,
    build_id: i64,
    number: i64,
    name: String,
    state_string: String,
    started_at: Option<Time>,
    locks_acquired_at: Option<Time>,
    complete_at: Option<Time>,
    results: Option<i32>,
    hidden: bool,
    url_count: i32,
    /// Pairs of name and url, in the order of their positions.
    urls: Vec<(String, String)>,
}

impl Columns {
    fn new(rows: &[UrlRow<'_>]) -> sqlx::Result<Self> {
        let with_url = rows.iter().filter(|row| row.position.is_some());
        let urls = with_url.map(|UrlRow { row, .. }| Ok((row.try_get(13)?, row.try_get(14)?)));
        let row = rows[0].row;
        Ok(Self {
            id: row.try_get(1)?,
            build_id: row.try_get(2)?,
            number: row.try_get(3)?,
            name: row.try_get(4)?,
            state_string: row.try_get(5)?,
            started_at: row.try_get(6)?,
            locks_acquired_at: row.try_get(7)?,
            complete_at: row.try_get(8)?,
            results: row.try_get(9)?,
            hidden: row.try_get(10)?,
            url_count: row.try_get(11)?,
            urls: urls.collect::<sqlx::Result<_>>()?,
        })
    }

    fn into_step(self) -> Result<Step, InputError> {
        let urls = self.urls.into_iter().map(|(name, url)| StepUrl::new(name, url));
        let time = |time: Option<Time>| time.map(Timestamp::try_from).transpose();
        let step = Step::builder(
            StepId::new(self.id)?,
            BuildId::new(self.build_id)?,
            StepNumber::try_from(self.number)?,
            StepName::new(self.name)?,
            StateString::new(self.state_string)?,
        )
        .started_at(time(self.started_at)?)
        .locks_acquired_at(time(self.locks_acquired_at)?)
        .complete_at(time(self.complete_at)?)
        .results(self.results.map(Results::new))
        .hidden(self.hidden)
        .urls(urls.collect::<Result<_, _>>()?);
        Ok(step.build())
    }
}
