//! Calls on a store whose server or connections go away.

use std::time::{Duration, Instant};

use steps_core::{ErrorKind, StepsStore, StepsStoreExt};

use crate::children::BUILD;

/// Adds steps, one after the other, while connections are lost. Gives how many adds were answered, and how many may have
/// been applied for all that is known.
///
/// # Panics
/// At an error that says that an add was certainly not applied: such a one is tried again inside (D6).
pub async fn add_through(store: &impl StepsStore, adds: usize) -> (usize, usize) {
    let (mut answered, mut open) = (0, 0);
    for _ in 0..adds {
        match store.add(BUILD, "compile", "").await {
            Ok(_) => answered += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                assert!(error.may_have_applied(), "what was certainly not applied is tried again: {error}");
                open += 1;
            }
        }
    }
    (answered, open)
}

/// Writes and reads while there is no server, and expects that both end in time, and are said not to have been applied
/// (D3, D4).
///
/// # Panics
/// When one is answered, or ends otherwise.
pub async fn expect_unsent(store: &impl StepsStore, timeout: Duration) {
    let start = Instant::now();
    let (added, read) = tokio::join!(store.add(BUILD, "compile", ""), store.steps(BUILD));
    assert!(start.elapsed() < 2 * timeout, "{:?}", start.elapsed());
    for error in [added.map(drop).expect_err("nobody can answer"), read.map(drop).expect_err("nobody can answer")] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_retryable() && !error.may_have_applied(), "{error}");
    }
}
