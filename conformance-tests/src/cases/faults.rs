//! Connections that end, hang or slow down at any byte: what a store with a server makes of them (D2, D3, D4, D6).
//!
//! The handle under test goes through a [proxy](crate::proxy) that fails on cue; what came of its calls is read through
//! another one, which does not.

use std::{
    sync::atomic::{AtomicI32, Ordering},
    time::{Duration, Instant},
};

use steps_core::{BuildId, Error, ErrorKind, IdempotencyKey, StepsStore, StepsStoreExt};
use tokio::time::sleep;

use crate::{
    Clause, Feature,
    cases::{
        Needs, cases,
        concurrently::concurrently,
        crowd::Workload,
        values::new_step,
        writes::{Attempt, WRITES, Write},
    },
    failure::{CaseResult, Failure, expect, expect_eq},
    handle::Handle,
    proxy::{Direction, Fault, Proxy},
    rng::Rng,
    test_env::{CaseSetup, TestEnv},
};

const FAULTS: Needs = Needs::Feature(Feature::Faults);

cases! { Property faults:
    a_connection_that_ends_is_told_honestly [D3, D2, D6] needs FAULTS;
    a_server_that_falls_silent_is_given_up_in_time [D4, D3, D2] needs FAULTS;
    a_slow_server_is_waited_for [D4] needs FAULTS;
    a_keyed_add_may_be_repeated_until_it_is_answered [I5, D6] needs FAULTS;
    a_write_is_not_repeated_over_a_newer_one [D6] needs FAULTS;
    connections_at_rest_may_end [D4, D3] needs FAULTS;
    histories_with_lost_connections_are_linearizable [R3, D3, D6] needs FAULTS;
}

/// The time-out of the handle under test.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The time-out of one that waits for a slow server, and how slow that is.
const PATIENT: Duration = Duration::from_secs(5);
const SLOW: Duration = Duration::from_millis(200);

/// How much later than its time-out a call may end, on a machine that has other things to do.
const SLACK: Duration = Duration::from_secs(4);

/// How long a store may take to work again.
const RECOVERY: Duration = Duration::from_secs(15);

/// Holds the answer to what is there now (D3). Whether a write that may have been applied was, is its luck.
async fn verify(attempt: &Attempt, answer: &Result<(), Error>, healthy: &Handle) -> CaseResult {
    let applied = attempt.applied(&healthy.steps(attempt.build).await?)?;
    let what = format!("how often the {:?} was applied that was answered {}", attempt.write, shown(answer));
    match answer {
        Ok(()) => expect_eq(if applied > 1 { Clause::D6 } else { Clause::D1 }, what, applied, 1),
        Err(error) => {
            expect_unavailable(error)?;
            if error.may_have_applied() {
                return expect(Clause::D6, what, applied, "0 or 1", applied <= 1);
            }
            expect_eq(Clause::D3, what, applied, 0)
        }
    }
}

fn shown(answer: &Result<(), Error>) -> String {
    answer.as_ref().map_or_else(|error| format!("with the error \"{error}\""), |()| "with Ok".into())
}

/// A connection that is lost is `Unavailable`.
fn expect_unavailable(error: &Error) -> CaseResult {
    expect_eq(Clause::D3, format_args!("the kind of the error \"{error}\""), error.kind(), ErrorKind::Unavailable)
}

/// Makes a call and expects an answer, of whatever kind, about when its time-out is over (D4).
async fn in_time<T>(call: impl Future<Output = T>) -> CaseResult<T> {
    let start = Instant::now();
    let answer = call.await;
    let took = start.elapsed();
    let expected = format_args!("the time-out of {TIMEOUT:?}, or not much more");
    expect(Clause::D4, "how long the last call took", took, expected, took <= TIMEOUT + SLACK)?;
    Ok(answer)
}

/// What the cases share: a store that can be reached, and one that can be made to fail.
struct FaultRig {
    proxy: Proxy,
    store: Handle,
    healthy: Handle,
    build: BuildId,
    /// The mark of the next write that is only for the store to get ready.
    next: AtomicI32,
}

impl FaultRig {
    async fn new(env: &TestEnv) -> CaseResult<Self> {
        Self::with_timeout(env, TIMEOUT).await
    }

    async fn with_timeout(env: &TestEnv, timeout: Duration) -> CaseResult<Self> {
        let (proxy, store) = env.proxied(timeout, RECOVERY).await?;
        let (healthy, build) = (env.store().clone(), env.build());
        let rig = Self { proxy, store, healthy, build, next: AtomicI32::new(1_000_000) };
        rig.ready(Write::Add).await?;
        Ok(rig)
    }

    async fn attempt(&self, write: Write, mark: i32) -> CaseResult<Attempt> {
        Attempt::new(write, &self.healthy, self.build, mark).await
    }

    /// A write that no round makes.
    async fn another(&self, write: Write) -> CaseResult<Attempt> {
        self.attempt(write, self.next.fetch_add(1, Ordering::Relaxed)).await
    }

    /// Waits until the store works again, which it does by itself (D4): what reads, and such a write.
    ///
    /// The next one then meets a connection that is open and knows it: a store that prepares its statements would
    /// otherwise lose that, and nothing would reach its data.
    async fn ready(&self, write: Write) -> CaseResult {
        let start = Instant::now();
        loop {
            let answer = match in_time(self.store.steps(self.build)).await? {
                Ok(_) => in_time(self.another(write).await?.call(&self.store)).await??,
                Err(error) => Err(error),
            };
            let Err(error) = answer else { return Ok(()) };
            expect_unavailable(&error)?;
            if start.elapsed() > RECOVERY {
                return Err(Failure::of(Clause::D4, "the store, once its server could be reached again")
                    .expected(format!("that it works again by itself within {RECOVERY:?}"))
                    .got(error.to_string()));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many bytes the requests and the answers of such a write have, about, for a store that is ready for it.
    async fn size(&self, write: Write) -> CaseResult<[u64; 2]> {
        self.ready(write).await?;
        let attempt = self.another(write).await?;
        let passed = || [Direction::Requests, Direction::Answers].map(|direction| self.proxy.bytes(direction));
        let before = passed();
        // On a machine that is very busy it may fail; then it is a guess.
        Ok(match attempt.call(&self.store).await? {
            Ok(()) => {
                let after = passed();
                [0, 1].map(|place| after[place] - before[place])
            }
            Err(_) => [64, 64],
        })
    }
}

/// Runs a case on a stage of its own.
async fn on_stage(setup: &CaseSetup, case: impl AsyncFn(&TestEnv, Rng) -> CaseResult) -> CaseResult {
    let env = setup.env().await?;
    let result = case(&env, Rng::new(setup.context.seed(), 0)).await;
    env.end(result).await
}

/// How many rounds a case has, where it would have this many with the usual number of random cases.
fn rounds(setup: &CaseSetup, usual: u32) -> i32 {
    i32::try_from(setup.suite.config.cases.saturating_mul(usual).div_ceil(64)).unwrap_or(i32::MAX)
}

fn ending(rng: &mut Rng, direction: Direction) -> Fault {
    if rng.percent(50) { Fault::cut(direction) } else { Fault::reset(direction) }
}

async fn a_connection_that_ends_is_told_honestly(setup: &CaseSetup) -> CaseResult {
    on_stage(setup, async |env, mut rng| {
        let rig = FaultRig::new(env).await?;
        let FaultRig { proxy, store, healthy, .. } = &rig;
        let mut sizes = Vec::new();
        for write in WRITES {
            sizes.push(rig.size(write).await?);
        }
        for round in 0..rounds(setup, 28) {
            setup.log.clear();
            // Each write in both directions, in turn.
            let (place, way) = (round as usize % WRITES.len(), round as usize / WRITES.len() % 2);
            let direction = [Direction::Requests, Direction::Answers][way];
            let after = rng.below(1 + sizes[place][way] as usize) as u64;
            rig.ready(WRITES[place]).await?;
            let attempt = rig.attempt(WRITES[place], round).await?;
            proxy.fail(ending(&mut rng, direction).after(after).once());
            let answer = in_time(attempt.call(store)).await??;
            proxy.heal();
            let judged = verify(&attempt, &answer, healthy).await;
            judged.map_err(|failure| failure.after(format_args!("{direction:?} ended after {after} bytes")))?;
        }
        rig.ready(Write::Add).await
    })
    .await
}

async fn a_server_that_falls_silent_is_given_up_in_time(setup: &CaseSetup) -> CaseResult {
    on_stage(setup, async |env, mut rng| {
        let mut rounds = Vec::new();
        for mark in 0..self::rounds(setup, 14).min(42) {
            // All at once, since each takes as long as its time-out.
            let rig = FaultRig::new(env).await?;
            let write = WRITES[mark as usize % WRITES.len()];
            rig.ready(write).await?;
            let direction = if rng.percent(50) { Direction::Requests } else { Direction::Answers };
            let after = if rng.percent(50) { 0 } else { rng.below(40) as u64 };
            let fault = if rng.percent(70) { Fault::silence(direction) } else { Fault::delay(direction, 2 * TIMEOUT) };
            rounds.push(async move {
                let FaultRig { proxy, store, healthy, build, .. } = &rig;
                let attempt = rig.attempt(write, mark).await?;
                proxy.fail(fault.after(after));
                let answer = in_time(attempt.call(store)).await??;
                // Whoever else writes to the build is not kept from it (D4).
                healthy.add(*build, "other", "").await?;
                verify(&attempt, &answer, healthy).await?;
                let read = in_time(store.steps(*build)).await?;
                read.err().as_ref().map_or(Ok(()), expect_unavailable)?;
                proxy.heal();
                rig.ready(write).await?;
                // What was only late has come by now.
                sleep(2 * TIMEOUT).await;
                verify(&attempt, &answer, healthy).await
            });
        }
        concurrently(rounds).await.map(drop)
    })
    .await
}

async fn a_slow_server_is_waited_for(setup: &CaseSetup) -> CaseResult {
    on_stage(setup, async |env, _| {
        let mut ways = Vec::new();
        for (direction, marks) in [(Direction::Requests, 0..), (Direction::Answers, 100..)] {
            let FaultRig { proxy, store, healthy, build, .. } = FaultRig::with_timeout(env, PATIENT).await?;
            ways.push(async move {
                proxy.fail(Fault::delay(direction, SLOW));
                for (mark, write) in marks.zip(WRITES) {
                    let attempt = Attempt::new(write, &healthy, build, mark).await?;
                    attempt.call(&store).await?.map_err(|error| Failure::from(error).or_clause(Some(Clause::D4)))?;
                    verify(&attempt, &Ok(()), &healthy).await?;
                }
                store.steps(build).await?;
                Ok(())
            });
        }
        concurrently(ways).await.map(drop)
    })
    .await
}

async fn a_keyed_add_may_be_repeated_until_it_is_answered(setup: &CaseSetup) -> CaseResult {
    on_stage(setup, async |env, mut rng| {
        let rig = FaultRig::new(env).await?;
        let [_, size] = rig.size(Write::KeyedAdd).await?;
        let FaultRig { proxy, store, healthy, build, .. } = rig;
        for round in 0..rounds(setup, 12) {
            setup.log.clear();
            let new = new_step(build, "compile", format!("mark {round}"))?
                .with_idempotency_key(IdempotencyKey::new(format!("round {round}"))?);
            let start = Instant::now();
            let added = loop {
                if start.elapsed() < TIMEOUT / 2 {
                    let fault = ending(&mut rng, Direction::Answers).after(rng.below(1 + size as usize) as u64);
                    // Whoever repeats inside gets through the second time, or not at all: where statements are prepared
                    // on each connection, only the first of these reaches the data.
                    proxy.fail(if rng.percent(50) { fault.once() } else { fault });
                } else {
                    proxy.heal();
                }
                match in_time(store.add_step(new.clone())).await? {
                    Ok(added) => break added,
                    Err(error) => {
                        expect_unavailable(&error)?;
                        let what = "is_retryable() of the error of an add with a key";
                        expect_eq(Clause::D3, what, error.is_retryable(), true)?;
                    }
                }
                if start.elapsed() > RECOVERY {
                    return Err(Failure::of(Clause::D4, "an add with a key, repeated")
                        .expected("an answer")
                        .got(format!("errors for {RECOVERY:?}")));
                }
            };
            proxy.heal();
            let steps = healthy.steps(build).await?;
            let made = steps.iter().filter(|step| step.state_string == *format!("mark {round}"));
            let made: Vec<_> = made.map(|step| (step.id, step.number, step.name.clone())).collect();
            expect_eq(Clause::I5, "the steps of a repeated add", made, [(added.id, added.number, added.name)])?;
        }
        Ok(())
    })
    .await
}

async fn a_write_is_not_repeated_over_a_newer_one(setup: &CaseSetup) -> CaseResult {
    on_stage(setup, async |env, _| {
        let mut overtaken = 0;
        for write in [Write::State, Write::Finish, Write::Start, Write::Locks] {
            let rig = FaultRig::new(env).await?;
            let [_, size] = rig.size(write).await?;
            // The first answer is lost, or of several, as those in a transaction have them, the end of the last one.
            for (mark, after) in (0..).zip([0, size.saturating_sub(1)]) {
                setup.log.clear();
                overtaken += u32::from(is_overtaken(&rig, write, mark, after).await?);
            }
        }
        // Where each of them was late, or none of them was applied, nothing was seen.
        if overtaken == 0 {
            return Err(Failure::new("the case could not be set up")
                .expected("a write that is applied, and whose answer is lost")
                .got("none"));
        }
        Ok(())
    })
    .await
}

/// Whether a newer write overtook one whose answer was lost after so many bytes; then it stays.
async fn is_overtaken(rig: &FaultRig, write: Write, mark: i32, after: u64) -> CaseResult<bool> {
    let FaultRig { proxy, store, healthy, build, .. } = rig;
    rig.ready(write).await?;
    let older = rig.attempt(write, mark).await?;
    let newer = Attempt { mark: mark + 100, ..older.clone() };
    // The write arrives, and its answer does not; nor does that of any other until the proxy is healed.
    proxy.fail(Fault::cut(Direction::Answers).after(after));
    let overtaking = async {
        let start = Instant::now();
        while older.applied(&healthy.steps(*build).await?)? == 0 {
            if start.elapsed() > TIMEOUT {
                proxy.heal();
                return Ok(false);
            }
            sleep(Duration::from_millis(5)).await;
        }
        newer.call(healthy).await??;
        let is_lost = proxy.failures() > 0;
        proxy.heal();
        Ok::<_, Failure>(is_lost)
    };
    let (answer, overtaken) = tokio::join!(in_time(older.call(store)), overtaking);
    let (answer, overtaken) = (answer??, overtaken?);
    if overtaken {
        // Nobody repeats it later, either.
        rig.ready(write).await?;
        let applied = newer.applied(&healthy.steps(*build).await?)?;
        let what = format_args!("how often a newer {:?} than one whose answer was lost is there", newer.write);
        expect_eq(Clause::D6, what, applied, 1)?;
    } else if newer.applied(&healthy.steps(*build).await?)? == 0 {
        verify(&older, &answer, healthy).await?;
    }
    Ok(overtaken)
}

async fn connections_at_rest_may_end(setup: &CaseSetup) -> CaseResult {
    on_stage(setup, async |env, _| {
        let rig = FaultRig::new(env).await?;
        let FaultRig { proxy, store, healthy, .. } = &rig;
        for round in 0..rounds(setup, 14) {
            setup.log.clear();
            let write = WRITES[round as usize % WRITES.len()];
            rig.ready(write).await?;
            let attempt = rig.attempt(write, round).await?;
            proxy.reset_all();
            let answer = in_time(attempt.call(store)).await??;
            verify(&attempt, &answer, healthy).await?;
        }
        rig.ready(Write::Add).await
    })
    .await
}

async fn histories_with_lost_connections_are_linearizable(setup: &CaseSetup) -> CaseResult {
    on_stage(setup, async |env, mut rng| {
        let rig = FaultRig::new(env).await?;
        let FaultRig { proxy, store, healthy, .. } = &rig;
        for round in 0..rounds(setup, 4) {
            setup.log.clear();
            let crowd = Workload::new(env, setup.context.seed(), round as u64).that_may_fail();
            let handles = [healthy.clone(), store.clone()];
            let crowd = crowd.run(&handles, round % 2 == 1);
            let losing = async {
                loop {
                    let direction = if rng.percent(30) { Direction::Requests } else { Direction::Answers };
                    proxy.fail(ending(&mut rng, direction).after(rng.below(4_000) as u64).once());
                    sleep(Duration::from_millis(rng.below(30) as u64)).await;
                }
            };
            let history = tokio::select! {
                history = crowd => history?,
                never = losing => never,
            };
            proxy.heal();
            history.check()?;
            rig.ready(Write::Add).await?;
        }
        Ok(())
    })
    .await
}
