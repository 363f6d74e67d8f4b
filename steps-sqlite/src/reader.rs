//! The reading lane: all waiting reads in one statement of each kind, with a snapshot of its own.

use std::collections::HashMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::{Row, SqliteConnection};
use steps_core::{
    BuildId, ErrorKind, InputError, Results, StateString, Step, StepId, StepName, StepNumber, StepSelector, StepUrl,
    Timestamp,
};
use steps_lane::{Failure, Worker};

use crate::{
    BACKEND,
    connection::{Opener, give_up},
    error::{failure, unreadable},
};

/// A read.
#[derive(Debug)]
pub(crate) enum Read {
    Step(StepSelector),
    Steps(BuildId),
}

#[derive(Debug)]
pub(crate) struct Reader {
    opener: Opener,
    /// `None` before the first read and after a failure: the next batch opens it.
    connection: Option<SqliteConnection>,
}

impl Reader {
    pub(crate) fn new(opener: Opener) -> Self {
        Self { opener, connection: None }
    }

    async fn fetch(&mut self, sql: &'static str, requests: String) -> sqlx::Result<Rows> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.opener.open().await?,
        };
        match sqlx::query(sql).bind(requests).fetch_all(&mut connection).await {
            Ok(rows) => {
                self.connection = Some(connection);
                let mut fetched = Rows::default();
                for row in rows {
                    fetched.steps.extend(parse::<StepRow>(row.try_get(0)?)?);
                    fetched.urls.extend(parse::<UrlRow>(row.try_get(1)?)?);
                }
                Ok(fetched)
            }
            Err(error) => {
                give_up(connection).await;
                Err(error)
            }
        }
    }
}

impl Worker for Reader {
    type Request = Read;
    type Answer = Vec<Step>;

    const BACKEND: &'static str = BACKEND;
    const BATCH: usize = 64;

    fn size(_: &Read) -> usize {
        0
    }

    async fn run(&mut self, requests: &[Read]) -> Result<Vec<Result<Vec<Step>, Failure>>, Failure> {
        let (mut selectors, mut builds) = (Batch::new(), Batch::new());
        for (request, read) in requests.iter().enumerate() {
            match read {
                Read::Step(selector) => selectors.push(request, Selector::from(selector)),
                Read::Steps(build_id) => builds.push(request, build_id.get()),
            }
        }
        let mut answers: Vec<_> = requests.iter().map(|_| Ok(Vec::new())).collect();
        if let Some(json) = selectors.json()? {
            let rows = self.fetch(include_str!("sql/get_step.sql"), json).await.map_err(failure)?;
            rows.answer(&selectors.requests, &mut answers);
        }
        if let Some(json) = builds.json()? {
            let rows = self.fetch(include_str!("sql/get_steps.sql"), json).await.map_err(failure)?;
            rows.answer(&builds.requests, &mut answers);
        }
        Ok(answers)
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            give_up(connection).await;
        }
    }
}

/// The requests of one kind in a batch: what the statement is given, and whose each is.
struct Batch<T> {
    arguments: Vec<T>,
    requests: Vec<usize>,
}

impl<T: Serialize> Batch<T> {
    fn new() -> Self {
        Self { arguments: Vec::new(), requests: Vec::new() }
    }

    fn push(&mut self, request: usize, argument: T) {
        self.arguments.push(argument);
        self.requests.push(request);
    }

    /// What the statement is given, unless there is nothing to ask.
    fn json(&self) -> Result<Option<String>, Failure> {
        let json = || serde_json::to_string(&self.arguments).map_err(unreadable);
        if self.arguments.is_empty() { Ok(None) } else { json().map(Some) }
    }
}

/// Id, build, number and name: see `get_step.sql`.
#[derive(Serialize)]
struct Selector<'a>(Option<i64>, Option<i64>, Option<u32>, Option<&'a str>);

impl<'a> From<&'a StepSelector> for Selector<'a> {
    fn from(selector: &'a StepSelector) -> Self {
        match selector {
            StepSelector::Id(id) => Self(Some(id.get()), None, None, None),
            StepSelector::Number { build_id, number } => Self(None, Some(build_id.get()), Some(number.get()), None),
            StepSelector::Name { build_id, name } => Self(None, Some(build_id.get()), None, Some(name.as_str())),
        }
    }
}

/// What a statement gave, in the columns of its rows.
#[derive(Default)]
struct Rows {
    steps: Vec<StepRow>,
    urls: Vec<UrlRow>,
}

impl Rows {
    /// Gives each request its steps. One that cannot be read back spoils only the requests that asked for it.
    fn answer(mut self, requests: &[usize], answers: &mut [Result<Vec<Step>, Failure>]) {
        self.urls.sort_by_key(|url| url.position);
        let mut further_urls: HashMap<_, Vec<UrlRow>> = HashMap::new();
        for url in self.urls {
            further_urls.entry((url.request, url.step_id)).or_default().push(url);
        }
        for row in self.steps {
            let Some(answer) = requests.get(row.request).and_then(|request| answers.get_mut(*request)) else {
                continue;
            };
            let further = further_urls.remove(&(row.request, row.id)).unwrap_or_default();
            let id = row.id;
            match (row.step(further), &mut *answer) {
                (Ok(step), Ok(steps)) => steps.push(step),
                (Err(error), Ok(_)) => {
                    let message = format!("step {id} cannot be read back: {error}");
                    *answer = Err(Failure::new(ErrorKind::Corrupt, message));
                }
                (_, Err(_)) => {}
            }
        }
    }
}

/// A step as the statements give it: a JSON array of these.
#[derive(Deserialize)]
struct StepRow {
    request: usize,
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
    /// The first of them, as pairs of name and url.
    urls: Vec<(String, String)>,
}

impl StepRow {
    fn step(self, further_urls: Vec<UrlRow>) -> Result<Step, InputError> {
        let further_urls = further_urls.into_iter().map(|url| (url.name, url.url));
        let urls = self.urls.into_iter().chain(further_urls).map(|(name, url)| StepUrl::new(name, url));
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

/// A further url of a step, past those that its row has.
#[derive(Deserialize)]
struct UrlRow {
    request: usize,
    step_id: i64,
    position: i64,
    name: String,
    url: String,
}

/// A column that has a JSON array, or nothing.
fn parse<T: DeserializeOwned>(json: Option<&str>) -> sqlx::Result<Vec<T>> {
    json.map_or_else(|| Ok(Vec::new()), serde_json::from_str).map_err(|error| sqlx::Error::Decode(error.into()))
}
