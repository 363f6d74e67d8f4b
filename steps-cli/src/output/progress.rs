use std::{
    io::{self, IsTerminal},
    sync::Mutex,
    time::Duration,
};

use conformance_tests::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::text;

/// The progress of a run, on standard error: a bar on a terminal, otherwise a line for each tenth. Each failure
/// gets a line at once.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The unit, such as `cases`.
    unit: &'static str,
    bar: Option<ProgressBar>,
    /// The number of tenths already printed.
    tenths: Mutex<usize>,
}

impl Watch {
    pub(crate) fn new(unit: &'static str) -> Self {
        let draws = io::stderr().is_terminal() && super::terminal_has_cursor();
        Self { unit, bar: draws.then(|| bar(unit)), tenths: Mutex::default() }
    }

    /// Reports that a unit has ended.
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
                let mut printed = self.tenths.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if tenths > *printed {
                    *printed = tenths;
                    super::note(&format!("{done} of {total} {}", self.unit));
                }
            }
        }
    }
}

/// Erases the bar.
impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(unit: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let template = format!("{{spinner}} {{pos}} of {{len}} {unit}  {{wide_bar}}  {{elapsed}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
