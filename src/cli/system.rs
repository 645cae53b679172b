//! What is settled for the whole process before anything runs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::store::expects_panic;

/// Settles it.
pub(super) fn prepare() {
    // sled panics on damaged files; that is caught, and no business of the user's.
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !expects_panic() {
            default(panic);
        }
    }));
    raise_file_limit();
}

/// Takes as many open files as the system grants.
fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// How many of `wanted` connections there is room for beside the files of `workers`.
pub(super) fn connections(wanted: usize, workers: usize) -> usize {
    // A worker has journals, a checkpoint and a runtime open; the rest is for the process.
    const PER_WORKER: u64 = 24;
    const REST: u64 = 40;
    let Some(limit) = getrlimit(Resource::Nofile).current else { return wanted };
    let room = limit.saturating_sub(REST + PER_WORKER * workers as u64);
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)
}
