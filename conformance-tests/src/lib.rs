//! Checks that a store of build steps keeps the [`StepsStore`](steps_core::StepsStore) contract, clause by clause.
//!
//! It runs on any store, in this workspace or not: what a backend's author writes is a [`StoreFactory`],
//! and a test of one line.
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
//! In `tests/conformance.rs`, for a store that keeps its steps in a file:
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
//!             .without(Feature::Processes, "one process at a time holds the file's lock")
//!             .without(Feature::Faults, "nothing makes the disk fail on cue")
//!     }
//!
//!     async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
//!         let folder = tempfile::tempdir()?;
//!         let (path, clock) = (folder.path().join("steps"), case.clock());
//!         let open = move || {
//!             let (path, clock) = (path.clone(), clock.clone());
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
//! `cargo test --test conformance` then runs every case, with the filters and options of any test program.
//! [`run`] gives a [`Report`] instead, as text or JSON, and [`trials`] the cases, to run along with one's own.
//!
//! # What it checks
//! | cases | what |
//! |---|---|
//! | `add_step`, `keys`, `lifecycle`, `add_url`, `reads`, `close`, … | every clause at its edges, by example |
//! | `text`, `times` | what every store must take: the greatest texts and times, whatever JSON, SQL, Lua or a terminal escapes |
//! | `tasks`, `dropped`, `peers`, `reopen`, `limits` | tasks at once, calls given up half-way; where the store offers it, several handles, restarts, limits |
//! | `histories` | many callers on one build, on one handle, peers and in processes, held to the model: linearizability |
//! | `processes` | children of the suite on the same store: numbers, keys and urls at once, one that is killed at work |
//! | `faults` | connections that are cut, reset, delayed or silent at any byte, by a [`proxy`]: deadlines, honest errors, no write twice, recovery |
//! | `model` | random histories beside a reference model, shrunk to the fewest operations that fail |
//! | `recorded` | 64 scenarios that Buildbot itself answered: see [`recorded`] |
//! | `profile` | what the profile claims is there |
//!
//! What a *value* may be is no store's matter: the types of `steps-core` refuse the others before a store is asked.
//! Costs (N5, U5) are left to benchmarks.
//!
//! # What it asks of a store
//! Nothing is deleted: the suite adds to builds of its own, drawn afresh in each run, and reads those. It
//! may run on a store that is full of other people's steps, many times, and several times at once. Every
//! handle takes the time from the [clock of the case](CaseContext::clock).
//!
//! # What a failure says
//! The clause with its text, what was expected and what came, the calls as Rust that can be pasted into a
//! test, and the command that runs the case again with the same seed:
//!
//! ```text
//! clause N3: A taken name becomes its first 50 - len("_k") code points followed by _k, for the smallest k ≥ 1 whose …
//!
//! the name that the last add answers
//!   expected: "a_1"
//!        got: "a_2" (they part at character 2: U+0032 for U+0031)
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
//! Each run has a fresh seed, so that many runs see more than one; `STEPS_CONFORMANCE_SEED` fixes it.
//! `STEPS_CONFORMANCE_CASES` says how many random cases each property has: 64 unless it is set, `1000` for
//! a night. No files are written.
//!
//! # Versions
//! The crate follows semantic versioning, and what it asks of a store is part of that. A new case may fail on a store
//! that passed before, so cases come with minor versions, before 1.0 too (0.1 to 0.2), and never with a patch. A case
//! keeps its name: profiles and scripts refer to it. All names stand in `cases.txt` of this crate, with the clauses that
//! each checks; a test compares, so that none is renamed by mistake.

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
