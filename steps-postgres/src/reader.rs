//! A reading lane: all reads that wait in it in one statement of each kind, with a snapshot of its own.
//!
//! The lane hands out what the server gave, and each caller makes its steps of it: much to read holds up nobody else.

use std::{collections::HashMap, sync::Arc};

use sqlx::{
    Arguments, PgConnection, Row,
    error::BoxDynError,
    postgres::{PgArguments, PgRow},
};
use steps_core::{
    BuildId, ErrorKind, InputError, Results, StateString, Step, StepId, StepName, StepNumber, StepSelector, StepUrl,
    Timestamp,
};
use steps_lane::{Failure, Worker, places_of_equals};

use crate::{
    BACKEND,
    connection::{Link, Opener},
    error::{failure, unreadable_step},
    time::Time,
};

/// A read.
#[derive(Debug, PartialEq)]
pub(crate) enum Read {
    Step(StepSelector),
    Steps(BuildId),
}

#[derive(Debug)]
pub(crate) struct Reader(Link);

impl Reader {
    pub(crate) fn new(opener: Opener, connection: Option<PgConnection>) -> Self {
        Self(Link::new(opener, connection))
    }

    async fn rows(
        &mut self,
        sql: &'static str,
        arguments: Result<PgArguments, BoxDynError>,
    ) -> Result<Vec<PgRow>, Failure> {
        let arguments = arguments.map_err(|error| {
            Failure::new(ErrorKind::InvalidInput, format!("the driver cannot send a value: {error}"))
        })?;
        self.0.run(sql, arguments).await
    }

    /// Runs the statement of one kind of request, and gives each what is found.
    async fn fetch(&mut self, sql: &'static str, asked: Asked, found: &mut [Found]) -> Result<(), Failure> {
        if asked.places.is_empty() {
            return Ok(());
        }
        for row in self.rows(sql, asked.arguments).await? {
            let key: i64 = row.try_get(0).map_err(failure)?;
            let Some(found) = asked.places.get(&key).and_then(|place| found.get_mut(*place)) else { continue };
            let further_urls = self.further_urls(&row).await?;
            found.0.push(FoundStep { row, further_urls });
        }
        Ok(())
    }

    /// The urls past those that the step's row has, as they were when it was read.
    async fn further_urls(&mut self, step: &PgRow) -> Result<Vec<PgRow>, Failure> {
        let (id, urls): (i64, i32) = (step.try_get(1).map_err(failure)?, step.try_get(URLS).map_err(failure)?);
        let mut further = Vec::new();
        for position in (INLINE_URLS..urls).step_by(INLINE_URLS as usize) {
            let mut arguments = PgArguments::default();
            let added = arguments
                .add(id)
                .and_then(|()| arguments.add(position))
                .and_then(|()| arguments.add(urls))
                .map(|()| arguments);
            further.append(&mut self.rows(include_str!("sql/further_urls.sql"), added).await?);
        }
        Ok(further)
    }
}

impl Worker for Reader {
    type Request = Read;
    type Answer = Arc<Found>;

    const BACKEND: &'static str = BACKEND;
    const BATCH: usize = 64;

    fn size(_: &Read) -> usize {
        0
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        self.0.connect().await
    }

    async fn run(&mut self, requests: &[Read]) -> Result<Vec<Result<Arc<Found>, Failure>>, Failure> {
        let (mut ids, mut of_builds, mut builds) = (Vec::new(), OfBuilds::default(), Vec::new());
        // Those who ask for the same share an answer.
        let places = places_of_equals(requests);
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

/// How many urls a step's row has with it: see the view `whole_steps`.
const INLINE_URLS: i32 = 512;

/// The column that says how many urls the step has in all.
const URLS: usize = 11;

/// What was found for a request, as the server gave it.
#[derive(Debug, Default)]
pub(crate) struct Found(Vec<FoundStep>);

#[derive(Debug)]
struct FoundStep {
    row: PgRow,
    further_urls: Vec<PgRow>,
}

impl Found {
    /// The steps, in the order of their numbers.
    pub(crate) fn steps(&self) -> Result<Vec<Step>, Failure> {
        let mut steps = self.0.iter().map(FoundStep::step).collect::<Result<Vec<_>, _>>()?;
        steps.sort_by_key(|step| step.number);
        Ok(steps)
    }
}

impl FoundStep {
    fn step(&self) -> Result<Step, Failure> {
        let columns = Columns::new(self).map_err(failure)?;
        let id = columns.id;
        if usize::try_from(columns.url_count) != Ok(columns.urls.len()) {
            return Err(unreadable_step(id, "it has not the urls that it should have"));
        }
        columns.step().map_err(|error| unreadable_step(id, error))
    }
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
    fn new(step: &FoundStep) -> sqlx::Result<Self> {
        let row = &step.row;
        let mut urls = Vec::new();
        let url_count = row.try_get(URLS)?;
        if url_count > 0 {
            let (names, texts): (Vec<String>, Vec<String>) = (row.try_get(12)?, row.try_get(13)?);
            urls.extend(names.into_iter().zip(texts));
        }
        for row in &step.further_urls {
            urls.push((row.try_get(0)?, row.try_get(1)?));
        }
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
            url_count,
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
