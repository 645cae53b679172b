//! Takes answers over from files that were there before the plan: an output whose work directory is gone,
//! or what another tool left.
//!
//! Only lines that say `ok` are taken, each for the row of its id. The work is a join on disk: an
//! index of the files' ids is walked beside the plan's, and what matches is sorted into row order.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::Error;
use super::answers::{Answer, Earlier, Files, Judge, Place, Worth, Writer};
use super::indexes::{Spread, next_entry, walk};
use crate::format::envelope::{self, NO_INPUT, Verdict};
use crate::format::fast_agent::{Flaw, Numbering};
use crate::format::json::Object;
use crate::format::reply_body::check_answer;
use crate::input::{ShardRows, Sources, identify, read_shard};
use crate::job::{Dialect, Id, Identity, JobSpec, OutcomeKind, Variant};
use crate::prompt::{Prompt, Template};
use crate::store::{
    Asked, ChecksumSeed, Entry, Held, IdEntry, IdIndex, IdIndexWriter, Manifest, Outcome, Record,
    ShardEntry,
};

/// What was taken over, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Rows whose answer was taken.
    pub rows: u64,
    /// Answers of rows that the input does not have.
    pub strangers: u64,
    /// Answers of rows that stand elsewhere than where the answer was given, where that matters.
    pub displaced: u64,
    /// Answers that show another row than the one that is there now.
    pub changed: u64,
    /// Answers that are none: what an interrupted row left.
    pub empty: u64,
    /// Answers that are none: the texts of failed calls.
    pub failures: u64,
    /// Answers that do not fit the job's schema.
    pub unfit: u64,
    /// Answers of rows that cannot be asked about here: they cannot be read, or have no id.
    pub unreadable: u64,
    /// Of those that were taken, whose own row number is another than their row's.
    pub renumbered: u64,
    /// Lines that are torn, glued together or no envelopes.
    pub damaged: u64,
    /// The first of those: its file, and its line counted from 1.
    pub first_damaged: Option<(PathBuf, u64)>,
}

/// Takes answers over into the journals of a fresh plan.
///
/// # Errors
/// When files cannot be read or written.
pub fn adopt(
    dir: &Held,
    manifest: &Manifest,
    sources: &Sources,
    earlier: &Earlier,
    now_ms: u64,
) -> Result<Adopted, Error> {
    let mut adopted = Adopted::default();
    let files = Files::open(&earlier.files)?;
    let judge = Judge::new(earlier.writer, &manifest.job);
    let places = dir.ids().with_file_name("ids.part-places");
    let keys = Keys::of(manifest, earlier.writer);
    for variant in 0..manifest.job.variants() {
        let mut writer = IdIndexWriter::new(&places);
        let from = From { files: &files, earlier, judge: &judge, manifest, variant, keys, now_ms };
        find_answers(dir, &from, &mut adopted, &mut |key, answer| {
            let id = keys.spread.key(key);
            Ok(writer.add(&[IdEntry { id, row: answer.row, content: answer.content }])?)
        })?;
        writer.finish::<Error>(&mut |_| Ok(()))?;

        let mut index = IdIndex::open(&places)?;
        let mut place = next_entry(&mut index)?;
        let ranges: Vec<_> = manifest.ranges().collect();
        for (at, (first, range)) in ranges.iter().enumerate() {
            let end = keys.end(range, ranges.get(at + 1).map(|(_, next)| *next));
            let mut taken = Vec::new();
            while let Some(found) = place
                && keys.spread.row(found.id) < end
            {
                taken.push((keys.spread.row(found.id), found.row, found.content));
                place = next_entry(&mut index)?;
            }
            // Of several answers for one row the first counts.
            taken.dedup_by_key(|(key, ..)| *key);
            if !taken.is_empty() {
                let number = first + u32::try_from(variant).unwrap_or(u32::MAX);
                fill_shard(dir, sources, number, &taken, &from, &mut adopted)?;
            }
        }
        dir.discard_ids(&places)?;
    }
    Ok(adopted)
}

/// By what answers are sorted into the order of the rows.
#[derive(Debug, Clone, Copy)]
struct Keys {
    /// Whether by the lines of the input, not by row numbers.
    are_lines: bool,
    /// The highest there is.
    most: u64,
    spread: Spread,
}

impl Keys {
    fn of(manifest: &Manifest, writer: Writer) -> Self {
        let is_by_id = matches!(manifest.job.identity(), Identity::Field(_));
        let are_lines = writer == Writer::FastAgent(Numbering::Lines) && !is_by_id;
        // A line has a byte at least.
        let lines = manifest.shards.last().map_or(0, |last| last.first_line + last.bytes);
        let most = if are_lines { lines } else { manifest.rows() };
        Self { are_lines, most, spread: Spread::new(most) }
    }

    /// The key behind a range's last.
    fn end(self, range: &ShardEntry, next: Option<&ShardEntry>) -> u64 {
        match next {
            Some(next) if self.are_lines => next.first_line,
            None if self.are_lines => u64::MAX,
            _ => range.first_row + range.rows,
        }
    }

    /// A row's place in its shard.
    fn index(self, key: u64, shard: &ShardEntry, rows: &ShardRows<'_>) -> Option<usize> {
        if self.are_lines {
            return rows.at_line(key);
        }
        usize::try_from(key.checked_sub(shard.first_row)?).ok().filter(|index| *index < rows.len())
    }
}

/// The files that answers of a variant are taken from, and for what.
struct From<'a> {
    files: &'a Files,
    earlier: &'a Earlier,
    judge: &'a Judge,
    manifest: &'a Manifest,
    variant: usize,
    keys: Keys,
    now_ms: u64,
}

impl From<'_> {
    fn job(&self) -> &JobSpec {
        &self.manifest.job
    }

    /// Whether it is an answer of the variant; nothing where it is of none of the job's.
    fn is_wanted(&self, answer: &Answer<'_>) -> Option<bool> {
        let said = answer.variant.as_ref();
        let job = self.job();
        if !job.is_varied() {
            return said.is_none().then_some(true);
        }
        let (model, said) = said?;
        let is_of = |number: &usize| {
            let Variant { named, repeat, .. } = job.variant(*number);
            (named, repeat) == (model.as_str(), *said)
        };
        let number = (0..job.variants()).find(is_of)?;
        Some(number == self.variant)
    }

    /// The key of the row that an answer is for, where row numbers tell.
    fn key(&self, answer: &Answer<'_>) -> Option<u64> {
        let key = match self.earlier.writer {
            Writer::Rowmill => answer.id.parse().ok(),
            Writer::FastAgent(Numbering::Records) => answer.number?.checked_sub(1),
            Writer::FastAgent(Numbering::Lines | Numbering::Rows) => answer.number,
        };
        key.filter(|key| (1..=self.keys.most).contains(key))
    }

    /// Whether a row stands where the one stood that an answer is for.
    fn is_in_place(&self, answer: &Answer<'_>, row: u64, line: u64) -> bool {
        let number = match self.earlier.writer {
            Writer::Rowmill | Writer::FastAgent(Numbering::Rows) => row,
            Writer::FastAgent(Numbering::Lines) => line,
            Writer::FastAgent(Numbering::Records) => row + 1,
        };
        !self.earlier.is_in_place || answer.number == Some(number)
    }
}

/// Finds the answers of a variant, each with the key of its row. Of those without one only the number is
/// known.
fn find_answers(
    dir: &Held,
    from: &From<'_>,
    found: &mut Adopted,
    put: &mut dyn FnMut(u64, IdEntry) -> Result<(), Error>,
) -> Result<(), Error> {
    let is_by_number = match (from.job().identity(), from.earlier.writer) {
        _ if from.earlier.is_by_number => true,
        (Identity::RowNumber, _) | (Identity::Hash, Writer::FastAgent(_)) => true,
        (Identity::Field(_) | Identity::FieldOrNumber(_), _)
        | (Identity::Hash, Writer::Rowmill) => false,
    };
    if !is_by_number {
        let answers = dir.ids().with_file_name("ids.part-answers");
        let mut by_id = IdIndexWriter::new(&answers);
        read_answers(from, found, &mut |_, entry| Ok(by_id.add(&[entry])?))?;
        by_id.finish::<Error>(&mut |_| Ok(()))?;
        found.strangers += join(IdIndex::open(&dir.ids())?, IdIndex::open(&answers)?, put)?;
        return Ok(dir.discard_ids(&answers)?);
    }
    let mut strangers = 0;
    read_answers(from, found, &mut |answer, entry| {
        match from.key(answer) {
            Some(key) => put(key, entry)?,
            None => strangers += 1,
        }
        Ok(())
    })?;
    found.strangers += strangers;
    Ok(())
}

/// Visits the answers; an entry's row is where its line begins, its content the line's length.
fn read_answers(
    from: &From<'_>,
    found: &mut Adopted,
    visit: &mut dyn FnMut(&Answer<'_>, IdEntry) -> Result<(), Error>,
) -> Result<(), Error> {
    // Every reading finds the same lines; the first one tells.
    let once = u64::from(from.variant == 0);
    from.files.each(from.job().dialect, &mut |place, answer| {
        let Place { path, line, start, length } = place;
        let Some(answer) = answer else {
            found.damaged += once;
            found.first_damaged.get_or_insert_with(|| (path.to_owned(), line));
            return Ok(());
        };
        match from.judge.worth(&answer) {
            Worth::Answer => {}
            Worth::Nothing => return Ok(()),
            worth => {
                match worth {
                    Worth::Flawed(Flaw::Empty) => found.empty += once,
                    Worth::Flawed(Flaw::Failure) => found.failures += once,
                    _ => found.unfit += once,
                }
                return Ok(());
            }
        }
        match (from.is_wanted(&answer), Id::hash_of(answer.id)) {
            (Some(true), Ok(id)) => visit(&answer, IdEntry { id, row: start, content: length })?,
            (Some(false), _) => {}
            _ => found.strangers += once,
        }
        Ok(())
    })
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

/// Writes the answers of one shard's rows (key, place, length) to its journal.
fn fill_shard(
    dir: &Held,
    sources: &Sources,
    number: u32,
    taken: &[(u64, u64, u64)],
    from: &From<'_>,
    adopted: &mut Adopted,
) -> Result<(), Error> {
    let shard = &from.manifest.shards[number as usize];
    if shard.wanted == 0 {
        return Ok(());
    }
    let rows = read_shard(sources, shard, from.job().max_row_bytes)?;
    let exceptions: BTreeMap<u64, Option<String>> =
        dir.exceptions(number, shard)?.into_iter().map(|it| (it.row, it.id)).collect();
    let mut open = dir.open_shard(number, shard, from.now_ms)?;
    let template = Template::parse(&from.job().prompt);
    let generation = dir.generation();
    let (seed, lines) = (open.journal.seed(), Vec::new());
    let mut filling = Filling { from, rows: &rows, template, generation, seed, lines };
    let (end, begin) = (open.journal.length(), open.journal.next_offset());
    let mut entries = Vec::new();
    for &(key, start, length) in taken {
        let Some(index) = from.keys.index(key, shard, &rows) else {
            adopted.strangers += 1;
            continue;
        };
        let row = shard.first_row + index as u64;
        let exception = exceptions.get(&row);
        let is_left_out = exception == Some(&None);
        let is_done = open.state.outcome(row) == Some(OutcomeKind::Ok);
        if !from.manifest.chosen.contains(row) || is_left_out || is_done {
            continue;
        }
        let line = from.files.bytes(start, length)?;
        let name = exception.and_then(Option::as_deref);
        entries.extend(filling.take(&line, (index, row, name), begin, adopted));
    }
    open.journal.append(&filling.lines)?;
    open.journal.syncer().sync()?;
    open.checkpoint.record(end, open.journal.length(), &entries);
    adopted.rows += entries.len() as u64;
    Ok(())
}

/// The records of a shard's answers, as they are made.
struct Filling<'a> {
    from: &'a From<'a>,
    rows: &'a ShardRows<'a>,
    template: Template,
    generation: u32,
    seed: ChecksumSeed,
    lines: Vec<u8>,
}

impl Filling<'_> {
    /// Adds the record of a row's answer, if it is one: `index` is the row's place in its shard, `name` the id that
    /// it is given in the place of its own, `begin` where the first record will stand in the journal.
    fn take(
        &mut self,
        line: &[u8],
        (index, row, name): (usize, u64, Option<&str>),
        begin: u64,
        adopted: &mut Adopted,
    ) -> Option<Entry> {
        let From { earlier, manifest, now_ms, .. } = *self.from;
        let job = &manifest.job;
        let answer = Answer::read(job.dialect, line)?;
        let result = answer.result?;
        // Rows that cannot be asked about have no answer, whatever an old file says.
        let text = self.rows.text(index).inspect_err(|_| adopted.unreadable += 1).ok()?;
        let object = self.rows.object(index, &text);
        let object = object.inspect_err(|_| adopted.unreadable += 1).ok()?;
        let own = identify(&object, job.identity(), row);
        let own = own.inspect_err(|_| adopted.unreadable += 1).ok()?;
        if !self.from.is_in_place(&answer, row, self.rows.line(index)) {
            adopted.displaced += 1;
            return None;
        }
        if earlier.writer != Writer::Rowmill && shows_another(&answer, object.text()) {
            adopted.changed += 1;
            return None;
        }
        adopted.renumbered += u64::from(answer.number.is_some_and(|number| number != row));
        // It is taken for an answer to this question, which is all that is known of it.
        let prompt = self.template.ask(&object, job).ok();
        if prompt.as_ref().is_some_and(|prompt| !answers(prompt, job, result)) {
            adopted.failures += 1;
            return None;
        }
        let asked = prompt.map(|prompt| Asked {
            generation: self.generation,
            prompt: prompt.hash(),
            is_accepted: !earlier.is_known,
        });
        let mut envelope = Vec::new();
        let id = name.map_or(own, Id::from_text);
        envelope::write(&mut envelope, &id, row, Verdict::Json(result));
        let input = job.include_input.then(|| match object.text() {
            "" => NO_INPUT,
            text => text.as_bytes(),
        });
        let named = names_of(&answer);
        let record = Record::Outcome(Outcome {
            row,
            kind: OutcomeKind::Ok,
            at_ms: now_ms,
            envelope: &envelope,
            attempts: b"[]",
            asked,
            adopted: true,
            named: &named,
            input,
        });
        let start = self.lines.len();
        record.encode(&mut self.lines, self.seed);
        Entry::of(&record, begin + start as u64, self.lines.len() - start)
    }
}

/// Whether a result is an answer to a request, where results are whole bodies: the line alone did not tell of which
/// endpoint it has to be one.
fn answers(prompt: &Prompt, job: &JobSpec, result: &str) -> bool {
    let endpoint = prompt.request.as_ref().map(|request| request.endpoint);
    let body = Object::parse(result).ok().filter(|_| job.dialect == Dialect::OpenAi);
    body.is_none_or(|body| check_answer(endpoint, &body).is_ok())
}

/// What the line of an answer and its request are called, as journals keep it.
fn names_of(answer: &Answer<'_>) -> Vec<u8> {
    let names = ["id", "request_id"].into_iter().zip(answer.named);
    let said: Vec<_> =
        names.filter_map(|(name, token)| Some(format!("\"{name}\":{}", token?))).collect();
    if said.is_empty() { Vec::new() } else { format!("{{{}}}", said.join(",")).into_bytes() }
}

/// Whether an answer shows another row than this. Spelling does not matter: other tools rebuild rows.
fn shows_another(answer: &Answer<'_>, row: &str) -> bool {
    let value = |text| serde_json::from_str::<Value>(text).ok();
    answer.input.is_some_and(|shown| value(shown) != value(row))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::{self, Cutting, Options};
    use crate::shutdown;
    use crate::store::Holder;
    use crate::telemetry::Silent;

    /// Adopts the answers of an output into a fresh plan; gives the envelopes in its journals as well.
    fn adopted(job: JobSpec, input: &str, output: &str) -> (Adopted, Vec<String>) {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        std::fs::write(path("in.jsonl"), input).unwrap();
        std::fs::write(path("out.jsonl"), output).unwrap();
        let holder = Holder::this_process("test", 0);
        let dir = Held::acquire(&path("work"), holder, &mut || false).unwrap();
        let source = crate::input::Source::open(&path("in.jsonl")).unwrap().into();
        let (_trigger, shutdown) = shutdown::channel();
        let planned = plan::run(&dir, &source, job, &options(), &shutdown, &mut Silent).unwrap();
        let files = vec![path("out.jsonl")];
        let earlier = Earlier::of_rowmill(files);
        let adopted = adopt(&dir, &planned.manifest, &source, &earlier, 1).unwrap();
        let lost = adopted.first_damaged.as_ref().map(|(file, line)| (file.as_path(), *line));
        assert!(lost.is_none_or(|(file, line)| file == Path::new(&path("out.jsonl")) && line > 0));
        let mut envelopes = Vec::new();
        for (number, entry) in planned.manifest.open_shards() {
            let mut visit = |record: &Record<'_>| {
                if let Record::Outcome(Outcome { envelope, adopted, kind, .. }) = record {
                    assert!(*adopted && *kind == OutcomeKind::Ok);
                    envelopes.push(String::from_utf8(envelope.to_vec()).unwrap());
                }
            };
            dir.tally(number, entry, &mut visit).unwrap();
        }
        (adopted, envelopes)
    }

    fn options() -> Options {
        Options {
            cutting: Cutting::Rows(2),
            threads: 1,
            base_url: None,
            provider: None,
            transport: crate::job::Transport::default(),
            routes: Vec::new(),
            pool: None,
            prices: None,
            replaces: Vec::new(),
            published: 0,
            is_spooled: false,
            url: None,
            counts_twins: false,
            now_ms: 1,
        }
    }

    fn job(dialect: Dialect, id_field: &str) -> JobSpec {
        let text = r#"{"model":"m","prompt":"{{row_json}}","instruction":null,"parameters":{},"id_field":null,
            "selection":{"offset":0,"limit":null,"sample":null},"on_duplicate":"error",
            "on_missing_field":"row-error","max_row_bytes":1000000,"include_input":false}"#;
        let job: JobSpec = serde_json::from_str(text).unwrap();
        JobSpec { dialect, id_field: Some(id_field.to_owned()), ..job }
    }

    #[test]
    fn results_of_batch_apis_are_taken_as_they_stand() {
        let request = |id: &str| {
            format!(
                "{{\"custom_id\":\"{id}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{id}\"}}]}}}}\n"
            )
        };
        let result = |id: &str, status: u16, body: &str, error: &str| {
            format!(
                "{{\"id\":\"vllm-{id}\",\"custom_id\":\"{id}\",\"response\":{{\"status_code\":{status},\"request_id\":\"r\",\"body\":{body}}},\"error\":{error}}}\n"
            )
        };
        let input: String = ["a", "b", "c", "d", "e", "f"].map(request).concat();
        let whole = "{ \"choices\": [{\"message\":{\"content\":\"\\u00e9\"}}], \"n\": 1.50 }";
        let output = [
            // In the order in which they came, each once with more to it.
            result("e", 200, whole, "null"),
            result("a", 200, "{\"choices\":[{\"text\":\"x\"}]}", "null"),
            result("d", 200, "{\"data\":[{\"embedding\":[1]}]}", "null"),
            result("b", 400, "null", "{\"error\":{\"message\":\"too long\"}}"),
            result("gone", 200, whole, "null"),
            result("c", 500, "{\"error\":{}}", "null"),
            // No answers under a status of success.
            result("b", 200, "{}", "null"),
            result("b", 200, "{\"detail\":\"slow\"}", "null"),
            // A batch that expired.
            "{\"id\":\"x\",\"custom_id\":\"d\",\"response\":null,\"error\":{\"code\":\"batch_expired\"}}\n".into(),
            result("f", 200, whole, "null")[..60].to_owned(),
        ];
        let (adopted, envelopes) =
            adopted(job(Dialect::OpenAi, "custom_id"), &input, &output.concat());
        let expected =
            Adopted { rows: 2, strangers: 1, failures: 1, damaged: 1, ..Adopted::default() };
        assert_eq!(Adopted { first_damaged: None, ..adopted.clone() }, expected);
        assert_eq!(adopted.first_damaged.unwrap().1, 10);
        assert_eq!(
            envelopes,
            [
                "{\"id\":\"a\",\"row_number\":1,\"ok\":true,\"result\":{\"choices\":[{\"text\":\"x\"}]},\"error\":null}"
                    .to_owned(),
                format!(
                    "{{\"id\":\"e\",\"row_number\":5,\"ok\":true,\"result\":{whole},\"error\":null}}"
                ),
            ]
        );
    }

    #[test]
    fn results_of_dria_are_taken_as_they_stand() {
        let input = "{\"id\":1,\"prompt\":\"a\"}\n{\"id\":\"1\",\"prompt\":\"b\"}\n{\"id\":3,\"prompt\":\"c\"}\n";
        let output = "{\"id\":3,\"model\":\"m\",\"error\":\"503: no nodes available\"}\n\
            {\"id\":\"1\",\"model\":\"m\",\"output\":\"caf\\u00e9\",\"tokens\":2}\n\
            {\"id\":1,\"model\":\"m\",\"output\":{\"n\":1.50},\"tokens\":null}\n";
        let (taken, envelopes) = adopted(job(Dialect::Prompts, "id"), input, output);
        assert_eq!(taken, Adopted { rows: 2, ..Adopted::default() });
        let results: Vec<_> = envelopes
            .iter()
            .map(|line| envelope::read(line.as_bytes()).unwrap())
            .map(|it| (it.id.get().to_owned(), it.result.get().to_owned()))
            .collect();
        let expected = [("1", "{\"n\":1.50}"), ("\"1\"", "\"caf\\u00e9\"")];
        assert_eq!(results, expected.map(|(id, said)| (id.to_owned(), said.to_owned())));

        let id = "123e4567-e89b-12d3-a456-426614174000";
        let body = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}";
        let input = format!(
            "{{\"custom_id\":\"{id}\",\"type\":\"completions\",\"version\":\"v1\",\"body\":{body}}}\n"
        );
        let output = format!(
            "{{\"custom_id\":\"{id}\",\"model\":\"m\",\"result\":\"x\",\"token_count\":1}}\n"
        );
        let (taken, _) = adopted(job(Dialect::Dria, "custom_id"), &input, &output);
        assert_eq!(taken, Adopted { rows: 1, ..Adopted::default() });
    }
}
