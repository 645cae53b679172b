//! Merge, summary and commit: from sealed shards to outputs in their places.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::ours;
use super::targets::{Targets, path_text};
use super::transfer::upload;
use super::{Context, End, Error, Finished};
use crate::http::Link;
use crate::job::{Dialect, Spending};
use crate::merge;
use crate::plan;
use crate::report::{self, summarize};
use crate::store::{
    Commit, CommitFile, Counts, Held, Manifest, Role, Stage, Staged, Target, is_in_place,
};
use crate::telemetry::now_ms;
use crate::work::Report;

/// What is to be published, from what.
pub(super) struct Publication<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) targets: &'a Targets,
    /// Where the endpoints are, by model.
    pub(super) base_urls: Vec<Option<String>>,
    pub(super) format: Dialect,
    pub(super) include_input: bool,
    pub(super) threads: usize,
    pub(super) started_ms: u64,
    /// Whether rows without an outcome are left out.
    pub(super) is_partial: bool,
    /// Whether files may be replaced that are none of this run's.
    pub(super) overwrites: bool,
    /// The URLs among the outputs.
    pub(super) links: &'a [Link],
}

/// What was done since the command began.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) resumed: u64,
    done: u64,
    calls: u64,
    cost: Spending,
    rounds: u32,
}

impl Session {
    /// Adds a round of work. `before` are the rows that had an answer when the session began, where
    /// they are more than those that were worked.
    pub(super) fn add(&mut self, report: &Report, before: Option<u64>) {
        if self.rounds == 0 {
            self.resumed = before.unwrap_or(report.resumed);
        }
        self.done += report.tally.ok + report.tally.failed;
        self.calls += report.tally.calls;
        self.cost.add(&report.tally.cost);
        self.rounds += 1;
    }

    /// Whether a damaged shard may be worked again. A disk that damages what it is given more than
    /// a few times is not to be trusted.
    pub(super) fn may_repair(&self) -> bool {
        self.rounds < 5
    }
}

/// The rows of a plan, as far as they have outcomes.
pub(super) fn counts(dir: &Held, manifest: &Manifest) -> Result<Counts, Error> {
    let mut counts = Counts::default();
    for (number, entry) in manifest.open_shards() {
        let tally = dir.tally(number, entry, &mut |_| {})?;
        counts.ok += tally.ok;
        counts.failed += tally.failed + tally.invalid;
        counts.retryable += tally.failed;
    }
    Ok(counts)
}

/// The newest generation all of whose answers were published: that of this plan, if nothing came to
/// it since, or one before it.
pub(super) fn published(dir: &Held, manifest: &Manifest) -> Result<u32, Error> {
    let Some(commit) = dir.last_commit()?.filter(|it| it.generation == manifest.generation) else {
        return Ok(manifest.published);
    };
    for include_input in [false, true] {
        let state = state(dir, manifest, (commit.format, include_input))?;
        if state.as_ref() == Some(&commit.state) {
            return Ok(manifest.generation);
        }
    }
    Ok(manifest.published)
}

/// How a publication ends.
pub(super) fn end_of(is_partial: bool) -> End {
    if is_partial { End::PublishedPartly } else { End::Published }
}

/// Whether any row has no outcome yet, or its shard is not sealed.
///
/// # Errors
/// When a seal cannot be read.
pub(super) fn is_unfinished(dir: &Held, manifest: &Manifest) -> Result<bool, Error> {
    for (number, entry) in manifest.open_shards() {
        if dir.whole_seal(number, entry)?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A hash of all that partial outputs are made of. It is never that of finished ones: it tells what is
/// missing.
fn partial_state(
    dir: &Held,
    manifest: &Manifest,
    spelled: (Dialect, bool),
) -> Result<Option<String>, Error> {
    let mut hasher = state_hasher(manifest, spelled);
    hasher.update(b"partial\0");
    for (number, entry) in manifest.open_shards() {
        hasher.update(&number.to_le_bytes());
        match dir.whole_seal(number, entry)? {
            Some(seal) => hasher.update(b"sealed\0").update(seal.blake3.as_bytes()),
            None => hasher.update(b"open\0").update(dir.journal_hash(number)?.as_bytes()),
        };
    }
    Ok(Some(hasher.finalize().to_hex().to_string()))
}

/// A hash of all that outputs are made of; nothing while shards are open.
fn state(
    dir: &Held,
    manifest: &Manifest,
    spelled: (Dialect, bool),
) -> Result<Option<String>, Error> {
    let mut hasher = state_hasher(manifest, spelled);
    for (number, entry) in manifest.open_shards() {
        match dir.whole_seal(number, entry)? {
            Some(seal) => {
                hasher.update(&number.to_le_bytes());
                hasher.update(seal.blake3.as_bytes());
            }
            None => return Ok(None),
        }
    }
    Ok(Some(hasher.finalize().to_hex().to_string()))
}

/// A hash of how lines are spelled.
fn state_hasher(manifest: &Manifest, (format, include_input): (Dialect, bool)) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[u8::from(include_input)]);
    if !format.is_rows() {
        hasher.update(format.name().as_bytes()).update(b"\0");
    }
    if manifest.job.is_varied() {
        // What envelopes call the models may change while their answers do not.
        for model in 0..manifest.job.model_count() {
            hasher.update(manifest.job.named(model).as_bytes()).update(b"\0");
        }
    }
    hasher
}

impl Publication<'_> {
    /// A hash of all that its outputs are made of; nothing where rows are missing that must not be.
    fn state(&self, dir: &Held) -> Result<Option<String>, Error> {
        let spelled = (self.format, self.include_input);
        match self.is_partial {
            true => partial_state(dir, self.manifest, spelled),
            false => state(dir, self.manifest, spelled),
        }
    }
}

/// What the last publication came to, if all is still as it was published.
pub(super) fn unchanged(
    dir: &Held,
    publication: &Publication<'_>,
) -> Result<Option<Finished>, Error> {
    let Some(commit) = dir.last_commit()?.filter(|commit| commit.done) else { return Ok(None) };
    let state = publication.state(dir)?;
    if state.as_ref() != Some(&commit.state) {
        return Ok(None);
    }
    for (role, target) in publication.targets.all() {
        let path = match target {
            Target::File(path) => path,
            // What became of it there is not asked; whoever wants it there once more says so.
            Target::Remote { url, .. } if !publication.overwrites => url,
            _ => return Ok(None),
        };
        let file = commit.files.iter().find(|file| file.role == role && file.is_at(path));
        match file {
            Some(file) if file.upload.is_some() => {}
            Some(file) if is_in_place(file)? => {}
            _ => return Ok(None),
        }
    }
    Ok(Some(Finished {
        end: End::Unchanged,
        counts: commit.counts,
        wanted: publication.manifest.answered_for(),
        variants: publication.manifest.job.variants(),
        summary: Some(commit.summary.get().to_owned()),
        is_dir_kept: true,
    }))
}

/// Makes sure that no output takes the place of a file that is none of this run's.
pub(super) fn may_take_places(dir: &Held, publication: &Publication<'_>) -> Result<(), Error> {
    let commit = dir.last_commit()?;
    let files = commit.iter().flat_map(|commit| commit.files.iter().chain(&commit.earlier));
    for (_, target) in publication.targets.all() {
        let Target::File(path) = target else { continue };
        if publication.overwrites || !target.is_there() {
            continue;
        }
        let is_granted = publication.manifest.replaces.contains(&path_text(path));
        let published = files.clone().find(|file| file.target == *path);
        let is_ours = match published {
            Some(file) => is_in_place(file)?,
            None => is_granted,
        };
        if !is_ours {
            return Err(Error::OutputForeign { path: path.clone() });
        }
    }
    Ok(())
}

/// Reads all journals, so that what is wrong with one is known before a line is written.
fn verify_all(dir: &Held, manifest: &Manifest) -> Result<(), Error> {
    for (shard, entry) in manifest.open_shards() {
        if dir.whole_seal(shard, entry)?.is_some() {
            let verified = dir.verify_shard(shard, entry, &mut |_| {});
            let sound = verified.and_then(|verified| dir.is_as_sealed(shard, &verified));
            sound.map_err(merge::Error::Store)?;
        }
    }
    Ok(())
}

/// Makes the outputs of sealed shards and puts them in their places.
pub(super) fn publish(
    dir: &Held,
    publication: &Publication<'_>,
    session: &Session,
    context: &mut Context<'_>,
) -> Result<Finished, Error> {
    let Publication { manifest, targets, .. } = publication;
    let shutdown = context.shutdown;
    let before = dir.last_commit()?;
    let sequence = before.as_ref().map_or(1, |commit| commit.sequence + 1);
    let options = merge::Options {
        outputs: targets.inputs.clone(),
        format: publication.format,
        include_input: publication.include_input,
        threads: publication.threads,
        sequence,
        is_partial: publication.is_partial,
    };
    if targets.all().any(|(_, target)| matches!(target, Target::Stream(_) | Target::Stdout)) {
        // What was streamed cannot be taken back when a journal turns out damaged.
        verify_all(dir, manifest)?;
    }
    let merged = match merge::run(dir, manifest, &options, shutdown, context.stdout) {
        Ok(merged) => merged,
        Err(error) => {
            targets.sweep(dir)?;
            return Err(error.into());
        }
    };
    let counts = Counts {
        ok: merged.totals.ok,
        failed: merged.totals.failed + merged.totals.invalid,
        retryable: merged.totals.failed,
    };
    for (input, source) in merged.inputs.iter().zip(&manifest.sources) {
        input.staged[0].tag(&ours::tag(&manifest.job, source))?;
    }
    let staged: Vec<_> = merged.inputs.iter().flat_map(|input| input.staged.clone()).collect();
    let mut files: Vec<_> = staged.iter().map(|staged| staged.file().clone()).collect();
    let of_input =
        |input: &merge::MergedInput| (input.staged[0].file().clone(), input.ok, input.failed);
    let inputs = merged.inputs.iter().map(of_input).collect();
    let is_adopted = merged.totals.adopted > 0 && session.done == 0;
    let facts = facts(dir, publication, session, (merged.totals, &merged.variants), sequence);
    let facts = report::Facts { inputs, ..facts };
    let summary = summarize(manifest, facts, &files).to_json();
    let finished = Finished {
        end: end_of(publication.is_partial),
        counts,
        wanted: manifest.answered_for(),
        variants: manifest.job.variants(),
        summary: Some(summary.clone()),
        is_dir_kept: true,
    };
    // What was taken over from the output and is the output already stays as it is.
    let has_sides = targets.all().all(|(_, target)| target.is_there());
    if is_adopted && has_sides && is_the_same(&staged[0], targets.output(), manifest)? {
        dir.discard(&staged)?;
        return Ok(Finished { end: End::Unchanged, ..finished });
    }
    if let Some(target) = &targets.summary {
        let mut stage = Stage::begin(dir, sequence, Role::Summary, target, None)?;
        stage.write(summary.as_bytes())?;
        files.push(stage.finish()?.file().clone());
    }
    // Rows may have taken weeks, and somebody may have put a file there since.
    if let Err(error) = may_take_places(dir, publication) {
        targets.sweep(dir)?;
        return Err(error);
    }
    if !publication.overwrites {
        note_uploaded(before.as_ref(), &mut files);
    }
    let commit = commit(dir, publication, before, files, &finished)?;
    let (sink, links) = (&mut *context.sink, publication.links);
    dir.publish(commit, &mut |file, staged| upload(file, staged, links, shutdown, sink))?;
    Ok(finished)
}

/// What is decided: that these files take their places.
fn commit(
    dir: &Held,
    publication: &Publication<'_>,
    before: Option<Commit>,
    files: Vec<CommitFile>,
    finished: &Finished,
) -> Result<Commit, Error> {
    let Publication { manifest, format, is_partial, .. } = publication;
    let summary = finished.summary.as_deref().unwrap_or_default().trim_end().to_owned();
    Ok(Commit {
        sequence: before.as_ref().map_or(1, |commit| commit.sequence + 1),
        run: dir.run().to_owned(),
        plan: manifest.plan.clone(),
        generation: manifest.generation,
        counts: finished.counts,
        state: publication.state(dir)?.unwrap_or_default(),
        format: *format,
        is_partial: *is_partial,
        earlier: elsewhere(before, &files),
        files,
        summary: RawValue::from_string(summary).unwrap_or_else(|_| RawValue::NULL.to_owned()),
        done: false,
    })
}

/// Notes of what is to be uploaded that the same bytes were uploaded to the same place before.
fn note_uploaded(before: Option<&Commit>, files: &mut [CommitFile]) {
    let all = before.iter().flat_map(|commit| commit.files.iter().chain(&commit.earlier));
    for file in files.iter_mut().filter(|file| file.is_pending()) {
        if let Some(same) = all.clone().find(|earlier| earlier.is_uploaded_as(file)) {
            let when = same.upload.as_ref().and_then(|it| it.done_at.clone());
            file.upload.iter_mut().for_each(|it| it.done_at.clone_from(&when));
        }
    }
}

/// What stands where earlier publications put it, and is not replaced by these files.
fn elsewhere(before: Option<Commit>, files: &[CommitFile]) -> Vec<CommitFile> {
    let is_elsewhere = |file: &CommitFile| !files.iter().any(|new| new.is_at(&file.target));
    let all = before.into_iter().flat_map(|commit| commit.files.into_iter().chain(commit.earlier));
    all.filter(|file| file.staged.is_some() && is_elsewhere(file)).collect()
}

fn facts(
    dir: &Held,
    publication: &Publication<'_>,
    session: &Session,
    (totals, variants): (merge::Totals, &[merge::Totals]),
    sequence: u32,
) -> report::Facts {
    let job = &publication.manifest.job;
    let models = || variants.iter().enumerate().map(|(it, totals)| (job.model_of(it), totals));
    let calls = |model, totals: &merge::Totals| if job.is_called(model) { totals.calls } else { 0 };
    let mut cost = Spending::default();
    models().filter(|(model, _)| job.is_called(*model)).for_each(|(_, it)| cost.add(&it.cost));
    let mut epochs = BTreeMap::new();
    for (model, totals) in models() {
        for (generation, answers) in &totals.epochs {
            *epochs.entry((*generation, model)).or_default() += answers;
        }
    }
    let of_variant = |(model, totals): (usize, &merge::Totals)| report::VariantFacts {
        ok: totals.ok,
        failed: totals.failed + totals.invalid,
        failures: totals.failures.clone(),
        calls: calls(model, totals).saturating_add(totals.repeated),
        usage: totals.usage,
        cost: Some(totals.cost).filter(|_| job.is_called(model)).unwrap_or_default(),
        truncated: totals.truncated,
        duration: totals.duration.clone(),
    };
    report::Facts {
        run: dir.run().to_owned(),
        publication: sequence,
        is_partial: publication.is_partial,
        format: publication.format,
        inputs: Vec::new(),
        base_urls: publication.base_urls.clone(),
        work_dir: path_text(dir.path()),
        is_called: job.is_any_called(),
        ok: totals.ok,
        failed: totals.failed + totals.invalid,
        adopted: totals.adopted,
        twins: totals.twins,
        retried: totals.retried,
        epochs,
        variants: models().filter(|_| job.is_varied()).map(of_variant).collect(),
        resumed: session.resumed,
        done_now: session.done,
        failures: totals.failures,
        calls: models().map(|(model, totals)| calls(model, totals)).sum(),
        calls_now: session.calls,
        repeated: totals.repeated,
        answers: totals.answers,
        usage: totals.usage,
        cost,
        cost_now: session.cost,
        truncated: totals.truncated,
        duration: totals.duration,
        time_to_response: totals.time_to_response,
        ttft: totals.ttft,
        started_ms: publication.started_ms,
        now_ms: now_ms(),
    }
}

/// Whether an output that was just made is what stands in its place. What results of requests tell besides the
/// answers (a request's id, tokens) is not known of those that were taken over, and is not to be lost.
fn is_the_same(staged: &Staged, target: &Target, manifest: &Manifest) -> Result<bool, Error> {
    let (Target::File(target), Some(path)) = (target, staged.path()) else { return Ok(false) };
    if is_in_place(staged.file())? {
        return Ok(true);
    }
    let dialect = manifest.job.dialect;
    Ok(!dialect.is_rows() && plan::say_the_same(dialect, &path, target)?)
}
