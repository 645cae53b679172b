//! Signals: the first drains for a while, the second stops at once, the third does what it does by default.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::shutdown::{Stage, Trigger};

/// Which signal asked for the end, or that the deadline did; 0 for none.
#[derive(Debug, Clone, Default)]
pub(super) struct Caught(Arc<AtomicI32>);

/// What asked for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A signal, and the code to exit with after a drain.
    Signal(u8),
    /// The user's own deadline.
    Deadline,
}

/// Stands where a signal's number would; signals have positive ones.
const DEADLINE: i32 = -1;

impl Caught {
    /// What asked for the end first.
    pub(super) fn cause(&self) -> Cause {
        match self.0.load(Ordering::SeqCst) {
            DEADLINE => Cause::Deadline,
            SIGINT => Cause::Signal(super::exit::INTERRUPTED),
            _ => Cause::Signal(super::exit::TERMINATED),
        }
    }

    /// The deadline asks for the end.
    pub(super) fn note_deadline(&self) {
        self.note(DEADLINE);
    }

    fn note(&self, what: i32) {
        // The first one counts.
        let _ = self.0.compare_exchange(0, what, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// How long what is in flight may take to end, where no option says it.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Installs the handlers; a thread of their own carries signals to the trigger. What is in flight at the first one
/// may end for as long as `drain_timeout`.
pub(super) fn install(trigger: Trigger, drain_timeout: Duration, is_quiet: bool) -> Caught {
    let caught = Caught::default();
    // A file beyond its size limit is an error of a write, not the end of the process.
    let ignored = Arc::new(AtomicUsize::new(0));
    let _ = signal_hook::flag::register_usize(SIGXFSZ, ignored, 1);
    let mut handled = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        handled.push(SIGHUP);
    }
    let Ok(mut signals) = Signals::new(handled) else { return caught };
    let first = caught.clone();
    let carry = move || {
        for (count, signal) in signals.forever().enumerate() {
            if count >= 2 {
                // Does not return for these signals.
                let _ = emulate_default_handler(signal);
                continue;
            }
            first.note(signal);
            let text = match trigger.next() {
                Stage::Draining => {
                    abort_after(drain_timeout, trigger.clone());
                    let seconds = drain_timeout.as_secs_f64();
                    let what = match trigger.is_uploading() {
                        true => "the upload under way",
                        false => "the calls in flight",
                    };
                    format!(
                        "ending: waiting for {what}, {seconds} s at most; again to stop at once"
                    )
                }
                Stage::Running | Stage::Aborting => "stopping".to_owned(),
            };
            if !is_quiet {
                super::exit::say(&format!("rowmill: {text}"));
            }
        }
    };
    // Without the thread signals would be swallowed; without room for it nothing works anyway.
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(carry);
    caught
}

/// Stops what still drains then. Work keeps the same time by itself; an upload has nobody else who does.
fn abort_after(drain_timeout: Duration, trigger: Trigger) {
    let abort = move || {
        std::thread::sleep(drain_timeout);
        trigger.advance(Stage::Aborting);
    };
    // Without room for it a second signal still stops at once.
    let _ = std::thread::Builder::new().name("drain".to_owned()).spawn(abort);
}

/// Whether whoever started this process wants a signal ignored, as `nohup` does.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
