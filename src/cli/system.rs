//! What is settled for the whole process before anything runs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::store::expects_panic;
use crate::work::{self, TooFewFiles};

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

/// How many of `workers` workers, and how many of `wanted` connections, there is room for among the
/// files that may be open, and whether it is enough for the smallest run. Too few files are not an
/// outage of the endpoint, though a call that finds none cannot tell.
///
/// # Errors
/// When there are not even enough to look at a finished run.
pub(super) fn room(workers: usize, wanted: usize) -> Result<Room, work::Error> {
    // A worker has journals, a checkpoint and a runtime open; the rest is for the process.
    const WORKER: u64 = 24;
    const REST: u64 = 40;
    let Some(allowed) = getrlimit(Resource::Nofile).current else {
        return Ok(Room { workers, connections: wanted, too_few: None });
    };
    let needed = REST + WORKER + 1;
    if allowed < REST {
        return Err(work::Error::NoFiles { allowed, needed });
    }
    let too_few = (allowed < needed).then_some(TooFewFiles { allowed, needed });
    let fit = |room: u64, wanted: usize| wanted.min(usize::try_from(room).unwrap_or(usize::MAX));
    // Workers are given up before connections, but for the first.
    let connections = fit(allowed.saturating_sub(REST + WORKER), wanted).max(1);
    let workers = fit(allowed.saturating_sub(REST + connections as u64) / WORKER, workers).max(1);
    Ok(Room { workers, connections, too_few })
}

/// What there is room for.
pub(super) struct Room {
    pub(super) workers: usize,
    pub(super) connections: usize,
    pub(super) too_few: Option<TooFewFiles>,
}

/// What a person should know where there is room for fewer connections than were wanted.
pub(super) fn told_of_room(connections: usize, wanted: usize) -> Option<String> {
    (connections < wanted).then(|| {
        format!(
            "only {connections} of {wanted} requests can be in flight: the limit on open files \
             allows no more (ulimit -n)"
        )
    })
}
