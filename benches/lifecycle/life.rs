//! The life of a step in a store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Deserialize;
use steps::{Clock, Results, StartStep, StepsStore, StepsStoreExt, SystemClock};
use tokio::task::JoinSet;

use crate::support::{
    payload::{STATE, URL_NAME, name, url},
    statistics::{micros, quantile},
};

/// The number of steps of a build.
pub(crate) const STEPS: usize = 10;

/// The result of one repetition.
#[derive(Deserialize)]
pub(crate) struct Lives {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Lives {
    fn new(lives: &[Duration], all: Duration) -> Self {
        let lives: Vec<_> = lives.iter().copied().map(micros).collect();
        Self {
            per_second: lives.len() as f64 / all.as_secs_f64(),
            p50_us: quantile(&lives, 0.5),
            p99_us: quantile(&lives, 0.99),
        }
    }
}

/// The number of builds used so far.
static BUILDS: AtomicU32 = AtomicU32::new(0);

/// Runs `in_flight` builds concurrently, each followed by another, for about `time`.
pub(crate) async fn run(store: &Arc<dyn StepsStore>, in_flight: usize, time: Duration) -> Lives {
    let start = Instant::now();
    let mut builds = JoinSet::new();
    for _ in 0..in_flight {
        let store = Arc::clone(store);
        builds.spawn(async move {
            let mut lives = Vec::new();
            loop {
                let build = BUILDS.fetch_add(1, Ordering::Relaxed) + 1;
                for number in 0..STEPS {
                    let born = Instant::now();
                    life(&*store, build, number).await.expect("a step lives");
                    lives.push(born.elapsed());
                    if start.elapsed() >= time {
                        return lives;
                    }
                }
            }
        });
    }
    let lives = builds.join_all().await.concat();
    Lives::new(&lives, start.elapsed())
}

async fn life(store: &dyn StepsStore, build: u32, number: usize) -> steps::Result<()> {
    let step = store.add(build, name(0, number), STATE).await?;
    store.start_step(step.id, StartStep::new(SystemClock.now())).await?;
    store.set_step_locks_acquired_at(step.id, SystemClock.now()).await?;
    for _ in 0..3 {
        store.state(step.id, STATE).await?;
    }
    for of_step in 0..2 {
        store.add_named_url(step.id, URL_NAME, url(of_step)).await?;
    }
    store.finish(step.id, Results::SUCCESS).await?;
    let steps = store.steps(build).await?;
    assert_eq!((steps.len(), steps[number].urls.len()), (number + 1, 2));
    Ok(())
}
