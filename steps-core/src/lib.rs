//! The [`StepsStore`] trait, its data types and the rules that all stores share.
//!
//! A build runs steps. Each step has a number (from 0) and a name that are unique in its build, a state string, times,
//! results, urls and a hidden flag. This crate defines the contract of a store of such steps; other crates implement
//! it. It does no I/O and needs no runtime.
//!
//! Each rule is in one place:
//!
//! | rule | item |
//! |---|---|
//! | valid step names, and the suffix of a name that is taken | [`StepName`], [`naming`] |
//! | valid text and its length | [`StateString`], [`StepUrl`], [`limits`] |
//! | range and precision of times | [`Timestamp`] |
//! | ranges of ids and numbers | [`StepId`], [`BuildId`], [`StepNumber`] |
//! | the meaning of an error for the caller | [`Error`], [`ErrorKind`] |
//! | the duties of a store | [`StepsStore`] |
//!
//! The types check their values when they are constructed, so a store does not check them again.
//!
//! The labels in the documentation (I2, N3, U1 …) name clauses of the contract, `docs/semantics.md` in the project's
//! repository.

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
