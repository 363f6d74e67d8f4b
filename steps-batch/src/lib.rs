//! Group commit with deadlines, for stores that have connections: a [`Batcher`] carries out all queued calls as one
//! batch.
//!
//! A batcher is a task with a [`Worker`], which owns the connection and runs the batches. Callers send their requests
//! to the task and wait for the response.
//!
//! # Deadlines
//!
//! The batcher also keeps the clauses about waiting, which are the same for all stores with connections. Only the task
//! knows whether a request is queued or in flight. So the task expires calls at their deadlines, and reports truthfully
//! whether the request may have been applied (D3, D4). Callers set no timers. When the runtime is gone, the task and
//! its end of the response channel are dropped, and the caller gets an error (D5). A batcher that is closed finishes
//! the queued requests and refuses new ones (D7).
//!
//! # Locks
//!
//! One queue holds new requests and retries. When a batch fails on a lock, its requests return to the queue and are
//! retried after a short pause, in smaller batches, until the blocked requests have batches of their own: see
//! [`Worker`]. Retries alternate with new requests. So a row that another program keeps locked delays the other
//! requests of the same batcher by up to one [`lock_timeout`] for each retry. The store itself holds a lock for the
//! length of one batch; only a foreign session, or a process that was stopped within a transaction, holds one for
//! longer.
//!
//! # Stores
//!
//! [`BatchedStore`] implements the trait of `steps-core` on top of batchers, with the requests [`Read`] and [`Write`].
//! [`retry_until`] is for connecting.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod batch;
mod batch_error;
mod batched_store;
mod batcher;
mod duplicates;
mod pending_call;
mod request_queue;
mod requests;
mod retry;
mod step_update;
mod task;
mod timeouts;
mod worker;

pub use batch_error::BatchError;
pub use batched_store::{BatchedStore, ReadResponse};
pub use batcher::Batcher;
pub use duplicates::first_occurrence_indices;
pub use requests::{Read, Write, WriteResponse};
pub use retry::retry_until;
pub use step_update::StepUpdate;
pub use timeouts::{clamp_timeout, lock_timeout};
pub use worker::Worker;
