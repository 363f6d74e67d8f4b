//! Linearizability (R3): what many callers did to a build at once and saw of it, held to the model.

use crate::{
    Feature,
    cases::{Needs, PEERS, cases, crowd::Crowd},
    failure::Checked,
    handle::Handle,
    stage::{Setup, Stage},
};

cases! { Property histories:
    of_tasks_are_linearizable [R3, R2, I2, I5, N3, U3];
    of_peers_are_linearizable [R3, R2, I2, I5, N3, U3] needs PEERS;
    of_processes_are_linearizable [R3, R2, I2, I5, N3, U3] needs Needs::Feature(Feature::Processes);
}

async fn of_tasks_are_linearizable(setup: &Setup) -> Checked {
    of_handles(setup, async |stage| Ok(vec![stage.store().clone()])).await
}

async fn of_peers_are_linearizable(setup: &Setup) -> Checked {
    of_handles(setup, async |stage| Ok(vec![stage.store().clone(), stage.peer().await?, stage.peer().await?])).await
}

async fn of_processes_are_linearizable(setup: &Setup) -> Checked {
    of_handles(setup, async |stage| Ok(vec![stage.store().clone(), stage.process().await?, stage.process().await?]))
        .await
}

/// Records histories of callers on these handles, and checks them.
async fn of_handles(setup: &Setup, handles: impl AsyncFn(&mut Stage) -> Checked<Vec<Handle>>) -> Checked {
    let mut stage = setup.stage().await?;
    let result = async {
        let handles = handles(&mut stage).await?;
        for round in 0..setup.suite.config.cases.div_ceil(8) {
            setup.log.clear();
            let crowd = Crowd::new(&stage, setup.context.seed(), u64::from(round));
            // In turn as tasks, and on threads of their own, which the machine interrupts anywhere.
            crowd.run(&handles, round % 2 == 1).await?.check()?;
        }
        Ok(())
    };
    let result = result.await;
    stage.end(result).await
}
