//! How long it takes to look at a work directory.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{job, middle, seconds, text};
use crate::support::data::Ground;
use crate::support::process::{cost, kill, rowmill};
use crate::support::table::{Aim, Table};

const SHARDS: u64 = 1_000;
const ROWS: u64 = 2_000_000;
/// As short as they are, many are needed.
const LOOKS: usize = 21;

/// `rowmill status`: planned, half-worked and killed, worked.
pub fn status(ground: &Ground, table: &mut Table) {
    let (input, dir) = (ground.rows(ROWS), ground.fresh("start"));
    let (a_shard, dir_text) = ((ROWS / SHARDS).to_string(), text(&dir));
    let all = ["--work-dir", dir_text];
    cost(rowmill(["plan", "--shard-rows", &a_shard]).args(job(&input, "passthrough")).args(all));
    show(table, "planned", &dir);

    let mut work = rowmill(["work", "--no-progress"]);
    let mut child = work.args(all).stderr(Stdio::null()).spawn().expect("rowmill");
    while sealed(&dir) < SHARDS / 2 && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    kill(child);
    show(table, "half-worked, killed", &dir);

    cost(rowmill(["work", "--no-progress"]).args(all));
    show(table, "worked", &dir);
    let _ = fs::remove_dir_all(dir);
}

fn show(table: &mut Table, what: &str, dir: &Path) {
    let look = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rowmill"));
        command.args(["status", "--work-dir", text(dir)]).stdout(Stdio::null());
        let begin = Instant::now();
        assert!(command.status().expect("rowmill").success());
        seconds(begin.elapsed()) * 1e3
    };
    let time = middle((0..LOOKS).map(|_| look()).collect());
    let what = format!("{what}: {} of {SHARDS} shards sealed", sealed(dir));
    table.ratio(what, (format!("{time:.1} ms"), "10 ms"), time / 10.0, Aim::AtMost(1.0));
}

/// How many shards are sealed.
pub fn sealed(dir: &Path) -> u64 {
    let shards = fs::read_dir(dir.join("shards")).into_iter().flatten().flatten();
    shards.filter(|shard| shard.path().join("seal.json").exists()).count() as u64
}
