use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn one_bad_request_spoils_no_other() {
    let fixture = Fixture::new(0);
    let first = fixture.call(Number(0)).await;
    let good = fixture.call(Number(1)).await;
    let bad = fixture.call(Bad).await;
    let also_good = fixture.call(Number(3)).await;
    fixture.permit(5);
    assert_eq!(first.await.unwrap().unwrap(), 0);
    assert_eq!(good.await.unwrap().unwrap(), 1);
    assert_eq!(bad.await.unwrap().unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(also_good.await.unwrap().unwrap(), 3);
    let all = vec![Number(1), Bad, Number(3)];
    assert_eq!(fixture.batches(), [vec![Number(0)], all, vec![Number(1)], vec![Bad], vec![Number(3)]]);
}

#[tokio::test(start_paused = true)]
async fn isolated_requests_end_in_time_too() {
    let fixture = Fixture::new(1);
    let start = Instant::now();
    let (bad, other) = tokio::join!(fixture.batcher.call(write(), Bad), fixture.batcher.call(write(), Number(1)));
    assert_timed_out(bad, true);
    assert_timed_out(other, false);
    assert!(start.elapsed() < TIMEOUT + TOLERANCE, "{:?}", start.elapsed());
    assert_eq!(fixture.batches(), [vec![Bad, Number(1)], vec![Bad]]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_have_been_applied_is_not_retried() {
    let fixture = Fixture::new(1);
    let (one, other) = tokio::join!(fixture.batcher.call(write(), Number(1)), fixture.batcher.call(write(), Lost));
    for error in [one.unwrap_err(), other.unwrap_err()] {
        assert!(error.may_have_applied() && !error.is_retryable(), "{error}");
    }
    assert_eq!(fixture.batches(), [[Number(1), Lost]]);
}

#[tokio::test(start_paused = true)]
async fn idempotent_requests_are_retried_together() {
    let fixture = Fixture::new(0);
    let first = fixture.call(Number(0)).await;
    let lost = fixture.call_idempotent(LostOnce).await;
    let url = fixture.call_idempotent(Number(1)).await;
    let write = fixture.call(Number(2)).await;
    fixture.permit(10);
    assert_eq!(first.await.unwrap().unwrap(), 0);
    assert_eq!(lost.await.unwrap().unwrap(), 0);
    assert_eq!(url.await.unwrap().unwrap(), 1);
    let error = write.await.unwrap().unwrap_err();
    assert!(error.may_have_applied() && !error.is_retryable(), "{error}");
    let all = vec![LostOnce, Number(1), Number(2)];
    assert_eq!(fixture.batches(), [vec![Number(0)], all, vec![LostOnce, Number(1)]]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_retried_in_vain_may_have_been_applied() {
    let fixture = Fixture::new(1_000);
    let start = Instant::now();
    let error = fixture.call_idempotent(Lost).await.await.unwrap().unwrap_err();
    assert!(error.may_have_applied() && error.is_retryable(), "{error}");
    assert!(std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("lost")));
    let elapsed = start.elapsed();
    assert!((TIMEOUT..TIMEOUT + TOLERANCE).contains(&elapsed), "{elapsed:?}");
    // There is a pause between the attempts.
    assert!((10..1_000).contains(&fixture.batches().len()), "{}", fixture.batches().len());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_its_retry_ends_in_time() {
    let fixture = Fixture::new(0);
    let start = Instant::now();
    let lost = fixture.call_idempotent(Lost).await;
    // The attempt fails so late that the deadline comes before the retry.
    sleep(TIMEOUT - Duration::from_millis(20)).await;
    fixture.permit(1);
    assert!(lost.await.unwrap().unwrap_err().may_have_applied());
    let elapsed = start.elapsed();
    assert!((TIMEOUT..TIMEOUT + TOLERANCE).contains(&elapsed), "{elapsed:?}");
    assert_eq!(fixture.batches(), [[Lost]]);
}

#[tokio::test(start_paused = true)]
async fn each_retry_has_the_deadline_of_its_call() {
    let fixture = Fixture::new(0);
    let before = fixture.call(Number(0)).await;
    let start = Instant::now();
    let first = fixture.call_idempotent(Lost).await;
    sleep(TIMEOUT / 4).await;
    let second = fixture.call_idempotent(Lost).await;
    // Both are in flight, and lose a connection that cannot be opened again.
    fixture.permit(1);
    assert_eq!(before.await.unwrap().unwrap(), 0);
    sleep(Duration::from_millis(1)).await;
    fixture.set_server(Some(Server::Hangs));
    fixture.permit(1);
    for (call, deadline) in [(first, TIMEOUT), (second, TIMEOUT + TIMEOUT / 4)] {
        assert!(call.await.unwrap().unwrap_err().may_have_applied());
        let elapsed = start.elapsed();
        assert!((deadline..deadline + TOLERANCE).contains(&elapsed), "{elapsed:?}");
    }
    assert_eq!(fixture.batches(), [vec![Number(0)], vec![Lost, Lost]]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_got_its_lock_was_not_applied() {
    let fixture = Fixture::new(1);
    let start = Instant::now();
    let response = fixture.call(Locked).await.await.unwrap();
    assert!(start.elapsed() <= TIMEOUT, "{:?}", start.elapsed());
    assert_locked_out(response);
}

#[tokio::test(start_paused = true)]
async fn requests_behind_a_lock_are_carried_out_once_it_is_released() {
    let fixture = Fixture::new(1);
    let locked = fixture.call(Locked).await;
    let queued = fixture.call(Number(1)).await;
    sleep(TIMEOUT / 2).await;
    fixture.release_lock();
    fixture.permit(1);
    assert_eq!(locked.await.unwrap().unwrap(), 0);
    assert_eq!(queued.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn halves_find_the_request_that_waits_for_a_lock() {
    let fixture = Fixture::new(0);
    let first = fixture.call(Number(0)).await;
    let mut others = Vec::new();
    others.push(fixture.call(Number(1)).await);
    let locked = fixture.call(Locked).await;
    others.push(fixture.call(Number(2)).await);
    others.push(fixture.call(Number(3)).await);
    fixture.permit(100);
    first.await.unwrap().unwrap();
    for (number, other) in (1..).zip(others) {
        assert_eq!(other.await.unwrap().unwrap(), number);
    }
    let [all, halves @ ..] = &fixture.batches()[1..] else { panic!("{:?}", fixture.batches()) };
    assert_eq!(all, &[Number(1), Locked, Number(2), Number(3)]);
    assert_eq!(halves[..2], [vec![Number(1), Locked], vec![Number(2), Number(3)]]);
    assert!(halves[2..].iter().all(|batch| batch.len() == 1), "{halves:?}");
    assert!(!locked.is_finished());

    fixture.release_lock();
    assert_eq!(locked.await.unwrap().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lock_on_everything_costs_one_more_batch_for_each_failed_attempt() {
    let fixture = Fixture::new(0);
    let first = fixture.call(Number(0)).await;
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(fixture.call(Locked).await);
    }
    fixture.permit(100);
    first.await.unwrap().unwrap();
    sleep(lock_timeout(TIMEOUT) * 3 / 2).await;
    fixture.release_lock();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), 0);
    }
    let lens: Vec<_> = fixture.batches()[1..].iter().map(Vec::len).collect();
    // The attempt in flight when the lock is released fails, too.
    assert_eq!(lens, [4, 2, 2, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn requests_with_a_transient_error_of_their_own_are_isolated() {
    let fixture = Fixture::new(100);
    let (one, other, number) =
        tokio::join!(fixture.batcher.call(write(), Skipped), fixture.batcher.call(write(), Skipped), async {
            let response = fixture.batcher.call(write(), Number(1)).await;
            fixture.release_lock();
            response
        });
    assert_eq!((one.unwrap(), other.unwrap(), number.unwrap()), (0, 0, 1));
    assert_eq!(fixture.batches(), [vec![Skipped, Skipped, Number(1)], vec![Skipped], vec![Skipped]]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_takes_no_other_along_that_is_not_due() {
    let fixture = Fixture::new(100);
    let pause = lock_timeout(TIMEOUT) / 5;
    let calls = [fixture.call_idempotent(Lost).await, {
        sleep(pause / 2).await;
        fixture.call_idempotent(Lost).await
    }];
    sleep(pause * 3 / 4).await;
    assert_eq!(fixture.batches(), [[Lost], [Lost], [Lost]]);
    calls.iter().for_each(JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_retry_delays_a_new_request_by_one_lock_timeout_at_most() {
    let fixture = Fixture::new(1_000);
    let locked = fixture.call(Locked).await;
    for number in 1..100 {
        let start = Instant::now();
        assert_eq!(fixture.call(Number(number)).await.await.unwrap().unwrap(), number);
        assert!(start.elapsed() <= lock_timeout(TIMEOUT) + TOLERANCE, "{:?}", start.elapsed());
    }
    assert!(fixture.batches().iter().all(|batch| batch.len() == 1), "a retry shared a batch with a new request");
    assert!(!locked.is_finished());

    let start = Instant::now();
    fixture.release_lock();
    assert_eq!(locked.await.unwrap().unwrap(), 0);
    assert!(start.elapsed() < 2 * lock_timeout(TIMEOUT), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn many_retries_do_not_starve_new_requests() {
    let fixture = Fixture::new(1_000);
    let mut locked = Vec::new();
    // So many that the first of them is due again before the last had its attempt.
    for _ in 0..10 * Fake::BATCH {
        locked.push(fixture.call(Locked).await);
    }
    // Each had an attempt as a new request, and takes turns with the others of its kind from now on.
    sleep(TIMEOUT / 2).await;
    for number in 0..10 {
        let start = Instant::now();
        assert_eq!(fixture.call(Number(number)).await.await.unwrap().unwrap(), number);
        assert!(start.elapsed() <= lock_timeout(TIMEOUT) + TOLERANCE, "{:?}", start.elapsed());
    }
    let start = Instant::now();
    for locked in locked {
        assert_locked_out(locked.await.unwrap());
    }
    assert!(start.elapsed() <= TIMEOUT, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn new_requests_do_not_starve_a_retry() {
    let fixture = Fixture::new(1);
    let locked = fixture.call(Locked).await;
    sleep(2 * lock_timeout(TIMEOUT)).await;
    fixture.call(Number(0)).await.await.unwrap().unwrap();
    let mut others = Vec::new();
    for number in 0..10 * Fake::BATCH as u32 {
        others.push(fixture.call(Number(number)).await);
    }
    fixture.release_lock();
    sleep(lock_timeout(TIMEOUT)).await;
    // One for the batch in flight, one for the retry.
    fixture.permit(2);
    assert_eq!(locked.await.unwrap().unwrap(), 0);
    assert!(!others[5].is_finished());
    fixture.permit(others.len());
    for (number, other) in (0..).zip(others) {
        assert_eq!(other.await.unwrap().unwrap(), number);
    }
}

#[tokio::test(start_paused = true)]
async fn blocked_retries_do_not_starve_another_one() {
    let fixture = Fixture::new(1_000);
    let mut blocked = Vec::new();
    for _ in 0..3 {
        blocked.push(fixture.call(Locked).await);
        sleep(2 * lock_timeout(TIMEOUT)).await;
    }
    let other = fixture.call(LockedToo).await;
    sleep(4 * lock_timeout(TIMEOUT)).await;
    let start = Instant::now();
    fixture.state.is_locked_too.store(false, Ordering::Relaxed);
    assert_eq!(other.await.unwrap().unwrap(), 0);
    assert!(start.elapsed() < 5 * lock_timeout(TIMEOUT), "{:?}", start.elapsed());
    for blocked in blocked {
        assert_locked_out(blocked.await.unwrap());
    }
}
