//! Hostile bytes: has libFuzzer look for inputs that break a parser, target by target.

use std::path::Path;
use std::process::Command;

use super::table::{Found, Table};
use super::{Ground, Scale};

/// How long each target is looked at.
const SECONDS: u64 = 120;

/// Runs `tests/fuzz/run`. The quick part leaves it to `cargo test`, which tries the kept seeds and
/// some thousand changes of them.
pub fn prove(_ground: &Ground, scale: Scale) -> Table {
    let head = ["target", "seconds", "executions", "crashes"];
    let mut table = Table::with_head("fuzz", "Hostile bytes, guided by coverage", &head);
    if scale == Scale::Quick {
        return table;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut targets: Vec<_> = std::fs::read_dir(root.join("fixtures/fuzz"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    targets.sort();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let shares: Vec<Vec<&String>> =
        (0..threads).map(|share| targets.iter().skip(share).step_by(threads).collect()).collect();
    let outputs = std::thread::scope(|scope| {
        let run = |share: Vec<&String>| {
            let mut command = Command::new(root.join("tests/fuzz/run"));
            command.arg(SECONDS.to_string()).args(share).output()
        };
        let running: Vec<_> = shares.into_iter().map(|it| scope.spawn(move || run(it))).collect();
        running.into_iter().map(|it| it.join().expect("no panic")).collect::<Vec<_>>()
    });
    let mut found = Found::default();
    for output in outputs {
        let Ok(output) = output else {
            table.skip(1, "tests/fuzz/run cannot be started");
            continue;
        };
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.code() == Some(77) {
            table.skip(1, &why);
            continue;
        }
        found.check(output.status.success(), why);
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            table.row(line.split_whitespace().map(str::to_owned).collect());
        }
    }
    table.count(&found);
    table
}
