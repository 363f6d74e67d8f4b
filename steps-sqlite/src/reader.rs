//! The reading lane: all waiting reads in one statement of each kind, with a snapshot of its own.
//!
//! The lane hands out what SQLite gave, and each caller makes its steps of it: much to read holds up nobody else.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::{Row, SqliteConnection};
use steps_batch::{BatchError, Read, Worker, first_occurrence_indices};
use steps_core::{
    BuildId, ErrorKind, InputError, Results, StateString, Step, StepId, StepName, StepNumber, StepSelector, StepUrl,
    Timestamp,
};

use crate::{
    BACKEND,
    connection::{Opener, give_up},
    error::{failure, opening, unreadable},
};

#[derive(Debug)]
pub(crate) struct Reader {
    opener: Opener,
    /// `None` before the first read and after a failure: it is opened before the next batch.
    connection: Option<SqliteConnection>,
}

impl Reader {
    pub(crate) fn new(opener: Opener) -> Self {
        Self { opener, connection: None }
    }

    fn take(&mut self) -> Result<SqliteConnection, BatchError> {
        self.connection.take().ok_or_else(|| BatchError::transient("the file is not open yet"))
    }

    /// Keeps the connection that gave this, unless it failed.
    async fn keep<T>(&mut self, connection: SqliteConnection, given: sqlx::Result<T>) -> Result<T, BatchError> {
        match given {
            Ok(given) => {
                self.connection = Some(connection);
                Ok(given)
            }
            Err(error) => {
                give_up(connection).await;
                Err(failure(error))
            }
        }
    }

    /// Gives each of the requests for a step by its id what is found.
    async fn fetch_by_id(&mut self, asked: &Batch<i64>, found: &mut [Found]) -> Result<(), BatchError> {
        let query = match asked.arguments[..] {
            [] => return Ok(()),
            [id] => sqlx::query(include_str!("sql/get_step.sql")).bind(id),
            _ => sqlx::query(include_str!("sql/get_steps_by_id.sql")).bind(asked.argument()?),
        };
        let mut connection = self.take()?;
        let row = query.fetch_optional(&mut connection).await;
        let Some(row) = self.keep(connection, row).await? else { return Ok(()) };
        let steps: Option<&str> = row.try_get(0).map_err(failure)?;
        let has_more: Vec<usize> = serde_json::from_str(row.try_get(1).map_err(failure)?).map_err(unreadable)?;
        for line in steps.unwrap_or_default().lines() {
            let (place, step) = line.split_once(' ').unwrap_or_default();
            let place =
                place.parse().map_err(|_| BatchError::unreadable("a step comes without the place of its id"))?;
            if let Some(request) = asked.request(place, found).filter(|_| !has_more.contains(&place)) {
                request.steps.push(step.to_owned());
            }
        }
        let mut long = Batch::new();
        for place in has_more {
            if let (Some(request), Some(id)) = (asked.requests.get(place), asked.arguments.get(place)) {
                long.push(*request, *id);
            }
        }
        self.fetch(include_str!("sql/get_long_steps.sql"), &long, found).await
    }

    /// Runs a statement, and gives each of the requests of its arguments what is found.
    async fn fetch<T: Serialize>(
        &mut self,
        sql: &'static str,
        asked: &Batch<T>,
        found: &mut [Found],
    ) -> Result<(), BatchError> {
        if asked.arguments.is_empty() {
            return Ok(());
        }
        let arguments = asked.argument()?;
        let mut connection = self.take()?;
        let rows = sqlx::query(sql).bind(arguments).fetch_all(&mut connection).await;
        for row in self.keep(connection, rows).await? {
            let place: u32 = row.try_get(0).map_err(failure)?;
            let Some(request) = asked.request(place as usize, found) else { continue };
            request.steps.extend(row.try_get::<Option<String>, _>(1).map_err(failure)?);
            request.urls.extend(row.try_get::<Option<String>, _>(2).map_err(failure)?);
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
        if self.connection.is_none() {
            self.connection = Some(self.opener.open().await.map_err(opening)?);
        }
        Ok(())
    }

    async fn run(&mut self, requests: &[Read]) -> Result<Vec<Result<Arc<Found>, BatchError>>, BatchError> {
        let (mut ids, mut of_builds, mut builds) = (Batch::new(), Batch::new(), Batch::new());
        // Those who ask for the same share an answer.
        let places = first_occurrence_indices(requests);
        for (place, read) in requests.iter().enumerate().filter(|(place, _)| places[*place] == *place) {
            match read {
                Read::Step(StepSelector::Id(id)) => ids.push(place, id.get()),
                Read::Step(StepSelector::Number { build_id, number }) => {
                    of_builds.push(place, (build_id.get(), Some(number.get()), None));
                }
                Read::Step(StepSelector::Name { build_id, name }) => {
                    of_builds.push(place, (build_id.get(), None, Some(name.as_str())));
                }
                Read::Steps(build_id) => builds.push(place, build_id.get()),
            }
        }
        let mut found: Vec<_> = requests.iter().map(|_| Found::default()).collect();
        self.fetch_by_id(&ids, &mut found).await?;
        self.fetch(include_str!("sql/get_step_of_build.sql"), &of_builds, &mut found).await?;
        self.fetch(include_str!("sql/get_steps.sql"), &builds, &mut found).await?;
        let found: Vec<_> = found.into_iter().map(Arc::new).collect();
        Ok(places.into_iter().map(|place| Ok(Arc::clone(&found[place]))).collect())
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.opener.close(connection).await;
        }
    }
}

/// The requests of one kind in a batch: what the statement is given, and whose each is.
struct Batch<T> {
    arguments: Vec<T>,
    requests: Vec<usize>,
}

impl<T: Serialize> Batch<T> {
    /// All arguments, as the statement takes them.
    fn argument(&self) -> Result<String, BatchError> {
        serde_json::to_string(&self.arguments).map_err(unreadable)
    }
}

impl<T> Batch<T> {
    fn new() -> Self {
        Self { arguments: Vec::new(), requests: Vec::new() }
    }

    fn push(&mut self, request: usize, argument: T) {
        self.arguments.push(argument);
        self.requests.push(request);
    }

    /// What was found for the request of the argument at this place.
    fn request<'a>(&self, place: usize, found: &'a mut [Found]) -> Option<&'a mut Found> {
        found.get_mut(*self.requests.get(place)?)
    }
}

/// What was found for a request: JSON arrays, as the statements give them.
#[derive(Debug, Default)]
pub(crate) struct Found {
    steps: Vec<String>,
    urls: Vec<String>,
}

impl Found {
    /// The steps, in the order of their numbers.
    pub(crate) fn steps(&self) -> Result<Vec<Step>, BatchError> {
        let mut further_urls: HashMap<_, Vec<Url>> = HashMap::new();
        for (step_id, position, name, url) in parse::<(i64, i64, String, String)>(&self.urls)? {
            further_urls.entry(step_id).or_default().push((position, name, url));
        }
        let step = |row: StepRow| {
            let id = row.id;
            let step = row.step(further_urls.remove(&id).unwrap_or_default());
            step.map_err(|error| BatchError::new(ErrorKind::Corrupt, format!("step {id} cannot be read back: {error}")))
        };
        parse(&self.steps)?.into_iter().map(step).collect()
    }
}

/// A step as the statements give it: a JSON array of these.
#[derive(Deserialize)]
struct StepRow {
    id: i64,
    build_id: i64,
    number: i64,
    name: String,
    state_string: String,
    started_at: Option<i64>,
    locks_acquired_at: Option<i64>,
    complete_at: Option<i64>,
    results: Option<i32>,
    hidden: i64,
    /// The first of them.
    urls: Vec<Url>,
}

/// Position, name and url.
type Url = (i64, String, String);

impl StepRow {
    fn step(self, mut further_urls: Vec<Url>) -> Result<Step, InputError> {
        let mut urls = self.urls;
        urls.append(&mut further_urls);
        urls.sort_by_key(|(position, ..)| *position);
        let urls = urls.into_iter().map(|(_, name, url)| StepUrl::new(name, url));
        let time = |micros: Option<i64>| micros.map(Timestamp::from_unix_micros).transpose();
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
        .hidden(self.hidden != 0)
        .urls(urls.collect::<Result<_, _>>()?);
        Ok(step.build())
    }
}

/// What several JSON arrays have.
fn parse<T: DeserializeOwned>(arrays: &[String]) -> Result<Vec<T>, BatchError> {
    let mut all = Vec::new();
    for array in arrays {
        all.append(&mut serde_json::from_str(array).map_err(unreadable)?);
    }
    Ok(all)
}
