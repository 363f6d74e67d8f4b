//! Other processes: the suite runs itself again as a child, which opens the fixture by its token and does what it is
//! asked to through its standard input.
//!
//! For the cases, a child is one more handle on the store. Since the calls of all handles are made and answered here, one
//! clock times them, and histories of several processes are checked like any other.

mod child;
mod parent;
mod protocol;

pub use child::child;
pub(crate) use parent::Process;
pub(crate) use protocol::Hello;

/// Set in the environment of a child.
const CHILD: &str = "STEPS_CONFORMANCE_CHILD";

/// The first line that a child says, so that it is not taken for one who is none.
const GREETING: &str = "conformance-tests: a child";
