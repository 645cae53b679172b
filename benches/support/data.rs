//! Inputs, made once and thrown away at the end.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// Where the benchmarks work.
pub struct Ground {
    dir: tempfile::TempDir,
}

const WORDS: [&str; 16] = [
    "the",
    "delivery",
    "came",
    "two",
    "days",
    "late",
    "but",
    "support",
    "answered",
    "within",
    "minutes",
    "and",
    "\\\"sorry\\\"",
    "was",
    "all",
    "said",
];

impl Ground {
    pub fn new() -> Self {
        let within = env!("CARGO_TARGET_TMPDIR");
        Self { dir: tempfile::tempdir_in(within).expect("a directory") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path at which nothing is.
    pub fn fresh(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let _ = fs::remove_dir_all(&path);
        let _ = fs::remove_file(&path);
        path
    }

    /// A file of so many rows of some 220 bytes.
    pub fn rows(&self, rows: u64) -> PathBuf {
        let path = self.path(&format!("rows-{rows}.jsonl"));
        if path.exists() {
            return path;
        }
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).expect("a file"));
        let mut random = fastrand::Rng::with_seed(rows);
        for row in 0..rows {
            write!(file, "{{\"id\":\"row-{row:09}\",\"text\":\"").expect("a disk");
            words(&mut file, &mut random);
            let score = random.u8(..100);
            writeln!(file, "\",\"score\":{score},\"tags\":[\"a\",\"b\"]}}").expect("a disk");
        }
        file.flush().expect("a disk");
        path
    }
    /// A file of so many requests of OpenAI's Batch API, of some 330 bytes.
    pub fn requests(&self, requests: u64) -> PathBuf {
        let path = self.path(&format!("requests-{requests}.jsonl"));
        if path.exists() {
            return path;
        }
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).expect("a file"));
        let mut random = fastrand::Rng::with_seed(requests);
        let head =
            "\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{\"model\":\"mock\"";
        for request in 0..requests {
            write!(file, "{{\"custom_id\":\"request-{request:09}\",{head},\"messages\":[")
                .expect("a disk");
            write!(file, "{{\"role\":\"user\",\"content\":\"").expect("a disk");
            words(&mut file, &mut random);
            writeln!(file, "\"}}],\"max_tokens\":16}}}}").expect("a disk");
        }
        file.flush().expect("a disk");
        path
    }
}

fn words(file: &mut impl Write, random: &mut fastrand::Rng) {
    for _ in 0..24 {
        let word = WORDS[random.usize(..WORDS.len())];
        write!(file, "{word} ").expect("a disk");
    }
}
