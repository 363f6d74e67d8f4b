use steps_core::BuildId;
use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_call_ends_in_time_and_reports_whether_it_was_in_flight() {
    let fixture = Fixture::new(1);
    let start = Instant::now();
    let stuck = fixture.call(Stuck).await;
    let queued = fixture.call(Number(1)).await;
    assert_timed_out(stuck.await.unwrap(), true);
    assert_timed_out(queued.await.unwrap(), false);
    assert!(start.elapsed() < TIMEOUT + TOLERANCE, "{:?}", start.elapsed());

    // The batcher accepts and expires calls, although its worker never returns.
    assert_timed_out(fixture.call(Number(2)).await.await.unwrap(), false);
}

#[tokio::test(start_paused = true)]
async fn a_later_call_has_the_whole_timeout() {
    let fixture = Fixture::new(1);
    assert_eq!(fixture.call(Number(1)).await.await.unwrap().unwrap(), 1);
    sleep(TIMEOUT / 2).await;
    let start = Instant::now();
    assert_timed_out(fixture.call(Stuck).await.await.unwrap(), true);
    let elapsed = start.elapsed();
    assert!((TIMEOUT..TIMEOUT + TOLERANCE).contains(&elapsed), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_connection_was_not_applied() {
    for server in [Server::Hangs, Server::Refuses] {
        let fixture = Fixture::new(10);
        fixture.set_server(Some(server));
        let start = Instant::now();
        assert_timed_out(fixture.call(Number(1)).await.await.unwrap(), false);
        assert!(start.elapsed() < TIMEOUT + TOLERANCE, "{:?}", start.elapsed());

        // The attempt to connect ended with the last caller.
        fixture.set_server(None);
        assert_eq!(fixture.call(Number(2)).await.await.unwrap().unwrap(), 2);
        assert_eq!(fixture.batches(), [[Number(2)]]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_not_transient_ends_all_calls_at_once() {
    let fixture = Fixture::new(10);
    fixture.set_server(Some(Server::IsAnother));
    let start = Instant::now();
    let (one, other) = tokio::join!(fixture.batcher.call(write(), Number(1)), fixture.batcher.call(write(), Number(2)));
    for error in [one.unwrap_err(), other.unwrap_err()] {
        assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Config, false));
    }
    assert_eq!(start.elapsed(), Duration::ZERO);

    fixture.set_server(None);
    assert_eq!(fixture.call(Number(3)).await.await.unwrap().unwrap(), 3);
    assert_eq!(fixture.batches(), [[Number(3)]]);
}

#[tokio::test(start_paused = true)]
async fn calls_end_when_the_worker_panics() {
    let fixture = Fixture::new(0);
    let in_flight = fixture.call(Panics).await;
    let queued = fixture.call(Number(1)).await;
    fixture.permit(1);
    for call in [in_flight, queued] {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Unavailable, true));
    }
    assert_eq!(fixture.call(Number(2)).await.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn calls_end_when_the_runtime_is_gone() {
    let store_runtime = tokio::runtime::Runtime::new().unwrap();
    let caller_runtime = tokio::runtime::Runtime::new().unwrap();
    let fixture = store_runtime.block_on(async { Fixture::new(1) });
    let (sender, mut sent) = mpsc::unbounded_channel();
    let batcher = Arc::clone(&fixture.batcher);
    let stuck = caller_runtime.spawn(async move {
        sender.send(()).unwrap();
        batcher.call(write(), Stuck).await
    });
    caller_runtime.block_on(sent.recv());
    while fixture.batches().is_empty() {
        std::thread::yield_now();
    }
    // Waits until the task is dropped. The call in flight ends with an error that leaves open whether it was applied.
    store_runtime.shutdown_timeout(Duration::from_secs(10));
    let in_flight = caller_runtime.block_on(stuck).unwrap().unwrap_err();
    assert_eq!(in_flight.kind(), ErrorKind::Unavailable);
    assert!(in_flight.may_have_applied());

    let build = BuildId::new(1).unwrap();
    let later = caller_runtime.block_on(fixture.batcher.call(Call::get_steps(build), Number(1))).unwrap_err();
    assert_eq!(later.kind(), ErrorKind::Closed);
    assert!(!later.may_have_applied());
}
