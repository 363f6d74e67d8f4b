//! The scripts: one an operation, each in a file of its own, behind those of what it shares with others.

use std::sync::LazyLock;

use redis::{Cmd, Script};

/// A script, and the hash under which a server that has seen it knows it.
#[derive(Debug)]
pub(crate) struct Code {
    text: &'static str,
    hash: LazyLock<String>,
}

macro_rules! scripts {
    ($($name:ident: $($file:literal),+;)*) => {$(
        pub(crate) static $name: Code = {
            const TEXT: &str =
                concat!(include_str!("lua/record.lua"), $(include_str!(concat!("lua/", $file, ".lua"))),+);
            Code { text: TEXT, hash: LazyLock::new(|| Script::new(TEXT).get_hash().to_owned()) }
        };
    )*};
}

scripts! {
    ADD_STEP: "add_step";
    ADD_STEP_WITH_KEY: "read", "known_key", "add_step";
    START_STEP: "read", "replace", "start_step";
    SET_STEP_LOCKS_ACQUIRED_AT: "read", "replace", "set_step_locks_acquired_at";
    SET_STEP_STATE_STRING: "read", "set_step_state_string";
    FINISH_STEP: "read", "replace", "finish_step";
    ADD_URL: "read", "replace", "add_url";
    GET_STEP: "read", "get_step";
}

impl Code {
    /// The script by its hash.
    pub(crate) fn by_hash(&self) -> Cmd {
        // For most calls, so that they are put together without the memory growing step by step.
        let mut cmd = Cmd::with_capacity(9, 384);
        cmd.arg("EVALSHA").arg(&*self.hash);
        cmd
    }

    /// The script itself, for a server that does not know it yet, or no longer.
    pub(crate) fn by_text(&self) -> Cmd {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(self.text);
        cmd
    }
}
