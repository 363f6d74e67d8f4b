//! Runs the real program, with real commands and real files.
#![cfg(unix)]

#[cfg(feature = "conformance")]
mod conformance;
mod conventions;
mod failing_store;
mod files;
mod operations;
#[cfg(feature = "postgres")]
mod postgres;
mod run;
mod show;
mod signals;
mod support;
