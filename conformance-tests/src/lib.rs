//! Checks that a store of build steps keeps the [`StepsStore`](steps_core::StepsStore) contract, clause by clause.
//!
//! The suite runs on any store, in this workspace or elsewhere. A backend needs a [`StoreFactory`] and a test of one
//! line.
//!
//! # Use
//! In `Cargo.toml`:
//!
//! ```toml
//! [dev-dependencies]
//! async-trait = "0.1"
//! conformance-tests = "0.1"
//!
//! [[test]]
//! name = "conformance"
//! harness = false
//! ```
//!
//! In `tests/conformance.rs`, for a store with a file:
//!
//! ```no_run
//! # mod my_store {
//! #     use std::{path::Path, sync::Arc};
//! #     use steps_core::{Clock, Result};
//! #     pub use steps_memory::MemoryStore as MyStore;
//! #     pub async fn open(_: &Path, clock: Arc<dyn Clock>) -> Result<MyStore> {
//! #         Ok(MyStore::with_options(steps_memory::MemoryOptions::new().with_clock(clock)))
//! #     }
//! # }
//! # mod tempfile {
//! #     use std::{io, path::{Path, PathBuf}};
//! #     pub struct TempDir(PathBuf);
//! #     impl TempDir { pub fn path(&self) -> &Path { &self.0 } }
//! #     pub fn tempdir() -> io::Result<TempDir> { Ok(TempDir(PathBuf::new())) }
//! # }
//! use std::process::ExitCode;
//!
//! use async_trait::async_trait;
//! use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
//!
//! struct MyFactory;
//!
//! #[async_trait]
//! impl StoreFactory for MyFactory {
//!     fn name(&self) -> &str {
//!         "mine"
//!     }
//!
//!     fn profile(&self) -> Profile {
//!         Profile::strict()
//!             .without(Feature::Processes, "the file is locked by one process")
//!             .without(Feature::Faults, "there is no server")
//!     }
//!
//!     async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
//!         let folder = tempfile::tempdir()?;
//!         let path = folder.path().join("steps");
//!         let clock = case.clock();
//!         let open = move || {
//!             let path = path.clone();
//!             let clock = clock.clone();
//!             async move { Ok(my_store::open(&path, clock).await?) }
//!         };
//!         Ok(Fixture::new(open().await?).with_guard(folder).with_peer(open.clone()).with_reopen(open))
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     conformance_tests::main(MyFactory)
//! }
//! ```
//!
//! `cargo test --test conformance` then runs every case, with the filters and options of any test program. [`run`]
//! returns a [`Report`] instead, as text or JSON, and [`trials`] returns the cases, to run together with others.
//!
//! # Checks
//! - `add_step`, `keys`, `lifecycle`, `add_url`, `reads`, `close` and others: examples for every clause and its edge
//!   cases.
//! - `text`, `times`: the longest texts, the extreme times, and characters that JSON, SQL, Lua or a terminal escapes.
//! - `tasks`, `dropped`: concurrent tasks, and calls that are dropped in flight.
//! - `peers`, `reopen`, `limits`: several handles, restarts and limits, if the store has them.
//! - `histories`: linearizability of many callers on one build, on one handle, on peers and in several processes.
//! - `processes`: child processes that share the store, one of which is killed in flight.
//! - `faults`: connections that are cut, reset, delayed or silent at any byte, through a [`proxy`]. They check
//!   deadlines, honest errors, recovery, and that no write is applied twice.
//! - `model`: random histories compared with a reference model. A history that fails is shrunk.
//! - `recorded`: 80 scenarios with the answers of Buildbot itself, see [`recorded`].
//! - `profile`: the store supports the features that its profile claims.
//!
//! Invalid *values* need no case: the types of `steps-core` reject them before a store is called. Costs (N5, U5) are
//! left to benchmarks.
//!
//! # Requirements on a store
//! The suite deletes nothing. It adds to its own builds, which differ in each run, and reads only those. So it may run
//! on a store with other steps, many times, and several times concurrently. Every handle must use the
//! [clock of the case](CaseContext::clock).
//!
//! # Failures
//! A failure shows the clause with its text, the expected and the actual value, the calls as Rust code for a test, and
//! the command that runs the case again with the same seed:
//!
//! ```text
//! clause N3: A taken name becomes its first 50 - len("_k") code points followed by _k, for the smallest k ≥ 1 whose …
//!
//! the name that the last add returned
//!   expected: "a_1"
//!        got: "a_2" (they differ from character 2: U+0032 for U+0031)
//!
//! the calls, to paste into a test:
//!     use steps_core::*;
//!     let build_0 = BuildId::new(6029182033452193111)?;
//!     let step_0 = store.add(build_0, "a", "").await?; // id 1, number 0, "a"
//!     let step_1 = store.add(build_0, "a", "").await?; // id 2, number 1, "a_2"
//!
//! run it again, with the same seed:
//!     STEPS_CONFORMANCE_SEED=17 cargo test -p my-store --test conformance -- --exact model::random_adds_are_numbered
//! ```
//!
//! # Seeds
//! Each run draws a fresh seed, so that repeated runs cover more. `STEPS_CONFORMANCE_SEED` fixes the seed.
//! `STEPS_CONFORMANCE_CASES` sets the number of random cases of each property: 64 by default, and `1000` suits a
//! nightly run. The suite writes no files.
//!
//! # Versions
//! The crate follows semantic versioning, and its requirements on stores are part of the interface. A new case may fail
//! on a store that passed before, so new cases appear only in minor versions, before 1.0 too (0.1 to 0.2). The name of
//! a case is stable, since profiles and scripts refer to it. `cases.txt` of this crate lists all names with their
//! clauses, and a test compares the list, so that no case is renamed by mistake.

#![cfg_attr(docsrs, feature(doc_cfg))]

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
mod linear;
mod model;
mod process;
mod profile;
mod property;
pub mod proxy;
pub mod recorded;
mod replay_pool;
mod report;
mod rng;
mod test_env;

pub use clauses::Clause;
pub use config::{Config, ConfigError};
pub use context::CaseContext;
pub use factory::{BoxError, Fixture, StoreFactory};
pub use failure::Failure;
pub use harness::{main, run, run_watched, trials};
pub use process::child;
pub use profile::{Feature, Profile};
pub use report::{CaseReport, Outcome, Progress, Report};
