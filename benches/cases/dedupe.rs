//! What it costs to look for rows that ask the same.

use std::fs;

use super::{ROUNDS, job, middle, seconds, text};
use crate::support::data::Ground;
use crate::support::process::{Cost, cost, rowmill};
use crate::support::table::{Aim, Table};

const ROWS: u64 = 1_000_000;
/// What planning and merging may take.
const MEMORY: f64 = 300e6;

/// Plans rows that all ask something else, and rows of a hundred questions, with and without a look.
pub fn dedupe(ground: &Ground, table: &mut Table) {
    let input = ground.rows(ROWS);
    let dir = ground.fresh("dedupe");
    let all = ["--work-dir", text(&dir), "--overwrite"];
    let questions = [
        ("all questions differ", "Is the mood of this review good or bad? {{text}}"),
        ("100 questions", "Is {{score}} of 100 good or bad?"),
    ];
    for (what, prompt) in questions {
        let mut arguments = job(&input, "passthrough");
        let at = arguments.iter().position(|it| *it == "-p").expect("a prompt") + 1;
        arguments[at] = prompt;
        let plan = |option: &str| cost(rowmill(["plan"]).args(&arguments).args(all).arg(option));
        let rounds: Vec<(Cost, Cost)> =
            (0..ROUNDS).map(|_| (plan("--dedupe"), plan("--no-dedupe"))).collect();
        let of = |pick: fn(&Cost) -> f64| {
            let ours = middle(rounds.iter().map(|(with, _)| pick(with)).collect());
            (ours, middle(rounds.iter().map(|(_, without)| pick(without)).collect()))
        };
        let (ours, theirs) = of(|cost| seconds(cost.cpu) * 1e6 / ROWS as f64);
        let shown = (format!("{ours:.2} µs"), format!("--no-dedupe {theirs:.2} µs"));
        table.ratio(format!("plan, {what}: CPU a row"), shown, ours / theirs, Aim::None);
        let (ours, theirs) = of(|cost| seconds(cost.wall));
        let shown = (format!("{ours:.2} s"), format!("--no-dedupe {theirs:.2} s"));
        table.ratio("  time", shown, ours / theirs, Aim::None);
        let peak = of(|cost| cost.peak as f64).0;
        let shown = (format!("{:.0} MB", peak / 1e6), "300 MB");
        table.ratio("  peak memory", shown, peak / MEMORY, Aim::AtMost(1.0));
    }
    let _ = (fs::remove_dir_all(&dir), fs::remove_file(&input));
}
