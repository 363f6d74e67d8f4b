//! Random histories, compared with the reference model after each operation and at the end.

use std::collections::HashSet;

use proptest::{collection::vec, strategy::Strategy};
use steps_core::{
    BuildId, ErrorKind, IdempotencyKey, NewStep, StateString, StepId, StepName, StepSelector, StepUrl, StepsStore,
    StepsStoreExt,
};

use crate::{
    Clause, Feature,
    cases::{
        cases,
        values::{missing_ids, new_step},
    },
    compare::{expect_found, expect_steps},
    failure::{CaseResult, expect, expect_eq, expect_error, expect_text},
    handle::Handle,
    history::{Abilities, BUILDS, Operation, Target, Turn, adds, histories, long_names, names, urls},
    model::{self, ExpectedAdd, Model, names_of},
    property::check,
    test_env::{CaseSetup, Ending, TestEnv},
};

cases! { Property model:
    random_histories_agree [R3, I1, I2, I3, I5, N2, N3, N4, L1, L2, L3, L4, L5, L6, U1, U2, R1, R2];
    random_adds_are_numbered [I2, I1, I5];
    random_names_get_the_smallest_suffix [N3, N2];
    random_urls_keep_their_order [U1, U2];
}

/// The maximum number of operations in a history.
const MAX_LENGTH: usize = 40;

async fn random_histories_agree(setup: &CaseSetup) -> CaseResult {
    let abilities = Abilities { reopen: setup.claims(Feature::Reopen), peers: setup.claims(Feature::Peers) };
    check(setup, histories(MAX_LENGTH, abilities), async |env, turns| run(env, turns).await).await
}

async fn random_adds_are_numbered(setup: &CaseSetup) -> CaseResult {
    let turns = vec(adds(names()).prop_map(|operation| Turn { by_peer: false, operation }), 1..=MAX_LENGTH);
    check(setup, turns, async |env, turns| run(env, turns).await).await
}

async fn random_names_get_the_smallest_suffix(setup: &CaseSetup) -> CaseResult {
    let requested = vec(long_names(), 1..=2 * MAX_LENGTH);
    check(setup, requested, async |env, requested| {
        let store = env.store();
        let build = env.build();
        for (requested, expected) in requested.iter().zip(names_of(requested.iter().map(String::as_str))) {
            let added = store.add_step(new_step(build, requested, "")?).await?;
            let clause = if *requested == expected { Clause::N2 } else { Clause::N3 };
            expect_text(clause, "the name that the last add returned", added.name.as_str(), &expected)?;
        }
        Ok(())
    })
    .await
}

async fn random_urls_keep_their_order(setup: &CaseSetup) -> CaseResult {
    let urls = urls((0..2_usize).prop_map(Target::Added));
    let urls = vec(urls.prop_map(|operation| Turn { by_peer: false, operation }), 1..=MAX_LENGTH);
    check(setup, urls, async |env, urls| {
        let add = |name: &str| Operation::Add { build: 0, name: name.into(), state: String::new(), key: None };
        let adds = ["a", "b"].map(|name| Turn { by_peer: false, operation: add(name) });
        run(env, adds.into_iter().chain(urls).collect()).await
    })
    .await
}

/// Runs a history on fresh builds. Compares each result and the changed build, and at the end all builds.
async fn run(env: &mut TestEnv, turns: Vec<Turn>) -> CaseResult {
    let mut runner = Runner::new(env)?;
    for Turn { by_peer, operation } in turns {
        if let Operation::Reopen { close } = operation {
            runner.peer = None;
            runner.env.reopen(if close { Ending::Closed } else { Ending::Dropped }).await?;
            continue;
        }
        if by_peer && runner.peer.is_none() {
            runner.peer = Some(runner.env.peer().await?);
        }
        runner.turn(by_peer, operation).await?;
    }
    runner.compare_all().await
}

struct Runner<'a> {
    env: &'a mut TestEnv,
    peer: Option<Handle>,
    builds: [BuildId; BUILDS],
    model: Model,
    /// The added steps, in order.
    steps: Vec<StepId>,
    missing: StepId,
}

impl<'a> Runner<'a> {
    fn new(env: &'a mut TestEnv) -> CaseResult<Self> {
        let builds = std::array::from_fn(|_| env.build());
        let [missing, ..] = missing_ids()?;
        Ok(Self { env, peer: None, builds, model: Model::default(), steps: Vec::new(), missing })
    }

    fn handle(&self, by_peer: bool) -> &Handle {
        self.peer.as_ref().filter(|_| by_peer).unwrap_or_else(|| self.env.store())
    }

    fn id(&self, target: Target) -> StepId {
        match target {
            Target::Added(n) => *self.steps.get(n).or(self.steps.last()).unwrap_or(&self.missing),
            Target::Missing => self.missing,
        }
    }

    async fn turn(&mut self, by_peer: bool, operation: Operation) -> CaseResult {
        match operation {
            Operation::Add { build, name, state, key } => {
                let mut new = NewStep::new(self.builds[build], StepName::new(name)?, StateString::new(state)?);
                if let Some(key) = key {
                    new = new.with_idempotency_key(IdempotencyKey::new(format!("key {key}"))?);
                }
                self.add(by_peer, new).await
            }
            Operation::Start(step, start) => {
                let id = self.id(step);
                let got = self.handle(by_peer).start_step(id, start).await;
                self.changed(by_peer, id, got, |step| model::start(step, start)).await
            }
            Operation::Locks(step, at) => {
                let id = self.id(step);
                let got = self.handle(by_peer).set_step_locks_acquired_at(id, at).await;
                self.changed(by_peer, id, got, |step| step.locks_acquired_at = Some(at)).await
            }
            Operation::State(step, state) => {
                let id = self.id(step);
                let state = StateString::new(state)?;
                let got = self.handle(by_peer).set_step_state_string(id, state.clone()).await;
                self.changed(by_peer, id, got, |step| step.state_string = state).await
            }
            Operation::Finish(step, finish, now) => {
                let id = self.id(step);
                self.env.set_clock(now);
                let got = self.handle(by_peer).finish_step(id, finish).await;
                self.changed(by_peer, id, got, |step| model::finish(step, finish, now)).await
            }
            Operation::Url(step, name, link) => {
                let id = self.id(step);
                let url = StepUrl::new(name, link)?;
                let got = self.handle(by_peer).add_url(id, url.clone()).await;
                self.changed(by_peer, id, got, |step| model::add_url(step, url)).await
            }
            Operation::GetById(step) => self.get(by_peer, self.id(step).into()).await,
            Operation::GetByNumber { build, number } => {
                self.get(by_peer, StepSelector::number(self.builds[build], number.into())).await
            }
            Operation::GetByName { build, name } => {
                self.get(by_peer, StepSelector::name(self.builds[build], StepName::new(name)?)).await
            }
            Operation::GetSteps { build } => self.compare(by_peer, self.builds[build], None).await,
            Operation::Reopen { .. } => unreachable!("`run` handles reopening"),
        }
    }

    async fn add(&mut self, by_peer: bool, new: NewStep) -> CaseResult {
        let build = new.build_id;
        let expected = self.model.expected_add(&new);
        let added = self.handle(by_peer).add_step(new.clone()).await?;
        let clause = match expected {
            ExpectedAdd::Again(first) => {
                expect_eq(Clause::I5, "the result of the last add, which repeats a key", added, first)?;
                Clause::I5
            }
            ExpectedAdd::New { number, name } => {
                expect_eq(Clause::I2, "the number that the last add returned", added.number, number)?;
                let clause = if name == new.name { Clause::N2 } else { Clause::N3 };
                expect_text(clause, "the name that the last add returned", added.name.as_str(), name.as_str())?;
                let what = "the id that the last add returned";
                let is_new = self.model.all().all(|step| step.id != added.id);
                expect(Clause::I1, what, added.id, "an id that no other step has", is_new)?;
                let last = self.model.steps(build).last().map_or(0, |step| step.id.get());
                let expected = format_args!("an id greater than {last}, the last one of the build");
                expect(Clause::I1, what, added.id, expected, added.id.get() > last)?;
                self.model.add(new, &added);
                self.steps.push(added.id);
                Clause::L1
            }
        };
        self.compare(by_peer, build, Some(clause)).await
    }

    /// Applies an acknowledged change to the model, or expects an error if the step does not exist.
    async fn changed(
        &mut self,
        by_peer: bool,
        id: StepId,
        got: steps_core::Result<()>,
        change: impl FnOnce(&mut steps_core::Step),
    ) -> CaseResult {
        let Some(step) = self.model.step_mut(id) else {
            expect_error(Clause::L6, "the last change, of a missing step", got, ErrorKind::NotFound)?;
            return expect_found(
                Some(Clause::L6),
                "the missing step",
                self.handle(by_peer).step(id).await?.as_ref(),
                None,
            );
        };
        got?;
        change(step);
        let build = step.build_id;
        self.compare(by_peer, build, None).await
    }

    async fn get(&self, by_peer: bool, selector: StepSelector) -> CaseResult {
        let got = self.handle(by_peer).get_step(selector.clone()).await?;
        expect_found(Some(Clause::R1), "the result of the last read", got.as_ref(), self.model.step(&selector))
    }

    /// Compares a build with the model. Differences are blamed on `clause`, if given.
    async fn compare(&self, by_peer: bool, build: BuildId, clause: Option<Clause>) -> CaseResult {
        let got = self.handle(by_peer).steps(build).await?;
        expect_steps(clause, "the steps of the build", &got, self.model.steps(build))
    }

    /// Compares all builds through every handle, and all steps through every selector.
    async fn compare_all(&self) -> CaseResult {
        for by_peer in [false, true].into_iter().take(1 + usize::from(self.peer.is_some())) {
            for build in self.builds {
                self.compare(by_peer, build, None).await?;
            }
        }
        let store = self.env.store();
        for expected in self.model.all() {
            let selectors = [
                StepSelector::Id(expected.id),
                StepSelector::number(expected.build_id, expected.number),
                StepSelector::name(expected.build_id, expected.name.clone()),
            ];
            for selector in selectors {
                let got = store.get_step(selector).await?;
                expect_found(Some(Clause::R1), "the result of the last read", got.as_ref(), Some(expected))?;
            }
        }
        let ids: HashSet<_> = self.steps.iter().collect();
        expect_eq(Clause::I1, "how many ids there are", ids.len(), self.steps.len())
    }
}
