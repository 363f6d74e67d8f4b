//! Holds this store to the contract, on a server that the tests start, or that `STEPS_TEST_REDIS_URL` names.

mod factory;

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance_tests::main(factory::Redis {
        name: "redis",
        place: test_servers::shared_redis,
        parameters: "",
        is_cluster: false,
    })
}
