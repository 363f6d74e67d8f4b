use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_close_finishes_queued_requests_and_refuses_new_ones() {
    let fixture = Fixture::new(0);
    let first = fixture.call(Number(0)).await;
    let second = fixture.call(Number(1)).await;
    assert!(!fixture.batcher.is_closed());
    let close = fixture.start_close();
    sleep(Duration::from_millis(1)).await;
    assert!(fixture.batcher.is_closed());
    let refused = fixture.call(Number(2)).await.await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    fixture.permit(2);
    assert_eq!(first.await.unwrap().unwrap(), 0);
    assert_eq!(second.await.unwrap().unwrap(), 1);
    close.await.unwrap().unwrap();
    fixture.batcher.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_for_retries() {
    let fixture = Fixture::new(1_000);
    let locked = fixture.call(Locked).await;
    sleep(2 * lock_timeout(TIMEOUT)).await;
    let close = fixture.start_close();
    sleep(lock_timeout(TIMEOUT)).await;
    assert!(!close.is_finished());
    fixture.release_lock();
    assert_eq!(locked.await.unwrap().unwrap(), 0);
    close.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_outlasts_calls_that_expire() {
    let fixture = Fixture::new(1);
    let (locked, closed) = tokio::join!(fixture.batcher.call(write(), Locked), fixture.batcher.close());
    assert_timed_out(locked, false);
    closed.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_ends_in_time_too() {
    let fixture = Fixture::new(1);
    let stuck = fixture.call(Stuck).await;
    let start = Instant::now();
    let error = fixture.batcher.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(start.elapsed() <= TIMEOUT, "{:?}", start.elapsed());
    assert_timed_out(stuck.await.unwrap(), true);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_batcher_closes_its_connection() {
    let Fixture { batcher, state } = Fixture::new(0);
    assert!(!state.is_closed.load(Ordering::Relaxed));
    drop(batcher);
    sleep(TOLERANCE).await;
    assert!(state.is_closed.load(Ordering::Relaxed));
}
