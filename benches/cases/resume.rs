//! How long it takes until the first call of a run that goes on.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{job, seconds, text};
use crate::support::data::Ground;
use crate::support::process::{cost, kill, rowmill};
use crate::support::server::Server;
use crate::support::table::{Aim, Table};

const ROWS: u64 = 2_000_000;

/// A run of 2,000,000 rows: half of it, killed; gone on with until its first call, killed; finished;
/// and finished once more.
pub fn resume(ground: &Ground, table: &mut Table) {
    let (input, dir, output) =
        (ground.rows(ROWS), ground.fresh("resume"), ground.fresh("resume.jsonl"));
    let run = |url: &str| {
        let mut command = rowmill(["run", "--resume", "--base-url", url, "-c", "256"]);
        command.args(job(&input, "mock")).args(["--no-final-summary"]);
        command.args(["--work-dir", text(&dir), "-o", text(&output)]);
        command
    };
    let half = ROWS / 2;
    let server = Server::start(Duration::ZERO);
    let mut child = run(&server.url()).stderr(Stdio::null()).spawn().expect("rowmill");
    while done(&dir) < half && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(Duration::from_millis(100));
    }
    kill(child);
    let finished = done(&dir);

    let mut fresh = Server::start(Duration::ZERO);
    let begin = Instant::now();
    let child = run(&fresh.url()).stderr(Stdio::null()).spawn().expect("rowmill");
    fresh.wait_for_first();
    show(table, "half-finished, to the first call", begin.elapsed(), finished);
    kill(child);

    cost(&mut run(&server.url()));
    let cost = cost(&mut run(&server.url()));
    show(table, "finished, to the end (no call)", cost.wall, ROWS);
}

fn show(table: &mut Table, what: &str, time: Duration, finished: u64) {
    let (time, a_row) = (seconds(time), seconds(time) * 1e6 / finished as f64);
    table.ratio(what, (format!("{time:.2} s"), "3 s"), time / 3.0, Aim::AtMost(1.0));
    let what = format!("  a finished row ({finished})");
    table.ratio(what, (format!("{a_row:.2} µs"), "1 µs"), a_row, Aim::AtMost(1.0));
}

/// Rows that are done, as `status` tells it.
fn done(dir: &Path) -> u64 {
    let said = Command::new(env!("CARGO_BIN_EXE_rowmill"))
        .args(["status", "--json", "--work-dir", text(dir)])
        .stderr(Stdio::null())
        .output()
        .expect("rowmill");
    let status: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
    status["ok"].as_u64().unwrap_or(0)
}
