//! What request files cost beside rows, and whether a million of their lines fit in memory.

use std::fs;
use std::time::Duration;

use super::http::{ROWS, run};
use super::{ROUNDS, middle, seconds, text};
use crate::support::data::Ground;
use crate::support::process::{Cost, cost, rowmill};
use crate::support::server::Server;
use crate::support::table::{Aim, Table};

const MANY: u64 = 1_000_000;
/// What a run may take.
const MEMORY: f64 = 300e6;

/// Lines of OpenAI's Batch API over HTTP, their answers in its format, beside rows.
pub fn requests(ground: &Ground, table: &mut Table) {
    let server = Server::start(Duration::ZERO);
    let within = ground.path("");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let a_row = |cost: &Cost| seconds(cost.cpu) * 1e6 / ROWS as f64;
        ours.push(a_row(&sent(ground, &server, ROWS)));
        theirs.push(a_row(&run(ground, &within, &server, ["mock", "64", "strict"])));
    }
    let (ours, theirs) = (middle(ours), middle(theirs));
    let shown = (format!("{ours:.1} µs"), format!("rows {theirs:.1} µs"));
    table.ratio("-c 64: CPU a line", shown, ours / theirs, Aim::AtMost(1.5));
    let Cost { wall, peak, .. } = sent(ground, &server, MANY);
    let peak = peak as f64;
    let shown = (format!("{:.0} MB", peak / 1e6), "300 MB");
    table.ratio("1,000,000 lines: peak memory", shown, peak / MEMORY, Aim::AtMost(1.0));
    table.note(format!("1,000,000 lines took {:.0} s", seconds(wall)));
}

/// Sends a file of requests.
fn sent(ground: &Ground, server: &Server, lines: u64) -> Cost {
    let (input, url) = (ground.requests(lines), server.url());
    let (dir, output) = (ground.fresh("requests"), ground.fresh("requests.jsonl"));
    let cost = cost(
        rowmill(["run", text(&input), "-c", "64", "--base-url", &url, "--no-progress"]).args([
            "--work-dir",
            text(&dir),
            "-o",
            text(&output),
            "--no-final-summary",
        ]),
    );
    let written = fs::read(&output).expect("an output");
    assert_eq!(memchr::memchr_iter(b'\n', &written).count() as u64, lines);
    cost
}
