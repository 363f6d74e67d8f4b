//! Reference model of a store, a direct translation of the clauses.
//!
//! The code is simple and slow on purpose. It shares no code with the stores or with `steps_core::naming`, since a
//! fault in shared code would go unnoticed.

use std::collections::{BTreeMap, BTreeSet};

use steps_core::{
    AddedStep, BuildId, FinishStep, NewStep, StartStep, Step, StepId, StepName, StepNumber, StepSelector, StepUrl,
    Timestamp,
};

/// The steps of some builds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    builds: BTreeMap<BuildId, Vec<Step>>,
    /// The index of the step in its build, by build and key (I5).
    keys: BTreeMap<(BuildId, String), usize>,
}

/// Expected answer of an add, without the id of a new step.
#[derive(Clone, Debug)]
pub(crate) enum ExpectedAdd {
    /// The answer of an earlier add with the same key (I5).
    Again(AddedStep),
    /// A new step (I2, N2, N3).
    New { number: StepNumber, name: StepName },
}

impl Model {
    /// The expected answer of an add.
    pub(crate) fn expected_add(&self, new: &NewStep) -> ExpectedAdd {
        let steps = self.steps(new.build_id);
        let key = new.idempotency_key.as_ref().map(|key| (new.build_id, key.as_str().to_owned()));
        if let Some(index) = key.and_then(|key| self.keys.get(&key)) {
            let step = &steps[*index];
            return ExpectedAdd::Again(AddedStep::new(step.id, step.number, step.name.clone()));
        }
        let taken: BTreeSet<&str> = steps.iter().map(|step| step.name.as_str()).collect();
        let name = free_name(new.name.as_str(), |name| taken.contains(name));
        ExpectedAdd::New {
            number: number(steps.len()),
            name: StepName::new(name).expect("a name with a suffix satisfies N1"),
        }
    }

    /// Adds the step of an add, with the id from its answer (L1).
    pub(crate) fn add(&mut self, new: NewStep, added: &AddedStep) {
        let steps = self.builds.entry(new.build_id).or_default();
        if let Some(key) = new.idempotency_key {
            self.keys.insert((new.build_id, key.into_string()), steps.len());
        }
        let name = added.name.clone();
        steps.push(Step::builder(added.id, new.build_id, added.number, name, new.state_string).build());
    }

    /// Appends a step to its build.
    pub(crate) fn push(&mut self, step: Step) {
        self.builds.entry(step.build_id).or_default().push(step);
    }

    /// Reverts the last [`add`](Self::add) to a build.
    pub(crate) fn undo_add(&mut self, new: &NewStep) {
        let steps = self.builds.entry(new.build_id).or_default();
        steps.pop();
        let index = steps.len();
        self.keys.retain(|(build, _), of_key| *build != new.build_id || *of_key != index);
    }

    /// All steps of a build, ordered by number (R2).
    pub(crate) fn steps(&self, build: BuildId) -> &[Step] {
        self.builds.get(&build).map_or(&[], Vec::as_slice)
    }

    /// All steps, in no particular order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Step> {
        self.builds.values().flatten()
    }

    /// The selected step, if it exists (R1).
    pub(crate) fn step(&self, selector: &StepSelector) -> Option<&Step> {
        match selector {
            StepSelector::Id(id) => self.all().find(|step| step.id == *id),
            StepSelector::Number { build_id, number } => {
                self.steps(*build_id).iter().find(|step| step.number == *number)
            }
            StepSelector::Name { build_id, name } => self.steps(*build_id).iter().find(|step| step.name == *name),
        }
    }

    /// Mutable access to the step with this id, if it exists (L6).
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
    let exists = step.urls.iter().any(|other| other.name() == url.name() && other.url() == url.url());
    if !exists {
        step.urls.push(url);
    }
}

/// The name of an add (N2, N3).
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

/// The names that a build has after adds with these requested names, in order.
pub(crate) fn names_of<'a>(requested: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut names = Vec::new();
    for requested in requested {
        let name = free_name(requested, |name| taken.contains(name));
        taken.insert(name.clone());
        names.push(name);
    }
    names
}

fn number(index: usize) -> StepNumber {
    StepNumber::new(u32::try_from(index).expect("a history is short"))
}

#[cfg(test)]
mod tests {
    use super::names_of;

    #[test]
    fn names_match_the_examples_of_the_contract() {
        assert_eq!(names_of(["foo", "foo_1", "foo_1"]), ["foo", "foo_1", "foo_1_1"]);
        assert_eq!(names_of(["new", "new_2", "new", "new"]), ["new", "new_2", "new_1", "new_3"]);
        let a = format!("{}aa", "é".repeat(48));
        let b = format!("{}bb", "é".repeat(48));
        let cut = "é".repeat(48);
        assert_eq!(names_of([&*a, &b, &a, &b]), [a.clone(), b.clone(), format!("{cut}_1"), format!("{cut}_2")]);
    }
}
