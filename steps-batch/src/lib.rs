//! For stores that have connections: a [`Batcher`] takes all calls that wait as one batch, and keeps the
//! clauses about waiting, which are the same for all of them.
//!
//! A lane is a task with a [`Worker`], which has the connection and carries out the batches. Only the lane
//! knows whether a request still waits or is on its way, so it is the lane that ends those whose time is
//! up, and says truly whether they may have been applied (D3, D4). A caller just waits for its answer, which
//! comes in any case: when the runtime is gone, and the lane with it, so is the other end of the answer's
//! channel (D5). A lane that is closed finishes what waits and refuses what comes (D7).
//!
//! What such stores share beside that: what their lanes are asked for, [`Read`] and [`Write`].

#![cfg_attr(docsrs, feature(doc_cfg))]

mod batch_error;
mod batched_store;
mod batcher;
mod request_queue;
mod requests;
mod retry;
mod task;
mod worker;

pub use batch_error::BatchError;
pub use batched_store::{BatchedStore, ReadAnswer};
pub use batcher::{Batcher, clamp_timeout, lock_timeout};
pub use requests::{Read, StepUpdate, Write, WriteResponse};
pub use retry::retry_until;
pub use worker::{Worker, first_occurrence_indices};
