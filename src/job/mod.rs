//! The vocabulary of rowmill: what a job is, how rows are named, what becomes of them.
//!
//! Everything here is plain data with no clock, disk or network behind it, so that every other
//! module can speak of the same things. What a job *is* decides what a run may be resumed with:
//! see [`JobSpec::differences`].

mod dialect;
mod endpoint;
mod failure;
mod id;
mod media;
mod money;
mod names;
mod outcome;
mod pool;
mod protocol;
mod spec;
mod time;
mod variants;

pub use dialect::Dialect;
pub use endpoint::Endpoint;
pub use failure::{Failure, FailureKind, Paid};
pub use id::{Id, IdHash, IdProblem, input_salt};
pub use media::{Attachment, MEDIA_TYPES, MediaType, Modality, Payload, Reference, is_text};
pub use money::{Money, NoMoney, Spending};
pub use names::{ANY_NAME, FirstLine, NameCounts, NamedModel, Names, OwnModels};
pub use outcome::{Answer, Attempt, Content, OutcomeKind, Usage, may_be_billed};
pub use pool::{Kinds, Pool, PoolMember, PoolModel};
pub use protocol::{Protocol, Transport};
pub use spec::{
    Dedupe, Difference, IdFrom, Identity, JobSpec, MAX_ATTACHMENT_BYTES, OnDuplicate,
    OnMissingField, Parameters, Sample, Selection, Setting, hash_text,
};
pub use time::{duration, http_date_ms, rfc3339, some_time, unix_ms};
pub use variants::{OWN_MODEL, OtherModel, PASSTHROUGH, Variant};
