//! Checks that a store of build steps keeps the `StepsStore` contract.

mod calls;
mod cases;
mod clauses;
mod code;
mod compare;
mod config;
mod context;
mod factory;
mod failure;
mod handle;
mod harness;
mod history;
mod model;
mod profile;
mod property;
mod report;
mod stage;

pub use clauses::Clause;
pub use config::{Config, ConfigError};
pub use context::CaseContext;
pub use factory::{BoxError, Fixture, StoreFactory};
pub use failure::Failure;
pub use harness::{main, run, trials};
pub use profile::{Feature, Profile};
pub use report::{CaseReport, Outcome, Report};
