//! The clauses of the contract, in short: what a failure prints.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! clauses {
    ($($name:ident: $text:literal;)*) => {
        /// A clause of the `StepsStore` contract.
        ///
        /// It is shown under its name, such as `N3`; [`text`](Self::text) says what it asks for, in short.
        /// The whole contract stands in the project's `docs/semantics.md`.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Clause {
            $(#[doc = $text] $name,)*
        }

        impl Clause {
            /// All clauses, in the order of the contract.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name, such as `N3`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// What it asks for, in short.
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
    I1: "A step id is a positive i64, unique in the store, never reused, the same after reopening. Within a build, a later step has a greater id.";
    I2: "Numbers in a build are exactly 0, 1, 2, … in the order of the adds: no gap, no duplicate, under any number of concurrent writers. A rejected or failed add uses up no number.";
    I3: "A build is only a positive i64: nothing declares it, and one that nobody added to has no steps.";
    I4: "A store may declare limits. Past one an add is refused with CapacityExceeded and nothing stored changes; reads past it find nothing.";
    I5: "A second add to the same build with the same idempotency key adds nothing and gets the first one's answer, whatever else it asks for.";
    N1: "A step name is an identifier of 1 to 50 code points: the first an ASCII letter, '_', '-' or any code point from U+00A0 up; the others may also be ASCII digits.";
    N2: "The requested name is used as it is when it is free in its build.";
    N3: "A taken name becomes its first 50 - len(\"_k\") code points followed by _k, for the smallest k ≥ 1 whose result is free. The suffix is appended to the name as requested, gaps are filled, and long names that share a cut prefix share its suffixes.";
    N4: "Names are equal when their code points are: case counts, nothing is normalised, padded or trimmed.";
    N5: "The cost of an add does not grow with the steps of the build, nor with how often its name was used, nor with how many long names share its cut prefix.";
    L1: "A new step has the given state string, and no times, no results, no urls; it is not hidden.";
    L2: "start_step sets started_at; with locks_acquired it sets locks_acquired_at to the same time, without it it leaves locks_acquired_at as it was.";
    L3: "set_step_locks_acquired_at and set_step_state_string set what their names say, and only that.";
    L4: "finish_step sets complete_at to the clock of the store's handle, and results and hidden as given, unconditionally: a second call overwrites all three.";
    L5: "There is no state machine: any change may come at any time, in any order, and the last one wins.";
    L6: "A change to a step that does not exist is NotFound, and changes nothing.";
    U1: "add_url appends; urls are read back in the order in which they were added.";
    U2: "A pair (name, url) that the step already has is ignored, adjacent or not. The same name with another url, and the same url with another name, are both kept.";
    U3: "No url is lost or doubled when several tasks or processes add at once.";
    U4: "Name and url of a url are any text, the empty one included: the store does not judge them.";
    U5: "The cost of adding a url does not grow with how many the step has.";
    R1: "get_step takes exactly one of: an id; a build and a number; a build and a name. Absent is None.";
    R2: "get_steps gives all steps of a build, hidden ones too, ordered by number: one consistent snapshot, numbers 0 … n-1.";
    R3: "Every operation takes effect at one instant between its call and its answer, across all handles and processes. What was answered with Ok is seen by every later read.";
    T1: "Text is any Unicode without NUL; in UTF-8 up to 1 MiB a state string and 64 KiB a url or its name. It comes back as it was given.";
    T2: "A Timestamp is UTC in whole microseconds, from year 1 to year 9999, and comes back as it was given.";
    T3: "Results are any i32.";
    D1: "On a durable backend, a write answered with Ok survives the death of the process.";
    D2: "An operation is all or nothing, whatever dies in the middle.";
    D3: "An error says what it means for the caller: its kind, which step or build, whether trying again can help, and whether the write may have been applied all the same.";
    D4: "No operation waits for ever: each ends within the configured time-out, with Unavailable if need be.";
    D5: "A call whose future is dropped half-way leaves the store usable and no other call harmed; its write is applied whole or not at all.";
    D6: "A store tries again after a possible application only reads, add_url and adds with a key.";
    D7: "close ends a store: what was answered stays, what waits is finished or gets an error, a second close is fine, and every later call is Closed.";
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
