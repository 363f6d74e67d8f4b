//! Connections that end, hang or slow down at any byte: what a store with a server makes of them (D2, D3, D4, D6).
//!
//! The handle under test goes through a [proxy](crate::proxy) that fails on cue; what came of its calls is read through
//! another one, which does not.

use std::time::{Duration, Instant};

use steps_core::{BuildId, Error, ErrorKind, IdempotencyKey, StepsStore, StepsStoreExt};
use tokio::time::sleep;

use crate::{
    Clause, Feature,
    cases::{
        Needs,
        at_once::at_once,
        cases,
        crowd::Crowd,
        values::new_step,
        writes::{Attempt, WRITES, Write},
    },
    draw::Draw,
    failure::{Checked, Failure, expect, expect_eq},
    handle::Handle,
    proxy::{Direction, Fault, Proxy},
    stage::{Setup, Stage},
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

/// How much later than its time-out a call may end, on a machine that has other things to do.
const SLACK: Duration = Duration::from_secs(4);

/// How long a store may take to work again.
const RECOVERY: Duration = Duration::from_secs(15);

/// Holds the answer to what is there now (D3). Whether a write that may have been applied was, is its luck.
async fn judge(attempt: &Attempt, answer: &Result<(), Error>, healthy: &Handle) -> Checked {
    let applied = attempt.applied(&healthy.steps(attempt.build).await?)?;
    let what = format!("how often the {:?} was applied that was answered {}", attempt.write, shown(answer));
    match answer {
        Ok(()) => expect_eq(if applied > 1 { Clause::D6 } else { Clause::D1 }, what, applied, 1),
        Err(error) => {
            expect_unavailable(error)?;
            if error.may_have_applied() {
                return expect(Clause::D6, applied <= 1, format_args!("{what}: 0 or 1, not {applied}"));
            }
            expect_eq(Clause::D3, what, applied, 0)
        }
    }
}

fn shown(answer: &Result<(), Error>) -> String {
    answer.as_ref().map_or_else(|error| format!("with the error \"{error}\""), |()| "with Ok".into())
}

/// A connection that is lost is `Unavailable`.
fn expect_unavailable(error: &Error) -> Checked {
    expect_eq(Clause::D3, format_args!("the kind of the error \"{error}\""), error.kind(), ErrorKind::Unavailable)
}

/// Makes a call and expects an answer, of whatever kind, about when its time-out is over (D4).
async fn in_time<T>(call: impl Future<Output = T>) -> Checked<T> {
    let start = Instant::now();
    let answer = call.await;
    let took = start.elapsed();
    expect(
        Clause::D4,
        took <= TIMEOUT + SLACK,
        format_args!("an answer within the time-out of {TIMEOUT:?}, or not much later; it took {took:?}"),
    )?;
    Ok(answer)
}

/// Waits until the store works again, which it does by itself (D4).
async fn recovered(store: &Handle, build: BuildId) -> Checked {
    let start = Instant::now();
    loop {
        // What reads works, and what writes.
        let answer = match in_time(store.steps(build)).await? {
            Ok(_) => in_time(store.add(build, "recovered", "")).await?.map(drop),
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

/// How many bytes the requests and answers of each write have, about.
async fn sizes(proxy: &Proxy, store: &Handle, healthy: &Handle, build: BuildId) -> Checked<Vec<[u64; 2]>> {
    let mut sizes = Vec::new();
    for (mark, write) in (1_000_000..).zip(WRITES) {
        let attempt = Attempt::new(write, healthy, build, mark).await?;
        let passed = || [Direction::Requests, Direction::Answers].map(|direction| proxy.bytes(direction));
        let before = passed();
        attempt.call(store).await??;
        let after = passed();
        sizes.push([0, 1].map(|place| after[place] - before[place]));
    }
    Ok(sizes)
}

/// What the cases share: a store that can be reached, and one that can be made to fail.
struct Bench {
    proxy: Proxy,
    store: Handle,
    healthy: Handle,
    build: BuildId,
}

impl Bench {
    async fn new(stage: &Stage) -> Checked<Self> {
        let (proxy, store) = stage.proxied(TIMEOUT).await?;
        let (healthy, build) = (stage.store().clone(), stage.build());
        recovered(&store, build).await?;
        Ok(Self { proxy, store, healthy, build })
    }
}

/// Runs a case on a stage of its own.
async fn on_stage(setup: &Setup, case: impl AsyncFn(&Stage, Draw) -> Checked) -> Checked {
    let stage = setup.stage().await?;
    let result = case(&stage, Draw::new(setup.context.seed(), 0)).await;
    stage.end(result).await
}

/// How many rounds a case has, where it would have this many with the usual number of random cases.
fn rounds(setup: &Setup, usual: u32) -> i32 {
    i32::try_from((setup.suite.config.cases * usual).div_ceil(64)).unwrap_or(i32::MAX)
}

fn ending(draw: &mut Draw, direction: Direction) -> Fault {
    if draw.percent(50) { Fault::cut(direction) } else { Fault::reset(direction) }
}

async fn a_connection_that_ends_is_told_honestly(setup: &Setup) -> Checked {
    on_stage(setup, async |stage, mut draw| {
        let Bench { proxy, store, healthy, build } = Bench::new(stage).await?;
        let sizes = sizes(&proxy, &store, &healthy, build).await?;
        for round in 0..rounds(setup, 28) {
            setup.log.clear();
            // Each write in both directions, in turn.
            let (place, way) = (round as usize % WRITES.len(), round as usize / WRITES.len() % 2);
            let direction = [Direction::Requests, Direction::Answers][way];
            let after = draw.below(1 + sizes[place][way] as usize) as u64;
            let attempt = Attempt::new(WRITES[place], &healthy, build, round).await?;
            proxy.fail(ending(&mut draw, direction).after(after).once());
            let answer = in_time(attempt.call(&store)).await??;
            proxy.heal();
            let judged = judge(&attempt, &answer, &healthy).await;
            judged.map_err(|failure| failure.after(format_args!("{direction:?} ended after {after} bytes")))?;
            recovered(&store, build).await?;
        }
        Ok(())
    })
    .await
}

async fn a_server_that_falls_silent_is_given_up_in_time(setup: &Setup) -> Checked {
    on_stage(setup, async |stage, mut draw| {
        let mut rounds = Vec::new();
        for mark in 0..self::rounds(setup, 14).min(42) {
            // All at once, since each takes as long as its time-out.
            let bench = Bench::new(stage).await?;
            let write = WRITES[mark as usize % WRITES.len()];
            let direction = if draw.percent(50) { Direction::Requests } else { Direction::Answers };
            let after = if draw.percent(50) { 0 } else { draw.below(40) as u64 };
            let fault = if draw.percent(70) { Fault::silence(direction) } else { Fault::delay(direction, 2 * TIMEOUT) };
            rounds.push(async move {
                let Bench { proxy, store, healthy, build } = bench;
                let attempt = Attempt::new(write, &healthy, build, mark).await?;
                proxy.fail(fault.after(after));
                let answer = in_time(attempt.call(&store)).await??;
                // Whoever else writes to the build is not kept from it (D4).
                healthy.add(build, "other", "").await?;
                judge(&attempt, &answer, &healthy).await?;
                let read = in_time(store.steps(build)).await?;
                read.err().as_ref().map_or(Ok(()), expect_unavailable)?;
                proxy.heal();
                recovered(&store, build).await?;
                // What was only late has come by now.
                sleep(2 * TIMEOUT).await;
                judge(&attempt, &answer, &healthy).await
            });
        }
        at_once(rounds).await.map(drop)
    })
    .await
}

async fn a_slow_server_is_waited_for(setup: &Setup) -> Checked {
    on_stage(setup, async |stage, _| {
        for (direction, marks) in [(Direction::Requests, 0..), (Direction::Answers, 100..)] {
            let Bench { proxy, store, healthy, build } = Bench::new(stage).await?;
            proxy.fail(Fault::delay(direction, TIMEOUT / 20));
            for (mark, write) in marks.zip(WRITES) {
                let attempt = Attempt::new(write, &healthy, build, mark).await?;
                attempt.call(&store).await?.map_err(|error| Failure::from(error).or_clause(Some(Clause::D4)))?;
                judge(&attempt, &Ok(()), &healthy).await?;
            }
            store.steps(build).await?;
        }
        Ok(())
    })
    .await
}

async fn a_keyed_add_may_be_repeated_until_it_is_answered(setup: &Setup) -> Checked {
    on_stage(setup, async |stage, mut draw| {
        let Bench { proxy, store, healthy, build } = Bench::new(stage).await?;
        let keyed = WRITES.iter().position(|write| *write == Write::KeyedAdd).expect("it is one of them");
        let size = sizes(&proxy, &store, &healthy, build).await?[keyed][1];
        for round in 0..rounds(setup, 12) {
            setup.log.clear();
            let new = new_step(build, "compile", format!("mark {round}"))?
                .with_idempotency_key(IdempotencyKey::new(format!("round {round}"))?);
            let start = Instant::now();
            let added = loop {
                if start.elapsed() < TIMEOUT / 2 {
                    proxy.fail(ending(&mut draw, Direction::Answers).after(draw.below(1 + size as usize) as u64));
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
                    return Err(Failure::of(Clause::D4, "an add with a key, repeated").expected("an answer"));
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

async fn a_write_is_not_repeated_over_a_newer_one(setup: &Setup) -> Checked {
    on_stage(setup, async |stage, _| {
        for (mark, write) in (0..).zip([Write::State, Write::Finish, Write::Start, Write::Locks]) {
            let Bench { proxy, store, healthy, build } = Bench::new(stage).await?;
            let older = Attempt::new(write, &healthy, build, mark).await?;
            let newer = Attempt { mark: mark + 100, ..older.clone() };
            // The write arrives, and its answer does not; nor does that of any other until the proxy is healed.
            proxy.fail(Fault::cut(Direction::Answers));
            let overtaken = async {
                let start = Instant::now();
                while older.applied(&healthy.steps(build).await?)? == 0 {
                    if start.elapsed() > TIMEOUT {
                        proxy.heal();
                        return Ok(false);
                    }
                    sleep(Duration::from_millis(5)).await;
                }
                newer.call(&healthy).await??;
                proxy.heal();
                Ok::<_, Failure>(true)
            };
            let (answer, overtaken) = tokio::join!(in_time(older.call(&store)), overtaken);
            let answer = answer??;
            if overtaken? {
                // Nobody repeats it later, either.
                recovered(&store, build).await?;
                let is_kept = newer.applied(&healthy.steps(build).await?)? == 1;
                expect(Clause::D6, is_kept, format_args!("that a newer write than {older:?} stays"))?;
            } else {
                judge(&older, &answer, &healthy).await?;
            }
        }
        Ok(())
    })
    .await
}

async fn connections_at_rest_may_end(setup: &Setup) -> Checked {
    on_stage(setup, async |stage, _| {
        let Bench { proxy, store, healthy, build } = Bench::new(stage).await?;
        for round in 0..rounds(setup, 14) {
            setup.log.clear();
            let attempt = Attempt::new(WRITES[round as usize % WRITES.len()], &healthy, build, round).await?;
            proxy.reset_all();
            let answer = in_time(attempt.call(&store)).await??;
            judge(&attempt, &answer, &healthy).await?;
            recovered(&store, build).await?;
        }
        Ok(())
    })
    .await
}

async fn histories_with_lost_connections_are_linearizable(setup: &Setup) -> Checked {
    on_stage(setup, async |stage, mut draw| {
        let Bench { proxy, store, healthy, build } = Bench::new(stage).await?;
        for round in 0..rounds(setup, 4) {
            setup.log.clear();
            let crowd = Crowd::new(stage, setup.context.seed(), round as u64).that_may_fail();
            let handles = [healthy.clone(), store.clone()];
            let crowd = crowd.run(&handles, round % 2 == 1);
            let losing = async {
                loop {
                    let direction = if draw.percent(30) { Direction::Requests } else { Direction::Answers };
                    proxy.fail(ending(&mut draw, direction).after(draw.below(4_000) as u64).once());
                    sleep(Duration::from_millis(draw.below(30) as u64)).await;
                }
            };
            let history = tokio::select! {
                history = crowd => history?,
                never = losing => never,
            };
            proxy.heal();
            history.check()?;
            recovered(&store, build).await?;
        }
        Ok(())
    })
    .await
}
