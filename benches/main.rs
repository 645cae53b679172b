//! The benchmarks: whole commands of the release binary beside tools that do a part of the same work,
//! in one run on one machine. What is printed are ratios, because only they travel.
//!
//! `cargo bench` runs all of them but those that are long, and writes what it measured into
//! `docs/performance.md`; `cargo bench -- http plan` runs those that are named, and writes only with
//! `--write`. A tool that is not installed is left out, and that is said.

#![expect(
    unreachable_pub,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program of its own"
)]

mod cases;
mod support;

use support::data::Ground;
use support::page;
use support::table::Table;

/// A benchmark: its name, what it does, and the function that does it.
type Case = (&'static str, &'static str, fn(&Ground, &mut Table));

const CASES: [Case; 14] = [
    ("start", "`rowmill status` on a work directory of 1,000 shards", cases::start::status),
    ("http", "100,000 rows over HTTP, beside wrk on the same server", cases::http::throughput),
    (
        "latency",
        "400,000 answers of 200 ms, 1,000 at a time, beside the ideal",
        cases::http::latency,
    ),
    (
        "transports",
        "100,000 answers in events and over WebSockets, beside whole ones",
        cases::transports::transports,
    ),
    (
        "limits",
        "outages, brown-outs and rate limits in invented time, with plots",
        cases::limits::simulate,
    ),
    (
        "trouble",
        "endpoints that refuse, limit and fail, beside a plain client that tries again",
        cases::trouble::trouble,
    ),
    ("plan", "planning 2 GB of JSON Lines, beside DuckDB and b3sum", cases::files::plan),
    (
        "dedupe",
        "planning 1,000,000 rows with a look for those that ask the same, and without",
        cases::dedupe::dedupe,
    ),
    (
        "requests",
        "request files of 100,000 and 1,000,000 lines over HTTP, beside rows",
        cases::requests::requests,
    ),
    ("resume", "resuming 2,000,000 rows, finished and half-finished", cases::resume::resume),
    ("merge", "merging 2,000,000 rows, beside cat of the journals", cases::files::merge),
    ("growth", "CPU a row and peak memory from 10,000 to 2,000,000 rows", cases::growth::growth),
    ("update", "10,000,000 rows planned anew, 1 % of them changed", cases::update::update),
    ("scale", "10,000,000 rows through every stage, beside 1,000,000", cases::scale::scale),
];

/// Those that take many minutes, two of them 30 GB of disk as well: run when named.
const LONG: [&str; 3] = ["update", "scale", "trouble"];
const WRITE: &str = "--write";

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [serve, delay_ms] = &args[..]
        && serve == support::server::SERVE
    {
        support::server::serve(delay_ms.parse().expect("milliseconds"));
        return;
    }
    let writes = args.is_empty() || args.iter().any(|arg| arg == WRITE);
    args.retain(|arg| arg != WRITE);
    if let Some(unknown) = args.iter().find(|arg| !CASES.iter().any(|case| case.0 == **arg)) {
        let names: Vec<&str> = CASES.iter().map(|case| case.0).collect();
        eprintln!("there is no benchmark {unknown}; there are {}", names.join(", "));
        std::process::exit(2);
    }
    let ground = Ground::new();
    for (name, what, run) in CASES {
        let is_named = args.iter().any(|arg| arg == name);
        if is_named || args.is_empty() && !LONG.contains(&name) {
            eprintln!("{name}: {what} …");
            let mut table = Table::new(name, what);
            let made = page::provenance(&ground);
            run(&ground, &mut table);
            table.print();
            if writes {
                page::write(name, &format!("{}\n{made}\n", table.markdown()));
            }
        }
    }
}
