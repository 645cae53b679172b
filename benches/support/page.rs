//! `docs/performance.md`, and `docs/limits.md`: each benchmark has a place in one of them, between two
//! comments, which nothing but a run of that benchmark fills.

use std::fs;
use std::process::Command;

use super::data::Ground;

const PAGES: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/docs/limits.md"),
];

/// Puts what a benchmark measured into its place.
pub fn write(name: &str, text: &str) {
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    for path in PAGES {
        let page = fs::read_to_string(path).expect("a page");
        let place = page.split_once(&begin).and_then(|(before, rest)| {
            let (_, behind) = rest.split_once(&end)?;
            Some(format!("{before}{begin}{text}{end}{behind}"))
        });
        if let Some(place) = place {
            fs::write(path, place).expect("a page");
            return;
        }
    }
    panic!("no page has a place for {name}");
}

/// What was measured, on what and when. To be asked before, because the load is of interest.
pub fn provenance(ground: &Ground) -> String {
    let dir = ground.path("");
    let place = dir.to_str().expect("a path of ours");
    let commit = said("git", &["describe", "--always", "--dirty", "--exclude=*"]);
    let kernel = said("uname", &["-sr"]);
    let disk = said("df", &["--output=fstype", place]).replace("Type", "");
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let date = jiff::Timestamp::now().strftime("%F");
    format!(
        "Commit {commit}, {date}; {kernel}, {cores} cores of {model}, {}; load of others before: {load}.",
        disk.trim()
    )
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
