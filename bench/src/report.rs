//! What a run has found: lines with goals, as a table and as JSON.

use crate::{figures, machine::Machine, parts::Part};
use serde::Serialize;
use std::fmt;

/// All lines of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    plan: &'static str,
    machine: Machine,
    lines: Vec<Line>,
    failures: Vec<Failure>,
}

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    part: Part,
    /// What it is, the same in every run.
    name: String,
    value: f64,
    unit: &'static str,
    goal: Option<Goal>,
    /// None where there is no goal.
    met: Option<bool>,
    /// What the value is the median of; empty where it is none.
    rounds: Vec<f64>,
}

/// What a value should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

#[derive(Debug, Serialize)]
struct Failure {
    part: Part,
    message: String,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(plan: &'static str) -> Self {
        Self { plan, machine: Machine::this(), lines: Vec::new(), failures: Vec::new() }
    }

    /// How many lines there are.
    pub(crate) fn lines(&self) -> usize {
        self.lines.len()
    }

    /// A figure that is the median of its rounds.
    pub(crate) fn rounds(
        &mut self,
        part: Part,
        name: impl Into<String>,
        rounds: Vec<f64>,
        unit: &'static str,
        goal: Option<Goal>,
    ) {
        let value = figures::median(&rounds);
        self.push(part, name.into(), value, unit, goal, rounds);
    }

    /// A figure by itself.
    pub(crate) fn figure(
        &mut self,
        part: Part,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: Option<Goal>,
    ) {
        self.push(part, name.into(), value, unit, goal, Vec::new());
    }

    fn push(
        &mut self,
        part: Part,
        name: String,
        value: f64,
        unit: &'static str,
        goal: Option<Goal>,
        rounds: Vec<f64>,
    ) {
        if !value.is_finite() {
            self.failed(part, &format!("{name}: there is no figure"));
            return;
        }
        let met = goal.map(|goal| goal.is_met(value));
        self.lines.push(Line { part, name, value, unit, goal, met, rounds });
    }

    /// A part, or one of its figures, could not be had.
    pub(crate) fn failed(&mut self, part: Part, message: &str) {
        eprintln!("bench: {part}: {message}");
        self.failures.push(Failure { part, message: message.to_owned() });
    }

    /// Whether every figure could be had.
    pub(crate) fn is_whole(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} run on {}\n", self.plan, self.machine)?;
        let heads = ["part", "figure", "value", "rounds", "goal", "met"].map(str::to_owned);
        let rows: Vec<[String; 6]> =
            std::iter::once(heads).chain(self.lines.iter().map(Line::cells)).collect();
        let mut widths = [0; 6];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &rows {
            let cells: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        let with_goal = self.lines.iter().filter(|line| line.met.is_some()).count();
        let met = self.lines.iter().filter(|line| line.met == Some(true)).count();
        writeln!(f, "\n{met} of {with_goal} goals met")?;
        for failure in &self.failures {
            writeln!(f, "FAILED {}: {}", failure.part, failure.message)?;
        }
        Ok(())
    }
}

// === impl Line ===

impl Line {
    fn cells(&self) -> [String; 6] {
        let range = match (
            self.rounds.iter().copied().reduce(f64::min),
            self.rounds.iter().copied().reduce(f64::max),
        ) {
            (Some(least), Some(most)) if self.rounds.len() > 1 => {
                format!("{} … {} ({})", short(least), short(most), self.rounds.len())
            }
            _ => String::new(),
        };
        [
            self.part.to_string(),
            self.name.clone(),
            with_unit(self.value, self.unit),
            range,
            self.goal.map(|goal| goal.text(self.unit)).unwrap_or_default(),
            self.met.map(|met| if met { "met" } else { "NOT MET" }).unwrap_or_default().to_owned(),
        ]
    }
}

// === impl Goal ===

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {}", with_unit(least, unit)),
            Self::AtMost(most) => format!("≤ {}", with_unit(most, unit)),
        }
    }
}

fn with_unit(value: f64, unit: &str) -> String {
    format!("{} {unit}", short(value)).trim_end().to_owned()
}

/// Three digits that count, or all before the point.
fn short(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if value.fract() == 0.0 && size >= 10.0 => 0,
        _ if size >= 100.0 => 0,
        _ if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_has_a_side() {
        assert!(Goal::AtLeast(0.85).is_met(0.85) && !Goal::AtLeast(0.85).is_met(0.84));
        assert!(Goal::AtMost(15.0).is_met(15.0) && !Goal::AtMost(15.0).is_met(15.1));
        assert_eq!(Goal::AtMost(15.0).text("µs"), "≤ 15 µs");
        assert_eq!(Goal::AtLeast(0.85).text(""), "≥ 0.85");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!([0.8449, 12.34, 41_000.4, 100.0].map(short), ["0.84", "12.3", "41000", "100"]);
    }

    #[test]
    fn a_figure_that_is_none_is_a_failure() {
        let mut report = Report::new("test");
        report.figure(Part::Idle, "nothing over nothing", f64::NAN, "", Some(Goal::AtLeast(1.0)));
        assert_eq!((report.lines(), report.is_whole()), (0, false));
        assert!(report.to_string().contains("FAILED idle: nothing over nothing"));
    }

    #[test]
    fn the_table_says_what_was_not_met() {
        let mut report = Report::new("test");
        report.rounds(Part::Warm, "Sluice / plain", vec![0.8, 0.7, 0.9], "", Some(Goal::AtLeast(0.85)));
        let text = report.to_string();
        let line = text.lines().find(|line| line.starts_with("warm")).unwrap();
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["warm", "Sluice / plain", "0.80", "0.70 … 0.90 (3)", "≥ 0.85", "NOT MET"]);
        assert!(text.contains("0 of 1 goals met"));
    }
}
