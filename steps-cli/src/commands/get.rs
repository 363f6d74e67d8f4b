use std::{env, str::FromStr};

use steps::{Clock, InputError, StepSelector, StepsStore, SystemClock};

use crate::{
    cli::Get,
    command_error::CommandError,
    connect,
    output::{self, json, layout::Look, table},
    store_url::StoreUrl,
};

pub(super) async fn get(store: &StoreUrl, get: Get) -> Result<(), CommandError> {
    let selector = selector(&get)?;
    let store = connect::to_read(store).await?;
    let step = store.get_step(selector.clone()).await;
    connect::close_quietly(&*store).await;
    match step? {
        Some(step) if get.json => json::line(&step),
        Some(step) => output::table(|lines| table::of_step(&step, SystemClock.now(), Look::of_stdout(), lines)),
        None => Err(CommandError::NotFound(match selector {
            StepSelector::Id(id) => format!("there is no step {id}"),
            StepSelector::Number { build_id, number } => format!("build {build_id} has no step number {number}"),
            StepSelector::Name { build_id, name } => format!("build {build_id} has no step named {name}"),
        })),
    }
}

fn selector(get: &Get) -> Result<StepSelector, CommandError> {
    let build = || from_environment(get.build, "STEPS_BUILD", "--build N");
    match (get.number, &get.name) {
        (Some(number), _) => Ok(StepSelector::number(build()?, number)),
        (None, Some(name)) => Ok(StepSelector::name(build()?, name.clone())),
        (None, None) => Ok(StepSelector::Id(from_environment(get.step, "STEPS_STEP", "--step ID")?)),
    }
}

fn from_environment<T: FromStr<Err = InputError>>(
    given: Option<T>,
    variable: &str,
    option: &str,
) -> Result<T, CommandError> {
    match (given, env::var(variable)) {
        (Some(value), _) => Ok(value),
        (None, Ok(value)) => value.parse().map_err(|error| CommandError::Usage(format!("{variable}: {error}"))),
        (None, Err(_)) => Err(CommandError::Usage(format!("missing argument: give {option} or set {variable}"))),
    }
}
