//! What was found, as tables: on the screen and in `docs/reliability.md`.

use std::fmt::Write;
use std::path::PathBuf;

use super::trial::Verdict;

/// What trials of one kind found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    pub points: u64,
    /// Points that lay behind the end of a run, which is never twice the same.
    pub unreached: u64,
    /// Points at which something was violated.
    pub violated: u64,
    pub violations: Vec<String>,
    pub lost: u64,
    pub duplicated: u64,
    pub repeated_most: u64,
    pub repeated: u64,
    /// Calls made again were not counted: what was called before is not known.
    pub is_uncounted: bool,
}

impl Found {
    /// Notes what one trial found.
    pub fn note(&mut self, is_reached: bool, whence: &str, verdict: Verdict) {
        self.points += 1;
        self.unreached += u64::from(!is_reached);
        self.lost += verdict.lost;
        self.duplicated += verdict.duplicated;
        self.repeated += verdict.repeated;
        self.repeated_most = self.repeated_most.max(verdict.repeated);
        self.violated += u64::from(!verdict.violations.is_empty());
        for violation in verdict.violations {
            self.violations.push(format!("{whence}: {violation}"));
        }
    }

    /// Notes a trial that either holds or does not.
    pub fn check(&mut self, holds: bool, whence: impl Into<String>) {
        self.points += 1;
        if !holds {
            self.violated += 1;
            self.violations.push(whence.into());
        }
    }
}

/// One table of the document.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its marker in the document.
    pub name: &'static str,
    title: &'static str,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    points: u64,
    skipped: u64,
    violations: Vec<String>,
    /// Where it was tried, if not where the rest was.
    pub place: Option<PathBuf>,
}

const HEAD: [&str; 8] = [
    "",
    "scene",
    "points",
    "violations",
    "answers lost",
    "lines twice",
    "calls repeated, most",
    "mean",
];

impl Table {
    /// A table of trials.
    pub fn new(name: &'static str, title: &'static str) -> Self {
        Self::with_head(name, title, &HEAD)
    }

    /// A table of other things.
    pub fn with_head(name: &'static str, title: &'static str, head: &[&'static str]) -> Self {
        eprintln!("{title}");
        Self {
            name,
            title,
            head: head.to_vec(),
            rows: Vec::new(),
            points: 0,
            skipped: 0,
            violations: Vec::new(),
            place: None,
        }
    }

    /// Adds what was found.
    pub fn add(&mut self, what: &str, scene: &str, found: &Found) {
        let reached = (found.points - found.unreached).max(1);
        let mean = found.repeated as f64 / reached as f64;
        self.row(vec![
            what.to_owned(),
            scene.to_owned(),
            (found.points - found.unreached).to_string(),
            found.violations.len().to_string(),
            found.lost.to_string(),
            found.duplicated.to_string(),
            if found.is_uncounted { "–".to_owned() } else { found.repeated_most.to_string() },
            if found.is_uncounted { "–".to_owned() } else { format!("{mean:.2}") },
        ]);
        self.count(found);
    }

    /// Counts what was found without a row of its own.
    pub fn count(&mut self, found: &Found) {
        self.points += found.points - found.unreached;
        for violation in found.violations.iter().take(8) {
            eprintln!("    VIOLATION {violation}");
        }
        if found.violations.len() > 8 {
            eprintln!("    and {} more", found.violations.len() - 8);
        }
        self.violations.extend(found.violations.iter().cloned());
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        eprintln!("  {}", cells.join(" | "));
        self.rows.push(cells);
    }

    /// Says loudly that something was not tried.
    pub fn skip(&mut self, points: u64, why: &str) {
        eprintln!("  SKIPPED {points}: {why}");
        self.skipped += points;
        let mut cells = vec![String::new(); self.head.len()];
        cells[0] = format!("skipped {points}: {why}");
        self.rows.push(cells);
    }

    pub fn points(&self) -> u64 {
        self.points
    }

    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// The table as Markdown.
    pub fn markdown(&self, stamp: &str) -> String {
        let mut text = format!("**{}** ({stamp})\n\n", self.title);
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let cells: Vec<_> = cells.collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        };
        line(&mut self.head.iter().copied());
        line(&mut self.head.iter().map(|_| "---"));
        for row in &self.rows {
            line(&mut row.iter().map(String::as_str));
        }
        text
    }
}
