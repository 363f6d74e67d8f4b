//! Handles in other processes.
//!
//! The suite starts its own program again as a child. The child opens the fixture by its token, reads requests from its
//! standard input and writes responses to its standard output.
//!
//! For a case, a child is one more handle on the store. The parent times all calls with one clock, so the
//! linearizability check also applies to histories of several processes.

mod child;
mod parent;
mod protocol;

pub use child::child;
pub(crate) use parent::Process;
pub(crate) use protocol::Handshake;

/// Environment variable that is set in a child.
const CHILD: &str = "STEPS_CONFORMANCE_CHILD";

/// First line that a child writes. A program that does not call [`child`] writes another line or none.
const BANNER: &str = "conformance-tests: a child";
