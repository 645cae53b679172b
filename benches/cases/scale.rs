//! Whether 10,000,000 rows take the memory of 1,000,000, and ten times their CPU.

use std::fs;
use std::process::Stdio;

use super::start::sealed;
use super::{job, seconds, text};
use crate::support::data::Ground;
use crate::support::process::{Cost, cost, kill, rowmill};
use crate::support::table::{Aim, Table};

const ROWS: u64 = 10_000_000;
const BESIDE: u64 = 1_000_000;
/// What each stage may take.
const MEMORY: f64 = 300e6;

/// Plan, half of the work, killed; the rest of it; merge.
pub fn scale(ground: &Ground, table: &mut Table) {
    let (small, large) = (stages(ground, BESIDE), stages(ground, ROWS));
    for ((name, small), (_, large)) in small.into_iter().zip(large) {
        let peak = large.peak as f64;
        let shown = (format!("{:.0} MB", peak / 1e6), "300 MB");
        table.ratio(format!("{name}: peak memory"), shown, peak / MEMORY, Aim::AtMost(1.0));
        let a_row = |cost: Cost, rows: u64| seconds(cost.cpu) * 1e6 / rows as f64;
        let (ours, theirs) = (a_row(large, ROWS), a_row(small, BESIDE));
        let shown = (format!("{ours:.2} µs"), format!("1,000,000 rows: {theirs:.2} µs"));
        table.ratio("  CPU a row", shown, ours / theirs, Aim::AtMost(1.3));
    }
}

fn stages(ground: &Ground, rows: u64) -> [(&'static str, Cost); 3] {
    let (input, dir, output) =
        (ground.rows(rows), ground.fresh("scale"), ground.fresh("scale.jsonl"));
    let all = ["--work-dir", text(&dir)];
    let plan = cost(rowmill(["plan"]).args(job(&input, "passthrough")).args(all));
    let work = || {
        let mut command = rowmill(["work", "--no-progress"]);
        command.args(all);
        command
    };
    // A tenth is enough to have something to take up again.
    let mut child = work().stderr(Stdio::null()).spawn().expect("rowmill");
    while sealed(&dir) < rows / 100_000 && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    kill(child);
    let work = cost(&mut work());
    let merge = cost(rowmill(["merge", "--no-final-summary", "-o", text(&output)]).args(all));
    let _ = (fs::remove_dir_all(&dir), fs::remove_file(&output), fs::remove_file(&input));
    [("plan", plan), ("work, resumed after a kill", work), ("merge", merge)]
}
