//! Hostile bytes: what each reader of bytes that others wrote keeps to, whatever the bytes are.
//!
//! Compiled for tests and for fuzzing only. A target takes any bytes, hands them to the code that
//! will meet them, and panics when what that code promises does not hold: not only that it does not
//! panic itself. `cargo test` runs every target on its seeds (`fixtures/fuzz/NAME/`) and on some
//! thousand mutations of them; `tests/fuzz/run` lets libFuzzer look for more, and every input that
//! it finds a mistake with becomes a seed.

mod answers;
mod attachments;
mod config;
mod dialects;
mod earlier;
mod links;
mod replies;
mod rows;

use std::path::Path;

/// Something that reads bytes which others wrote.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is that of its directory of seeds.
    pub name: &'static str,
    /// Checks it on some bytes. The path is a directory for whatever files it needs.
    pub run: fn(&[u8], &Path),
    /// How many mutations of its seeds `cargo test` tries: about a second's worth.
    pub tries: u32,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "attachment", run: attachments::attachment, tries: 20_000 },
    Target { name: "config", run: config::config, tries: 3000 },
    Target { name: "csv", run: rows::csv, tries: 500 },
    Target { name: "dialects", run: dialects::dialects, tries: 2000 },
    Target { name: "earlier", run: earlier::earlier, tries: 1000 },
    Target { name: "escape", run: replies::escape, tries: 15_000 },
    Target { name: "events", run: replies::events, tries: 3000 },
    Target { name: "journal", run: crate::store::fuzz::journal, tries: 1000 },
    Target { name: "link", run: links::link, tries: 100_000 },
    Target { name: "manifest", run: crate::store::fuzz::manifest, tries: 20_000 },
    Target { name: "reply", run: replies::reply, tries: 4000 },
    Target { name: "retry_after", run: replies::retry_after, tries: 100_000 },
    Target { name: "rows", run: rows::json_lines, tries: 2000 },
    Target { name: "shard", run: crate::store::fuzz::shard, tries: 20 },
    Target { name: "short", run: answers::short, tries: 20_000 },
    Target { name: "state", run: crate::store::fuzz::state, tries: 50_000 },
    Target { name: "template", run: rows::template, tries: 20_000 },
    Target { name: "unwrap", run: answers::unwrap, tries: 5000 },
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Another seed tries other mutations; one that failed is printed.
    const SEED: u64 = 29;

    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fuzz").join(name);
        let mut files: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    /// Changes some bytes, or puts in some of another seed.
    fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut fastrand::Rng) {
        const WORDS: [&[u8]; 12] = [
            b"\n", b"\r", b"\"", b"\\", b"{", b"}}", b"{{", b",", b"\0", b"\xff", b"~\n", b"1e999",
        ];
        for _ in 0..random.u8(1..5) {
            let at = random.usize(..=bytes.len());
            let end = (at + random.usize(..8)).min(bytes.len());
            match random.u8(..5) {
                0 => bytes.truncate(at),
                1 => drop(bytes.splice(at..end, WORDS[random.usize(..WORDS.len())].to_vec())),
                2 => drop(bytes.drain(at..end)),
                3 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
                _ => {
                    let from = random.usize(..=other.len());
                    drop(bytes.splice(at..at, other[from..].to_vec()));
                }
            }
        }
        bytes.truncate(4096);
    }

    fn check(target: &Target, bytes: &[u8], scratch: &Path) {
        let run = || (target.run)(bytes, scratch);
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            panic!("{} (seed {SEED}) does not hold for b\"{}\"", target.name, bytes.escape_ascii());
        }
    }

    fn check_all(name: &str) {
        let target = TARGETS.iter().find(|target| target.name == name).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in &seeds {
            check(target, seed, dir.path());
        }
        let mut random = fastrand::Rng::with_seed(SEED);
        for _ in 0..target.tries {
            let mut bytes = seeds[random.usize(..seeds.len())].clone();
            let other = &seeds[random.usize(..seeds.len())];
            mutate(&mut bytes, other, &mut random);
            check(target, &bytes, dir.path());
        }
    }

    macro_rules! targets_hold {
        ($($name:ident)*) => {
            $(#[test]
            fn $name() {
                check_all(stringify!($name));
            })*

            #[test]
            fn every_target_is_tested() {
                let tested = [$(stringify!($name)),*];
                assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), tested);
            }
        };
    }

    targets_hold!(
        attachment config csv dialects earlier escape events journal link manifest reply retry_after rows shard short state
        template unwrap
    );
}
