//! The cases of the suite. The group in the name of a case is its module.

mod add_step;
mod add_url;
mod close;
mod concurrently;
mod dropped;
mod faults;
mod histories;
mod keys;
mod lifecycle;
mod limits;
mod model;
mod peers;
mod processes;
mod profile;
mod reads;
mod recorded;
mod reopen;
mod tasks;
mod text;
mod times;
mod values;
mod workload;
mod writes;

use std::sync::Arc;

use crate::{
    Clause, Feature,
    factory::LocalBoxFuture,
    failure::CaseResult,
    recorded::Scenario,
    test_env::{CaseSetup, TestEnv},
};

/// A case: a test of the store.
pub(crate) struct Case {
    /// The name, which is stable because profiles refer to it.
    pub(crate) name: String,
    /// The clauses that the case checks. The first one is blamed for a failure that names no clause.
    pub(crate) clauses: Vec<Clause>,
    pub(crate) needs: Option<Needs>,
    pub(crate) body: Body,
}

/// A requirement of a case. The case is skipped without it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Needs {
    Feature(Feature),
    /// A limit of build ids in the profile.
    GreatestBuildId,
}

const REOPEN: Needs = Needs::Feature(Feature::Reopen);
const PEERS: Needs = Needs::Feature(Feature::Peers);

/// How a case runs.
#[derive(Clone)]
pub(crate) enum Body {
    /// Runs once, on its own store.
    Example(for<'a> fn(&'a mut TestEnv) -> LocalBoxFuture<'a, CaseResult>),
    /// Runs many times, with random values.
    Property(for<'a> fn(&'a CaseSetup) -> LocalBoxFuture<'a, CaseResult>),
    /// Replays a recorded scenario once, on its own store.
    Scenario(Arc<Scenario>),
}

/// All cases, in the order of the list.
pub(crate) fn all() -> Vec<Case> {
    let groups = [
        profile::cases(),
        add_step::cases(),
        keys::cases(),
        limits::cases(),
        lifecycle::cases(),
        add_url::cases(),
        reads::cases(),
        text::cases(),
        times::cases(),
        tasks::cases(),
        peers::cases(),
        processes::cases(),
        histories::cases(),
        faults::cases(),
        reopen::cases(),
        close::cases(),
        dropped::cases(),
        model::cases(),
        recorded::cases(),
    ];
    groups.into_iter().flatten().collect()
}

/// Defines `cases()` of a module: the kind and group of the cases, and for each case the name of its function, its
/// clauses and its requirement.
macro_rules! cases {
    ($kind:ident $group:ident: $($name:ident [$($clause:ident),*] $(needs $need:expr)?;)*) => {
        pub(super) fn cases() -> Vec<$crate::cases::Case> {
            vec![$($crate::cases::Case {
                name: concat!(stringify!($group), "::", stringify!($name)).into(),
                clauses: vec![$($crate::Clause::$clause),*],
                needs: <[$crate::cases::Needs]>::first(&[$($need)?]).copied(),
                body: $crate::cases::Body::$kind(|case| Box::pin($name(case))),
            }),*]
        }
    };
}
use cases;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env, fs, path::Path};

    use super::*;

    /// The clauses without a case, each with the reason.
    const WITHOUT_A_CASE: [(Clause, &str); 2] = [
        (Clause::N5, "a cost, which benchmarks measure: the suite must run on any machine"),
        (Clause::U5, "a cost, like N5"),
    ];

    #[test]
    fn every_clause_has_a_case_or_a_reason() {
        let checked: BTreeSet<_> = all().into_iter().flat_map(|case| case.clauses).collect();
        let without: Vec<_> = Clause::ALL.iter().filter(|clause| !checked.contains(clause)).collect();
        assert_eq!(without, WITHOUT_A_CASE.iter().map(|(clause, _)| clause).collect::<Vec<_>>());
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let mut names = BTreeSet::new();
        for case in all() {
            let (group, name) = case.name.split_once("::").expect("a group and a name");
            assert!(
                !group.is_empty() && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')),
                "{}",
                case.name
            );
            assert!(names.insert(case.name.clone()), "{} is a duplicate", case.name);
        }
    }

    /// Renaming or removing a case breaks profiles, so the list makes such a change visible.
    #[test]
    fn the_cases_are_those_of_the_list() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases.txt");
        let mut list = String::new();
        for Case { name, clauses, .. } in all() {
            list.push_str(&name);
            clauses.into_iter().for_each(|clause| list.extend([" ", clause.name()]));
            list.push('\n');
        }
        if env::var_os("STEPS_WRITE_DOCS").is_some() {
            fs::write(&file, &list).expect("the directory is writable");
        }
        let listed = fs::read_to_string(&file).unwrap_or_default();
        let now: BTreeSet<_> = list.lines().collect();
        let before: BTreeSet<_> = listed.lines().collect();
        let removed: Vec<_> = before.difference(&now).collect();
        let new: Vec<_> = now.difference(&before).collect();
        assert!(
            removed.is_empty() && new.is_empty() && list == listed,
            "conformance-tests/cases.txt is out of date; run the test again with STEPS_WRITE_DOCS=1.\n\
             Names are stable: removing one needs a minor version and an entry in the changelog.\n\
             removed: {removed:#?}\nnew: {new:#?}"
        );
    }
}
