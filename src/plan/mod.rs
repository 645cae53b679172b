//! The first stage: splits the input into shards and checks all that can be checked without a
//! call.
//!
//! The input is read once, on all cores; a sample takes a second look, because who is drawn depends
//! on how many there are. What comes out is the manifest, and an index of the rows' ids beside it.

mod adopt;
mod drift;
mod duplicates;
mod scan;

use crate::input::{self, Source, choose};
use crate::job::{JobSpec, OnDuplicate, OnMissingField, rfc3339};
use crate::prompt::Template;
use crate::shutdown::Shutdown;
use crate::store::{self, FORMAT, Held, Manifest, SourcePrint};
use crate::telemetry::{Event, Sink};

pub use adopt::{Adopted, adopt};
pub use drift::{Drift, InputDrift, compare};
pub use scan::MissingField;

/// How a plan is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// The most rows of a shard; nothing for as many as suit the input.
    pub shard_rows: Option<usize>,
    /// Threads that read rows.
    pub threads: usize,
    /// Where the endpoint is, for those who work the plan without being told.
    pub base_url: Option<String>,
    /// Files that are there and that the outputs may take the place of.
    pub replaces: Vec<String>,
    /// Whether the input is a copy in the work directory.
    pub is_spooled: bool,
    /// The time, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input cannot be used.
    #[error(transparent)]
    Input(#[from] input::Error),
    /// The work directory cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Rows share ids.
    #[error("{count} rows have the id of an earlier row: {}", shown.join(", "))]
    Duplicates {
        /// How many.
        count: u64,
        /// The first of them, in words.
        shown: Vec<String>,
    },
    /// Rows lack fields of the template, and that is not allowed.
    #[error("{}", fields.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    MissingFields {
        /// Which fields, and in how many rows.
        fields: Vec<MissingField>,
    },
    /// The run was asked to end.
    #[error("interrupted while planning")]
    Interrupted,
}

/// Makes the plan of a job over a source, and writes it to the work directory.
///
/// # Errors
/// When the input or the work directory cannot be used, or rows are wrong in a way that is not
/// allowed. Then there is no manifest.
pub fn run(
    dir: &Held,
    source: &Source,
    job: JobSpec,
    options: &Options,
    shutdown: &Shutdown,
    sink: &mut dyn Sink,
) -> Result<Manifest, Error> {
    let template = Template::parse(&job.prompt);
    let scan = scan::Scan { source, job: &job, template: &template, options, shutdown };
    let mut scanned = scan.run(&dir.ids(), sink)?;
    let (skipped, total) = duplicates::settle(dir, source, &job, &mut scanned)?;
    if job.on_missing_field == OnMissingField::Error && !scanned.missing.is_empty() {
        return Err(Error::MissingFields { fields: scanned.missing });
    }
    report(&job, &scanned, total, sink);
    let path = std::path::absolute(&source.path).unwrap_or_else(|_| source.path.clone());
    let manifest = Manifest {
        format: FORMAT,
        rowmill: env!("CARGO_PKG_VERSION").to_owned(),
        created: rfc3339(options.now_ms),
        generation: 1,
        base_url: options.base_url.clone(),
        replaces: options.replaces.clone(),
        source: SourcePrint {
            path: (!options.is_spooled).then(|| path.to_string_lossy().into_owned()),
            format: source.format_name().to_owned(),
            columns: source.columns(),
            bytes: source.length,
            blake3: scanned.blake3,
            rows: scanned.rows,
            data_offset: source.data_offset,
        },
        chosen: choose(&job.selection, scanned.rows),
        selected: scanned.selected,
        skipped,
        shards: scanned.shards,
        job,
    };
    dir.write_manifest(&manifest)?;
    Ok(manifest)
}

/// Tells what the input will lead to: rows that fail, rows that are left out.
fn report(job: &JobSpec, scanned: &scan::Scanned, duplicates: u64, sink: &mut dyn Sink) {
    if let Some((row, failure)) = &scanned.first_invalid {
        let count = scanned.invalid;
        sink.emit(&Event::Warning(format!(
            "{count} of {} rows cannot be asked about and will fail without a call; the first is \
             row {row}: {}",
            scanned.selected, failure.message
        )));
    }
    if job.on_missing_field == OnMissingField::RowError {
        for field in &scanned.missing {
            sink.emit(&Event::Warning(format!("{field}; those rows will fail without a call")));
        }
    }
    if duplicates > 0 {
        let what = match job.on_duplicate {
            OnDuplicate::First => "are left out",
            OnDuplicate::Suffix | OnDuplicate::Error => "are given ids of their own",
        };
        sink.emit(&Event::Warning(format!(
            "{duplicates} rows have the id of an earlier row and {what}"
        )));
    }
}
