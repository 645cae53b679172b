//! Guards that a test-only build can leave out, one at a time.
//!
//! Whoever believes the proof in `docs/reliability.md` wants to know that it would notice. So the
//! places that promises rest on ask here whether they are to be skipped: a build with the feature
//! `mutants` says yes to one of them, and the proof must fail. Every other build says no, and the
//! question costs nothing, for its answer is known when it is compiled.

/// A guard that a promise of `docs/durability.md` rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// A group of outcomes is synced before it counts.
    JournalSync,
    /// New names are synced with their directory.
    DirectorySync,
    /// A file is synced before it takes another's place.
    SyncBeforeRename,
    /// A file is replaced by renaming, not by writing over it.
    Rename,
    /// The journal is the truth, and the checkpoint only its index.
    JournalIsTruth,
    /// The summary takes its place last.
    SummaryLast,
    /// One process at a time has a work directory.
    Lock,
    /// A permit is given back once its outcome is written.
    WriteBeforePermit,
    /// That an output was uploaded is written down before the next one is.
    UploadNote,
}

impl Guard {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::JournalSync,
        Self::DirectorySync,
        Self::SyncBeforeRename,
        Self::Rename,
        Self::JournalIsTruth,
        Self::SummaryLast,
        Self::Lock,
        Self::WriteBeforePermit,
        Self::UploadNote,
    ];

    /// Whether this build, and this process, leaves the guard out.
    #[cfg(not(feature = "mutants"))]
    #[must_use]
    pub const fn is_left_out(self) -> bool {
        false
    }

    /// Whether this build, and this process, leaves the guard out.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn is_left_out(self) -> bool {
        LEFT_OUT.get() == Some(&self)
    }

    /// Leaves a guard out for as long as this process lives. The first one named counts.
    #[cfg(feature = "mutants")]
    pub fn leave_out(self) {
        let _ = LEFT_OUT.set(self);
    }
}

#[cfg(feature = "mutants")]
static LEFT_OUT: std::sync::OnceLock<Guard> = std::sync::OnceLock::new();
