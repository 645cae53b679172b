//! Writes tables into `docs/reliability.md`, between the markers that bear their names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Ground;
use super::table::Table;

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md")
}

/// Puts a table into its place; the others stay.
pub fn write(ground: &Ground, table: &Table) -> Result<(), String> {
    let path = document();
    let mut text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    let (begin, end) =
        (format!("<!-- prove:{} -->\n", table.name), format!("<!-- /prove:{} -->", table.name));
    let from = text.find(&begin).map(|at| at + begin.len());
    let (Some(from), Some(to)) = (from, text.find(&end)) else {
        return Err(format!("docs/reliability.md has no place for {}", table.name));
    };
    let stamp = stamp(table.place.as_deref().unwrap_or(&ground.dir));
    text.replace_range(from..to, &format!("\n{}\n", table.markdown(&stamp)));
    fs::write(&path, text).map_err(|error| error.to_string())
}

/// Of what, when and where the figures are.
fn stamp(place: &Path) -> String {
    let commit = said("git", &["rev-parse", "--short=10", "HEAD"]);
    let changed = said("git", &["status", "--porcelain", "--", "src", "tests", "Cargo.lock"]);
    let changed = if changed.is_empty() { "" } else { " with changes" };
    let (kernel, day) = (said("uname", &["-sr"]), said("date", &["-u", "+%Y-%m-%d"]));
    let system = said("stat", &["-f", "-c", "%T", &place.to_string_lossy()]);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    format!(
        "commit {commit}{changed}, {profile} build, {day}, {kernel}, {cores} cores, on {system}"
    )
}

fn said(program: &str, words: &[&str]) -> String {
    let output = Command::new(program)
        .args(words)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
