//! Summaries of the clauses of the contract, which failures print.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! clauses {
    ($($name:ident: $text:literal;)*) => {
        /// A clause of the `StepsStore` contract.
        ///
        /// Displays as its name, such as `N3`. [`text`](Self::text) is a summary; the project's `docs/semantics.md` has
        /// the full contract.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Clause {
            $(#[doc = $text] $name,)*
        }

        impl Clause {
            /// All clauses, in the order of the contract.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name, such as `N3`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// A summary of the clause.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

clauses! {
    I1: "A step id is a positive i64, unique in the store, never reused, and the same after reopening. Within a \
        build, a later step has a greater id.";
    I2: "Numbers in a build are exactly 0, 1, 2, … in the order of the adds: no gap, no duplicate, under any number \
        of concurrent writers. A rejected or failed add uses up no number.";
    I3: "A build is only a positive i64: it is not declared, and a build without adds has no steps.";
    I4: "A store may declare limits. An add beyond a limit is refused with CapacityExceeded and changes nothing; a \
        read beyond it finds nothing.";
    I5: "A second add to the same build with the same idempotency key adds nothing and returns the answer of the \
        first, whatever its other arguments.";
    N1: "A step name is any text of 1 to 50 code points without control characters (U+0000 to U+001F, U+007F to \
        U+009F).";
    N2: "The requested name is used unchanged when it is free in its build.";
    N3: "A taken name becomes its first 50 - len(\"_k\") code points followed by _k, for the smallest k ≥ 1 whose \
        result is free. The suffix is appended to the name as requested, gaps are filled, and long names that share \
        a cut prefix share its suffixes.";
    N4: "Names are equal when their code points are: case counts, and nothing is normalised, padded or trimmed.";
    N5: "The cost of an add grows neither with the number of steps of the build, nor with the number of uses of its \
        name, nor with the number of long names that share its cut prefix.";
    L1: "A new step has the given state string, no times, no results and no urls, and is not hidden.";
    L2: "start_step sets started_at. With locks_acquired it also sets locks_acquired_at to the same time, and without \
        it leaves locks_acquired_at unchanged.";
    L3: "set_step_locks_acquired_at and set_step_state_string set the field in their name and no other.";
    L4: "finish_step sets complete_at to the clock of the store's handle, and results and hidden as given, \
        unconditionally: a second call overwrites all three.";
    L5: "There is no state machine: changes may come at any time and in any order, and the last one wins.";
    L6: "A change to a step that does not exist is NotFound, and changes nothing.";
    U1: "add_url appends. Urls are returned in the order in which they were added.";
    U2: "A pair (name, url) that the step already has is ignored, adjacent or not. The same name with another url, \
        and the same url with another name, are both stored.";
    U3: "No url is lost or doubled when several tasks or processes add concurrently.";
    U4: "Name and url of a url are any text, including the empty one: the store does not validate them.";
    U5: "The cost of adding a url does not grow with the number of urls of the step.";
    R1: "get_step takes exactly one of: an id; a build and a number; a build and a name. An absent step is None.";
    R2: "get_steps returns all steps of a build, including hidden ones, ordered by number: one consistent snapshot, \
        numbers 0 … n-1.";
    R3: "Every operation takes effect at one instant between its call and its answer, across all handles and \
        processes. Every later read sees a write that was answered with Ok.";
    T1: "Text is any Unicode without NUL; in UTF-8 up to 1 MiB for a state string and 64 KiB for a url or its name. \
        It is returned unchanged.";
    T2: "A Timestamp is UTC in whole microseconds, from year 1 to year 9999, and is returned unchanged.";
    T3: "Results are any i32.";
    D1: "On a durable backend, a write answered with Ok survives the death of the process.";
    D2: "An operation is all or nothing, even if a process or a server dies during it.";
    D3: "An error states its consequences for the caller: its kind, the step or build, whether a retry can help, and \
        whether the write may have been applied all the same.";
    D4: "No operation waits for ever: each ends within the configured time-out, with Unavailable if need be.";
    D5: "A call whose future is dropped in flight leaves the store usable and other calls unharmed; its write is \
        applied whole or not at all.";
    D6: "After a possible application, a store retries only reads, add_url and adds with a key.";
    D7: "close ends a store: acknowledged writes stay, waiting calls finish or fail, a second close is fine, and \
        every later call is Closed.";
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Clause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
