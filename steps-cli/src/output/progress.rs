use std::{
    env,
    io::{self, IsTerminal},
    sync::Mutex,
    time::Duration,
};

use conformance_tests::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::text;

/// How far a run is, on standard error: on a terminal a bar in place, otherwise a line for each tenth. What fails has a
/// line of its own at once.
#[derive(Debug)]
pub(crate) struct Watch {
    /// What is counted, such as `cases`.
    what: &'static str,
    bar: Option<ProgressBar>,
    /// How many tenths were said.
    tenths: Mutex<usize>,
}

impl Watch {
    pub(crate) fn new(what: &'static str) -> Self {
        let draws = io::stderr().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { what, bar: draws.then(|| bar(what)), tenths: Mutex::default() }
    }

    /// Says that one has ended.
    pub(crate) fn ended(&self, progress: Progress<'_>) {
        let Progress { done, total, name, failed, .. } = progress;
        match &self.bar {
            Some(bar) => {
                if failed {
                    bar.println(format!("failed: {}", text::shown(name)));
                }
                bar.set_length(total as u64);
                bar.set_position(done as u64);
            }
            None => {
                if failed {
                    super::note(&format!("failed: {name}"));
                }
                let tenths = done * 10 / total.max(1);
                let mut said = self.tenths.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if tenths > *said {
                    *said = tenths;
                    super::note(&format!("{done} of {total} {}", self.what));
                }
            }
        }
    }
}

/// What was drawn is wiped away.
impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    // No colours: there is nothing that they would say.
    let template = format!("{{spinner}} {{pos}} of {{len}} {what}  {{wide_bar}}  {{elapsed}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
