//! What a row costs, and how much memory a run takes, as the number of rows grows.

use std::fs;
use std::time::Duration;

use super::{job, seconds, text};
use crate::support::data::Ground;
use crate::support::process::{Cost, cost, rowmill};
use crate::support::server::Server;
use crate::support::table::{Aim, Table};

const MIB: f64 = (1 << 20) as f64;

/// Runs of 10,000, 100,000 and 2,000,000 rows, without and with a network; beside each stands the
/// run of 100,000.
pub fn growth(ground: &Ground, table: &mut Table) {
    let server = Server::start(Duration::ZERO);
    let url = server.url();
    for (name, model) in [("passthrough", "passthrough"), ("HTTP", "mock")] {
        let run = |rows: u64| {
            let (dir, output) = (ground.fresh("growth"), ground.fresh("growth.jsonl"));
            let cost = cost(
                rowmill(["run", "--base-url", &url, "--no-final-summary"])
                    .args(job(&ground.rows(rows), model))
                    .args(["--work-dir", text(&dir), "-o", text(&output)]),
            );
            let _ = fs::remove_dir_all(dir);
            cost
        };
        let base = run(100_000);
        for rows in [10_000, 2_000_000] {
            let Cost { cpu, peak, .. } = run(rows);
            let (ours, theirs) = (a_row(cpu, rows), a_row(base.cpu, 100_000));
            let shown = (format!("{ours:.1} µs"), format!("100,000 rows: {theirs:.1} µs"));
            table.ratio(format!("{name}, {rows} rows: CPU a row"), shown, ours / theirs, Aim::None);
            let (ours, theirs) = (peak as f64 / MIB, base.peak as f64 / MIB);
            let shown = (format!("{ours:.0} MiB"), format!("100,000 rows: {theirs:.0} MiB"));
            let what = format!("{name}, {rows} rows: peak memory");
            table.ratio(what, shown, ours / theirs, Aim::AtMost(1.3));
        }
    }
}

fn a_row(cpu: Duration, rows: u64) -> f64 {
    seconds(cpu) * 1e6 / rows as f64
}
