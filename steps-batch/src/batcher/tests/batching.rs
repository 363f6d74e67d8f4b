use super::*;

#[tokio::test(start_paused = true)]
async fn queued_requests_share_a_batch_in_their_order() {
    let fixture = Fixture::new(0);
    let mut calls = Vec::new();
    for number in 0..6 {
        calls.push(fixture.call(Number(number)).await);
    }
    fixture.permit(3);
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap().unwrap(), number);
    }
    assert_eq!(fixture.batches(), [vec![Number(0)], (1..5).map(Number).collect(), vec![Number(5)]]);
}

#[tokio::test(start_paused = true)]
async fn simultaneous_requests_share_a_batch() {
    let fixture = Fixture::new(1);
    let (one, other) = tokio::join!(fixture.batcher.call(write(), Number(1)), fixture.batcher.call(write(), Number(2)));
    assert_eq!((one.unwrap(), other.unwrap()), (1, 2));
    assert_eq!(fixture.batches(), [[Number(1), Number(2)]]);
}

#[tokio::test(start_paused = true)]
async fn callers_of_a_burst_that_call_again_join_the_queued_ones() {
    let fixture = Fixture::new(0);
    fixture.call_twice(0, 10).await;
    fixture.call_twice(1, 11).await;
    fixture.call_twice(2, 12).await;
    fixture.permit(1);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(fixture.batches(), [vec![Number(0)], vec![Number(1), Number(2), Number(10)]]);
    let queued = fixture.call(Number(20)).await;
    fixture.permit(2);
    queued.await.unwrap().unwrap();
    assert_eq!(fixture.batches()[2], [Number(20), Number(11), Number(12)]);
}

#[tokio::test(start_paused = true)]
async fn a_queued_request_does_not_wait_for_a_single_caller_to_call_again() {
    let fixture = Fixture::new(0);
    fixture.call_twice(0, 10).await;
    let queued = fixture.call(Number(1)).await;
    fixture.permit(2);
    queued.await.unwrap().unwrap();
    assert_eq!(fixture.batches()[..2], [[Number(0)], [Number(1)]]);
}

#[tokio::test(start_paused = true)]
async fn a_burst_stays_together() {
    let fixture = Fixture::new(2);
    // After its response each caller needs a little longer than the one before.
    let call_again = |number: u32| {
        let batcher = Arc::clone(&fixture.batcher);
        async move {
            batcher.call(write(), Number(number)).await.unwrap();
            for _ in 0..number {
                tokio::task::yield_now().await;
            }
            batcher.call(write(), Number(number)).await
        }
    };
    let (one, two, three) = tokio::join!(call_again(0), call_again(1), call_again(2));
    assert_eq!((one.unwrap(), two.unwrap(), three.unwrap()), (0, 1, 2));
    let all = [Number(0), Number(1), Number(2)];
    assert_eq!(fixture.batches(), [all, all]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_a_limit_of_bytes() {
    let fixture = Fixture::new(0);
    let first = fixture.call(Number(0)).await;
    let one = fixture.call(Large).await;
    let other = fixture.call(Large).await;
    fixture.permit(3);
    for call in [first, one, other] {
        call.await.unwrap().unwrap();
    }
    assert_eq!(fixture.batches(), [[Number(0)], [Large], [Large]]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_step_is_the_response_of_one_request() {
    let fixture = Fixture::new(10);
    let (missing, other) =
        tokio::join!(fixture.batcher.call(add_url(), Missing), fixture.batcher.call(add_url(), Number(1)));
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(other.unwrap(), 1);
    assert_eq!(fixture.batches(), [[Missing, Number(1)]]);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_caller_is_not_sent() {
    let fixture = Fixture::new(0);
    let first = fixture.call(Number(0)).await;
    let dropped = fixture.call(Number(1)).await;
    let last = fixture.call(Number(2)).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    fixture.permit(2);
    assert_eq!(first.await.unwrap().unwrap(), 0);
    assert_eq!(last.await.unwrap().unwrap(), 2);
    assert_eq!(fixture.batches(), [[Number(0)], [Number(2)]]);
}
