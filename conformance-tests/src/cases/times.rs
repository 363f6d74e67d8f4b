//! Times (T2) and results (T3) come back as they were given.

use steps_core::{FinishStep, Results, StepsStore, StepsStoreExt, Timestamp};

use crate::{
    Clause,
    cases::{cases, values::time},
    failure::{CaseResult, expect_eq, expect_some},
    test_env::TestEnv,
};

cases! { Example times:
    times_come_back_as_given [T2];
    every_digit_of_a_microsecond_comes_back [T2];
    results_are_any_i32 [T3];
    no_time_is_not_the_epoch [T2, L1];
}

/// Times at which something ends or turns, in microseconds since 1970.
const TURNS: [i64; 17] = [
    0,
    // A second and a day, where negative numbers are divided.
    1_000_000,
    86_400_000_000,
    // The seconds, milliseconds and microseconds that 32 bits hold.
    (1 << 31) * 1_000_000,
    (1 << 32) * 1_000_000,
    (1 << 31) * 1_000,
    1 << 31,
    1 << 32,
    // The microseconds that floating point tells apart.
    1 << 53,
    1 << 54,
    // 1582-10-15, 1600, 1900, 2000-01-01 and 2000-02-29.
    -12_219_292_800_000_000,
    -11_676_096_000_000_000,
    -2_208_988_800_000_000,
    946_684_800_000_000,
    951_782_400_000_000,
    // The nanoseconds that 64 bits hold.
    9_223_372_036_854_776,
    -9_223_372_036_854_776,
];

async fn times_come_back_as_given(env: &mut TestEnv) -> CaseResult {
    let mut times = vec![Timestamp::MIN, Timestamp::MAX];
    for micros in TURNS.into_iter().flat_map(|turn| [turn, -turn]).flat_map(|turn| [turn - 1, turn, turn + 1]) {
        times.push(Timestamp::from_unix_micros(micros)?);
    }
    for text in ["0001-01-01T00:00:00.000001Z", "0999-12-31T23:59:59.999999Z", "9999-12-31T00:00:00Z"] {
        times.push(time(text)?);
    }
    for time in times {
        comes_back(env, time).await?;
    }
    Ok(())
}

async fn every_digit_of_a_microsecond_comes_back(env: &mut TestEnv) -> CaseResult {
    for fraction in [1, 10, 100, 1_000, 10_000, 100_000, 123_456, 900_001, 999_999, 999_000, 500_000, 499_999] {
        // In this century, before 1970, and where floating point has no more digits.
        for second in [1_769_860_800, -1_000_000_000, 200_000_000_000] {
            comes_back(env, Timestamp::from_unix_micros(second * 1_000_000 + fraction)?).await?;
        }
    }
    Ok(())
}

/// Sets each of the three times of a step, by each way there is, and expects to read it.
async fn comes_back(env: &TestEnv, time: Timestamp) -> CaseResult {
    let (store, build) = (env.store(), env.build());
    let step = store.add(build, "compile", "").await?;
    store.start_with_locks(step.id, time).await?;
    env.set_clock(time);
    store.finish(step.id, Results::SUCCESS).await?;
    let got = expect_some(Clause::T2, "the step just finished", store.step(step.id).await?)?;
    expect_eq(Clause::T2, "started_at", got.started_at, Some(time))?;
    expect_eq(Clause::T2, "locks_acquired_at, set by start_step", got.locks_acquired_at, Some(time))?;
    expect_eq(Clause::T2, "complete_at, by the clock", got.complete_at, Some(time))?;
    store.set_step_locks_acquired_at(step.id, Timestamp::UNIX_EPOCH).await?;
    store.set_step_locks_acquired_at(step.id, time).await?;
    let steps = store.steps(build).await?;
    let got = expect_some(Clause::T2, "the step, read with its build", steps.first())?;
    let times = [got.started_at, got.locks_acquired_at, got.complete_at];
    expect_eq(Clause::T2, "its three times, read with its build", times, [Some(time); 3])
}

async fn results_are_any_i32(env: &mut TestEnv) -> CaseResult {
    let (store, build) = (env.store(), env.build());
    let step = store.add(build, "compile", "").await?;
    let edges = [i32::MIN, i32::MIN + 1, i32::MAX, i32::MAX - 1, 127, 128, 255, 256, 32_767, 32_768, 65_535, 65_536];
    let small = -128..=127;
    for code in small.chain(edges).chain(edges.map(i32::wrapping_neg)) {
        store.finish_step(step.id, FinishStep::new(Results::new(code))).await?;
        let got = expect_some(Clause::T3, "the step just finished", store.step(step.id).await?)?;
        expect_eq(Clause::T3, "its results", got.results, Some(Results::new(code)))?;
    }
    Ok(())
}

async fn no_time_is_not_the_epoch(env: &mut TestEnv) -> CaseResult {
    let (store, build) = (env.store(), env.build());
    let (never, once) = (store.add(build, "never", "").await?, store.add(build, "once", "").await?);
    store.start_with_locks(once.id, Timestamp::UNIX_EPOCH).await?;
    env.set_clock(Timestamp::UNIX_EPOCH);
    store.finish(once.id, Results::SUCCESS).await?;
    for (id, time, results) in [(never.id, None, None), (once.id, Some(Timestamp::UNIX_EPOCH), Some(Results::SUCCESS))]
    {
        let got = expect_some(Clause::T2, "the step", store.step(id).await?)?;
        let times = [got.started_at, got.locks_acquired_at, got.complete_at];
        expect_eq(Clause::T2, "its three times", times, [time; 3])?;
        expect_eq(Clause::T3, "its results", got.results, results)?;
    }
    Ok(())
}
