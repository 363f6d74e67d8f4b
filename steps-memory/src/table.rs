//! The content of the store, without the lock around it.

use std::collections::{HashMap, HashSet};

use steps_core::{
    AddedStep, BuildId, IdempotencyKey, NewStep, Step, StepId, StepName, StepNumber, StepSelector, UrlDigest,
    naming::SuffixHints,
};

/// The steps of all builds.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Ordered by id. Ids count from 1 and no step is ever removed, so the step with id `n` is at index `n - 1` (I1).
    rows: Vec<Row>,
    builds: HashMap<BuildId, Build>,
}

/// A step and the digests of its urls. With the digests the cost of adding a url does not grow (U5).
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) step: Step,
    pub(crate) url_digests: HashSet<UrlDigest>,
}

/// The steps of one build, as indices of [`Table::rows`].
#[derive(Debug, Default)]
struct Build {
    /// By number, which counts from 0 (I2).
    by_number: Vec<usize>,
    by_name: HashMap<StepName, usize>,
    by_key: HashMap<IdempotencyKey, usize>,
    suffixes: SuffixHints,
}

impl Table {
    /// Adds a step, or returns `None` if its build has no number left (I4).
    pub(crate) fn add(&mut self, new: NewStep) -> Option<AddedStep> {
        let build = self.builds.entry(new.build_id).or_default();
        if let Some(index) = new.idempotency_key.as_ref().and_then(|key| build.by_key.get(key)) {
            let step = &self.rows[*index].step;
            return Some(AddedStep::new(step.id, step.number, step.name.clone()));
        }
        let index = self.rows.len();
        let id = StepId::try_from(index + 1).ok()?;
        let number = StepNumber::new(u32::try_from(build.by_number.len()).ok()?);
        let name = build.suffixes.free_name(&new.name, |name| build.by_name.contains_key(name));

        build.by_number.push(index);
        build.by_name.insert(name.clone(), index);
        if let Some(key) = new.idempotency_key {
            build.by_key.insert(key, index);
        }
        let step = Step::builder(id, new.build_id, number, name.clone(), new.state_string).build();
        self.rows.push(Row { step, url_digests: HashSet::new() });
        Some(AddedStep::new(id, number, name))
    }

    pub(crate) fn row_mut(&mut self, id: StepId) -> Option<&mut Row> {
        self.rows.get_mut(index_of(id)?)
    }

    pub(crate) fn step(&self, selector: &StepSelector) -> Option<&Step> {
        let index = match selector {
            StepSelector::Id(id) => index_of(*id)?,
            StepSelector::Number { build_id, number } => {
                *self.builds.get(build_id)?.by_number.get(number.get() as usize)?
            }
            StepSelector::Name { build_id, name } => *self.builds.get(build_id)?.by_name.get(name)?,
        };
        self.rows.get(index).map(|row| &row.step)
    }

    /// The steps of a build, ordered by number (R2).
    pub(crate) fn steps(&self, build_id: BuildId) -> impl Iterator<Item = &Step> {
        let indices = self.builds.get(&build_id).map_or(&[][..], |build| &build.by_number);
        indices.iter().map(|index| &self.rows[*index].step)
    }
}

/// The index of the step in [`Table::rows`], if any `usize` is large enough for it.
fn index_of(id: StepId) -> Option<usize> {
    usize::try_from(id.get() - 1).ok()
}
