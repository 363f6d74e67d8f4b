//! Connections that end, hang or slow down at any byte (D2, D3, D4, D6).
//!
//! The connections of the handle under test go through a [proxy](crate::proxy) that injects faults. The cases read the
//! outcome of its calls through another handle without a proxy.

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
        values::new_step,
        workload::Workload,
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

/// The time-out of a handle on a slow server, and the delay of that server.
const LONG_TIMEOUT: Duration = Duration::from_secs(5);
const DELAY: Duration = Duration::from_millis(200);

/// The tolerance for a call that ends after its time-out, on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

/// The time limit for a store to recover.
const RECOVERY: Duration = Duration::from_secs(15);

/// Compares the answer of a write with the stored data (D3). A write that may have been applied may be there or not.
async fn verify(attempt: &Attempt, answer: &Result<(), Error>, healthy: &Handle) -> CaseResult {
    let applied = attempt.applied(&healthy.steps(attempt.build).await?)?;
    let what = format!("how often a {:?} was applied that returned {}", attempt.write, shown(answer));
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
    answer.as_ref().map_or_else(|error| format!("the error \"{error}\""), |()| "Ok".into())
}

/// Expects the kind of the error of a lost connection.
fn expect_unavailable(error: &Error) -> CaseResult {
    expect_eq(Clause::D3, format_args!("the kind of the error \"{error}\""), error.kind(), ErrorKind::Unavailable)
}

/// Makes a call and expects that it returns within its time-out and the tolerance (D4).
async fn in_time<T>(call: impl Future<Output = T>) -> CaseResult<T> {
    let start = Instant::now();
    let answer = call.await;
    let took = start.elapsed();
    let expected = format_args!("at most the time-out of {TIMEOUT:?} and {SLACK:?} of tolerance");
    expect(Clause::D4, "the duration of the last call", took, expected, took <= TIMEOUT + SLACK)?;
    Ok(answer)
}

/// A handle behind a proxy, and another handle on the same store without a proxy.
struct FaultRig {
    proxy: Proxy,
    store: Handle,
    healthy: Handle,
    build: BuildId,
    /// The mark of the next warm-up write.
    next_mark: AtomicI32,
}

impl FaultRig {
    async fn new(env: &TestEnv) -> CaseResult<Self> {
        Self::with_timeout(env, TIMEOUT).await
    }

    async fn with_timeout(env: &TestEnv, timeout: Duration) -> CaseResult<Self> {
        let (proxy, store) = env.proxied(timeout, RECOVERY).await?;
        let healthy = env.store().clone();
        let build = env.build();
        let rig = Self { proxy, store, healthy, build, next_mark: AtomicI32::new(1_000_000) };
        rig.ready(Write::Add).await?;
        Ok(rig)
    }

    async fn attempt(&self, write: Write, mark: i32) -> CaseResult<Attempt> {
        Attempt::new(write, &self.healthy, self.build, mark).await
    }

    /// Creates a warm-up write, with a mark that no round uses.
    async fn warm_up(&self, write: Write) -> CaseResult<Attempt> {
        self.attempt(write, self.next_mark.fetch_add(1, Ordering::Relaxed)).await
    }

    /// Waits until a read and a write of this kind succeed: the store recovers by itself (D4).
    ///
    /// Afterwards its connection is open and has prepared the statement of the write. On a new connection a fault would
    /// often hit the preparation, and the write would not reach the data.
    async fn ready(&self, write: Write) -> CaseResult {
        let start = Instant::now();
        loop {
            let answer = match in_time(self.store.steps(self.build)).await? {
                Ok(_) => in_time(self.warm_up(write).await?.call(&self.store)).await??,
                Err(error) => Err(error),
            };
            let Err(error) = answer else { return Ok(()) };
            expect_unavailable(&error)?;
            if start.elapsed() > RECOVERY {
                return Err(Failure::of(Clause::D4, "the store after its server was reachable again")
                    .expected(format!("recovery within {RECOVERY:?}"))
                    .got(error.to_string()));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The approximate number of bytes of the requests and the responses of a write of this kind, on a warm connection.
    async fn size(&self, write: Write) -> CaseResult<[u64; 2]> {
        self.ready(write).await?;
        let attempt = self.warm_up(write).await?;
        let passed = || [Direction::Requests, Direction::Answers].map(|direction| self.proxy.bytes(direction));
        let before = passed();
        // The write may fail on a very busy machine. The sizes are a guess then.
        Ok(match attempt.call(&self.store).await? {
            Ok(()) => {
                let after = passed();
                [0, 1].map(|index| after[index] - before[index])
            }
            Err(_) => [64, 64],
        })
    }
}

/// Runs a case in its own environment.
async fn with_env(setup: &CaseSetup, case: impl AsyncFn(&TestEnv, Rng) -> CaseResult) -> CaseResult {
    let env = setup.env().await?;
    let result = case(&env, Rng::new(setup.context.seed(), 0)).await;
    env.end(result).await
}

/// The number of rounds of a case that has `usual` rounds with the default number of random cases.
fn rounds(setup: &CaseSetup, usual: u32) -> i32 {
    i32::try_from(setup.suite.config.cases.saturating_mul(usual).div_ceil(64)).unwrap_or(i32::MAX)
}

fn ending(rng: &mut Rng, direction: Direction) -> Fault {
    if rng.percent(50) { Fault::cut(direction) } else { Fault::reset(direction) }
}

async fn a_connection_that_ends_is_told_honestly(setup: &CaseSetup) -> CaseResult {
    with_env(setup, async |env, mut rng| {
        let rig = FaultRig::new(env).await?;
        let FaultRig { proxy, store, healthy, .. } = &rig;
        let mut sizes = Vec::new();
        for write in WRITES {
            sizes.push(rig.size(write).await?);
        }
        for round in 0..rounds(setup, 28) {
            setup.log.clear();
            // Alternates between all writes and both directions.
            let index = round as usize % WRITES.len();
            let side = round as usize / WRITES.len() % 2;
            let direction = [Direction::Requests, Direction::Answers][side];
            let after = rng.below(1 + sizes[index][side] as usize) as u64;
            rig.ready(WRITES[index]).await?;
            let attempt = rig.attempt(WRITES[index], round).await?;
            proxy.fail(ending(&mut rng, direction).after(after).once());
            let answer = in_time(attempt.call(store)).await??;
            proxy.heal();
            let verified = verify(&attempt, &answer, healthy).await;
            verified.map_err(|failure| failure.after(format_args!("{direction:?} ended after {after} bytes")))?;
        }
        rig.ready(Write::Add).await
    })
    .await
}

async fn a_server_that_falls_silent_is_given_up_in_time(setup: &CaseSetup) -> CaseResult {
    with_env(setup, async |env, mut rng| {
        let mut rounds = Vec::new();
        for mark in 0..self::rounds(setup, 14).min(42) {
            // The rounds run concurrently, since each waits for the time-out.
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
                // Another client can still write to the build (D4).
                healthy.add(*build, "other", "").await?;
                verify(&attempt, &answer, healthy).await?;
                let read = in_time(store.steps(*build)).await?;
                read.err().as_ref().map_or(Ok(()), expect_unavailable)?;
                proxy.heal();
                rig.ready(write).await?;
                // Delayed requests have arrived by now.
                sleep(2 * TIMEOUT).await;
                verify(&attempt, &answer, healthy).await
            });
        }
        concurrently(rounds).await.map(drop)
    })
    .await
}

async fn a_slow_server_is_waited_for(setup: &CaseSetup) -> CaseResult {
    with_env(setup, async |env, _| {
        let mut directions = Vec::new();
        for (direction, marks) in [(Direction::Requests, 0..), (Direction::Answers, 100..)] {
            let FaultRig { proxy, store, healthy, build, .. } = FaultRig::with_timeout(env, LONG_TIMEOUT).await?;
            directions.push(async move {
                proxy.fail(Fault::delay(direction, DELAY));
                for (mark, write) in marks.zip(WRITES) {
                    let attempt = Attempt::new(write, &healthy, build, mark).await?;
                    attempt.call(&store).await?.map_err(|error| Failure::from(error).or_clause(Some(Clause::D4)))?;
                    verify(&attempt, &Ok(()), &healthy).await?;
                }
                store.steps(build).await?;
                Ok(())
            });
        }
        concurrently(directions).await.map(drop)
    })
    .await
}

async fn a_keyed_add_may_be_repeated_until_it_is_answered(setup: &CaseSetup) -> CaseResult {
    with_env(setup, async |env, mut rng| {
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
                    // With one fault, a retry inside the store succeeds. With a persistent fault all retries fail. A
                    // store that prepares statements on each connection reaches the data only in the first case.
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
                    return Err(Failure::of(Clause::D4, "an add with a key, after retries")
                        .expected("success")
                        .got(format!("errors for {RECOVERY:?}")));
                }
            };
            proxy.heal();
            let steps = healthy.steps(build).await?;
            let added_steps = steps.iter().filter(|step| step.state_string == *format!("mark {round}"));
            let got: Vec<_> = added_steps.map(|step| (step.id, step.number, step.name.clone())).collect();
            expect_eq(Clause::I5, "the steps of a repeated add", got, [(added.id, added.number, added.name)])?;
        }
        Ok(())
    })
    .await
}

async fn a_write_is_not_repeated_over_a_newer_one(setup: &CaseSetup) -> CaseResult {
    with_env(setup, async |env, _| {
        let mut overtaken = 0;
        for write in [Write::State, Write::Finish, Write::Start, Write::Locks] {
            let rig = FaultRig::new(env).await?;
            let [_, size] = rig.size(write).await?;
            // Loses the response from its first byte, or only its last byte: a transaction has several responses.
            for (mark, after) in (0..).zip([0, size.saturating_sub(1)]) {
                setup.log.clear();
                overtaken += u32::from(is_overtaken(&rig, write, mark, after).await?);
            }
        }
        // Without any applied write whose response was lost, the case checked nothing.
        if overtaken == 0 {
            return Err(Failure::new("the case could not be set up")
                .expected("a write that is applied, with a lost response")
                .got("none"));
        }
        Ok(())
    })
    .await
}

/// Loses the response of a write after this many bytes and then makes a newer write. Returns whether the older one was
/// applied first. If so, expects that the newer one is not overwritten.
async fn is_overtaken(rig: &FaultRig, write: Write, mark: i32, after: u64) -> CaseResult<bool> {
    let FaultRig { proxy, store, healthy, build, .. } = rig;
    rig.ready(write).await?;
    let older = rig.attempt(write, mark).await?;
    let newer = Attempt { mark: mark + 100, ..older.clone() };
    // Requests arrive, but responses are lost until the proxy is healed.
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
    let (answer, is_overtaken) = tokio::join!(in_time(older.call(store)), overtaking);
    let answer = answer??;
    let is_overtaken = is_overtaken?;
    if is_overtaken {
        // A retry after the recovery would overwrite the newer write as well.
        rig.ready(write).await?;
        let applied = newer.applied(&healthy.steps(*build).await?)?;
        let what = format_args!("how often a {:?} is there that is newer than one with a lost response", newer.write);
        expect_eq(Clause::D6, what, applied, 1)?;
    } else if newer.applied(&healthy.steps(*build).await?)? == 0 {
        verify(&older, &answer, healthy).await?;
    }
    Ok(is_overtaken)
}

async fn connections_at_rest_may_end(setup: &CaseSetup) -> CaseResult {
    with_env(setup, async |env, _| {
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
    with_env(setup, async |env, mut rng| {
        let rig = FaultRig::new(env).await?;
        let FaultRig { proxy, store, healthy, .. } = &rig;
        for round in 0..rounds(setup, 4) {
            setup.log.clear();
            let workload = Workload::new(env, setup.context.seed(), round as u64).that_may_fail();
            let handles = [healthy.clone(), store.clone()];
            let callers = workload.run(&handles, round % 2 == 1);
            let cut_connections = async {
                loop {
                    let direction = if rng.percent(30) { Direction::Requests } else { Direction::Answers };
                    proxy.fail(ending(&mut rng, direction).after(rng.below(4_000) as u64).once());
                    sleep(Duration::from_millis(rng.below(30) as u64)).await;
                }
            };
            let history = tokio::select! {
                history = callers => history?,
                never = cut_connections => never,
            };
            proxy.heal();
            history.check()?;
            rig.ready(Write::Add).await?;
        }
        Ok(())
    })
    .await
}
