//! The Lua scripts. Each operation has a file of its own, and shares the prelude and helper functions with others.

use std::sync::LazyLock;

use redis::Cmd;

/// A script with its SHA-1 hash, by which a server refers to a script that it has cached.
#[derive(Debug)]
pub(crate) struct Script {
    text: &'static str,
    hash: LazyLock<String>,
}

macro_rules! scripts {
    ($($name:ident: $($file:literal),+;)*) => {$(
        pub(crate) static $name: Script = {
            const TEXT: &str =
                concat!(include_str!("lua/prelude.lua"), $(include_str!(concat!("lua/", $file, ".lua"))),+);
            Script { text: TEXT, hash: LazyLock::new(|| redis::Script::new(TEXT).get_hash().to_owned()) }
        };
    )*};
}

scripts! {
    ADD_STEP: "add_step";
    ADD_STEP_WITH_KEY: "read", "idempotency", "add_step";
    START_STEP: "read", "replace", "start_step";
    SET_STEP_LOCKS_ACQUIRED_AT: "read", "replace", "set_step_locks_acquired_at";
    SET_STEP_STATE_STRING: "read", "set_step_state_string";
    FINISH_STEP: "read", "replace", "finish_step";
    ADD_URL: "read", "replace", "add_url";
    GET_STEP: "read", "get_step";
}

impl Script {
    /// A command that runs the script by its hash.
    pub(crate) fn by_hash(&self) -> Cmd {
        // This capacity suffices for most calls, so that the buffer does not grow while arguments are added.
        let mut cmd = Cmd::with_capacity(9, 384);
        cmd.arg("EVALSHA").arg(&*self.hash);
        cmd
    }

    /// A command that runs the script by its text, for a server that does not have it in its cache.
    pub(crate) fn by_text(&self) -> Cmd {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(self.text);
        cmd
    }
}
