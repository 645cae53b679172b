//! Hands libFuzzer's inputs to one of rowmill's fuzz targets: the one that `ROWMILL_FUZZ` names.
//! See `run` beside this crate.

#![no_main]

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::OnceLock;

use rowmill::fuzz::{TARGETS, Target};

static CHOSEN: OnceLock<(&Target, PathBuf)> = OnceLock::new();

/// The target, and a directory for its files.
fn choose() -> (&'static Target, PathBuf) {
    let name = env::var("ROWMILL_FUZZ").unwrap_or_default();
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("ROWMILL_FUZZ names no target; there are {}", names.join(" "));
        process::exit(2);
    };
    // A merge runs several processes.
    let scratch = env::temp_dir().join(process::id().to_string());
    fs::create_dir_all(&scratch).expect("a directory for files can be made");
    (target, scratch)
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (target, scratch) = CHOSEN.get_or_init(choose);
    (target.run)(data, scratch);
});
