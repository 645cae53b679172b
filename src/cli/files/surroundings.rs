//! What a file tool stands in: signals, and a directory for what it sorts on disk.

use std::cell::Cell;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::cli::exit;
use crate::files::Error;
use crate::shutdown::{self, Shutdown, Stage, Trigger};
use crate::store;

pub(super) struct Surroundings {
    pub(super) shutdown: Shutdown,
    /// Whether one of several files has been changed.
    pub(super) has_changed: Cell<bool>,
    signal: Arc<AtomicI32>,
}

impl Surroundings {
    pub(super) fn new() -> Self {
        let (trigger, shutdown) = shutdown::channel();
        let signal = Arc::new(AtomicI32::new(0));
        watch(trigger, Arc::clone(&signal));
        Self { shutdown, has_changed: Cell::new(false), signal }
    }

    pub(super) fn code_of_signal(&self) -> u8 {
        match self.signal.load(Ordering::SeqCst) {
            SIGINT => exit::INTERRUPTED,
            _ => exit::TERMINATED,
        }
    }
}

/// Asks the tool to end at the first signal, so that what it has staged goes with it. A tool that waits for a pipe does
/// not hear that: a moment later the signal does what it does by default.
fn watch(trigger: Trigger, signal: Arc<AtomicI32>) {
    const MOMENT: Duration = Duration::from_millis(500);
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    let carry = move || {
        for caught in signals.forever() {
            signal.store(caught, Ordering::SeqCst);
            trigger.advance(Stage::Aborting);
            std::thread::sleep(MOMENT);
            // Does not return for these signals.
            let _ = emulate_default_handler(caught);
        }
    };
    // Without the thread signals would be swallowed; without room for it nothing works anyway.
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(carry);
}

/// A directory of this command's own; it goes with it.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Result<Self, Error> {
        let name = format!("rowmill-files-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| store::Error::Io { what: "create", path: path.clone(), source })?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = store::remove_index_dir(&self.0);
    }
}
