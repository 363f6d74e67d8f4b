//! What a store should answer, written from the clauses in plain code.
//!
//! It is slow on purpose, and shares nothing with any store, nor with `steps_core::naming`: a rule that two
//! share, they would get wrong together.

use std::collections::{BTreeMap, BTreeSet};

use steps_core::{
    AddedStep, BuildId, FinishStep, NewStep, StartStep, Step, StepId, StepName, StepNumber, StepSelector, StepUrl,
    Timestamp,
};

/// The steps of some builds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    builds: BTreeMap<BuildId, Vec<Step>>,
    /// By build and key: the place of the step in its build (I5).
    keys: BTreeMap<(BuildId, String), usize>,
}

/// What an add should answer, but for an id that is still to be given.
#[derive(Clone, Debug)]
pub(crate) enum ExpectedAdd {
    /// The answer of an earlier add under the same key (I5).
    Again(AddedStep),
    /// A new step (I2, N2, N3).
    New { number: StepNumber, name: StepName },
}

impl Model {
    /// What adding this step should answer.
    pub(crate) fn expected_add(&self, new: &NewStep) -> ExpectedAdd {
        let steps = self.steps(new.build_id);
        let key = new.idempotency_key.as_ref().map(|key| (new.build_id, key.as_str().to_owned()));
        if let Some(place) = key.and_then(|key| self.keys.get(&key)) {
            let step = &steps[*place];
            return ExpectedAdd::Again(AddedStep::new(step.id, step.number, step.name.clone()));
        }
        let taken: BTreeSet<&str> = steps.iter().map(|step| step.name.as_str()).collect();
        let name = free_name(new.name.as_str(), |name| taken.contains(name));
        ExpectedAdd::New {
            number: number(steps.len()),
            name: StepName::new(name).expect("N1 holds for what N3 makes of a name"),
        }
    }

    /// Adds the step that an add made, under the id that it was given (L1).
    pub(crate) fn add(&mut self, new: NewStep, added: &AddedStep) {
        let steps = self.builds.entry(new.build_id).or_default();
        if let Some(key) = new.idempotency_key {
            self.keys.insert((new.build_id, key.into_string()), steps.len());
        }
        let (number, name) = (added.number, added.name.clone());
        steps.push(Step::builder(added.id, new.build_id, number, name, new.state_string).build());
    }

    /// Puts a step there as it is, after those of its build.
    pub(crate) fn put(&mut self, step: Step) {
        self.builds.entry(step.build_id).or_default().push(step);
    }

    /// Takes back the last [`add`](Self::add) to a build.
    pub(crate) fn take_back(&mut self, new: &NewStep) {
        let steps = self.builds.entry(new.build_id).or_default();
        steps.pop();
        let place = steps.len();
        self.keys.retain(|(build, _), of_key| *build != new.build_id || *of_key != place);
    }

    /// All steps of a build, ordered by number (R2).
    pub(crate) fn steps(&self, build: BuildId) -> &[Step] {
        self.builds.get(&build).map_or(&[], Vec::as_slice)
    }

    /// Every step there is, in no order that matters.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Step> {
        self.builds.values().flatten()
    }

    /// The step that this selects, or none (R1).
    pub(crate) fn step(&self, selector: &StepSelector) -> Option<&Step> {
        match selector {
            StepSelector::Id(id) => self.all().find(|step| step.id == *id),
            StepSelector::Number { build_id, number } => {
                self.steps(*build_id).iter().find(|step| step.number == *number)
            }
            StepSelector::Name { build_id, name } => self.steps(*build_id).iter().find(|step| step.name == *name),
        }
    }

    /// The step with this id, to be changed, or none (L6).
    pub(crate) fn step_mut(&mut self, id: StepId) -> Option<&mut Step> {
        self.builds.values_mut().flatten().find(|step| step.id == id)
    }
}

/// L2.
pub(crate) fn start(step: &mut Step, start: StartStep) {
    step.started_at = Some(start.started_at);
    if start.locks_acquired {
        step.locks_acquired_at = Some(start.started_at);
    }
}

/// L4.
pub(crate) fn finish(step: &mut Step, finish: FinishStep, now: Timestamp) {
    step.complete_at = Some(now);
    step.results = Some(finish.results);
    step.hidden = finish.hidden;
}

/// U1, U2.
pub(crate) fn add_url(step: &mut Step, url: StepUrl) {
    let is_there = step.urls.iter().any(|there| there.name() == url.name() && there.url() == url.url());
    if !is_there {
        step.urls.push(url);
    }
}

/// N2 and N3, by the letter.
pub(crate) fn free_name(requested: &str, is_taken: impl Fn(&str) -> bool) -> String {
    if !is_taken(requested) {
        return requested.to_owned();
    }
    let mut k = 1;
    loop {
        let suffix = format!("_{k}");
        let mut candidate: String = requested.chars().take(50 - suffix.len()).collect();
        candidate.push_str(&suffix);
        if !is_taken(&candidate) {
            return candidate;
        }
        k += 1;
    }
}

/// What the names of a build are, once these were asked for in turn.
pub(crate) fn names_of<'a>(requested: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let (mut taken, mut names) = (BTreeSet::new(), Vec::new());
    for requested in requested {
        let name = free_name(requested, |name| taken.contains(name));
        taken.insert(name.clone());
        names.push(name);
    }
    names
}

fn number(place: usize) -> StepNumber {
    StepNumber::new(u32::try_from(place).expect("a history is short"))
}

#[cfg(test)]
mod tests {
    use super::names_of;

    #[test]
    fn names_are_those_of_the_clauses_own_examples() {
        assert_eq!(names_of(["foo", "foo_1", "foo_1"]), ["foo", "foo_1", "foo_1_1"]);
        assert_eq!(names_of(["new", "new_2", "new", "new"]), ["new", "new_2", "new_1", "new_3"]);
        let (a, b) = (format!("{}aa", "é".repeat(48)), format!("{}bb", "é".repeat(48)));
        let cut = "é".repeat(48);
        assert_eq!(names_of([&*a, &b, &a, &b]), [a.clone(), b.clone(), format!("{cut}_1"), format!("{cut}_2")]);
    }
}
