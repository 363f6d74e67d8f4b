//! Holds this store to the contract while its writes wait for a replica, on a server with one that the tests start.

mod factory;

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance_tests::main(factory::Redis {
        name: "redis-replicated",
        place: test_servers::shared_replicated_redis,
        parameters: "&replicas=1",
        is_cluster: false,
    })
}
