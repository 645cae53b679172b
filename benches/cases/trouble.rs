//! The release binary before a server in trouble, with a plain client beside it at the same time, and what
//! somebody would need who knows the server.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{seconds, text};
use crate::support::data::Ground;
use crate::support::mock::{Mock, run_plain};
use crate::support::process::rowmill;
use crate::support::scenarios::{Scenario, all};
use crate::support::table::{Aim, Table};

/// Plays all scenarios, or those whose name holds what `TROUBLE` says.
pub fn trouble(ground: &Ground, table: &mut Table) {
    let wanted = std::env::var("TROUBLE").unwrap_or_default();
    for scenario in all().iter().filter(|it| it.name.contains(&wanted)) {
        let (ours, theirs) = (Mock::start(&scenario.endpoint), Mock::start(&scenario.endpoint));
        let (took, beside) = std::thread::scope(|scope| {
            let plain = scope.spawn(|| run_plain(&theirs, scenario.rows, scenario.concurrency));
            (run(ground, &ours, scenario), plain.join().expect("a time"))
        });
        if !wanted.is_empty() {
            eprintln!("  calls and refused, by the second: {:?}", ours.seconds());
        }
        let shown = |took: Duration, mock: &Mock| {
            let (calls, refused) = mock.calls();
            format!("{:.1} s, {calls} calls, {:.1} % refused", seconds(took), 100.0 * refused)
        };
        let both = (shown(took, &ours), shown(beside, &theirs));
        let ratio = seconds(took) / seconds(beside);
        table.ratio(scenario.name, both, ratio, Aim::AtMost(1.05));
        let ideal = scenario.oracle / seconds(took);
        let aim = if scenario.is_load { Aim::AtLeast(0.85) } else { Aim::None };
        let shown =
            (format!("{:.1} s", seconds(took)), format!("possible: {:.1} s", scenario.oracle));
        table.ratio("  beside what is possible", shown, ideal, aim);
    }
}

/// The time of a whole command: planning, calls, publishing.
fn run(ground: &Ground, mock: &Mock, scenario: &Scenario) -> Duration {
    let (input, url) = (rows(ground, scenario.rows), mock.url());
    let (dir, output) = (ground.path("trouble"), ground.path("trouble.jsonl"));
    let _ = fs::remove_dir_all(&dir);
    let _ = fs::remove_file(&output);
    let begin = Instant::now();
    let status = rowmill(["run", text(&input), "-m", "mock", "-p", "{{text}}", "--no-progress"])
        .args(["--base-url", &url, "-c", &scenario.concurrency.to_string(), "--id-field", "id"])
        .args(["--work-dir", text(&dir), "-o", text(&output), "--no-final-summary"])
        .stderr(Stdio::inherit())
        .status()
        .expect("rowmill");
    // Rows that are always refused fail, and the others are published.
    assert!(matches!(status.code(), Some(0 | 3)), "{}: {status}", scenario.name);
    begin.elapsed()
}

fn rows(ground: &Ground, count: usize) -> PathBuf {
    let path = ground.path(&format!("trouble-{count}.in.jsonl"));
    let mut rows = String::new();
    for row in 0..count {
        writeln!(rows, "{{\"id\":{row},\"text\":\"row-{row}-\"}}").expect("memory");
    }
    fs::write(&path, rows).expect("a disk");
    path
}
