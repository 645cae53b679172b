//! A dry run: the plan in numbers, and the first requests as they would be sent.

use super::exit;
use super::surroundings::{Failed, Surroundings};
use crate::pipeline::{self, Question};
use crate::store::Manifest;
use crate::telemetry::escape;
use crate::work::Answerer;

/// Plans in a directory that goes again, and shows what would be asked.
pub(super) fn dry_run(
    question: &Question,
    answerer: &Answerer,
    pool: &[String],
    surroundings: &mut Surroundings<'_>,
) -> Result<(), Failed> {
    const SHOWN: usize = 3;
    let scratch = std::env::temp_dir().join(format!("rowmill-dry-run-{:016x}", fastrand::u64(..)));
    let preview = surroundings
        .with(|context| pipeline::preview(&scratch, question, answerer, SHOWN, context))?;
    let Manifest { selected, skipped, shards, source, .. } = &preview.manifest;
    if !surroundings.is_quiet() {
        exit::say(&format!(
            "dry run: {} rows in the input, {} would be asked about, in {} shards; the first are:",
            source.rows,
            selected - skipped,
            shards.iter().filter(|shard| shard.wanted > 0).count(),
        ));
        pool.iter().for_each(|line| exit::say(&escape(line)));
    }
    for row in &preview.rows {
        exit::show(&serde_json::to_string_pretty(row).unwrap_or_default());
    }
    Ok(())
}
