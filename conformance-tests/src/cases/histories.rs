//! Linearizability (R3): histories of concurrent callers, checked against the model.

use crate::{
    Feature,
    cases::{Needs, PEERS, cases, workload::Workload},
    failure::CaseResult,
    handle::Handle,
    test_env::{CaseSetup, TestEnv},
};

cases! { Property histories:
    of_tasks_are_linearizable [R3, R2, I2, I5, N3, U3];
    of_peers_are_linearizable [R3, R2, I2, I5, N3, U3] needs PEERS;
    of_processes_are_linearizable [R3, R2, I2, I5, N3, U3] needs Needs::Feature(Feature::Processes);
}

async fn of_tasks_are_linearizable(setup: &CaseSetup) -> CaseResult {
    of_handles(setup, async |env| Ok(vec![env.store().clone()])).await
}

async fn of_peers_are_linearizable(setup: &CaseSetup) -> CaseResult {
    of_handles(setup, async |env| Ok(vec![env.store().clone(), env.peer().await?, env.peer().await?])).await
}

async fn of_processes_are_linearizable(setup: &CaseSetup) -> CaseResult {
    of_handles(setup, async |env| Ok(vec![env.store().clone(), env.process().await?, env.process().await?])).await
}

/// Records histories of concurrent callers on these handles and checks them.
async fn of_handles(setup: &CaseSetup, handles: impl AsyncFn(&mut TestEnv) -> CaseResult<Vec<Handle>>) -> CaseResult {
    let mut env = setup.env().await?;
    let result = async {
        let handles = handles(&mut env).await?;
        for round in 0..setup.suite.config.cases.div_ceil(8) {
            setup.log.clear();
            let workload = Workload::new(&env, setup.context.seed(), u64::from(round));
            // Alternates between tasks and threads. The operating system may preempt a thread between any two
            // instructions.
            workload.run(&handles, round % 2 == 1).await?.check()?;
        }
        Ok(())
    };
    let result = result.await;
    env.end(result).await
}
