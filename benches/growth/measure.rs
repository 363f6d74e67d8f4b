//! The time of a call on builds, steps and stores of different sizes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use steps::{StepId, StepsStore, StepsStoreExt};
use tokio::task::JoinSet;

use crate::support::{
    buildbot::Buildbot,
    payload::{STATE, URL_NAME, name, url},
    statistics::{median, micros},
};

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    AddStep,
    AddStepSameName,
    AddUrl,
    GetSteps,
    GetStep,
}

impl Operation {
    /// The last operation fills the store, so it comes last.
    pub(crate) const ALL: [Self; 5] =
        [Self::AddStep, Self::AddStepSameName, Self::AddUrl, Self::GetSteps, Self::GetStep];

    pub(crate) fn legend() -> &'static str {
        "add_step            size: steps of the build
add_step_same_name  size: steps of the build, all added with the name that is added
add_url             size: urls of the step
get_steps           size: steps of the build; the time is that of the call over its steps
get_step            size: steps of the store"
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddStep => "add_step",
            Self::AddStepSameName => "add_step_same_name",
            Self::AddUrl => "add_url",
            Self::GetSteps => "get_steps",
            Self::GetStep => "get_step",
        })
    }
}

/// The number of calls, and the sizes of each operation.
pub(crate) struct Sizes {
    pub(crate) calls: usize,
    of_build: &'static [usize],
    of_step: &'static [usize],
    of_store: &'static [usize],
}

impl Sizes {
    pub(crate) fn quick() -> Self {
        Self { calls: 10, of_build: &[10, 100], of_step: &[10, 100], of_store: &[1_000, 2_000] }
    }

    pub(crate) fn full() -> Self {
        Self {
            calls: 200,
            of_build: &[10, 100, 1_000, 10_000, 100_000],
            of_step: &[10, 100, 1_000, 10_000],
            of_store: &[1_000, 10_000, 100_000, 1_000_000],
        }
    }

    fn of(&self, operation: Operation) -> &'static [usize] {
        match operation {
            Operation::AddStep | Operation::AddStepSameName => self.of_build,
            Operation::AddUrl => self.of_step,
            // Reading a hundred thousand steps at once measures memory.
            Operation::GetSteps => self.of_step,
            Operation::GetStep => self.of_store,
        }
    }
}

type Store = Arc<dyn StepsStore>;

/// The name of all adds with the same name, of 12 characters.
const SAME: &str = "compile-all0";

/// The number of builds used so far.
static BUILDS: AtomicU32 = AtomicU32::new(0);

fn fresh_build() -> u32 {
    BUILDS.fetch_add(1, Ordering::Relaxed) + 1
}

/// The median time of a call for each size, in microseconds.
pub(crate) async fn of_store(url: &str, operation: Operation, sizes: &Sizes) -> Vec<(usize, f64)> {
    let store = steps::connect(url).await.expect("the store opens");
    let mut found = Vec::new();
    if operation == Operation::GetStep {
        let mut filled = 0;
        for &size in sizes.of(operation) {
            let ids = fill(&store, fresh_build(), size - filled, false).await;
            filled = size;
            let mut times = Vec::new();
            for call in 0..sizes.calls {
                // Far apart, and each step once.
                let id = ids[call * (ids.len() / sizes.calls) % ids.len()];
                times.push(time(store.step(id)).await);
            }
            found.push((size, median(&times)));
        }
    } else {
        let mut grown = Vec::new();
        for &size in sizes.of(operation) {
            grown.push((size, Grown::new(&store, operation, size, sizes.calls).await, Vec::new()));
        }
        for call in 0..sizes.calls {
            for (size, grown, times) in &mut grown {
                let time = grown.time(&store, operation, call).await;
                times.push(if operation == Operation::GetSteps { time / *size as f64 } else { time });
            }
        }
        found.extend(grown.iter().map(|(size, _, times)| (*size, median(times))));
    }
    store.close().await.expect("the store closes");
    found
}

/// Builds of one size, or steps with so many urls. There are enough of them that the measured calls hardly change
/// their size.
struct Grown(Vec<(u32, Vec<StepId>)>);

impl Grown {
    async fn new(store: &Store, operation: Operation, size: usize, calls: usize) -> Self {
        let copies = (20 * calls / size).clamp(1, calls);
        let mut grown = Vec::new();
        for _ in 0..copies {
            let build = fresh_build();
            let ids = match operation {
                Operation::AddUrl => {
                    let ids = fill(store, build, 1, false).await;
                    let id = ids[0];
                    concurrently(store, size, move |store, number| async move {
                        store.add_named_url(id, URL_NAME, url(number)).await.expect("a url is added");
                    })
                    .await;
                    ids
                }
                _ => fill(store, build, size, operation == Operation::AddStepSameName).await,
            };
            grown.push((build, ids));
        }
        Self(grown)
    }

    async fn time(&self, store: &Store, operation: Operation, call: usize) -> f64 {
        let (build, ids) = &self.0[call % self.0.len()];
        match operation {
            Operation::AddStep => time(store.add(*build, name(1, call), STATE)).await,
            Operation::AddStepSameName => time(store.add(*build, SAME, STATE)).await,
            Operation::AddUrl => time(store.add_named_url(ids[0], URL_NAME, url(1_000_000 + call))).await,
            Operation::GetSteps => time(store.steps(*build)).await,
            Operation::GetStep => time(store.step(ids[0])).await,
        }
    }
}

/// Adds `size` steps to a build, concurrently.
async fn fill(store: &Store, build: u32, size: usize, same_name: bool) -> Vec<StepId> {
    let add = move |store: Store, number| async move {
        let name = if same_name { SAME.to_owned() } else { name(0, number) };
        store.add(build, name, STATE).await.expect("a step is added").id
    };
    concurrently(store, size, add).await
}

/// Makes `calls` calls, 256 of them concurrently.
async fn concurrently<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    store: &Store,
    calls: usize,
    call: impl Fn(Store, usize) -> F + Clone + Send + 'static,
) -> Vec<T> {
    let next = Arc::new(AtomicU32::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..calls.min(256) {
        let store = Arc::clone(store);
        let call = call.clone();
        let next = Arc::clone(&next);
        tasks.spawn(async move {
            let mut answers = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed) as usize;
                if number >= calls {
                    return answers;
                }
                answers.push(call(Arc::clone(&store), number).await);
            }
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn time<T>(call: impl Future<Output = steps::Result<T>>) -> f64 {
    let start = Instant::now();
    call.await.expect("the call succeeds");
    micros(start.elapsed())
}

/// The median time of a call of Buildbot for each size, in microseconds.
pub(crate) async fn of_buildbot(buildbot: &mut Buildbot, operation: Operation, sizes: &Sizes) -> Vec<(usize, f64)> {
    #[derive(Deserialize)]
    struct Answer {
        us: f64,
    }

    let mut found = Vec::new();
    for &size in sizes.of(operation).iter().filter(|size| **size <= 10_000) {
        // Buildbot's calls take long at large sizes, so fewer are made.
        let calls = if size > 1_000 { sizes.calls.min(20) } else { sizes.calls };
        let copies = (20 * calls / size).clamp(1, calls);
        let mut times = Vec::new();
        for _ in 0..copies {
            let order = json!({
                "do": "growth", "operation": operation, "size": size, "calls": calls / copies, "name": SAME,
                "state": STATE, "url_name": URL_NAME,
            });
            times.push(buildbot.execute::<Answer>(order).await.us);
        }
        found.push((size, median(&times)));
    }
    found
}
