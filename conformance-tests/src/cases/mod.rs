//! The cases. The group in a case's name is the module that has it.

mod add_step;
mod add_url;
mod close;
mod concurrently;
mod crowd;
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
mod writes;

use std::sync::Arc;

use crate::{
    Clause, Feature,
    factory::LocalBoxFuture,
    failure::CaseResult,
    recorded::Scenario,
    test_env::{CaseSetup, TestEnv},
};

/// Something that the suite looks at.
pub(crate) struct Case {
    /// Stable: profiles and people refer to it.
    pub(crate) name: String,
    /// The clauses that it checks. The first is blamed for what no other is.
    pub(crate) clauses: Vec<Clause>,
    pub(crate) needs: Option<Needs>,
    pub(crate) body: Body,
}

/// What a case cannot do without.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Needs {
    Feature(Feature),
    /// A greatest build id that the profile declares.
    GreatestBuildId,
}

const REOPEN: Needs = Needs::Feature(Feature::Reopen);
const PEERS: Needs = Needs::Feature(Feature::Peers);

/// How a case runs.
#[derive(Clone)]
pub(crate) enum Body {
    /// Once, on a store of its own.
    Example(for<'a> fn(&'a mut TestEnv) -> LocalBoxFuture<'a, CaseResult>),
    /// Many times, with what is drawn at random.
    Property(for<'a> fn(&'a CaseSetup) -> LocalBoxFuture<'a, CaseResult>),
    /// Once, on a store of its own, as it was recorded.
    Scenario(Arc<Scenario>),
}

/// All cases, in the order in which they are listed.
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

/// Defines `cases()` of a module: the kind of its cases, their group, and for each the name of its
/// function, the clauses that it checks, and what it needs.
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

    /// The clauses that no case checks yet, each with the reason.
    const WITHOUT_A_CASE: [(Clause, &str); 2] = [
        (Clause::N5, "a cost: benchmarks measure it, a suite that others run on any machine does not"),
        (Clause::U5, "a cost, as N5"),
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
            assert!(names.insert(case.name.clone()), "{} is there twice", case.name);
        }
    }

    /// A case that is renamed or taken out breaks the profiles of others: the list of them shows it.
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
            fs::write(&file, &list).expect("a folder that can be written to");
        }
        let listed = fs::read_to_string(&file).unwrap_or_default();
        let (now, then): (BTreeSet<_>, BTreeSet<_>) = (list.lines().collect(), listed.lines().collect());
        let gone: Vec<_> = then.difference(&now).collect();
        let new: Vec<_> = now.difference(&then).collect();
        assert!(
            gone.is_empty() && new.is_empty() && list == listed,
            "conformance-tests/cases.txt is out of date; run the test again with STEPS_WRITE_DOCS=1.\n\
             A name is stable: one that is gone is for a minor version, and for the changelog.\n\
             gone: {gone:#?}\nnew: {new:#?}"
        );
    }
}
