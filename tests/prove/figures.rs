//! What recovery and durability cost: time to read damaged work back, rows a second in each mode.
//!
//! On the disk that holds the build, not in memory: here a sync costs what it costs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::site::{Manners, Model, Site};
use super::table::{Found, Table};
use super::{Ground, Scale};

/// Measures both.
pub fn measure(ground: &Ground, scale: Scale) -> Table {
    let head = ["", "rows", "journals", "took", "a million rows", "a GB"];
    let mut table = Table::with_head("figures", "What recovery and durability cost", &head);
    let rows: u64 = if scale == Scale::All { 1_000_000 } else { 20_000 };
    let within =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("prove-{}", std::process::id()));
    let site = Site::new(within.clone(), &ground.binary);
    let model = Model::start(Manners::Good);
    let mut found = Found::default();
    input(&site, rows);
    for durability in ["strict", "interval:1s", "seal"] {
        let took = worked(&site, &model, durability, &mut found);
        let bytes = journals(&site).iter().map(|path| length(path)).sum();
        let what = format!("worked with passthrough, --durability {durability}");
        table.row(cells(&what, rows, bytes, took));
    }
    for (what, damage) in DAMAGES {
        let bytes = journals(&site).iter().map(|path| length(path)).sum();
        damage(&site);
        let began = Instant::now();
        let ended = site.run("work --work-dir wd --no-progress", &model);
        table.row(cells(what, rows, bytes, began.elapsed()));
        let whole = ended.code == 0 && !ended.said.contains("lost");
        found.check(whole, format!("{what}: {} {}", ended.code, ended.said));
        let status = site.run("status --work-dir wd --json", &model);
        let is_whole = status.said.contains(&format!("\"ok\":{rows}"))
            || status.said.contains(&format!("\"ok\": {rows}"));
        found.check(is_whole, format!("{what}: {}", status.said));
    }
    table.count(&found);
    table.place = Some(env!("CARGO_TARGET_TMPDIR").into());
    let _ = fs::remove_dir_all(within);
    table
}

/// Something that may be gone, and how it goes.
type Damage = (&'static str, fn(&Site));

const DAMAGES: [Damage; 2] = [
    ("all seals gone, as after a crash of every shard at its end: journals read back", |site| {
        for journal in journals(site) {
            fs::remove_file(journal.with_file_name("seal.json")).expect("a seal");
        }
    }),
    ("the same, and every journal's tail torn", |site| {
        for journal in journals(site) {
            fs::remove_file(journal.with_file_name("seal.json")).expect("a seal");
            let file = fs::OpenOptions::new().append(true).open(&journal).expect("a journal");
            let length = file.metadata().expect("a journal").len();
            file.set_len(length + 40).expect("a disk");
        }
    }),
];

/// A row of some 200 bytes, as in the benchmarks.
fn input(site: &Site, rows: u64) {
    let text = "the delivery came two days late but support answered within minutes ".repeat(2);
    let lines: String = (1..=rows)
        .map(|row| format!("{{\"id\":\"row-{row:09}\",\"text\":\"{text}\"}}\n"))
        .collect();
    fs::write(site.path("in.jsonl"), lines).expect("a disk");
}

fn worked(site: &Site, model: &Model, durability: &str, found: &mut Found) -> Duration {
    let _ = fs::remove_dir_all(site.path("wd"));
    let planned = site.run(
        "plan in.jsonl --work-dir wd --id-field id -m passthrough -p {{text}} --no-progress",
        model,
    );
    found.check(planned.code == 0, planned.said);
    let began = Instant::now();
    let line = format!("work --work-dir wd --no-progress --durability {durability}");
    let ended = site.run(&line, model);
    let took = began.elapsed();
    found.check(ended.code == 0, ended.said);
    took
}

fn journals(site: &Site) -> Vec<PathBuf> {
    let shards = fs::read_dir(site.path("wd/shards")).expect("shards").flatten();
    shards.map(|shard| shard.path().join("journal")).collect()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).expect("a journal").len()
}

fn cells(what: &str, rows: u64, bytes: u64, took: Duration) -> Vec<String> {
    let (seconds, rows, bytes) = (took.as_secs_f64(), rows as f64, bytes as f64);
    vec![
        what.to_owned(),
        format!("{rows}"),
        format!("{:.0} MB", bytes / 1e6),
        format!("{seconds:.2} s"),
        format!("{:.2} s", seconds * 1e6 / rows),
        format!("{:.2} s", seconds * 1e9 / bytes),
    ]
}
