//! Proves what `docs/durability.md` promises, by disturbing the built binary in every way that is
//! known, and writes what it found into `docs/reliability.md`.
//!
//! ```sh
//! cargo test --release --test prove -- all        # everything; rewrites the document's tables
//! cargo test --release --test prove -- points     # one table
//! cargo test --release --test prove -- points scene=URL  # of one table these scenes, told and not written
//! cargo test --test prove                         # the quick part, under five minutes
//! ```

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(unreachable_pub, reason = "a test crate has no outside")]
#![expect(clippy::print_stderr, reason = "progress and violations are told there")]
#![expect(clippy::print_stdout, reason = "the last line is the result")]

mod away;
mod bytes;
mod cuts;
#[path = "../support/depot.rs"]
#[expect(dead_code, reason = "the other tests use the rest of it")]
mod depot;
mod figures;
mod host;
mod limits;
mod mutants;
mod points;
mod power;
mod random;
mod report;
mod scene;
#[path = "../support/server.rs"]
#[expect(dead_code, reason = "the other tests use the rest of it")]
mod server;
mod shim;
mod site;
mod strict;
mod swaps;
mod table;
mod tiny;
mod trial;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use scene::{SCENES, Scene};
use shim::Shim;
use site::Site;
use table::Table;

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// What fits into five minutes.
    Quick,
    /// Everything.
    All,
}

/// What all parts work with.
pub struct Ground {
    dir: PathBuf,
    shim: Shim,
    binary: PathBuf,
    mutant: Option<&'static str>,
    /// What chance is drawn from.
    seed: u64,
    /// What the names of the scenes have in common that are tried.
    scenes: String,
}

impl Ground {
    fn new(seed: u64, scenes: String) -> Result<Self, String> {
        // In memory where there is a place for it: a sync costs nothing there, and what it is to
        // protect from is tried elsewhere.
        let memory = Path::new("/dev/shm");
        let within = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = within.join(format!("rowmill-prove-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let shim = Shim::build(&dir)?;
        Ok(Self {
            dir,
            shim,
            binary: env!("CARGO_BIN_EXE_rowmill").into(),
            mutant: None,
            seed,
            scenes,
        })
    }

    /// The scenes that are tried.
    fn scenes(&self) -> impl Iterator<Item = &'static Scene> {
        SCENES.iter().filter(|scene| scene.name.contains(&self.scenes))
    }

    /// One site for each thread that works.
    fn sites(&self, name: &str) -> Vec<Site> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads)
            .map(|thread| {
                let mut site = Site::new(self.dir.join(format!("{name}-{thread}")), &self.binary);
                site.mutant = self.mutant;
                site
            })
            .collect()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

type Part = fn(&Ground, Scale) -> Table;

/// The parts, by the names of their tables.
const PARTS: &[(&str, Part)] = &[
    ("complete", |ground, _| points::completeness(ground)),
    ("points", points::prove),
    ("strict", cuts::prove),
    ("power", power::prove),
    ("host", host::prove),
    ("swaps", swaps::prove),
    ("random", random::prove),
    ("mutants", mutants::prove),
    ("figures", figures::measure),
    ("fuzz", bytes::prove),
];

fn main() -> ExitCode {
    let words = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let (scenes, wanted): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with("scene="));
    let scenes = scenes.first().and_then(|word| word.strip_prefix("scene="));
    let scenes = scenes.unwrap_or_default().to_owned();
    let is_all = wanted.iter().any(|name| name == "all");
    let is_known = |name: &String| PARTS.iter().any(|(part, _)| part == name);
    if let Some(unknown) = wanted.iter().find(|name| *name != "all" && !is_known(name)) {
        let known: Vec<_> = PARTS.iter().map(|(part, _)| *part).collect();
        println!(
            "prove result: FAILED. there is no part {unknown:?}; there are all, {}",
            known.join(", ")
        );
        return ExitCode::FAILURE;
    }
    let scale = if wanted.is_empty() { Scale::Quick } else { Scale::All };
    let is_part = !scenes.is_empty();
    let ground = match Ground::new(1, scenes) {
        Ok(ground) => ground,
        Err(error) => {
            println!("prove result: FAILED. nothing was tried: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (mut points, mut skipped, mut violations) = (0, 0, 0);
    for (name, part) in PARTS {
        if !wanted.is_empty() && !is_all && !wanted.iter().any(|it| it == name) {
            continue;
        }
        let began = std::time::Instant::now();
        let table = part(&ground, scale);
        eprintln!("  took {:.1} s", began.elapsed().as_secs_f64());
        points += table.points();
        skipped += table.skipped();
        violations += table.violations().len();
        // One by one: what is found is kept, whatever becomes of the rest.
        if scale == Scale::All
            && !is_part
            && let Err(error) = report::write(&ground, &table)
        {
            eprintln!("docs/reliability.md was not written: {error}");
            violations += 1;
        }
    }
    let result = if violations == 0 { "ok" } else { "FAILED" };
    println!("prove result: {result}. {points} points; {violations} violations; {skipped} skipped");
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
