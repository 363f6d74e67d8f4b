//! What the lane promises, shown with a worker that does as it is told. Time stands still but for sleeps.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use steps_core::{BuildId, StepId};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a batch takes that goes on without those that wait for a lock.
const SKIPPING: Duration = Duration::from_millis(10);

/// A request says what happens to its batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Request {
    Number(u32),
    /// Spoils its batch.
    Bad,
    /// Loses the connection of its batch, which may have been applied.
    Lost,
    /// Never ends.
    Stuck,
    /// Loses the connection the first time, and is there the next.
    LostOnce,
    /// Another process has the lock of everything until the test lets go.
    Locked,
    /// Another process has the lock of what this is about until the test lets go.
    LockedRow,
    /// Is about what is not there.
    Missing,
}
use Request::{Bad, Locked, LockedRow, Lost, LostOnce, Missing, Number, Stuck};

/// What keeps the worker from connecting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Server {
    Hangs,
    Refuses,
    /// To wait for it does not help.
    IsAnother,
}

struct Fake {
    batches: Arc<Mutex<Vec<Vec<Request>>>>,
    gate: Arc<Semaphore>,
    lock: Arc<Semaphore>,
    server: Arc<Mutex<Option<Server>>>,
    was_lost: AtomicBool,
    is_closed: Arc<AtomicBool>,
}

impl Fake {
    fn is_locked(&self) -> bool {
        self.lock.available_permits() == 0
    }

    fn answers(requests: &[Request]) -> Vec<Result<u32, BatchError>> {
        let answer = |request: &Request| match request {
            Number(number) => Ok(*number),
            Missing => Err(BatchError::new(ErrorKind::NotFound, "missing")),
            _ => Ok(0),
        };
        requests.iter().map(answer).collect()
    }
}

impl Worker for Fake {
    type Request = Request;
    type Answer = u32;

    const BACKEND: &'static str = "fake";
    const BATCH: usize = 4;

    fn size(_: &Request) -> usize {
        1
    }

    async fn connect(&mut self) -> Result<(), BatchError> {
        let server = *self.server.lock().unwrap();
        match server {
            Some(Server::Hangs) => std::future::pending().await,
            Some(Server::Refuses) => Err(BatchError::transient("refused")),
            Some(Server::IsAnother) => Err(BatchError::new(ErrorKind::Config, "another")),
            None => Ok(()),
        }
    }

    async fn run(&mut self, requests: &[Request]) -> Result<Vec<Result<u32, BatchError>>, BatchError> {
        self.batches.lock().unwrap().push(requests.to_vec());
        self.gate.acquire().await.unwrap().forget();
        if requests.contains(&Stuck) {
            std::future::pending::<()>().await;
        }
        if (requests.contains(&Locked) || requests.contains(&LockedRow)) && self.is_locked() {
            sleep(lock_timeout(TIMEOUT)).await;
            self.gate.add_permits(1);
            return Err(BatchError::transient("locked"));
        }
        if requests.contains(&Lost) || (requests.contains(&LostOnce) && !self.was_lost.swap(true, Ordering::Relaxed)) {
            return Err(BatchError::new(ErrorKind::Unavailable, "lost").with_may_have_applied(true));
        }
        if requests.contains(&Bad) {
            return Err(BatchError::new(ErrorKind::Corrupt, "bad"));
        }
        Ok(Self::answers(requests))
    }

    async fn run_without_waiting(&mut self, requests: &[Request]) -> Result<Vec<Result<u32, BatchError>>, BatchError> {
        if !requests.contains(&LockedRow) || !self.is_locked() {
            return self.run(requests).await;
        }
        self.batches.lock().unwrap().push(requests.to_vec());
        sleep(SKIPPING).await;
        let locked = |request: &Request| matches!(request, LockedRow).then(|| Err(BatchError::transient("locked")));
        let answers = requests.iter().zip(Self::answers(requests));
        Ok(answers.map(|(request, answer)| locked(request).unwrap_or(answer)).collect())
    }

    async fn close(&mut self) {
        sleep(Duration::from_millis(1)).await;
        self.is_closed.store(true, Ordering::Relaxed);
    }
}

/// A lane whose worker starts a batch for each permit of the gate.
struct Fixture {
    lane: Arc<Batcher<Fake>>,
    batches: Arc<Mutex<Vec<Vec<Request>>>>,
    gate: Arc<Semaphore>,
    lock: Arc<Semaphore>,
    server: Arc<Mutex<Option<Server>>>,
    is_closed: Arc<AtomicBool>,
}

impl Fixture {
    fn new(batches: usize) -> Self {
        let (gate, lock) = (Arc::new(Semaphore::new(batches)), Arc::new(Semaphore::new(0)));
        let (seen, server, is_closed) = (Arc::default(), Arc::default(), Arc::<AtomicBool>::default());
        let worker = Fake {
            batches: Arc::clone(&seen),
            gate: Arc::clone(&gate),
            lock: Arc::clone(&lock),
            server: Arc::clone(&server),
            was_lost: AtomicBool::new(false),
            is_closed: Arc::clone(&is_closed),
        };
        Self { lane: Arc::new(Batcher::start(worker, TIMEOUT)), batches: seen, gate, lock, server, is_closed }
    }

    /// Calls, and gives the answer to come; the request is in the lane when this returns.
    async fn call(&self, request: Request) -> tokio::task::JoinHandle<Result<u32>> {
        let lane = Arc::clone(&self.lane);
        let call = tokio::spawn(async move { lane.call(write(), request).await });
        sleep(Duration::from_millis(1)).await;
        call
    }

    /// Calls, and calls again as soon as that is answered.
    async fn call_twice(&self, first: u32, second: u32) {
        let lane = Arc::clone(&self.lane);
        tokio::spawn(async move {
            for number in [first, second] {
                lane.call(write(), Number(number)).await.unwrap();
            }
        });
        sleep(Duration::from_millis(1)).await;
    }

    /// Calls that may be repeated (D6).
    async fn link(&self, request: Request) -> tokio::task::JoinHandle<Result<u32>> {
        let lane = Arc::clone(&self.lane);
        let call = tokio::spawn(async move { lane.call(link(), request).await });
        sleep(Duration::from_millis(1)).await;
        call
    }

    fn batches(&self) -> Vec<Vec<Request>> {
        self.batches.lock().unwrap().clone()
    }
}

fn write() -> Call {
    Call::on_step(Operation::FinishStep, StepId::new(1).unwrap())
}

fn link() -> Call {
    Call::on_step(Operation::AddUrl, StepId::new(1).unwrap())
}

fn assert_timed_out(answer: Result<u32>, sent: bool) {
    let error = answer.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.may_have_applied(), sent, "{error}");
    assert_eq!(error.is_retryable(), !sent);
}

#[tokio::test(start_paused = true)]
async fn what_waits_travels_together_in_its_order() {
    let fixture = Fixture::new(0);
    let mut calls = Vec::new();
    for number in 0..6 {
        calls.push(fixture.call(Number(number)).await);
    }
    fixture.gate.add_permits(3);
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap().unwrap(), number);
    }
    assert_eq!(fixture.batches(), [vec![Number(0)], (1..5).map(Number).collect(), vec![Number(5)]]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_at_once_travels_together() {
    let fixture = Fixture::new(1);
    let (one, other) = tokio::join!(fixture.lane.call(write(), Number(1)), fixture.lane.call(write(), Number(2)));
    assert_eq!((one.unwrap(), other.unwrap()), (1, 2));
    assert_eq!(fixture.batches(), [[Number(1), Number(2)]]);
}

#[tokio::test(start_paused = true)]
async fn those_of_a_crowd_who_ask_again_join_who_waits() {
    let fixture = Fixture::new(0);
    fixture.call_twice(0, 10).await;
    fixture.call_twice(1, 11).await;
    fixture.call_twice(2, 12).await;
    fixture.gate.add_permits(1);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(fixture.batches(), [vec![Number(0)], vec![Number(1), Number(2), Number(10)]]);
    let waits = fixture.call(Number(20)).await;
    fixture.gate.add_permits(2);
    waits.await.unwrap().unwrap();
    assert_eq!(fixture.batches()[2], [Number(20), Number(11), Number(12)]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_does_not_wait_for_a_single_one_to_ask_again() {
    let fixture = Fixture::new(0);
    fixture.call_twice(0, 10).await;
    let waits = fixture.call(Number(1)).await;
    fixture.gate.add_permits(2);
    waits.await.unwrap().unwrap();
    assert_eq!(fixture.batches()[..2], [[Number(0)], [Number(1)]]);
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_in_time_and_says_whether_it_was_on_its_way() {
    let fixture = Fixture::new(1);
    let start = Instant::now();
    let (stuck, waiting) = (fixture.call(Stuck).await, fixture.call(Number(1)).await);
    assert_timed_out(stuck.await.unwrap(), true);
    assert_timed_out(waiting.await.unwrap(), false);
    assert!(start.elapsed() < TIMEOUT + Duration::from_millis(10), "{:?}", start.elapsed());

    // The lane takes calls and ends them, though its worker never comes back.
    assert_timed_out(fixture.call(Number(2)).await.await.unwrap(), false);
}

#[tokio::test(start_paused = true)]
async fn who_asks_after_another_was_answered_has_all_its_time() {
    let fixture = Fixture::new(1);
    assert_eq!(fixture.call(Number(1)).await.await.unwrap().unwrap(), 1);
    sleep(TIMEOUT / 2).await;
    let start = Instant::now();
    assert_timed_out(fixture.call(Stuck).await.await.unwrap(), true);
    let took = start.elapsed();
    assert!((TIMEOUT..TIMEOUT + Duration::from_millis(10)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_was_answered_stays_together() {
    let fixture = Fixture::new(2);
    // After its answer each is a little later than the one before.
    let again = |number: u32| {
        let lane = Arc::clone(&fixture.lane);
        async move {
            lane.call(write(), Number(number)).await.unwrap();
            for _ in 0..number {
                tokio::task::yield_now().await;
            }
            lane.call(write(), Number(number)).await
        }
    };
    let (one, two, three) = tokio::join!(again(0), again(1), again(2));
    assert_eq!((one.unwrap(), two.unwrap(), three.unwrap()), (0, 1, 2));
    let all = [Number(0), Number(1), Number(2)];
    assert_eq!(fixture.batches(), [all, all]);
}

#[tokio::test(start_paused = true)]
async fn one_bad_request_spoils_no_other() {
    let fixture = Fixture::new(0);
    let first = fixture.call(Number(0)).await;
    let (good, bad, also_good) =
        (fixture.call(Number(1)).await, fixture.call(Bad).await, fixture.call(Number(3)).await);
    fixture.gate.add_permits(5);
    assert_eq!(first.await.unwrap().unwrap(), 0);
    assert_eq!(good.await.unwrap().unwrap(), 1);
    assert_eq!(bad.await.unwrap().unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(also_good.await.unwrap().unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_looked_for_once() {
    let fixture = Fixture::new(10);
    let (missing, other) = tokio::join!(fixture.lane.call(link(), Missing), fixture.lane.call(link(), Number(1)));
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(other.unwrap(), 1);
    assert_eq!(fixture.batches(), [[Missing, Number(1)]]);
}

#[tokio::test(start_paused = true)]
async fn what_was_set_aside_gets_its_turn_while_others_wait() {
    let fixture = Fixture::new(1);
    let locked = fixture.call(LockedRow).await;
    sleep(2 * lock_timeout(TIMEOUT)).await;
    fixture.call(Number(0)).await.await.unwrap().unwrap();
    let mut others = Vec::new();
    for number in 0..10 * Fake::BATCH as u32 {
        others.push(fixture.call(Number(number)).await);
    }
    fixture.lock.add_permits(1);
    sleep(lock_timeout(TIMEOUT)).await;
    // One for the batch that has begun, one for what was set aside.
    fixture.gate.add_permits(2);
    assert_eq!(locked.await.unwrap().unwrap(), 0);
    assert!(!others[5].is_finished());
    fixture.gate.add_permits(others.len());
    for (number, other) in (0..).zip(others) {
        assert_eq!(other.await.unwrap().unwrap(), number);
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_are_tried_alone_end_in_time_too() {
    let fixture = Fixture::new(1);
    let start = Instant::now();
    let (bad, other) = tokio::join!(fixture.lane.call(write(), Bad), fixture.lane.call(write(), Number(1)));
    assert_timed_out(bad, true);
    assert_timed_out(other, false);
    assert!(start.elapsed() < TIMEOUT + Duration::from_millis(10), "{:?}", start.elapsed());
    assert_eq!(fixture.batches(), [vec![Bad, Number(1)], vec![Bad]]);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_applied_is_not_tried_again() {
    let fixture = Fixture::new(1);
    let (one, other) = tokio::join!(fixture.lane.call(write(), Number(1)), fixture.lane.call(write(), Lost));
    for error in [one.unwrap_err(), other.unwrap_err()] {
        assert!(error.may_have_applied() && !error.is_retryable(), "{error}");
    }
    assert_eq!(fixture.batches(), [[Number(1), Lost]]);
}

#[tokio::test(start_paused = true)]
async fn what_a_lock_kept_from_being_done_was_not_applied() {
    let fixture = Fixture::new(1);
    let start = Instant::now();
    let error = fixture.call(Locked).await.await.unwrap().unwrap_err();
    assert!(start.elapsed() <= TIMEOUT, "{:?}", start.elapsed());
    assert!(!error.may_have_applied() && error.is_retryable(), "{error}");
    assert!(std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("locked")));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_lock_is_done_once_it_is_free() {
    let fixture = Fixture::new(1);
    let (locked, waiting) = (fixture.call(Locked).await, fixture.call(Number(1)).await);
    sleep(TIMEOUT / 2).await;
    fixture.lock.add_permits(1);
    fixture.gate.add_permits(1);
    assert_eq!(locked.await.unwrap().unwrap(), 0);
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_a_lock_does_not_keep_others_waiting() {
    let fixture = Fixture::new(1_000);
    let start = Instant::now();
    let (locked, other) = (fixture.call(LockedRow).await, fixture.call(Number(1)).await);
    assert_eq!(other.await.unwrap().unwrap(), 1);
    // What comes later waits not at all.
    for number in 2..100 {
        assert_eq!(fixture.call(Number(number)).await.await.unwrap().unwrap(), number);
    }
    assert!(start.elapsed() < 3 * lock_timeout(TIMEOUT), "{:?}", start.elapsed());
    assert!(!locked.is_finished());

    fixture.lock.add_permits(1);
    assert_eq!(locked.await.unwrap().unwrap(), 0);
    assert!(start.elapsed() < 4 * lock_timeout(TIMEOUT), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn more_that_wait_for_a_lock_than_a_batch_holds_do_not_either() {
    let fixture = Fixture::new(1_000);
    let mut locked = Vec::new();
    // So many that the first batch of them is due again before the last is done.
    for _ in 0..10 * Fake::BATCH {
        locked.push(fixture.call(LockedRow).await);
    }
    // Each batch of them once waits for the lock.
    sleep(TIMEOUT / 2).await;
    let start = Instant::now();
    for number in 0..10 {
        assert_eq!(fixture.call(Number(number)).await.await.unwrap().unwrap(), number);
    }
    assert!(start.elapsed() < 10 * 3 * SKIPPING, "{:?}", start.elapsed());
    let start = Instant::now();
    for locked in locked {
        let error = locked.await.unwrap().unwrap_err();
        assert!(!error.may_have_applied() && error.is_retryable(), "{error}");
        assert!(std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("locked")));
    }
    assert!(start.elapsed() <= TIMEOUT, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_does_no_harm_a_second_time_is_tried_again() {
    let fixture = Fixture::new(0);
    let first = fixture.call(Number(0)).await;
    let (lost, url, write) =
        (fixture.link(LostOnce).await, fixture.link(Number(1)).await, fixture.call(Number(2)).await);
    fixture.gate.add_permits(10);
    assert_eq!(first.await.unwrap().unwrap(), 0);
    assert_eq!(lost.await.unwrap().unwrap(), 0);
    assert_eq!(url.await.unwrap().unwrap(), 1);
    let error = write.await.unwrap().unwrap_err();
    assert!(error.may_have_applied() && !error.is_retryable(), "{error}");
    let all = vec![LostOnce, Number(1), Number(2)];
    assert_eq!(fixture.batches(), [vec![Number(0)], all, vec![LostOnce, Number(1)]]);
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_again_in_vain_may_have_been_applied() {
    let fixture = Fixture::new(1_000);
    let start = Instant::now();
    let error = fixture.link(Lost).await.await.unwrap().unwrap_err();
    assert!(error.may_have_applied() && error.is_retryable(), "{error}");
    assert!(std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("lost")));
    assert!((TIMEOUT / 2..=TIMEOUT).contains(&start.elapsed()), "{:?}", start.elapsed());
    // Not as fast as it can.
    assert!((10..1_000).contains(&fixture.batches().len()), "{}", fixture.batches().len());
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_tried_again_ends_in_its_own_time() {
    let fixture = Fixture::new(0);
    let before = fixture.call(Number(0)).await;
    let start = Instant::now();
    let first = fixture.link(Lost).await;
    sleep(TIMEOUT / 4).await;
    let second = fixture.link(Lost).await;
    // Both are on their way, and lose a connection that does not come back.
    fixture.gate.add_permits(1);
    assert_eq!(before.await.unwrap().unwrap(), 0);
    sleep(Duration::from_millis(1)).await;
    *fixture.server.lock().unwrap() = Some(Server::Hangs);
    fixture.gate.add_permits(1);
    for (call, end) in [(first, TIMEOUT), (second, TIMEOUT + TIMEOUT / 4)] {
        assert!(call.await.unwrap().is_err());
        let elapsed = start.elapsed();
        assert!((end..end + Duration::from_millis(10)).contains(&elapsed), "{elapsed:?}");
    }
    assert_eq!(fixture.batches(), [vec![Number(0)], vec![Lost, Lost]]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_connection_was_not_applied() {
    for server in [Server::Hangs, Server::Refuses] {
        let fixture = Fixture::new(10);
        *fixture.server.lock().unwrap() = Some(server);
        let start = Instant::now();
        assert_timed_out(fixture.call(Number(1)).await.await.unwrap(), false);
        assert!(start.elapsed() < TIMEOUT + Duration::from_millis(10), "{:?}", start.elapsed());

        // The attempt ended with the one who waited for it.
        *fixture.server.lock().unwrap() = None;
        assert_eq!(fixture.call(Number(2)).await.await.unwrap().unwrap(), 2);
        assert_eq!(fixture.batches(), [[Number(2)]]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_no_waiting_helps_with_is_told_at_once() {
    let fixture = Fixture::new(10);
    *fixture.server.lock().unwrap() = Some(Server::IsAnother);
    let start = Instant::now();
    let (one, other) = tokio::join!(fixture.lane.call(write(), Number(1)), fixture.lane.call(write(), Number(2)));
    for error in [one.unwrap_err(), other.unwrap_err()] {
        assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Config, false));
    }
    assert_eq!(start.elapsed(), Duration::ZERO);

    *fixture.server.lock().unwrap() = None;
    assert_eq!(fixture.call(Number(3)).await.await.unwrap().unwrap(), 3);
    assert_eq!(fixture.batches(), [[Number(3)]]);
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_for_what_is_tried_again() {
    let fixture = Fixture::new(1_000);
    let locked = fixture.call(LockedRow).await;
    sleep(2 * lock_timeout(TIMEOUT)).await;
    let lane = Arc::clone(&fixture.lane);
    let close = tokio::spawn(async move { lane.close().await });
    sleep(lock_timeout(TIMEOUT)).await;
    assert!(!close.is_finished());
    fixture.lock.add_permits(1);
    assert_eq!(locked.await.unwrap().unwrap(), 0);
    close.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_does_not_end_with_those_whose_time_is_nearly_up() {
    let fixture = Fixture::new(1);
    let (locked, closed) = tokio::join!(fixture.lane.call(write(), Locked), fixture.lane.close());
    assert_timed_out(locked, false);
    closed.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_any_longer_is_not_sent() {
    let fixture = Fixture::new(0);
    let (first, dropped, last) =
        (fixture.call(Number(0)).await, fixture.call(Number(1)).await, fixture.call(Number(2)).await);
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    fixture.gate.add_permits(2);
    assert_eq!(first.await.unwrap().unwrap(), 0);
    assert_eq!(last.await.unwrap().unwrap(), 2);
    assert_eq!(fixture.batches(), [[Number(0)], [Number(2)]]);
}

#[tokio::test(start_paused = true)]
async fn a_close_finishes_what_waits_and_refuses_what_comes() {
    let fixture = Fixture::new(0);
    let (first, second) = (fixture.call(Number(0)).await, fixture.call(Number(1)).await);
    let lane = Arc::clone(&fixture.lane);
    assert!(!fixture.lane.is_closed());
    let close = tokio::spawn(async move { lane.close().await });
    sleep(Duration::from_millis(1)).await;
    assert!(fixture.lane.is_closed());
    let refused = fixture.call(Number(2)).await.await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    fixture.gate.add_permits(2);
    assert_eq!(first.await.unwrap().unwrap(), 0);
    assert_eq!(second.await.unwrap().unwrap(), 1);
    close.await.unwrap().unwrap();
    fixture.lane.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_nobody_has_any_longer_closes_its_connection() {
    let Fixture { lane, is_closed, .. } = Fixture::new(0);
    assert!(!is_closed.load(Ordering::Relaxed));
    drop(lane);
    sleep(Duration::from_millis(10)).await;
    assert!(is_closed.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_close_ends_in_time_too() {
    let fixture = Fixture::new(1);
    let stuck = fixture.call(Stuck).await;
    let start = Instant::now();
    let error = fixture.lane.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(start.elapsed() <= TIMEOUT, "{:?}", start.elapsed());
    assert_timed_out(stuck.await.unwrap(), true);
}

#[test]
fn a_timeout_has_a_year_at_most() {
    assert_eq!(clamp_timeout(Duration::MAX), Duration::from_secs(31_536_000));
    assert_eq!(clamp_timeout(TIMEOUT), TIMEOUT);
}

#[test]
fn when_the_runtime_is_gone_calls_end() {
    let (ran, runs) = (tokio::runtime::Runtime::new().unwrap(), tokio::runtime::Runtime::new().unwrap());
    let fixture = ran.block_on(async { Fixture::new(1) });
    let (sender, mut sent) = mpsc::unbounded_channel();
    let lane = Arc::clone(&fixture.lane);
    let stuck = runs.spawn(async move {
        sender.send(()).unwrap();
        lane.call(write(), Stuck).await
    });
    runs.block_on(sent.recv());
    while fixture.batches().is_empty() {
        std::thread::yield_now();
    }
    // To its end: a call in the middle of it is still taken, and ends as one that was on its way does.
    ran.shutdown_timeout(Duration::from_secs(10));
    let in_the_middle = runs.block_on(stuck).unwrap().unwrap_err();
    assert_eq!(in_the_middle.kind(), ErrorKind::Unavailable);
    assert!(in_the_middle.may_have_applied());

    let build = BuildId::new(1).unwrap();
    let afterwards = runs.block_on(fixture.lane.call(Call::get_steps(build), Number(1))).unwrap_err();
    assert_eq!(afterwards.kind(), ErrorKind::Closed);
    assert!(!afterwards.may_have_applied());
}
