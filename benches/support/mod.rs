//! What the benches share: the payload, the places where stores keep their data, and medians.
#![allow(dead_code, unreachable_pub, reason = "each bench uses a part of it")]

pub mod buildbot;
pub mod payload;
pub mod places;
pub mod statistics;
