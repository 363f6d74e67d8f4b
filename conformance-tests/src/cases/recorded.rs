//! The responses of Buildbot: a case for each recorded scenario.

use std::sync::Arc;

use crate::{
    Clause,
    cases::{Body, Case},
    recorded::Scenario,
};

pub(super) fn cases() -> Vec<Case> {
    let case = |scenario: Scenario| Case {
        name: format!("recorded::{}", scenario.name()),
        clauses: vec![
            Clause::R1,
            Clause::R2,
            Clause::I2,
            Clause::N2,
            Clause::N3,
            Clause::L1,
            Clause::L2,
            Clause::L3,
            Clause::L4,
            Clause::L5,
            Clause::U1,
            Clause::U2,
        ],
        needs: None,
        body: Body::Scenario(Arc::new(scenario)),
    };
    Scenario::buildbot().into_iter().map(case).collect()
}
