//! Holds this store to the contract, on a cluster that the tests start, or that `STEPS_TEST_REDIS_CLUSTER_URL` names.

mod factory;

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance_tests::main(factory::Redis {
        name: "redis-cluster",
        place: test_servers::shared_redis_cluster,
        parameters: "",
        is_cluster: true,
    })
}
