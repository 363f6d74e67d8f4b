//! A reading lane: all reads that wait in it in one statement of each kind, with a snapshot of its own.

use sqlx::{
    Arguments, PgConnection, Row,
    error::BoxDynError,
    postgres::{PgArguments, PgRow},
};
use steps_core::{
    BuildId, ErrorKind, InputError, Results, StateString, Step, StepId, StepName, StepNumber, StepSelector, StepUrl,
    Timestamp,
};
use steps_lane::{Failure, Worker};

use crate::{
    BACKEND,
    connection::{Link, Opener},
    error::{failure, unreadable_step},
    time::Time,
};

/// A read.
#[derive(Debug)]
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
        // A read does no harm a second time (D6): what a lost connection kept from it, the lane asks again.
        self.0.run(sql, arguments).await.map_err(|failure| {
            if failure.is_certain() { failure } else { Failure::busy(failure.to_string()).with_source(failure) }
        })
    }

    /// The urls past those that the step's row has, as they were when it was read.
    async fn fetch_further_urls(&mut self, step: &mut StepRow) -> Result<(), Failure> {
        let mut position = INLINE_URLS;
        while position < step.url_count {
            let mut arguments = PgArguments::default();
            let added = arguments
                .add(step.id)
                .and_then(|()| arguments.add(position))
                .and_then(|()| arguments.add(step.url_count))
                .map(|()| arguments);
            for row in self.rows(include_str!("sql/further_urls.sql"), added).await? {
                step.urls.push((row.try_get(0).map_err(failure)?, row.try_get(1).map_err(failure)?));
            }
            position += INLINE_URLS;
        }
        Ok(())
    }

    /// The answers to the requests of one kind.
    async fn fetch(
        &mut self,
        sql: &'static str,
        arguments: Result<PgArguments, BoxDynError>,
        requests: &[usize],
        answers: &mut [Result<Vec<Step>, Failure>],
    ) -> Result<(), Failure> {
        let rows = self.rows(sql, arguments).await?;
        let mut steps = rows.iter().map(StepRow::new).collect::<sqlx::Result<Vec<_>>>().map_err(failure)?;
        for step in &mut steps {
            self.fetch_further_urls(step).await?;
        }
        answer(steps, requests, answers);
        Ok(())
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
        let (mut selectors, mut builds) = (Selectors::default(), Builds::default());
        for (request, read) in requests.iter().enumerate() {
            match read {
                Read::Step(selector) => selectors.push(request, selector),
                Read::Steps(build_id) => builds.push(request, *build_id),
            }
        }
        let mut answers: Vec<_> = requests.iter().map(|_| Ok(Vec::new())).collect();
        if !selectors.requests.is_empty() {
            let (requests, arguments) = selectors.arguments();
            self.fetch(include_str!("sql/get_step.sql"), arguments, &requests, &mut answers).await?;
        }
        if !builds.requests.is_empty() {
            let (requests, arguments) = builds.arguments();
            self.fetch(include_str!("sql/get_steps.sql"), arguments, &requests, &mut answers).await?;
        }
        Ok(answers)
    }

    async fn close(&mut self) {
        self.0.close().await;
    }
}

/// The arguments of `get_step.sql`, and whose each is.
#[derive(Default)]
struct Selectors<'a> {
    requests: Vec<usize>,
    ids: Vec<Option<i64>>,
    builds: Vec<Option<i64>>,
    numbers: Vec<Option<i64>>,
    names: Vec<Option<&'a str>>,
}

impl<'a> Selectors<'a> {
    fn push(&mut self, request: usize, selector: &'a StepSelector) {
        let (id, build, number, name) = match selector {
            StepSelector::Id(id) => (Some(id.get()), None, None, None),
            StepSelector::Number { build_id, number } => {
                (None, Some(build_id.get()), Some(i64::from(number.get())), None)
            }
            StepSelector::Name { build_id, name } => (None, Some(build_id.get()), None, Some(name.as_str())),
        };
        self.requests.push(request);
        self.ids.push(id);
        self.builds.push(build);
        self.numbers.push(number);
        self.names.push(name);
    }

    fn arguments(self) -> (Vec<usize>, Result<PgArguments, BoxDynError>) {
        let mut arguments = PgArguments::default();
        let added = arguments
            .add(self.ids)
            .and_then(|()| arguments.add(self.builds))
            .and_then(|()| arguments.add(self.numbers))
            .and_then(|()| arguments.add(self.names));
        (self.requests, added.map(|()| arguments))
    }
}

/// The argument of `get_steps.sql`, and whose each build is.
#[derive(Default)]
struct Builds {
    requests: Vec<usize>,
    builds: Vec<i64>,
}

impl Builds {
    fn push(&mut self, request: usize, build: BuildId) {
        self.requests.push(request);
        self.builds.push(build.get());
    }

    fn arguments(self) -> (Vec<usize>, Result<PgArguments, BoxDynError>) {
        let mut arguments = PgArguments::default();
        let added = arguments.add(self.builds);
        (self.requests, added.map(|()| arguments))
    }
}

/// How many urls a step's row has with it: see `get_steps.sql`.
const INLINE_URLS: i32 = 512;

/// Gives each request its steps. One that cannot be read back spoils only the requests that asked for it.
fn answer(mut steps: Vec<StepRow>, requests: &[usize], answers: &mut [Result<Vec<Step>, Failure>]) {
    steps.sort_by_key(|row| row.number);
    for row in steps {
        let request = usize::try_from(row.request - 1).ok().and_then(|request| requests.get(request));
        let Some(answer) = request.and_then(|request| answers.get_mut(*request)) else { continue };
        let id = row.id;
        match (row.step(), &mut *answer) {
            (Ok(step), Ok(steps)) => steps.push(step),
            (Err(error), Ok(_)) => *answer = Err(unreadable_step(id, &error)),
            (_, Err(_)) => {}
        }
    }
}

/// A step as the statements give it.
struct StepRow {
    request: i64,
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
    /// Pairs of name and url, in their order.
    urls: Vec<(String, String)>,
}

impl StepRow {
    fn new(row: &PgRow) -> sqlx::Result<Self> {
        let url_count = row.try_get(11)?;
        let urls = if url_count == 0 {
            Vec::new()
        } else {
            let (names, urls): (Vec<String>, Vec<String>) = (row.try_get(12)?, row.try_get(13)?);
            names.into_iter().zip(urls).collect()
        };
        Ok(Self {
            request: row.try_get(0)?,
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
