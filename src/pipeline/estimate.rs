//! Counts what a plan would send, before anything is sent.

use std::collections::{HashMap, HashSet};

use super::{Error, of_lines};
use crate::input::{Sources, identify, read_shard};
use crate::job::{Failure, JobSpec, OWN_MODEL};
use crate::prompt::{Prompt, Request, Template};
use crate::report::{Counted, Estimate, Expecting};
use crate::store::{Held, Manifest};
use crate::tokens::Tokenizer;
use crate::work::{Answerer, Member};

/// Bytes of prompts that are counted; of more, those of rows spread evenly over all.
const SAMPLE: u64 = 32 << 20;

/// What a plan would come to, by model.
pub(super) fn estimate(
    dir: &Held,
    manifest: &Manifest,
    sources: &Sources,
    answerer: &Answerer,
    expecting: &Expecting,
) -> Result<Vec<Estimate>, Error> {
    let job = &manifest.job;
    if job.model == OWN_MODEL {
        return of_lines::estimate((dir, manifest, sources), answerer, expecting);
    }
    let of = |model| {
        let estimate = of_model((dir, manifest, sources), model, answerer, expecting)?;
        let asked_model = (job.model_count() > 1).then(|| job.named(model).to_owned());
        Ok(Estimate { asked_model, ..estimate })
    };
    (0..job.model_count()).map(of).collect()
}

/// What one of its models would come to; each repeat of it counts.
fn of_model(
    (dir, manifest, sources): (&Held, &Manifest, &Sources),
    model: usize,
    answerer: &Answerer,
    expecting: &Expecting,
) -> Result<Estimate, Error> {
    let (job, rows) = (&manifest.job.of_model(model), manifest.rows());
    let called = answerer.first(model).filter(|member| member.endpoint.is_some());
    let Some(Member { name, place, price, .. }) = called else {
        let counted = wanted(manifest);
        return Ok(Estimate::of_nothing(&job.model, rows, &counted));
    };
    let tokenizer = Tokenizer::of(name);
    let (counted, own) = count((dir, manifest, sources), job, tokenizer)?;
    let expecting = Expecting { most: job.max_answer_tokens().or(own.mean()), ..*expecting };
    let estimate =
        Estimate::new((name, tokenizer.name(), rows), &counted, &expecting, price.as_ref());
    let has_attachments = job.attachment_field.is_some() || own.has_files;
    let is_pool = answerer.teams.get(model).is_some_and(|team| team.len() > 1);
    let whole = |place: &String| format!("{place}.{name}");
    let priced_as = is_pool.then(|| place.as_ref().map_or_else(|| name.clone(), whole));
    Ok(Estimate { leaves_out_attachments: has_attachments, priced_as, ..estimate })
}

/// What is wanted of one model, before anything is counted.
pub(super) fn wanted(manifest: &Manifest) -> Counted {
    let Manifest { selected, skipped, job, .. } = manifest;
    let selected = selected.saturating_sub(*skipped);
    let asked = manifest.wanted() / job.variants() as u64;
    Counted { selected, asked, repeats: u64::from(job.repeat.max(1)), ..Counted::default() }
}

/// Counts what goes in, and gives what requests bound answers to.
fn count(
    (dir, manifest, sources): (&Held, &Manifest, &Sources),
    job: &JobSpec,
    tokenizer: Tokenizer,
) -> Result<(Counted, Bounds), Error> {
    let around = tokenizer.around(job.protocol, job.instruction.as_deref(), job.schema.as_deref());
    let mut counted = wanted(manifest);
    let mut bounds = Bounds::default();
    sample((dir, manifest, sources), job, counted.asked, &mut |prompt, _| {
        counted.rows += 1;
        match prompt {
            Ok(prompt) => {
                counted.tokens += tokens_of(&prompt, tokenizer, around);
                bounds.note(prompt.request.as_deref());
            }
            Err(_) => counted.invalid += 1,
        }
    })?;
    Ok((Counted { answers: bounds.answers, ..counted }, bounds))
}

/// Hands over what rows ask, as many as are to be counted, spread evenly over all, and how many rows each stands
/// for: itself and those that take its outcome.
pub(super) fn sample(
    (dir, manifest, sources): (&Held, &Manifest, &Sources),
    job: &JobSpec,
    asked: u64,
    take: &mut dyn FnMut(Result<Prompt, Failure>, u64),
) -> Result<(), Error> {
    let template = Template::parse(&job.prompt);
    let ranges = || manifest.ranges().filter(|(_, shard)| shard.wanted > 0);
    let bytes: u64 = ranges().map(|(_, shard)| shard.bytes).sum();
    let bytes = bytes.saturating_add(asked.saturating_mul(job.prompt.len() as u64));
    let step = bytes.div_ceil(SAMPLE).max(1);
    let mut nth = 0_u64;
    for (number, shard) in ranges() {
        let rows = read_shard(sources, shard, job.max_row_bytes)?;
        let renames = dir.exceptions(number, shard)?;
        let left_out: HashSet<u64> =
            renames.into_iter().filter(|it| it.id.is_none()).map(|it| it.row).collect();
        let originals = dir.twins(number, shard)?.originals;
        let served: HashMap<u64, u64> =
            originals.into_iter().map(|it| (it.row, it.twins)).collect();
        for (index, row) in (0..rows.len()).zip(shard.first_row..) {
            if !manifest.chosen.contains(row) || left_out.contains(&row) {
                continue;
            }
            nth += 1;
            if !(nth - 1).is_multiple_of(step) {
                continue;
            }
            let prompt = rows.text(index).and_then(|text| {
                let object = rows.object(index, &text)?;
                identify(&object, job.identity(), shard.own_row(row))?;
                template.ask(&object, job)
            });
            take(prompt, 1 + served.get(&row).copied().unwrap_or_default());
        }
    }
    Ok(())
}

/// The tokens that go in with a row's call; `around` are those besides its prompt.
pub(super) fn tokens_of(prompt: &Prompt, tokenizer: Tokenizer, around: u64) -> u64 {
    let Some(request) = &prompt.request else { return tokenizer.count(&prompt.text) + around };
    let around = if request.endpoint.writes_text() { around } else { 0 };
    let (text, numbers) = Request::texts(&prompt.text);
    tokenizer.count(&text) + numbers + around
}

/// What requests say of their answers, and whether they enclose what is not counted.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    sum: u64,
    is_any_bound: bool,
    is_any_open: bool,
    /// How many answers there are to be.
    pub(super) answers: u64,
    /// Whether there are images, sound or documents.
    pub(super) has_files: bool,
}

impl Bounds {
    /// Takes note of a request's; of rows that are none there is nothing to note but that they have one answer.
    pub(super) fn note(&mut self, request: Option<&Request>) {
        self.answers = self.answers.saturating_add(request.map_or(1, |request| request.answers));
        let Some(request) = request else { return };
        self.has_files |= request.files > 0 || request.file.is_some();
        match request.most_tokens {
            None => self.is_any_open = true,
            Some(most) => {
                self.sum = self.sum.saturating_add(most);
                self.is_any_bound = true;
            }
        }
    }

    /// What that comes to for each answer, where all are bounded.
    pub(super) fn mean(&self) -> Option<u64> {
        (self.is_any_bound && !self.is_any_open).then(|| self.sum.div_ceil(self.answers.max(1)))
    }
}
