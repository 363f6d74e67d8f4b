//! The commands of the program, a module each; the small ones share [`change`].

mod change;
mod completions;
#[cfg(feature = "conformance")]
mod conformance;
mod doctor;
mod get;
mod run;
mod show;

use std::process::ExitCode;

use crate::{
    cli::{Cli, Command},
    command_error::CommandError,
    exit::Exit,
    store_url::StoreUrl,
};

#[cfg(not(feature = "conformance"))]
const WITHOUT_CONFORMANCE: &str =
    "this program was built without the conformance suite; build `steps-cli` with the feature `conformance`";

/// Executes the command and returns how the program ends.
pub(crate) async fn execute(cli: Cli) -> Result<Exit, CommandError> {
    let store = StoreUrl::given_or_default(cli.store);
    match cli.command {
        Command::Run(run) => return run::run(&store, run).await,
        Command::Show(show) => return Ok(show::show(&store, show).await?.into()),
        Command::Doctor(doctor) => return Ok(doctor::doctor(&store, doctor).await?.into()),
        #[cfg(feature = "conformance")]
        Command::Conformance(conformance) => {
            return Ok(conformance::conformance(&store, conformance).await?.into());
        }
        #[cfg(not(feature = "conformance"))]
        Command::Conformance(_) => return Err(CommandError::Usage(WITHOUT_CONFORMANCE.to_owned())),
        Command::Get(get) => get::get(&store, get).await?,
        Command::Add(add) => change::add(&store, add).await?,
        Command::Start(start) => change::start(&store, start).await?,
        Command::Locks(locks) => change::locks(&store, locks).await?,
        Command::State(state) => change::state(&store, state).await?,
        Command::Url(url) => change::url(&store, url).await?,
        Command::Finish(finish) => change::finish(&store, finish).await?,
        Command::Completions(completions) => completions::completions(&completions)?,
    }
    Ok(ExitCode::SUCCESS.into())
}
