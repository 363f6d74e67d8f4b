use std::{fmt::Write, io};

use steps::{Step, Timestamp};

use super::{duration, layout::Lines, status::Status, table, text};

/// The changes of a watched build as plain lines, for output that is not a terminal.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The steps of the last call, ordered by number.
    last: Vec<Step>,
}

impl Changes {
    /// Writes a line for each visible step that is new or has changed since the last call.
    pub(crate) fn write(&mut self, steps: Vec<Step>, all: bool, now: Timestamp, lines: Lines<'_>) -> io::Result<()> {
        let earlier = |step: &Step| self.last.binary_search_by_key(&step.number, |last| last.number);
        for step in steps.iter().filter(|step| all || !step.hidden) {
            if earlier(step).is_ok_and(|index| self.last[index] == *step) {
                continue;
            }
            lines(&line(step, now))?;
        }
        self.last = steps;
        Ok(())
    }
}

/// `2 compile: success in 1.2s, make -j4, log: https://…`
fn line(step: &Step, now: Timestamp) -> String {
    let mut line = format!("{} {}: {}", step.number, table::name(step), Status::of(step).name());
    if let Some(duration) = duration::of_step(step, now).filter(|_| step.complete_at.is_some()) {
        let _ = write!(line, " in {duration}");
    }
    if !step.state_string.as_str().is_empty() {
        let _ = write!(line, ", {}", text::shown(step.state_string.as_str()));
    }
    for url in &step.urls {
        let _ = write!(line, ", {}", table::url(url));
    }
    line
}

#[cfg(test)]
mod tests {
    use steps::{BuildId, Results, StateString, StepId, StepNumber, StepUrl};

    use super::*;

    #[test]
    fn each_change_has_a_line_and_no_change_has_none() {
        let at = |second: i64| Some(Timestamp::from_unix_micros(second * 1_000_000).unwrap());
        let builder = || {
            let id = StepId::new(9).unwrap();
            let build_id = BuildId::new(7).unwrap();
            let state = StateString::new("make\u{1b}").unwrap();
            Step::builder(id, build_id, StepNumber::new(2), "compile".parse().unwrap(), state).started_at(at(0))
        };
        let mut changes = Changes::default();
        let mut lines = |step: Step| {
            let mut lines = String::new();
            let mut push = |line: &str| {
                lines.extend([line, "\n"]);
                Ok(())
            };
            changes.write(vec![step], true, at(5).unwrap(), &mut push).unwrap();
            lines
        };
        assert_eq!(lines(builder().build()), "2 compile: waiting, make\\u{1b}\n");
        assert_eq!(lines(builder().build()), "");
        let url = StepUrl::new("log", "https://example.org/").unwrap();
        let complete = builder().complete_at(at(2)).results(Some(Results::FAILURE)).urls(vec![url]).hidden(true);
        let expected = "2 compile (hidden): failure in 2.0s, make\\u{1b}, log: https://example.org/\n";
        assert_eq!(lines(complete.build()), expected);
    }
}
