//! The profile itself: what it claims must be there, what it declares must make sense.

use crate::{
    Feature,
    cases::{all, cases},
    failure::{Checked, Failure},
    stage::{Setup, lacks},
};

cases! { Property profile:
    has_no_mistakes [];
    claims_what_the_fixture_offers [];
}

async fn has_no_mistakes(setup: &Setup) -> Checked {
    let cases = all();
    let mistakes = setup.suite.profile.mistakes(|name| cases.iter().any(|case| case.name == name));
    if mistakes.is_empty() { Ok(()) } else { Err(Failure::new("the profile").got(mistakes.join("\n"))) }
}

async fn claims_what_the_fixture_offers(setup: &Setup) -> Checked {
    let stage = setup.stage().await?;
    let missing = Feature::ALL.iter().find(|feature| setup.claims(**feature) && !stage.offers(**feature));
    stage.end(missing.map_or(Ok(()), |feature| Err(lacks(*feature)))).await
}
