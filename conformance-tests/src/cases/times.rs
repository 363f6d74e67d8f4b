//! Times (T2) and results (T3) are returned unchanged.

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

/// Boundaries of time formats, in microseconds since 1970.
const BOUNDARIES: [i64; 17] = [
    0,
    // A second and a day, at which the rounding of negative divisions matters.
    1_000_000,
    86_400_000_000,
    // The limits of seconds, milliseconds and microseconds in 32 bits.
    (1 << 31) * 1_000_000,
    (1 << 32) * 1_000_000,
    (1 << 31) * 1_000,
    1 << 31,
    1 << 32,
    // The limit of exact microseconds in floating point.
    1 << 53,
    1 << 54,
    // Calendar changes and leap years: 1582-10-15, 1600, 1900, 2000-01-01 and 2000-02-29.
    -12_219_292_800_000_000,
    -11_676_096_000_000_000,
    -2_208_988_800_000_000,
    946_684_800_000_000,
    951_782_400_000_000,
    // The limit of nanoseconds in 64 bits.
    9_223_372_036_854_776,
    -9_223_372_036_854_776,
];

async fn times_come_back_as_given(env: &mut TestEnv) -> CaseResult {
    let mut times = vec![Timestamp::MIN, Timestamp::MAX];
    for micros in BOUNDARIES.into_iter().flat_map(|at| [at, -at]).flat_map(|at| [at - 1, at, at + 1]) {
        times.push(Timestamp::from_unix_micros(micros)?);
    }
    for text in ["0001-01-01T00:00:00.000001Z", "0999-12-31T23:59:59.999999Z", "9999-12-31T00:00:00Z"] {
        times.push(time(text)?);
    }
    for time in times {
        expect_returned(env, time).await?;
    }
    Ok(())
}

async fn every_digit_of_a_microsecond_comes_back(env: &mut TestEnv) -> CaseResult {
    for fraction in [1, 10, 100, 1_000, 10_000, 100_000, 123_456, 900_001, 999_999, 999_000, 500_000, 499_999] {
        // A second in this century, one before 1970, and one at which floating point is imprecise.
        for second in [1_769_860_800, -1_000_000_000, 200_000_000_000] {
            expect_returned(env, Timestamp::from_unix_micros(second * 1_000_000 + fraction)?).await?;
        }
    }
    Ok(())
}

/// Sets the three times of a step with every operation that sets times, and expects them in every read.
async fn expect_returned(env: &TestEnv, time: Timestamp) -> CaseResult {
    let store = env.store();
    let build = env.build();
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
    let store = env.store();
    let build = env.build();
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
    let store = env.store();
    let build = env.build();
    let never = store.add(build, "never", "").await?;
    let once = store.add(build, "once", "").await?;
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
