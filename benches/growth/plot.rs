//! Draws a plot of the figures: the cost of adds and of urls over size, both axes logarithmic.

use std::fmt::Write;

use crate::{Figure, measure::Operation};

const COLOURS: [&str; 8] = ["#4477aa", "#228833", "#ee6677", "#aa3377", "#66ccee", "#ccbb44", "#000000", "#777777"];

/// The width and height of a panel, without its labels.
const PANEL: (f64, f64) = (330.0, 260.0);
const LEFT: f64 = 70.0;
const TOP: f64 = 50.0;

pub(crate) fn svg(figures: &[Figure]) -> String {
    let mut systems: Vec<&str> = Vec::new();
    for figure in figures {
        if !systems.contains(&&*figure.backend) {
            systems.push(&figure.backend);
        }
    }
    let panels = [
        (Operation::AddStepSameName, "add_step of a name already used so often"),
        (Operation::AddUrl, "add_url to a step with so many urls"),
    ];
    let shown: Vec<_> = figures.iter().filter(|it| panels.iter().any(|panel| panel.0 == it.operation)).collect();
    let decades =
        Decades { sizes: range(shown.iter().map(|it| it.size as f64)), times: range(shown.iter().map(|it| it.us)) };
    let width = 2.0 * (PANEL.0 + LEFT) + 170.0;
    let height = PANEL.1 + TOP + 60.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
    );
    for (nth, (operation, title)) in panels.into_iter().enumerate() {
        let left = LEFT + nth as f64 * (PANEL.0 + LEFT);
        let _ = writeln!(svg, "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{title}</text>", TOP - 18.0);
        decades.axes(&mut svg, left);
        for (system, colour) in systems.iter().zip(COLOURS.iter().cycle()) {
            let points: Vec<String> = shown
                .iter()
                .filter(|it| it.operation == operation && it.backend == *system)
                .map(|it| decades.point(left, it.size as f64, it.us))
                .map(|(x, y)| format!("{x:.1},{y:.1}"))
                .collect();
            let dash = if system.starts_with("buildbot") { " stroke-dasharray=\"6 3\"" } else { "" };
            let points = points.join(" ");
            let _ = writeln!(
                svg,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
            );
        }
    }
    for (nth, (system, colour)) in systems.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let x = 2.0 * (PANEL.0 + LEFT) + 20.0;
        let y = TOP + 20.0 * nth as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{}\" width=\"18\" height=\"3\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\">{system}</text>",
            y - 4.0,
            x + 24.0,
            y,
        );
    }
    svg + "</svg>\n"
}

/// The exponents of the powers of ten around all values.
fn range(values: impl Iterator<Item = f64> + Clone) -> (i32, i32) {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let greatest = values.fold(1.0, f64::max);
    (least.min(greatest).log10().floor() as i32, greatest.log10().ceil() as i32)
}

struct Decades {
    sizes: (i32, i32),
    times: (i32, i32),
}

impl Decades {
    fn point(&self, left: f64, size: f64, us: f64) -> (f64, f64) {
        let fraction =
            |value: f64, (first, last): (i32, i32)| (value.log10() - f64::from(first)) / f64::from(last - first);
        (left + fraction(size, self.sizes) * PANEL.0, TOP + (1.0 - fraction(us, self.times)) * PANEL.1)
    }

    fn axes(&self, svg: &mut String, left: f64) {
        let right = left + PANEL.0;
        let bottom = TOP + PANEL.1;
        for decade in self.times.0..=self.times.1 {
            let us = 10_f64.powi(decade);
            let (_, y) = self.point(left, 1.0, us);
            let label = match us {
                us if us < 1e3 => format!("{us} µs"),
                us if us < 1e6 => format!("{} ms", us / 1e3),
                us => format!("{} s", us / 1e6),
            };
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                left - 6.0,
                y + 4.0,
            );
        }
        for decade in self.sizes.0..=self.sizes.1 {
            let (x, _) = self.point(left, 10_f64.powi(decade), 1.0);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#dddddd\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 18.0,
                10_u64.pow(decade.unsigned_abs()),
            );
        }
    }
}
