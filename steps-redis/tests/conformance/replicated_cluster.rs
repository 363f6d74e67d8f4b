//! Runs the conformance suite with replicated writes, on a private cluster.

mod factory;

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance_tests::main(factory::Redis {
        name: "redis-cluster-replicated",
        new_prefix: test_servers::shared_replicated_redis_cluster,
        parameters: "&replicas=1",
        is_cluster: true,
    })
}
