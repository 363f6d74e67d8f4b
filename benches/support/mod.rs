//! Modules that the benches share.
#![allow(dead_code, unreachable_pub, reason = "each bench uses some of the modules")]

pub mod arguments;
pub mod buildbot;
pub mod figures;
pub mod locations;
pub mod payload;
pub mod statistics;
