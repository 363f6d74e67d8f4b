//! What the store holds, without its locks.

use std::collections::{HashMap, HashSet};

use steps_core::{
    AddedStep, BuildId, IdempotencyKey, NewStep, Step, StepId, StepName, StepNumber, StepSelector, UrlDigest,
    naming::SuffixHints,
};

/// How many tables there are.
pub(crate) const TABLES: usize = 64;

/// All steps of the builds that fall on this table, in the order of their ids.
#[derive(Debug)]
pub(crate) struct Table {
    /// Which of the tables it is.
    place: usize,
    rows: Vec<Row>,
    builds: HashMap<BuildId, Build>,
}

/// A step, and what its urls are found by (U2, U5).
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) step: Step,
    pub(crate) url_digests: HashSet<UrlDigest>,
}

/// What a build knows of its steps.
#[derive(Debug, Default)]
struct Build {
    /// By number.
    steps: Vec<StepId>,
    names: HashMap<StepName, StepId>,
    suffixes: SuffixHints,
    keys: HashMap<IdempotencyKey, StepId>,
}

/// Which table has this build.
pub(crate) fn of_build(id: BuildId) -> usize {
    id.get() as usize % TABLES
}

/// Which table has this step.
pub(crate) fn of_step(id: StepId) -> usize {
    (id.get() - 1) as usize % TABLES
}

impl Table {
    pub(crate) fn new(place: usize) -> Self {
        Self { place, rows: Vec::new(), builds: HashMap::new() }
    }

    /// Adds a step, or gives `None` when its build has no number left (I4).
    pub(crate) fn add(&mut self, new: NewStep) -> Option<AddedStep> {
        let build = self.builds.entry(new.build_id).or_default();
        if let Some(id) = new.idempotency_key.as_ref().and_then(|key| build.keys.get(key)) {
            let step = &self.rows[index(*id)].step;
            return Some(AddedStep::new(step.id, step.number, step.name.clone()));
        }
        // Ids count from 1, and no two tables give the same (I1).
        let id = StepId::try_from((self.rows.len() * TABLES + self.place + 1) as u64).ok()?;
        let number = u32::try_from(build.steps.len()).map(StepNumber::new).ok()?;
        let name = build.suffixes.free_name(&new.name, |name| build.names.contains_key(name));

        build.steps.push(id);
        build.names.insert(name.clone(), id);
        if let Some(key) = new.idempotency_key {
            build.keys.insert(key, id);
        }
        let step = Step::builder(id, new.build_id, number, name.clone(), new.state_string).build();
        self.rows.push(Row { step, url_digests: HashSet::new() });
        Some(AddedStep::new(id, number, name))
    }

    pub(crate) fn row_mut(&mut self, id: StepId) -> Option<&mut Row> {
        self.rows.get_mut(index(id))
    }

    pub(crate) fn step(&self, selector: &StepSelector) -> Option<&Step> {
        let id = match selector {
            StepSelector::Id(id) => id,
            StepSelector::Number { build_id, number } => self.builds.get(build_id)?.steps.get(number.get() as usize)?,
            StepSelector::Name { build_id, name } => self.builds.get(build_id)?.names.get(name)?,
        };
        self.rows.get(index(*id)).map(|row| &row.step)
    }

    pub(crate) fn steps(&self, build_id: BuildId) -> impl Iterator<Item = &Step> {
        let ids = self.builds.get(&build_id).map_or(&[][..], |build| &build.steps);
        ids.iter().map(|id| &self.rows[index(*id)].step)
    }
}

/// Where the step stands in its table. An id that no `usize` holds is past every row.
fn index(id: StepId) -> usize {
    usize::try_from(id.get()).map_or(usize::MAX, |id| (id - 1) / TABLES)
}

#[cfg(test)]
mod tests {
    use steps_core::StateString;

    use super::*;

    #[test]
    fn builds_spread_over_all_tables_and_their_steps_with_them() {
        let mut places = HashSet::new();
        for build in 1..=TABLES as i64 {
            let build = BuildId::new(build).unwrap();
            let place = of_build(build);
            places.insert(place);
            let mut table = Table::new(place);
            for _ in 0..3 {
                let new = NewStep::new(build, StepName::new("compile").unwrap(), StateString::default());
                assert_eq!(of_step(table.add(new).unwrap().id), place);
            }
        }
        assert_eq!(places.len(), TABLES);
    }
}
