//! A dry run: the plan in numbers, and the first requests as they would be sent.

use super::estimate::told;
use super::exit;
use super::reach::Reach;
use super::surroundings::{Failed, Surroundings};
use crate::pipeline::{self, Preview, Question};
use crate::report::Expecting;
use crate::store::Manifest;
use crate::telemetry::escape;
use crate::work::Answerer;

/// Plans in a directory that goes again, and shows what would be asked.
pub(super) fn dry_run(
    question: &Question,
    (answerer, reach): (&Answerer, &Reach),
    expecting: &Expecting,
    surroundings: &mut Surroundings<'_>,
) -> Result<(), Failed> {
    const SHOWN: usize = 3;
    let preview = look_ahead(question, answerer, (SHOWN, expecting), surroundings)?;
    let Manifest { selected, skipped, shards, .. } = &preview.manifest;
    if !surroundings.is_quiet() {
        exit::say(&format!(
            "dry run: {} rows in the input, {} would be asked about{}, in {} shards{}; the first are:",
            preview.manifest.rows(),
            selected - skipped,
            times_variants(&preview.manifest),
            shards.iter().filter(|shard| shard.wanted > 0).count(),
            of_them_twins(&preview.manifest),
        ));
        reach.told().iter().for_each(|line| exit::say(&escape(line)));
    }
    for row in &preview.rows {
        exit::show(&serde_json::to_string_pretty(row).unwrap_or_default());
    }
    if !surroundings.is_quiet() {
        exit::say(told(reach.with_hints(preview.estimates, answerer)).trim_end());
    }
    Ok(())
}

/// Behind a number of rows, how often each is asked about; nothing where that is once.
pub(super) fn times_variants(manifest: &Manifest) -> String {
    match manifest.job.variants() {
        1 => String::new(),
        variants => format!(" × {variants} variants"),
    }
}

/// Plans in a directory that goes again, and renders the first so many requests.
pub(super) fn look_ahead(
    question: &Question,
    answerer: &Answerer,
    (count, expecting): (usize, &Expecting),
    surroundings: &mut Surroundings<'_>,
) -> Result<Preview, Failed> {
    let scratch = std::env::temp_dir().join(format!("rowmill-dry-run-{:016x}", fastrand::u64(..)));
    let ahead = (count, expecting);
    surroundings
        .with(|context| pipeline::preview(&scratch, question, answerer, ahead, context))
        .map_err(Failed::from)
}

/// How many rows of a plan are not called because another row asks the same; nothing where none are.
pub(super) fn of_them_twins(manifest: &Manifest) -> String {
    match manifest.twins() {
        0 => String::new(),
        twins => format!(", {twins} of them without a call of their own"),
    }
}
