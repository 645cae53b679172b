//! The benchmarks.

pub mod dedupe;
pub mod files;
pub mod growth;
pub mod http;
pub mod limits;
pub mod requests;
pub mod resume;
pub mod scale;
pub mod start;
pub mod transports;
pub mod trouble;
pub mod update;

use std::path::Path;
use std::time::Duration;

/// Rounds of what is short; the middle one counts.
const ROUNDS: usize = 3;

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

/// The arguments of a job over a file: everything but where it goes.
fn job<'a>(input: &'a Path, model: &'a str) -> Vec<&'a str> {
    let prompt = "Is the mood of this review good or bad? {{text}}";
    vec![text(input), "-m", model, "--id-field", "id", "-p", prompt, "--no-progress"]
}
