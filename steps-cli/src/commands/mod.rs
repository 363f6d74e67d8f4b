//! A module for each of the program's commands; the small ones share [`change`].

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
    failure::Failure,
    store_url::StoreUrl,
};

/// Does what the command line says, and gives the program's exit code.
pub(crate) async fn execute(cli: Cli) -> Result<ExitCode, Failure> {
    let store = StoreUrl::given_or_default(cli.store);
    match cli.command {
        Command::Run(run) => return run::run(&store, run).await,
        Command::Show(show) => return show::show(&store, show).await,
        Command::Doctor(doctor) => return doctor::doctor(&store, doctor).await,
        #[cfg(feature = "conformance")]
        Command::Conformance(conformance) => return conformance::conformance(&store, conformance).await,
        Command::Get(get) => get::get(&store, get).await?,
        Command::Add(add) => change::add(&store, add).await?,
        Command::Start(start) => change::start(&store, start).await?,
        Command::Locks(locks) => change::locks(&store, locks).await?,
        Command::State(state) => change::state(&store, state).await?,
        Command::Url(url) => change::url(&store, url).await?,
        Command::Finish(finish) => change::finish(&store, finish).await?,
        Command::Completions(completions) => completions::completions(&completions)?,
    }
    Ok(ExitCode::SUCCESS)
}
