//! The only door to the work directory.
//!
//! The journals are the truth: a row is done when its record is in its shard's journal and synced.
//! Everything else here is an index of them ([`Checkpoint`]), a seal on them ([`Seal`]), the plan
//! they follow ([`Manifest`]) or the record of what was published from them ([`Commit`]).
//!
//! Reading needs a [`WorkDir`]. Writing needs a [`Held`] one: nobody else can have it then.

mod adopting;
mod attributes;
mod check;
mod checkpoint;
mod contents;
mod disk;
mod duplicates;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod generations;
mod hashes;
mod identity;
mod ids;
mod journal;
mod last_run;
mod lock;
mod manifest;
mod names;
mod noted;
mod part;
mod publish;
mod quarantine;
mod record;
mod removal;
mod seal;
mod server_log;
mod shard;
mod sorter;
mod sources;
mod stage;
mod started;
mod target;
mod thread;
mod twins;
mod verify;
mod whole;
mod workdir;
mod writers;

use std::io;
use std::path::PathBuf;

pub use checkpoint::{Checkpoint, expects_panic};
pub use duplicates::Rename;
pub use hashes::RowHashes;
pub use identity::{ChecksumSeed, Identity};
pub use ids::{Duplicate, IdEntry, IdIndex, IdIndexWriter};
pub use journal::{Journal, Syncer};
pub use last_run::{Done, LastRun, SessionEnd};
pub use lock::Holder;
pub use manifest::{Carried, Chosen, Manifest, Past, ShardEntry, Twinned};
pub use noted::NotedRoute;
pub use part::{Part, PartOf};
pub use publish::{Commit, CommitFile, Counts, Deliver, Role, Upload, is_in_place};
pub use quarantine::{Damage, DamageKind};
pub use record::{Asked, Entry, Outcome, Record};
pub use removal::remove_index_dir;
pub use seal::Seal;
pub use server_log::ServerLog;
pub use shard::{OpenShard, ShardState};
pub use sorter::{Sorted, Sorter};
pub use sources::SourcePrint;
pub use stage::{Stage, Staged};
pub use started::Started;
pub use target::{KnownBy, OutputLock, Tag, Target, make_output_dir, real_dir};
pub use thread::spawn;
pub use twins::{Original, OutcomePlaces, Outcomes, Tally, Twin, Twins};
pub use verify::{ReadShard, RowRecords, ShardReader, Verified, for_each_row_of};
pub use whole::WholeFile;
pub use workdir::{Held, Kind, WorkDir};
pub use writers::OtherWriter;

/// The version of the work directory's format. Newer ones are refused, never guessed at.
pub const FORMAT: u32 = 1;

/// Why the work directory or an output could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The directory holds something that rowmill did not write.
    #[error("{} is not a work directory of rowmill's: {reason}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What gave it away.
        reason: String,
    },
    /// Another process holds the lock.
    #[error("{} is in use{}", path.display(), lock::by(holder.as_deref()))]
    Busy {
        /// The work directory or output.
        path: PathBuf,
        /// Who holds it, as far as known.
        holder: Option<Box<Holder>>,
    },
    /// A newer rowmill wrote it.
    #[error("{} has format {found}; this rowmill reads format {FORMAT}", path.display())]
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
    /// Damage that must not be repaired by guessing.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file belongs to another run, plan, generation or shard than the place it stands in.
    #[error("{} is not of this place: {}", path.display(), identity::told(theirs, ours))]
    Misplaced {
        /// The file.
        path: PathBuf,
        /// What it belongs to, by its own words.
        theirs: Box<Identity>,
        /// What belongs there.
        ours: Box<Identity>,
    },
    /// A shard's journal does not hold what its seal or the plan says; working the shard again
    /// repairs it.
    #[error("shard {shard} is damaged: {reason}")]
    Unsound {
        /// The shard's number.
        shard: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// The work directory was removed or renamed while this process worked in it.
    #[error("{} was removed or renamed while rowmill was working in it", path.display())]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// The system has no room for another thread.
    #[error("cannot start the thread {name}: {source}")]
    NoThread {
        /// Its name.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An output cannot be what the command line says.
    #[error("{}: {reason}", path.display())]
    Target {
        /// The output.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl Error {
    /// Whether the cause is that a file or directory is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the cause is that nothing can be written there.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(
            source.kind(),
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
        ))
    }

    /// Whether the cause is that this process, or the system, may open no more files.
    #[must_use]
    pub fn is_out_of_files(&self) -> bool {
        let all = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
        let is_one = |code| all.iter().any(|errno| errno.raw_os_error() == code);
        matches!(self, Self::Io { source, .. } if source.raw_os_error().is_some_and(is_one))
    }

    /// Whether the cause is a full disk, a quota or a limit on file sizes.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        ))
    }
}
