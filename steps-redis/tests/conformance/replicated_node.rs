//! Runs the conformance suite with replicated writes, on a private server with one replica.

mod factory;

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance_tests::main(factory::Redis {
        name: "redis-replicated",
        new_prefix: test_servers::shared_replicated_redis,
        parameters: "&replicas=1",
        is_cluster: false,
    })
}
