//! A reading lane: all reads that wait in it in one statement of each kind, with a snapshot of its own.
//!
//! The lane hands out what the server gave, and each caller makes its steps of it: much to read holds up nobody else.

use std::{collections::HashMap, sync::Arc};

use sqlx::{
    Arguments, PgConnection, Row,
    error::BoxDynError,
    postgres::{PgArguments, PgRow},
};
use steps_batch::{BatchError, Read, Worker, first_occurrence_indices};
use steps_core::{
    BuildId, ErrorKind, InputError, Results, StateString, Step, StepId, StepName, StepNumber, StepSelector, StepUrl,
    Timestamp,
};

use crate::{
    BACKEND,
    connection::{Link, Opener},
    error::{failure, unreadable_step},
    time::Time,
};

#[derive(Debug)]
pub(crate) struct Reader(Link);

impl Reader {
    pub(crate) fn new(opener: Opener, connection: Option<PgConnection>) -> Self {
        Self(Link::new(opener, connection))
    }

    /// Runs the statement of one kind of request, and gives each what is found.
    async fn fetch(&mut self, sql: &'static str, asked: Asked, found: &mut [Found]) -> Result<(), BatchError> {
        if asked.places.is_empty() {
            return Ok(());
        }
        let arguments = asked.arguments.map_err(|error| {
            BatchError::new(ErrorKind::InvalidInput, format!("the driver cannot send a value: {error}"))
        })?;
        for row in self.0.run(sql, arguments).await? {
            let key: i64 = row.try_get(0).map_err(failure)?;
            if let Some(found) = asked.places.get(&key).and_then(|place| found.get_mut(*place)) {
                found.0.push(row);
            }
        }
        Ok(())
    }
}

impl Worker for Reader {
    type Request = Read;
    type Response = Arc<Found>;

    const BACKEND: &'static str = BACKEND;
    const BATCH: usize = 64;

    fn size(_: &Read) -> usize {
        0
    }

    async fn connect(&mut self) -> Result<(), BatchError> {
        self.0.connect().await
    }

    async fn run(&mut self, requests: &[Read]) -> Result<Vec<Result<Arc<Found>, BatchError>>, BatchError> {
        let (mut ids, mut of_builds, mut builds) = (Vec::new(), OfBuilds::default(), Vec::new());
        // Those who ask for the same share an answer.
        let places = first_occurrence_indices(requests);
        for (place, read) in requests.iter().enumerate().filter(|(place, _)| places[*place] == *place) {
            match read {
                Read::Step(StepSelector::Id(id)) => ids.push((id.get(), place)),
                Read::Step(StepSelector::Number { build_id, number }) => {
                    of_builds.push(place, *build_id, Some(i64::from(number.get())), None);
                }
                Read::Step(StepSelector::Name { build_id, name }) => {
                    of_builds.push(place, *build_id, None, Some(name.as_str()));
                }
                Read::Steps(build_id) => builds.push((build_id.get(), place)),
            }
        }
        let mut found: Vec<_> = requests.iter().map(|_| Found::default()).collect();
        self.fetch(include_str!("sql/get_step_by_id.sql"), by_key(ids), &mut found).await?;
        self.fetch(include_str!("sql/get_step_of_build.sql"), of_builds.asked(), &mut found).await?;
        self.fetch(include_str!("sql/get_steps.sql"), by_key(builds), &mut found).await?;
        let found: Vec<_> = found.into_iter().map(Arc::new).collect();
        Ok(places.into_iter().map(|place| Ok(Arc::clone(&found[place]))).collect())
    }

    async fn close(&mut self) {
        self.0.close().await;
    }
}

/// The requests of one kind in a batch: what the statement is given, and by the first column of its answer, whose each is.
struct Asked {
    arguments: Result<PgArguments, BoxDynError>,
    places: HashMap<i64, usize>,
}

/// Requests that their key says all about.
fn by_key(requests: Vec<(i64, usize)>) -> Asked {
    let mut arguments = PgArguments::default();
    let keys: Vec<i64> = requests.iter().map(|(key, _)| *key).collect();
    let added = arguments.add(keys).map(|()| arguments);
    Asked { arguments: added, places: requests.into_iter().collect() }
}

/// The arguments of `get_step_of_build.sql`.
#[derive(Default)]
struct OfBuilds<'a> {
    places: Vec<usize>,
    builds: Vec<i64>,
    numbers: Vec<Option<i64>>,
    names: Vec<Option<&'a str>>,
}

impl<'a> OfBuilds<'a> {
    fn push(&mut self, place: usize, build_id: BuildId, number: Option<i64>, name: Option<&'a str>) {
        self.places.push(place);
        self.builds.push(build_id.get());
        self.numbers.push(number);
        self.names.push(name);
    }

    fn asked(self) -> Asked {
        let mut arguments = PgArguments::default();
        let added = arguments
            .add(self.builds)
            .and_then(|()| arguments.add(self.numbers))
            .and_then(|()| arguments.add(self.names))
            .map(|()| arguments);
        Asked { arguments: added, places: (1..).zip(self.places).collect() }
    }
}

/// What was found for a request, as the server gave it: see the view `whole_steps`.
#[derive(Debug, Default)]
pub(crate) struct Found(Vec<PgRow>);

impl Found {
    /// The steps, in the order of their numbers.
    pub(crate) fn steps(&self) -> Result<Vec<Step>, BatchError> {
        let key = |row| Ok((Row::try_get::<i64, _>(row, 3)?, Row::try_get::<Option<i32>, _>(row, POSITION)?, row));
        let mut rows =
            self.0.iter().map(key).collect::<sqlx::Result<Vec<(i64, Option<i32>, &PgRow)>>>().map_err(failure)?;
        // U1, R2
        rows.sort_by_key(|(number, position, _)| (*number, *position));
        rows.chunk_by(|(one, ..), (other, ..)| one == other).map(step).collect()
    }
}

/// The column that says which of the step's urls the row has.
const POSITION: usize = 12;

/// The step that these rows are of: there is one at least.
fn step(rows: &[(i64, Option<i32>, &PgRow)]) -> Result<Step, BatchError> {
    let columns = Columns::new(rows).map_err(failure)?;
    let id = columns.id;
    if usize::try_from(columns.url_count) != Ok(columns.urls.len()) {
        return Err(unreadable_step(id, "it has not the urls that it should have"));
    }
    columns.step().map_err(|error| unreadable_step(id, error))
}

/// A step as the statements give it.
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
    /// How many urls the step should have.
    url_count: i32,
    /// Pairs of name and url, in their order.
    urls: Vec<(String, String)>,
}

impl Columns {
    fn new(rows: &[(i64, Option<i32>, &PgRow)]) -> sqlx::Result<Self> {
        let row = rows[0].2;
        let urls = rows.iter().filter(|(_, position, _)| position.is_some());
        let urls = urls.map(|(.., row)| Ok((row.try_get(13)?, row.try_get(14)?))).collect::<sqlx::Result<_>>()?;
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
            urls,
        })
    }

    fn step(self) -> Result<Step, InputError> {
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
