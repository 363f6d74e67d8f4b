//! The [`StepsStore`] trait, the models that it speaks in and the rules that all stores share.
//!
//! A build runs steps. Each step has a 0-based number and a name that are unique in its build, a
//! state string, times, results, urls and a hidden flag. This crate says what a store of such
//! steps promises; others implement it. It does no I/O and needs no runtime.
//!
//! Where a rule lives:
//!
//! | rule | place |
//! |---|---|
//! | what may be a step name, and which name a taken one becomes | [`StepName`], [`naming`] |
//! | what text may hold, and how much of it | [`StateString`], [`StepUrl`], [`limits`] |
//! | which times there are, and their precision | [`Timestamp`] |
//! | which ids and numbers there are | [`StepId`], [`BuildId`], [`StepNumber`] |
//! | what an error means for the caller | [`Error`], [`ErrorKind`] |
//! | what a store must keep | [`StepsStore`] |
//!
//! A value of one of these types is a valid one: no store checks it again.
//!
//! The labels in the documentation (I2, N3, U1 …) name the clauses of the contract, which the
//! project's `docs/semantics.md` states in one place.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod arguments;
mod backend;
mod clock;
mod description;
mod dispatch;
mod error;
mod ext;
mod forward;
mod ids;
mod input;
mod key;
pub mod limits;
mod name;
pub mod naming;
mod open_mode;
mod request;
mod results;
mod state;
mod step;
mod store;
mod text;
mod time;
mod url;
mod url_parameters;

pub use arguments::{AddedStep, FinishStep, NewStep, StartStep, StepSelector};
pub use async_trait::async_trait;
pub use backend::{Backend, ConnectOptions, Durability};
pub use clock::{Clock, ManualClock, SystemClock};
pub use description::Description;
pub use dispatch::{Dispatch, Handler};
pub use error::{Call, Error, ErrorKind, Operation, Result};
pub use ext::StepsStoreExt;
pub use ids::{BuildId, StepId, StepNumber};
pub use input::InputError;
pub use key::IdempotencyKey;
pub use name::StepName;
pub use open_mode::OpenMode;
pub use request::{Request, Response};
pub use results::Results;
pub use state::StateString;
pub use step::{Step, StepBuilder};
pub use store::StepsStore;
pub use time::Timestamp;
pub use url::{StepUrl, UrlDigest};
pub use url_parameters::UrlParameters;
