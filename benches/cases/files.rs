//! The stages that only read and write files, beside tools that read or write the same bytes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{ROUNDS, job, middle, seconds, text};
use crate::support::data::Ground;
use crate::support::process::{cost, is_installed, rowmill};
use crate::support::table::{Aim, Table};

/// Every row parsed, template fields looked for, ids made sure to be unique, everything hashed.
pub fn plan(ground: &Ground, table: &mut Table) {
    const ROWS: u64 = 10_000_000;
    let input = ground.rows(ROWS);
    let bytes = fs::metadata(&input).expect("it is there").len() as f64;
    let distinct = format!(
        "import duckdb; duckdb.sql(\"select count(*), count(distinct id) from read_json('{}', \
         format='newline_delimited', columns={{id: 'VARCHAR'}})\").fetchall()",
        text(&input)
    );
    let duckdb = || {
        let mut command = Command::new("python3");
        command.args(["-c", &distinct]);
        command
    };
    let b3sum = || {
        let mut command = Command::new("b3sum");
        command.arg("--num-threads=1").arg(&input).stdout(Stdio::null());
        command
    };
    let has_duckdb = is_installed(Command::new("python3").args(["-c", "import duckdb"]));
    let has_b3sum = is_installed(Command::new("b3sum").arg("--version"));
    let (mut ours, mut engine, mut floor) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let dir = ground.fresh("plan");
        let mut command = rowmill(["plan"]);
        command.args(job(&input, "mock")).args(["--work-dir", text(&dir)]);
        ours.push(seconds(cost(&mut command).wall));
        if has_duckdb {
            engine.push(seconds(cost(&mut duckdb()).wall));
        }
        if has_b3sum {
            floor.push(seconds(cost(&mut b3sum()).wall));
        }
    }
    let ours = middle(ours);
    let shown = |wall: f64| format!("{wall:.2} s, {:.0} MB/s", bytes / wall / 1e6);
    let beside = |name: &str, wall: f64| (shown(ours), format!("{name} {}", shown(wall)));
    if has_duckdb {
        let wall = middle(engine);
        table.ratio("10,000,000 rows", beside("DuckDB", wall), wall / ours, Aim::AtLeast(1.0));
    } else {
        table.note(format!("{}; DuckDB is not installed (pip install duckdb)", shown(ours)));
    }
    if has_b3sum {
        let wall = middle(floor);
        table.ratio("the floor: its bytes hashed", beside("b3sum", wall), wall / ours, Aim::None);
    } else {
        table.note("b3sum is not installed (apt-get install b3sum)");
    }
    let _ = fs::remove_file(input);
}

/// Journals verified and made into an output, beside their bytes copied.
pub fn merge(ground: &Ground, table: &mut Table) {
    const ROWS: u64 = 2_000_000;
    let (input, dir) = (ground.rows(ROWS), ground.fresh("merge"));
    let dir_text = text(&dir).to_owned();
    let all = ["--work-dir", dir_text.as_str()];
    cost(rowmill(["plan"]).args(job(&input, "passthrough")).args(all));
    cost(rowmill(["work", "--no-progress"]).args(all));
    let bytes = journal_bytes(&dir) as f64;
    let (mut ours, mut theirs) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        let output = ground.fresh("merge.jsonl");
        let mut command = rowmill(["merge", "--no-final-summary", "-o", text(&output)]);
        ours.push(seconds(cost(command.args(all)).wall));
        let copy = ground.fresh("merge.cat");
        let line = format!("cat {dir_text}/shards/*/journal > {}", text(&copy));
        theirs.push(seconds(cost(Command::new("sh").args(["-c", &line])).wall));
    }
    let (ours, theirs) = (middle(ours), middle(theirs));
    let shown = |wall: f64| format!("{wall:.2} s, {:.0} MB/s", bytes / wall / 1e6);
    let beside = (shown(ours), format!("cat {}", shown(theirs)));
    table.ratio("2,000,000 rows", beside, theirs / ours, Aim::AtLeast(0.4));
    let _ = fs::remove_file(ground.path("merge.cat"));
}

fn journal_bytes(dir: &Path) -> u64 {
    let shards = fs::read_dir(dir.join("shards")).expect("shards");
    let journals = shards.map(|shard| shard.expect("a shard").path().join("journal"));
    journals.map(|journal| fs::metadata(journal).expect("a journal").len()).sum()
}
