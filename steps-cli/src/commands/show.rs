use std::{process::ExitCode, sync::Arc, time::Duration};

use steps::{BuildId, Clock, Error, ErrorKind, Step, StepsStore, SystemClock};

use crate::{
    child, cli,
    command_error::CommandError,
    connect,
    output::{
        self, json,
        lines::Changes,
        screen::Screen,
        table::{self, Look, Steps},
    },
    signals::Signals,
    store_url::StoreUrl,
};

/// The time between reads of a watched build, short enough that durations seem to run.
const INTERVAL: Duration = Duration::from_millis(500);

pub(super) async fn show(url: &StoreUrl, show: cli::Show) -> Result<ExitCode, CommandError> {
    let mut store = connect::to_read(url).await?;
    let result = if show.watch { watch(url, &mut store, &show).await } else { once(&*store, &show).await };
    connect::close_quietly(&*store).await;
    result
}

async fn once(store: &dyn StepsStore, show: &cli::Show) -> Result<ExitCode, CommandError> {
    print(show.build, &store.get_steps(show.build).await?, show.all, show.json)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the steps of a build.
pub(super) fn print(build_id: BuildId, steps: &[Step], all: bool, json: bool) -> Result<(), CommandError> {
    if json {
        return json::line(&json::Build { buildid: build_id, steps });
    }
    let shown = visible(steps, all).count();
    if shown > 0 {
        let Steps { table, urls } = table::of_steps(visible(steps, all), SystemClock.now(), Look::of_stdout());
        output::data(&(table + &urls))?;
    }
    match (steps.len(), steps.len() - shown) {
        (0, _) => output::note(&format!("build {build_id} has no steps")),
        (_, 0) => {}
        (_, 1) => output::note("1 hidden step is not shown; --all shows it"),
        (_, hidden) => output::note(&format!("{hidden} hidden steps are not shown; --all shows them")),
    }
    Ok(())
}

/// Shows the steps again and again. If the store is replaced by another one, shows the steps of that one.
async fn watch(url: &StoreUrl, store: &mut Arc<dyn StepsStore>, show: &cli::Show) -> Result<ExitCode, CommandError> {
    let mut signals = Signals::listen().map_err(CommandError::System)?;
    let mut view = View::open(show)?;
    let mut last = Vec::new();
    let mut is_answering = true;
    let code = loop {
        match store.get_steps(show.build).await {
            Ok(steps) => {
                is_answering = true;
                view.show(&steps)?;
                let is_done = !steps.is_empty() && steps.iter().all(|step| step.complete_at.is_some());
                last = steps;
                if show.until_done && is_done {
                    break ExitCode::SUCCESS;
                }
            }
            Err(error) if error.is_retryable() || error.kind() == ErrorKind::Closed => {
                view.report_retry(&error, is_answering)?;
                is_answering = false;
                if error.kind() == ErrorKind::Closed
                    && let Ok(opened) = connect::to_read(url).await
                {
                    *store = opened;
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            signal = signals.next() => break ExitCode::from(child::exit_code_of_signal(signal as i32)),
        }
    };
    if view.vanishes() {
        drop(view);
        print(show.build, &last, show.all, false)?;
    }
    Ok(code)
}

/// The output of a watched build.
#[derive(Debug)]
enum View {
    Screen { screen: Screen, build_id: BuildId, all: bool },
    Lines { changes: Changes, all: bool },
    Json { build_id: BuildId, last: Option<Vec<Step>> },
}

impl View {
    fn open(show: &cli::Show) -> Result<Self, CommandError> {
        if show.json {
            return Ok(Self::Json { build_id: show.build, last: None });
        }
        Ok(match Screen::enter()? {
            Some(screen) => Self::Screen { screen, build_id: show.build, all: show.all },
            None => Self::Lines { changes: Changes::default(), all: show.all },
        })
    }

    fn show(&mut self, steps: &[Step]) -> Result<(), CommandError> {
        let now = SystemClock.now();
        match self {
            Self::Screen { screen, build_id, all } => {
                let shown = visible(steps, *all);
                if shown.clone().next().is_none() {
                    return screen.draw(&format!("build {build_id} has no steps yet"), "");
                }
                let Steps { table, urls } = table::of_steps(shown, now, Look::of_stdout());
                screen.draw(&table, &urls)
            }
            Self::Lines { changes, all } => {
                let lines = changes.lines(visible(steps, *all), now);
                if lines.is_empty() { Ok(()) } else { output::data(&lines) }
            }
            Self::Json { last, .. } if last.as_deref() == Some(steps) => Ok(()),
            Self::Json { build_id, last } => {
                *last = Some(steps.to_vec());
                json::line(&json::Build { buildid: *build_id, steps })
            }
        }
    }

    /// Reports that the store does not answer, as a warning only if `is_first`. The next read may succeed.
    fn report_retry(&self, error: &Error, is_first: bool) -> Result<(), CommandError> {
        let message = format!("trying again: {error}");
        match self {
            Self::Screen { screen, .. } => screen.draw(&output::text::shown(&message), ""),
            Self::Lines { .. } | Self::Json { .. } => {
                if is_first {
                    output::warning(&message);
                }
                Ok(())
            }
        }
    }

    /// Whether its output vanishes when it is dropped.
    const fn vanishes(&self) -> bool {
        matches!(self, Self::Screen { .. })
    }
}

fn visible(steps: &[Step], all: bool) -> impl Iterator<Item = &Step> + Clone {
    steps.iter().filter(move |step| all || !step.hidden)
}
