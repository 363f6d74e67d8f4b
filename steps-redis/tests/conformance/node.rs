//! Runs the conformance suite on one server: a private one, or the one that `STEPS_TEST_REDIS_URL` names.

mod factory;

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance_tests::main(factory::Redis {
        name: "redis",
        new_prefix: test_servers::shared_redis,
        parameters: "",
        is_cluster: false,
    })
}
