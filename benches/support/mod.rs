//! What the benches share: arguments, the payload, the places where stores keep their data, medians, and what is printed.
#![allow(dead_code, unreachable_pub, reason = "each bench uses a part of it")]

pub mod arguments;
pub mod buildbot;
pub mod figures;
pub mod payload;
pub mod places;
pub mod statistics;
