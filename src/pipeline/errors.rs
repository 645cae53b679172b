//! Why a command failed, for whoever turns it into an exit code and a hint.

use std::path::PathBuf;

use crate::plan::Drift;
use crate::store::{Held, OtherWriter};
use crate::{http, input, merge, plan, store, work};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// A provider or an endpoint that needs a key is to be called without one.
    #[error("{provider} wants a key, and none was given")]
    NoKey {
        /// The provider or endpoint.
        provider: String,
        /// The variables of the environment that may hold it.
        variables: String,
    },
    /// An endpoint's key cannot be come by.
    #[error("the endpoint {endpoint} has no key: {reason}")]
    KeyNotGiven {
        /// The endpoint.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// No endpoint offers a model that could answer.
    #[error("no endpoint offers a model that could answer: {why}")]
    NothingOffered {
        /// Which were asked, and what each said.
        why: String,
        /// Whether all refused the key, or want one.
        is_refused: bool,
    },
    /// The input cannot be used.
    #[error(transparent)]
    Input(#[from] input::Error),
    /// There is no input at a URL, or not for us.
    #[error("cannot fetch {url}: {reason}")]
    NotThere {
        /// The URL, without what is secret in it.
        url: String,
        /// Why not.
        reason: String,
    },
    /// An input may be at a URL, but nobody could be asked.
    #[error("cannot fetch {url}: {reason}")]
    OutOfReach {
        /// The URL, without what is secret in it.
        url: String,
        /// Why not.
        reason: String,
    },
    /// An output could not be uploaded.
    #[error("cannot upload to {url}: {reason}")]
    NotUploaded {
        /// The URL, without what is secret in it.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The schema of the answers is not where it should be.
    #[error(transparent)]
    NotFetched(http::NotFetched),
    /// The plan cannot be made.
    #[error(transparent)]
    Plan(plan::Error),
    /// The work directory or an output cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The work directory or an output failed while rows were worked or published.
    #[error(transparent)]
    Underway(store::Error),
    /// Work could not go on.
    #[error(transparent)]
    Work(work::Error),
    /// Rows have no outcome yet.
    #[error("{left} of {wanted} rows have no outcome yet")]
    Incomplete {
        /// How many.
        left: u64,
        /// Of how many.
        wanted: u64,
    },
    /// A journal is damaged; working its shard again repairs it.
    #[error("shard {shard} is damaged: {reason}")]
    Unsound {
        /// Which shard.
        shard: u32,
        /// What is wrong.
        reason: String,
    },
    /// The command is not what was planned.
    #[error("this command is not what {} was planned for: {drift}", work_dir.display())]
    Drift {
        /// The work directory.
        work_dir: PathBuf,
        /// In what they differ.
        drift: Box<Drift>,
    },
    /// The journals do not hold the rows.
    #[error(
        "the work directory was planned without --include-input, so its journals do not hold the \
         rows"
    )]
    NoInputKept,
    /// There is a run in the work directory, and the command does not say what to do with it.
    #[error("{} holds a run already", work_dir.display())]
    Unfinished {
        /// The work directory.
        work_dir: PathBuf,
    },
    /// An output is there, and the command does not say what to do with it.
    #[error("{} exists", path.display())]
    OutputExists {
        /// The output.
        path: PathBuf,
    },
    /// An output is there that this work directory did not publish, or not like this.
    #[error("{} exists and is not what this work directory published", path.display())]
    OutputForeign {
        /// The output.
        path: PathBuf,
    },
    /// A work directory or an output that is to be gone on from, in a directory that others can write, may be
    /// theirs.
    #[error("{} {}", path.display(), writer.reason())]
    OfOthers {
        /// The work directory or output.
        path: PathBuf,
        /// Who else can write it.
        writer: OtherWriter,
    },
    /// An output is there, and rowmill did not write it.
    #[error("{} exists and is no file that rowmill wrote", path.display())]
    NotOurs {
        /// The output.
        path: PathBuf,
        /// The option that names it.
        option: &'static str,
        /// Whether no answers that could be taken over are lost by beginning anew.
        may_begin_anew: bool,
    },
    /// An output of one of several inputs is there, and the work directory that it came of is not.
    #[error(
        "{} exists, and there is no work directory: answers are taken over from an output only where \
         there is one input",
        path.display()
    )]
    NoneTakenOver {
        /// The output.
        path: PathBuf,
    },
    /// An output is there, of a run that asked something else.
    #[error("{} holds answers to another question: {what}", path.display())]
    OtherQuestion {
        /// The output.
        path: PathBuf,
        /// In what it differs.
        what: &'static str,
    },
    /// What another tool left is not what this command can go on with.
    #[error("the answers in {} cannot be taken over: {what}", path.display())]
    NotTakenOver {
        /// Their file or directory.
        path: PathBuf,
        /// Why not.
        what: String,
        /// What to do first.
        next: String,
    },
    /// There are answers of fast-agent's in a directory, and an output that is not known to have come of them.
    #[error(
        "{} exists, and answers are to be taken over from {}, a work directory of fast-agent's: nothing shows that \
         one has what the other has",
        output.display(),
        theirs.display()
    )]
    TwoEarlier {
        /// The output.
        output: PathBuf,
        /// The directory.
        theirs: PathBuf,
    },
    /// The work directory is one of fast-agent's, and the command does not say that it is to be gone on from.
    #[error("{} is a work directory of fast-agent's", work_dir.display())]
    OfFastAgent {
        /// The directory.
        work_dir: PathBuf,
    },
    /// There are outcomes, and the plan that says of what is gone.
    #[error("{} holds answers, but its manifest.json is gone", work_dir.display())]
    PlanLost {
        /// The work directory.
        work_dir: PathBuf,
    },
    /// There is no plan to work by.
    #[error("{} holds no plan", work_dir.display())]
    NotPlanned {
        /// The work directory.
        work_dir: PathBuf,
    },
    /// The run was asked to end while it planned or published.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An error of work or publishing. Where the directory is gone, that is the cause of all else.
    pub(super) fn underway(self, dir: &Held) -> Self {
        match (dir.still_there(), self) {
            (Err(gone), _) => Self::Underway(gone),
            (_, Self::Store(error)) => Self::Underway(error),
            (_, other) => other,
        }
    }
}

impl From<plan::Error> for Error {
    fn from(error: plan::Error) -> Self {
        match error {
            plan::Error::Input(error) => Self::Input(error),
            plan::Error::Store(error) => Self::Store(error),
            plan::Error::Interrupted => Self::Interrupted,
            error => Self::Plan(error),
        }
    }
}

impl From<work::Error> for Error {
    fn from(error: work::Error) -> Self {
        match error {
            work::Error::Store(error) => Self::Store(error),
            work::Error::Input(error) => Self::Input(error),
            error => Self::Work(error),
        }
    }
}

impl From<merge::Error> for Error {
    fn from(error: merge::Error) -> Self {
        match error {
            merge::Error::Store(store::Error::Unsound { shard, reason }) => {
                Self::Unsound { shard, reason }
            }
            merge::Error::Store(error) => Self::Store(error),
            merge::Error::Unfinished { left, wanted } => Self::Incomplete { left, wanted },
            merge::Error::Interrupted => Self::Interrupted,
        }
    }
}
