//! rowmill runs a language model over every row of a dataset and brings back one answer a row: across
//! crashes, rate limits, outages and weeks, without losing a row and without paying for one twice.
//!
//! Three stages meet only in the files of a work directory:
//!
//! ```text
//! input ──▶ plan ──▶ manifest ──▶ work ──▶ journals ──▶ merge ──▶ outputs
//! ```
//!
//! [`plan`] cuts the input into shards and checks all that can be checked without a call; [`work`] calls
//! the model and appends what became of each row to its shard's journal, which is the truth; [`merge`]
//! verifies the journals and writes the outputs. [`pipeline`] puts them in order, and is where to start
//! reading: its functions are the commands. Resuming is running the stages again.
//!
//! What passes by in a pipe has no stages and keeps nothing: [`work::stream`].
//!
//! Below the stages stand [`input`], [`dialect`], [`provider`], [`prompt`], [`schema`], [`tokens`] and [`price`], then the
//! doors to the outside: [`store`] (the work directory), [`http`] (the network), [`telemetry`] (the screen and the log), and
//! the pure decisions of [`policy`]. [`job`] is the vocabulary. A module uses lower layers only: `docs/architecture.md` has the
//! table, `docs/formats.md` every file, `docs/durability.md` the promise.
//!
//! [`guard`] names what the promises rest on, for the proof in `docs/reliability.md`.
//!
//! But for [`cli`] nothing here prints, exits, reads the environment or installs signal handlers.

pub mod cli;
pub mod config;
pub mod dialect;
pub mod files;
pub mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod guard;
pub mod http;
pub mod input;
pub mod job;
pub mod launch;
pub mod merge;
pub mod pipeline;
pub mod plan;
pub mod policy;
pub mod price;
pub mod prompt;
pub mod provider;
pub mod report;
pub mod schema;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod tokens;
pub mod work;
