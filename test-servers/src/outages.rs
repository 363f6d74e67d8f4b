//! Calls on a store whose server or connections fail.

use std::time::{Duration, Instant};

use steps_core::{ErrorKind, StepsStore, StepsStoreExt};

use crate::children::BUILD;

/// Adds steps, one after the other, while connections are lost. Returns the number of answered adds and the number of
/// adds that may have been applied.
///
/// # Panics
/// When an error says that an add was not applied: the store must retry such an add itself (D6).
pub async fn add_through(store: &impl StepsStore, adds: usize) -> (usize, usize) {
    let mut answered = 0;
    let mut open = 0;
    for _ in 0..adds {
        match store.add(BUILD, "compile", "").await {
            Ok(_) => answered += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                assert!(error.may_have_applied(), "the store retries an add that was not applied: {error}");
                open += 1;
            }
        }
    }
    (answered, open)
}

/// Writes and reads while the server is down. Expects that both calls fail in time with errors that say that they
/// were not applied (D3, D4).
///
/// # Panics
/// When a call succeeds, or fails in another way.
pub async fn expect_unsent(store: &impl StepsStore, timeout: Duration) {
    let start = Instant::now();
    let (added, read) = tokio::join!(store.add(BUILD, "compile", ""), store.steps(BUILD));
    assert!(start.elapsed() < 2 * timeout, "{:?}", start.elapsed());
    for error in [added.map(drop).expect_err("the server is down"), read.map(drop).expect_err("the server is down")] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_retryable() && !error.may_have_applied(), "{error}");
    }
}
