//! The profile: the fixture must have the claimed features, and the declarations must be valid.

use crate::{
    Feature,
    cases::{all, cases},
    failure::{CaseResult, Failure},
    test_env::{CaseSetup, missing},
};

cases! { Property profile:
    has_no_mistakes [];
    claims_what_the_fixture_offers [];
}

async fn has_no_mistakes(setup: &CaseSetup) -> CaseResult {
    let cases = all();
    let mistakes = setup.suite.profile.mistakes(|name| cases.iter().any(|case| case.name == name));
    if mistakes.is_empty() { Ok(()) } else { Err(Failure::new("the profile").got(mistakes.join("\n"))) }
}

async fn claims_what_the_fixture_offers(setup: &CaseSetup) -> CaseResult {
    let env = setup.env().await?;
    let unclaimed = Feature::ALL.iter().find(|feature| setup.claims(**feature) && !env.has(**feature));
    env.end(unclaimed.map_or(Ok(()), |feature| Err(missing(*feature)))).await
}
