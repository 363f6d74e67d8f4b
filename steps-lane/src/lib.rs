//! For stores that have connections: a [`Lane`] takes all calls that wait as one batch, and keeps the
//! clauses about waiting, which are the same for all of them.
//!
//! A lane is a task with a [`Worker`], which has the connection and carries out the batches. Only the lane
//! knows whether a request still waits or is on its way, so it is the lane that ends those whose time is
//! up, and says truly whether they may have been applied (D3, D4). A caller just waits for its answer, which
//! comes in any case: when the runtime is gone, and the lane with it, so is the other end of the answer's
//! channel (D5). A lane that is closed finishes what waits and refuses what comes (D7).
//!
//! What such stores share beside that: what their lanes are asked for, [`Read`] and [`Write`], and their [`Mode`].

mod failure;
mod inbox;
mod lane;
mod mode;
mod requests;
mod task;
mod worker;

pub use failure::Failure;
pub use lane::{Lane, bounded, lock_timeout};
pub use mode::Mode;
pub use requests::{Change, Read, Write, Written};
pub use worker::{Worker, places_of_equals};
