//! What the client costs when the server costs nothing, and when it is slow.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{ROUNDS, job, middle, seconds, text};
use crate::support::data::Ground;
use crate::support::process::{Cost, cost, is_installed, rowmill};
use crate::support::server::Server;
use crate::support::table::{Aim, Table};

pub(super) const ROWS: u64 = 100_000;

/// Rows a second and CPU a row, in every durability mode, beside what wrk gets from the same server
/// with as many connections.
pub fn throughput(ground: &Ground, table: &mut Table) {
    let server = Server::start(Duration::ZERO);
    let has_wrk = has_wrk(table);
    let memory = tempfile::tempdir_in("/dev/shm").ok();
    let disk = ground.path("");
    for concurrency in ["64", "256"] {
        for durability in ["strict", "interval:1s", "seal", IN_MEMORY] {
            let (within, durability) = match (durability, &memory) {
                (IN_MEMORY, None) => continue,
                (IN_MEMORY, Some(memory)) => (memory.path(), "strict"),
                _ => (disk.as_path(), durability),
            };
            let is_in_memory = within != disk;
            let (mut theirs, mut ours, mut cpu) = (vec![], vec![], vec![]);
            for _ in 0..ROUNDS {
                if has_wrk {
                    theirs.push(wrk(ground, &server, concurrency, ""));
                }
                let Cost { wall, cpu: used, .. } =
                    run(ground, within, &server, ["mock", concurrency, durability]);
                ours.push(ROWS as f64 / seconds(wall));
                cpu.push(seconds(used) * 1e6 / ROWS as f64);
            }
            let (ours, cpu) = (middle(ours), middle(cpu));
            let theirs = if has_wrk { middle(theirs) } else { f64::NAN };
            let shown = (format!("{ours:.0} rows/s"), format!("wrk {theirs:.0} requests/s"));
            let place = if is_in_memory { ", no disk: all in memory" } else { "" };
            let what = format!("-c {concurrency} {durability}{place}");
            let is_aim = (concurrency, durability, is_in_memory) == ("64", "strict", false);
            let aim = if is_aim { Aim::AtLeast(0.5) } else { Aim::None };
            table.ratio(what, shown, ours / theirs, aim);
            let (what, shown) =
                ("  CPU a row, plan and merge included", (format!("{cpu:.1} µs"), "15 µs"));
            table.ratio(what, shown, cpu / 15.0, Aim::AtMost(1.0));
        }
    }
}

/// Stands among the durability modes for `strict` on a file system in memory: what the disk costs.
const IN_MEMORY: &str = "in memory";

/// A whole run over the rows.
pub(super) fn run(
    ground: &Ground,
    within: &Path,
    server: &Server,
    [model, concurrency, durability]: [&str; 3],
) -> Cost {
    let (input, url) = (ground.rows(ROWS), server.url());
    let (dir, output) = (within.join("http"), within.join("http.jsonl"));
    let _ = fs::remove_dir_all(&dir);
    let _ = fs::remove_file(&output);
    cost(
        rowmill(["run"])
            .args(job(&input, model))
            .args(["--base-url", &url, "-c", concurrency, "--durability", durability])
            .args(["--work-dir", text(&dir), "-o", text(&output), "--no-final-summary"]),
    )
}

/// Whether wrk is there; if not, the table says so.
pub(super) fn has_wrk(table: &mut Table) -> bool {
    let has_wrk = is_installed(Command::new("sh").args(["-c", "command -v wrk"]));
    if !has_wrk {
        table.note("wrk is not installed (apt-get install wrk): no ratios");
    }
    has_wrk
}

/// Requests a second that wrk gets with a request like rowmill's, and with these fields besides.
pub(super) fn wrk(ground: &Ground, server: &Server, connections: &str, fields: &str) -> f64 {
    const SCRIPT: &str = r#"
        wrk.method = "POST"
        wrk.headers["content-type"] = "application/json"
        wrk.body = '{"model":"mock","messages":[{"role":"user","content":"' ..
            string.rep("Is the mood of this review good or bad? ", 6) .. '"}]FIELDS}'
    "#;
    let script = ground.path("wrk.lua");
    fs::write(&script, SCRIPT.replace("FIELDS", fields)).expect("a disk");
    let said = Command::new("wrk")
        .args(["-t", "1", "-c", connections, "-d", "2s", "-s", text(&script)])
        .arg(format!("{}/chat/completions", server.url()))
        .output()
        .expect("wrk");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let line = said.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("wrk said {said}"))
}

/// The share of the ideal time when answers take long, with nothing but what is always there and with
/// all that may hold calls back.
pub fn latency(ground: &Ground, table: &mut Table) {
    const LATENCY: Duration = Duration::from_millis(200);
    const CONCURRENCY: u64 = 1_000;
    // Enough that the second in which concurrency grows to a thousand is not the whole.
    const MANY: u64 = 2 * ROWS;
    let server = Server::start(LATENCY);
    let ideal = seconds(LATENCY) * (MANY / CONCURRENCY) as f64;
    let (input, url, within) = (ground.rows(MANY), server.url(), ground.path(""));
    let (dir, output) = (within.join("http"), within.join("http.jsonl"));
    let rates = ["--rpm", "900000", "--tpm", "900000000"];
    for (what, more) in [
        ("-c 1000 --fixed-concurrency", &["--fixed-concurrency"][..]),
        ("-c 1000", &[]),
        ("-c 1000 --rpm 900000 --tpm 900000000", &rates),
    ] {
        let _ = fs::remove_dir_all(&dir);
        let _ = fs::remove_file(&output);
        let wall = cost(
            rowmill(["run"])
                .args(job(&input, "mock"))
                .args(["--base-url", &url, "-c", &CONCURRENCY.to_string()])
                .args(["--work-dir", text(&dir), "-o", text(&output), "--no-final-summary"])
                .args(more),
        )
        .wall;
        let shown = (format!("{:.2} s", seconds(wall)), format!("ideal {ideal:.2} s"));
        table.ratio(what, shown, ideal / seconds(wall), Aim::AtLeast(0.95));
    }
}
