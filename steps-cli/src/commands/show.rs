use std::{
    pin::{Pin, pin},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use steps::{BuildId, Clock, Error, ErrorKind, Step, StepsStore, SystemClock};

use crate::{
    child, cli,
    command_error::CommandError,
    connect,
    job_control::{self, JobControl, JobEvent},
    output::{self, json, layout::Look, lines::Changes, screen::Screen, table::StepsTable, text},
    signals::Signals,
    store_url::StoreUrl,
};

/// The time between reads of a watched build, short enough that durations seem to run.
const INTERVAL: Duration = Duration::from_millis(500);

pub(super) async fn show(store: &StoreUrl, show: cli::Show) -> Result<ExitCode, CommandError> {
    if show.watch {
        return watch(store, &show).await;
    }
    let store = connect::to_read(store).await?;
    let steps = store.get_steps(show.build).await;
    connect::close_quietly(&*store).await;
    print(show.build, &steps?, show.all, show.json)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the steps of a build.
pub(super) fn print(build_id: BuildId, steps: &[Step], all: bool, json: bool) -> Result<(), CommandError> {
    if json {
        return json::line(&json::Build { buildid: build_id, steps });
    }
    let shown = visible(steps, all).count();
    if shown > 0 {
        let table = StepsTable::new(visible(steps, all), SystemClock.now(), Look::of_stdout());
        output::table(|lines| {
            table.rows(lines)?;
            table.urls(lines)
        })?;
    }
    match (steps.len(), steps.len() - shown) {
        (0, _) => output::note(&format!("build {build_id} has no steps")),
        (_, 0) => {}
        (_, 1) => output::note("1 hidden step is not shown; --all shows it"),
        (_, hidden) => output::note(&format!("{hidden} hidden steps are not shown; --all shows them")),
    }
    Ok(())
}

/// Follows a build until a signal asks the program to end, or the output has no reader.
async fn watch(url: &StoreUrl, show: &cli::Show) -> Result<ExitCode, CommandError> {
    let mut signals = Signals::listen().map_err(CommandError::System)?;
    let mut ended = pin!(async {
        tokio::select! {
            biased;
            signal = signals.next() => ExitCode::from(child::exit_code_of_signal(signal.signal)),
            () = output::reader_is_gone() => ExitCode::SUCCESS,
        }
    });
    let store = tokio::select! {
        store = connect::to_read(url) => store?,
        code = &mut ended => return Ok(code),
    };
    follow(url, store, show, ended).await
}

async fn follow(
    url: &StoreUrl,
    mut store: Arc<dyn StepsStore>,
    show: &cli::Show,
    mut ended: Pin<&mut impl Future<Output = ExitCode>>,
) -> Result<ExitCode, CommandError> {
    let mut view = View::open(show)?;
    let mut job_control = view.job_control()?;
    let mut is_answering = true;
    // Whether the store ended, since its file was moved, removed or replaced. Its URL may lead to another store then.
    let mut is_closed = false;
    let read_after = |mut store: Arc<dyn StepsStore>, is_closed: bool, delay: Duration| async move {
        tokio::time::sleep(delay).await;
        if is_closed && let Ok(opened) = connect::to_read(url).await {
            store = opened;
        }
        let steps = store.get_steps(show.build).await;
        (store, steps)
    };
    let mut read = pin!(read_after(Arc::clone(&store), is_closed, Duration::ZERO));
    let code = loop {
        tokio::select! {
            (read_from, result) = &mut read => {
                store = read_from;
                is_closed = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Closed);
                match result {
                    Ok(steps) => {
                        is_answering = true;
                        let is_done = !steps.is_empty() && steps.iter().all(|step| step.complete_at.is_some());
                        view.show(steps)?;
                        if show.until_done && is_done {
                            break ExitCode::SUCCESS;
                        }
                    }
                    Err(error) if is_closed || error.is_retryable() => {
                        view.report_retry(&error, is_answering)?;
                        is_answering = false;
                    }
                    Err(error) => return Err(error.into()),
                }
                read.set(read_after(Arc::clone(&store), is_closed, INTERVAL));
            }
            code = &mut ended => break code,
            event = next_event(&mut job_control) => {
                view.handle(event)?;
                read.set(read_after(Arc::clone(&store), is_closed, Duration::ZERO));
            }
        }
    };
    connect::close_quietly(&*store).await;
    if let Some(last) = view.into_vanished() {
        print(show.build, &last, show.all, false)?;
    }
    Ok(code)
}

async fn next_event(job_control: &mut Option<JobControl>) -> JobEvent {
    match job_control {
        Some(job_control) => job_control.next().await,
        None => std::future::pending().await,
    }
}

/// The output of a watched build.
#[derive(Debug)]
enum View {
    Screen { screen: Screen, build_id: BuildId, all: bool, last: Vec<Step> },
    Lines { changes: Changes, all: bool },
    Json { build_id: BuildId, last: Option<Vec<Step>> },
}

impl View {
    fn open(show: &cli::Show) -> Result<Self, CommandError> {
        if show.json {
            return Ok(Self::Json { build_id: show.build, last: None });
        }
        Ok(match Screen::open()? {
            Some(screen) => Self::Screen { screen, build_id: show.build, all: show.all, last: Vec::new() },
            None => Self::Lines { changes: Changes::default(), all: show.all },
        })
    }

    /// Listens for the signals of the shell's job control, if there is a terminal to restore.
    fn job_control(&self) -> Result<Option<JobControl>, CommandError> {
        match self {
            Self::Screen { .. } => JobControl::listen().map(Some).map_err(CommandError::System),
            Self::Lines { .. } | Self::Json { .. } => Ok(None),
        }
    }

    fn show(&mut self, steps: Vec<Step>) -> Result<(), CommandError> {
        let now = SystemClock.now();
        match self {
            Self::Screen { screen, build_id, all, last } => {
                *last = steps;
                let shown = visible(last, *all);
                if shown.clone().next().is_none() {
                    return screen.draw_message(&format!("build {build_id} has no steps yet"));
                }
                screen.draw(&StepsTable::new(shown, now, screen.look()))
            }
            Self::Lines { changes, all } => output::table(|lines| changes.write(steps, *all, now, lines)),
            Self::Json { last, .. } if last.as_ref() == Some(&steps) => Ok(()),
            Self::Json { build_id, last } => {
                let steps = last.insert(steps);
                json::line(&json::Build { buildid: *build_id, steps })
            }
        }
    }

    /// Reports that the store does not answer, as a warning only if `is_first`. The next read may succeed.
    fn report_retry(&self, error: &Error, is_first: bool) -> Result<(), CommandError> {
        let message = format!("trying again: {error}");
        match self {
            Self::Screen { screen, .. } => screen.draw_message(&text::shown(&message)),
            Self::Lines { .. } | Self::Json { .. } => {
                if is_first {
                    output::warning(&message);
                }
                Ok(())
            }
        }
    }

    /// Gives the terminal back to the shell while the program is stopped.
    fn handle(&mut self, event: JobEvent) -> Result<(), CommandError> {
        let Self::Screen { screen, .. } = self else { return Ok(()) };
        match event {
            JobEvent::Stop if job_control::is_resumable() => {
                screen.leave();
                job_control::stop();
                Ok(())
            }
            JobEvent::Stop => Ok(()),
            JobEvent::Continue if job_control::is_in_foreground() => screen.enter(),
            // Continued in the background by `bg`: the terminal is the shell's.
            JobEvent::Continue => {
                screen.leave();
                job_control::stop();
                Ok(())
            }
        }
    }

    /// Ends the output. Returns the last steps if it has vanished with the screen.
    fn into_vanished(self) -> Option<Vec<Step>> {
        match self {
            Self::Screen { last, .. } => Some(last),
            Self::Lines { .. } | Self::Json { .. } => None,
        }
    }
}

fn visible(steps: &[Step], all: bool) -> impl Iterator<Item = &Step> + Clone {
    steps.iter().filter(move |step| all || !step.hidden)
}
