//! Takes answers over from an output file whose work directory is gone.
//!
//! Only lines that say `ok` are taken, each for the row of its id. The work is a join on disk: an
//! index of the file's ids is walked beside the plan's, and what matches is sorted into row order.

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Error;
use super::indexes::{Spread, next_entry, walk};
use crate::format::chunk::{ChunkReader, Cut, Limits};
use crate::format::envelope::{self, Envelope, NO_INPUT, Verdict};
use crate::input::{self, Sources, identify, read_shard};
use crate::job::{Id, Identity, JobSpec, OutcomeKind, Variant};
use crate::prompt::Template;
use crate::store::{
    Asked, Entry, Held, IdEntry, IdIndex, IdIndexWriter, Manifest, Outcome, Record, ShardEntry,
};

/// What was taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Rows whose answer was taken.
    pub rows: u64,
    /// Answers of rows that the input does not have.
    pub strangers: u64,
    /// Lines that are torn, glued together or no envelopes.
    pub damaged: u64,
    /// The first of those, counted from 1.
    pub first_damaged: u64,
}

/// Takes the answers of `output` over into the journals of a fresh plan; `is_known` says that its rows
/// are known to be as they were. Where they are not, an answer is its row's alone.
///
/// # Errors
/// When files cannot be read or written.
pub fn adopt(
    dir: &Held,
    manifest: &Manifest,
    sources: &Sources,
    (output, is_known): (&Path, bool),
    now_ms: u64,
) -> Result<Adopted, Error> {
    let mut adopted = Adopted::default();
    let file = File::open(output).map_err(unreadable(output))?;
    let places = dir.ids().with_file_name("ids.part-places");
    let spread = Spread::new(manifest.rows());
    let variants = manifest.job.variants();
    for variant in 0..variants {
        let mut writer = IdIndexWriter::new(&places);
        let from =
            Answers { file: &file, path: output, job: &manifest.job, variant, is_known, now_ms };
        let found = find_answers(dir, manifest, &from, &mut |row, answer| {
            let entry = IdEntry { id: spread.key(row), row: answer.row, content: answer.content };
            Ok(writer.add(&[entry])?)
        })?;
        adopted.strangers += found.strangers;
        // Every reading finds the same ones.
        (adopted.damaged, adopted.first_damaged) = (found.damaged, found.first_damaged);
        writer.finish::<Error>(&mut |_| Ok(()))?;

        let mut index = IdIndex::open(&places)?;
        let mut place = next_entry(&mut index)?;
        for (first, shard) in manifest.ranges().filter(|(_, shard)| shard.wanted > 0) {
            let mut taken = Vec::new();
            while let Some(found) = place
                && spread.row(found.id) < shard.first_row + shard.rows
            {
                taken.push((spread.row(found.id), found.row, found.content));
                place = next_entry(&mut index)?;
            }
            taken.retain(|(row, ..)| manifest.chosen.contains(*row));
            // Of several answers for one row the first counts.
            taken.dedup_by_key(|(row, ..)| *row);
            if !taken.is_empty() {
                let number = first + u32::try_from(variant).unwrap_or(u32::MAX);
                let shard = &manifest.shards[number as usize];
                adopted.rows += fill_shard(dir, manifest, sources, number, shard, &taken, &from)?;
            }
        }
        dir.discard_ids(&places)?;
    }
    Ok(adopted)
}

/// Finds the answers of a variant, each with its row. Of those without one only the number is known.
fn find_answers(
    dir: &Held,
    manifest: &Manifest,
    from: &Answers<'_>,
    put: &mut dyn FnMut(u64, IdEntry) -> Result<(), Error>,
) -> Result<Adopted, Error> {
    let mut found = Adopted::default();
    if manifest.job.identity() != Identity::RowNumber {
        let answers = dir.ids().with_file_name("ids.part-answers");
        let mut by_id = IdIndexWriter::new(&answers);
        read_answers(from, &mut found, &mut |_, answer| Ok(by_id.add(&[answer])?))?;
        by_id.finish::<Error>(&mut |_| Ok(()))?;
        found.strangers += join(IdIndex::open(&dir.ids())?, IdIndex::open(&answers)?, put)?;
        dir.discard_ids(&answers)?;
        return Ok(found);
    }
    let mut strangers = 0;
    read_answers(from, &mut found, &mut |id, answer| {
        match id.as_json().parse::<u64>() {
            Ok(row) if (1..=manifest.rows()).contains(&row) => put(row, answer)?,
            _ => strangers += 1,
        }
        Ok(())
    })?;
    found.strangers += strangers;
    Ok(found)
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> input::Error {
    move |source| input::Error::Unreadable { path: path.to_owned(), source }
}

/// The output file that answers of a variant are taken from.
struct Answers<'a> {
    file: &'a File,
    path: &'a Path,
    job: &'a JobSpec,
    variant: usize,
    is_known: bool,
    now_ms: u64,
}

impl Answers<'_> {
    /// Whether an envelope holds an answer of the variant; nothing where it is of none of the job's.
    fn is_wanted(&self, envelope: &Envelope<'_>) -> Option<bool> {
        let said = envelope.variant();
        if !self.job.is_varied() {
            return said.is_none().then_some(true);
        }
        let (model, said) = said?;
        let is_of = |number: &usize| {
            let Variant { named, repeat, .. } = self.job.variant(*number);
            (named, repeat) == (model.as_str(), said)
        };
        let number = (0..self.job.variants()).find(is_of)?;
        Some(number == self.variant)
    }
}

/// Visits the answers of an output file; an entry's row is the line's offset, its content the
/// line's length.
fn read_answers(
    from: &Answers<'_>,
    found: &mut Adopted,
    visit: &mut dyn FnMut(&Id, IdEntry) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut reader = ChunkReader::new(from.file, Cut::Lines, 0, 1, u64::MAX);
    let limits = Limits { records: 10_000, bytes: 4 << 20 };
    from.file.try_clone().and_then(|mut file| file.rewind()).map_err(unreadable(from.path))?;
    while let Some(chunk) = reader.next_chunk(limits).map_err(unreadable(from.path))? {
        for record in &chunk.records {
            let line = chunk.record(record);
            let answer = envelope::read(line)
                .ok()
                .and_then(|it| Id::parse(it.id.get()).ok().map(|id| (it, id)));
            match answer {
                Some((it, id)) if it.ok => match from.is_wanted(&it) {
                    Some(true) => {
                        let row = chunk.offset + record.start as u64;
                        let content = line.len() as u64;
                        visit(&id, IdEntry { id: id.hash(), row, content })?;
                    }
                    Some(false) => {}
                    // The first reading tells.
                    None => found.strangers += u64::from(from.variant == 0),
                },
                Some(_) => {}
                None => {
                    found.damaged += 1;
                    if found.first_damaged == 0 {
                        found.first_damaged = record.line;
                    }
                }
            }
        }
        reader.recycle(chunk.bytes);
    }
    Ok(())
}

/// Finds the row of each answer. Gives the number of answers that no row is for.
fn join(
    rows: Option<IdIndex>,
    answers: Option<IdIndex>,
    visit: &mut dyn FnMut(u64, IdEntry) -> Result<(), Error>,
) -> Result<u64, Error> {
    let (mut strangers, mut last) = (0, None);
    walk(rows, answers, &mut |row, answer| {
        match (row, answer) {
            (Some(row), Some(answer)) => {
                last = Some(row.id);
                visit(row.row, answer)?;
            }
            // Of several answers for one row the first counts.
            (None, Some(answer)) if last != Some(answer.id) => strangers += 1,
            _ => {}
        }
        Ok(())
    })?;
    Ok(strangers)
}

/// Writes the answers of one shard's rows (row, offset, length) to its journal.
fn fill_shard(
    dir: &Held,
    manifest: &Manifest,
    sources: &Sources,
    number: u32,
    shard: &ShardEntry,
    taken: &[(u64, u64, u64)],
    from: &Answers<'_>,
) -> Result<u64, Error> {
    let rows = read_shard(sources, shard, manifest.job.max_row_bytes)?;
    let skipped: Vec<u64> = dir
        .exceptions(number, shard)?
        .into_iter()
        .filter(|rename| rename.id.is_none())
        .map(|rename| rename.row)
        .collect();
    let mut open = dir.open_shard(number, shard, from.now_ms)?;
    let begin = open.journal.length();
    let template = Template::parse(&manifest.job.prompt);
    let (mut lines, mut entries) = (Vec::new(), Vec::new());
    for &(row, offset, length) in taken {
        let mut line = vec![0; usize::try_from(length).unwrap_or_default()];
        from.file.read_exact_at(&mut line, offset).map_err(unreadable(from.path))?;
        let Ok(answer) = envelope::read(&line) else { continue };
        let index = usize::try_from(row - shard.first_row).unwrap_or(usize::MAX);
        // Rows that cannot be asked about have no answer, whatever an old file says.
        let Ok(text) = rows.text(index) else { continue };
        let Ok(object) = rows.object(index, &text) else { continue };
        let Ok(own) = identify(&object, manifest.job.identity(), row) else { continue };
        if open.state.outcome(row) == Some(OutcomeKind::Ok) || skipped.contains(&row) {
            continue;
        }
        // A renamed row keeps the name it has in the file; the others are spelled as in the input.
        let id = match Id::parse(answer.id.get()) {
            Ok(id) if id.hash() != own.hash() => id,
            _ => own,
        };
        // It is taken for an answer to this question, which is all that is known of it.
        let prompt = template.ask(&object, &manifest.job).ok();
        let asked = prompt.map(|prompt| Asked {
            generation: dir.generation(),
            prompt: prompt.hash(),
            is_accepted: !from.is_known,
        });
        let mut envelope = Vec::new();
        envelope::write(&mut envelope, &id, row, Verdict::Json(answer.result.get()));
        let input = manifest.job.include_input.then(|| match object.text() {
            "" => NO_INPUT,
            text => text.as_bytes(),
        });
        let record = Record::Outcome(Outcome {
            row,
            kind: OutcomeKind::Ok,
            at_ms: from.now_ms,
            envelope: &envelope,
            attempts: b"[]",
            asked,
            adopted: true,
            input,
        });
        let start = lines.len();
        record.encode(&mut lines);
        entries.extend(Entry::of(&record, begin + start as u64, lines.len() - start));
    }
    open.journal.append(&lines)?;
    open.journal.syncer().sync()?;
    open.checkpoint.record(begin, open.journal.length(), &entries);
    Ok(entries.len() as u64)
}
