//! Runs the conformance suite on a cluster: a private one, or the one that `STEPS_TEST_REDIS_CLUSTER_URL` names.

mod factory;

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance_tests::main(factory::Redis {
        name: "redis-cluster",
        new_prefix: test_servers::shared_redis_cluster,
        parameters: "",
        is_cluster: true,
    })
}
