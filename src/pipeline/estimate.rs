//! Counts what a plan would send, before anything is sent.

use std::collections::HashSet;

use super::Error;
use crate::input::{Source, identify, read_shard};
use crate::prompt::Template;
use crate::report::{Counted, Estimate, Expecting};
use crate::store::{Held, Manifest};
use crate::tokens::Tokenizer;
use crate::work::{Answerer, Member};

/// Bytes of prompts that are counted; of more, those of rows spread evenly over all.
const SAMPLE: u64 = 32 << 20;

/// What a plan would come to.
pub(super) fn estimate(
    dir: &Held,
    manifest: &Manifest,
    source: &Source,
    answerer: &Answerer,
    expecting: &Expecting,
) -> Result<Estimate, Error> {
    let (job, rows) = (&manifest.job, manifest.source.rows);
    let called = answerer.first(0).filter(|member| member.endpoint.is_some());
    let Some(Member { name, price, .. }) = called else {
        let counted = Counted { selected: manifest.wanted(), ..Counted::default() };
        return Ok(Estimate::of_nothing(&job.model, rows, &counted));
    };
    let tokenizer = Tokenizer::of(name);
    let counted = count(dir, manifest, source, tokenizer)?;
    let expecting = Expecting { most: job.max_answer_tokens(), ..*expecting };
    let estimate =
        Estimate::new((name, tokenizer.name(), rows), &counted, &expecting, price.as_ref());
    let has_attachments = job.attachment_field.is_some();
    Ok(Estimate { leaves_out_attachments: has_attachments, ..estimate })
}

fn count(
    dir: &Held,
    manifest: &Manifest,
    source: &Source,
    tokenizer: Tokenizer,
) -> Result<Counted, Error> {
    let job = &manifest.job;
    let template = Template::parse(&job.prompt);
    let around = tokenizer.around(job.protocol, job.instruction.as_deref(), job.schema.as_deref());
    let mut counted = Counted { selected: manifest.wanted(), ..Counted::default() };
    let bytes: u64 = manifest.open_shards().map(|(_, shard)| shard.bytes).sum();
    let bytes = bytes.saturating_add(counted.selected.saturating_mul(job.prompt.len() as u64));
    let step = bytes.div_ceil(SAMPLE).max(1);
    let mut nth = 0_u64;
    for (number, shard) in manifest.open_shards() {
        let rows = read_shard(source, shard, job.max_row_bytes)?;
        let renames = dir.exceptions(number, shard)?;
        let left_out: HashSet<u64> =
            renames.into_iter().filter(|it| it.id.is_none()).map(|it| it.row).collect();
        for (index, row) in (0..rows.len()).zip(shard.first_row..) {
            if !manifest.chosen.contains(row) || left_out.contains(&row) {
                continue;
            }
            nth += 1;
            if !(nth - 1).is_multiple_of(step) {
                continue;
            }
            counted.rows += 1;
            let prompt = rows.text(index).and_then(|text| {
                let object = rows.object(index, &text)?;
                identify(&object, job.identity(), row)?;
                template.ask(&object, job)
            });
            match prompt {
                Ok(prompt) => counted.tokens += tokenizer.count(&prompt.text) + around,
                Err(_) => counted.invalid += 1,
            }
        }
    }
    Ok(counted)
}
