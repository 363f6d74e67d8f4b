//! Runs the conformance suite on this store.

use std::process::ExitCode;

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
use steps_memory::{MemoryOptions, MemoryStore};

struct Memory;

#[async_trait]
impl StoreFactory for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    fn profile(&self) -> Profile {
        Profile::strict()
            .without(Feature::Reopen, "the data is lost with the store")
            .without(Feature::Peers, "all handles are clones of one `Arc`")
            .without(Feature::Processes, "the data is lost with the process")
            .without(Feature::Faults, "it has no server or connection that can fail")
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        Ok(Fixture::new(MemoryStore::with_options(MemoryOptions::new().with_clock(case.clock()))))
    }
}

fn main() -> ExitCode {
    conformance_tests::main(Memory)
}
