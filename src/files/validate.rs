//! `files validate`: every line that a server would refuse, and what it would not like about the file.
//!
//! Held are the lines that are shown and a megabyte of the input; ids are sorted on disk, 64 bytes a line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::facts::{self, Facts};
use super::lines::{Input, Line, Lines};
use super::{Error, Tally};
use crate::dialect::detect::{Form, Mixed, Side};
use crate::dialect::rules::Rules;
use crate::dialect::{Dialect, Problem, id_of, shown, utf8};
use crate::format::json::Object;
use crate::job::Id;
use crate::shutdown::Shutdown;
use crate::store::{self, Duplicate, IdEntry, IdIndexWriter};

/// What to validate for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server.
    pub rules: &'static Rules,
    /// The dialect, where it is not to be told by the file.
    pub dialect: Option<Dialect>,
    /// Whether a model is given besides the lines'.
    pub has_model: bool,
    /// How many bad lines, and how many duplicates, are shown.
    pub shown: usize,
    /// A directory of this command's own, for the ids.
    pub scratch: PathBuf,
}

/// What is wrong with a file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether the server would refuse the file for it.
    pub is_error: bool,
    /// A name for machines; OpenAI's where it has one.
    pub code: &'static str,
    /// What it is.
    pub text: String,
}

/// A line that has the id of an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twin {
    /// Its number.
    pub line: u64,
    /// The number of the first line of this id.
    pub first: u64,
    /// The id's text; nothing where the input cannot be read again.
    pub id: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What its lines were read as.
    pub dialect: Option<Dialect>,
    /// Lines that are not blank.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
    /// How many lines are bad.
    pub bad: u64,
    /// The first of them, with their numbers.
    pub problems: Vec<(u64, Problem)>,
    /// How many lines have the id of an earlier one.
    pub duplicates: u64,
    /// The first of them.
    pub twins: Vec<Twin>,
    /// What is wrong with the file.
    pub findings: Vec<Finding>,
    /// Lines by model.
    pub models: Tally,
    /// Lines by url.
    pub urls: Tally,
}

impl Report {
    /// Whether the server would take it.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.bad == 0 && !self.findings.iter().any(|finding| finding.is_error)
    }
}

/// Validates a file.
///
/// # Errors
/// When it cannot be read, or ids cannot be sorted on disk. What is wrong with its lines is in the report.
pub fn validate(input: &Input, options: &Options, shutdown: &Shutdown) -> Result<Report, Error> {
    let mut lines = Lines::open(input, shutdown)?;
    let form = lines.detect();
    let dialect = options.dialect.unwrap_or_else(|| dialect_for(options.rules, form));
    let mut checking = Checking {
        options,
        dialect,
        report: Report { dialect: Some(dialect), ..Report::default() },
        ids: Ids::new(&options.scratch),
        streams: 0,
        odd_ids: 0,
        embeddings: 0,
    };
    lines.each(&mut |line| checking.line(line))?;
    let Checking { mut report, ids, streams, odd_ids, embeddings, .. } = checking;
    report.lines = lines.count;
    report.bytes = lines.bytes;
    (report.duplicates, report.twins) = ids.finish(input, options.shown)?;
    let whole = Whole { form, has_bom: lines.has_bom, streams, odd_ids, embeddings };
    report.findings = whole.findings(&report, options, dialect);
    Ok(report)
}

/// What a server reads a file as.
fn dialect_for(rules: &Rules, form: Result<Option<Form>, Mixed>) -> Dialect {
    let form = match form {
        Ok(form) => form,
        Err(mixed) => Some(mixed.first.1),
    };
    let is_requests = |form: &Form| form.side == Side::Requests;
    form.filter(is_requests)
        .map(|form| form.dialect)
        .filter(|dialect| rules.dialects.contains(dialect))
        .unwrap_or(rules.dialects[0])
}

struct Checking<'a> {
    options: &'a Options,
    dialect: Dialect,
    report: Report,
    ids: Ids,
    streams: u64,
    odd_ids: u64,
    embeddings: u64,
}

impl Checking<'_> {
    fn line(&mut self, line: Line<'_>) -> Result<(), Error> {
        let Options { rules, has_model, shown, .. } = self.options;
        let facts =
            line.text().and_then(|text| facts::read(text, self.dialect, Some(rules), *has_model));
        let Facts { id, model, url, embeddings, is_stream, has_odd_id, .. } = match facts {
            Ok(facts) => facts,
            Err(problem) => {
                self.report.bad += 1;
                if self.report.problems.len() < *shown {
                    self.report.problems.push((line.number, problem));
                }
                // Its id may be a duplicate all the same, but it is to be mended first.
                return Ok(());
            }
        };
        self.report.models.add_some(model.as_deref());
        self.report.urls.add_some(url.as_deref());
        self.embeddings += embeddings;
        self.streams += u64::from(is_stream);
        self.odd_ids += u64::from(has_odd_id);
        match id.map(Id::hash_of) {
            Some(Ok(id)) => self.ids.add(IdEntry {
                id,
                row: line.number,
                content: line.offset.unwrap_or(u64::MAX),
            }),
            _ => Ok(()),
        }
    }
}

impl Tally {
    fn add_some(&mut self, name: Option<&str>) {
        if let Some(name) = name {
            self.add(name, 0);
        }
    }
}

/// The ids of a file, sorted on disk.
struct Ids {
    held: Vec<IdEntry>,
    writer: IdIndexWriter,
    path: PathBuf,
}

impl Ids {
    const HELD: usize = 4096;

    fn new(scratch: &Path) -> Self {
        let path = scratch.join("ids");
        Self { held: Vec::with_capacity(Self::HELD), writer: IdIndexWriter::new(&path), path }
    }

    fn add(&mut self, entry: IdEntry) -> Result<(), Error> {
        self.held.push(entry);
        if self.held.len() == Self::HELD {
            self.writer.add(&self.held)?;
            self.held.clear();
        }
        Ok(())
    }

    /// How many lines have the id of an earlier one, and the first of them.
    fn finish(mut self, input: &Input, shown: usize) -> Result<(u64, Vec<Twin>), Error> {
        self.writer.add(&self.held)?;
        let mut count = 0;
        let mut found: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        self.writer.finish::<store::Error>(&mut |Duplicate { entries }| {
            for entry in &entries[1..] {
                count += 1;
                found.insert(entry.row, (entries[0].row, entry.content));
                if found.len() > shown {
                    found.pop_last();
                }
            }
            Ok(())
        })?;
        // It was for the duplicates only.
        let _ = std::fs::remove_file(&self.path);
        let mut twins = Vec::new();
        for (line, (first, offset)) in found {
            let is_known = offset != u64::MAX && input.is_regular();
            let id = if is_known { id_at(input, offset)? } else { None };
            twins.push(Twin { line, first, id });
        }
        Ok((count, twins))
    }
}

/// The id of the line at an offset, if it is still there.
pub(super) fn id_at(input: &Input, offset: u64) -> Result<Option<String>, Error> {
    let line = input.line_at(offset)?;
    let object = utf8(&line).ok().and_then(|text| Object::parse(text).ok());
    let id = object.as_ref().and_then(id_of).and_then(|token| Id::parse(token).ok());
    Ok(id.map(|id| id.text().into_owned()))
}

/// What is judged once all lines were seen.
struct Whole {
    form: Result<Option<Form>, Mixed>,
    has_bom: bool,
    streams: u64,
    odd_ids: u64,
    embeddings: u64,
}

impl Whole {
    fn findings(&self, report: &Report, options: &Options, dialect: Dialect) -> Vec<Finding> {
        let rules = options.rules;
        let title = rules.title;
        let mut found = Vec::new();
        let mut add = |is_error, code, text: String| found.push(Finding { is_error, code, text });
        self.of_form(options, dialect, &mut add);
        if report.lines == 0 {
            add(rules.refuses_empty, "empty_file", "there are no lines in it".to_owned());
        }
        if self.has_bom && dialect == Dialect::OpenAi {
            let text = "it begins with a byte order mark, which servers take for a part of the \
                        first line; rowmill passes over it";
            add(rules.name != "rowmill", "byte_order_mark", text.to_owned());
        }
        if report.duplicates > 0 {
            let (lines, is_row) = (report.duplicates, dialect == Dialect::Rows);
            let but = if is_row { " (which matters with --id-field only)" } else { "" };
            let text = format!("{} with the id of an earlier line{but}", counted(lines));
            add(!is_row && rules.unique_ids, "duplicate_custom_id", text);
        }
        let over = |count: u64, most: Option<u64>| most.filter(|most| count > *most);
        if let Some(most) = over(report.lines, rules.requests) {
            let text = format!("{} requests, and {title} takes {most} a file", report.lines);
            add(true, "too_many_tasks", text);
        }
        if let Some(most) = over(report.bytes, rules.file_bytes) {
            let text = format!("{} bytes, and {title} takes files of {most}", report.bytes);
            add(true, "file_too_large", text);
        }
        if let Some(most) = over(self.embeddings, rules.embedding_inputs) {
            let text = format!(
                "{} inputs of embeddings, and {title} takes {most} a file",
                self.embeddings
            );
            add(true, "too_many_inputs", text);
        }
        if rules.one_kind {
            let kinds = [
                ("model_mismatch", "models", &report.models),
                ("url_mismatch", "urls", &report.urls),
            ];
            for (code, what, tally) in kinds {
                if tally.len() > 1 {
                    let text = format!(
                        "{} {what} ({}), and {title} wants one a file",
                        tally.len(),
                        names(tally)
                    );
                    add(true, code, text);
                }
            }
        }
        if self.streams > 0 && !rules.refuses_stream {
            let who = Rules::that_refuse_streams();
            let text =
                format!("{} lines ask for streams (body.stream), which {who} refuse", self.streams);
            add(false, "stream", text);
        }
        if self.odd_ids > 0 {
            let text = format!("{} with a custom_id that is no UUID", counted(self.odd_ids));
            add(false, "not_a_uuid", text);
        }
        found
    }

    fn of_form(
        &self,
        options: &Options,
        dialect: Dialect,
        add: &mut dyn FnMut(bool, &'static str, String),
    ) {
        if options.dialect.is_some() {
            return;
        }
        let takes_all = options.rules.dialects.contains(&Dialect::Rows);
        match self.form {
            // What is a row and nothing more is a bad line of any other dialect, and told as that.
            Err(mixed) if mixed.second.1.dialect == Dialect::Rows => {}
            Err(mixed) => add(true, "mixed_dialects", mixed.to_string()),
            Ok(Some(form)) if form.side == Side::Outcomes => {
                let text = format!("it looks like {form}; it is read as {dialect}");
                add(!takes_all, "not_requests", text);
            }
            Ok(Some(form)) if form.dialect != dialect => {
                let text = format!("it looks like {form}; {} reads {dialect}", options.rules.title);
                add(true, "wrong_dialect", text);
            }
            Ok(_) => {}
        }
    }
}

/// So many lines, in words.
fn counted(lines: u64) -> String {
    format!("{lines} {}", if lines == 1 { "line" } else { "lines" })
}

/// The first names of a tally.
fn names(tally: &Tally) -> String {
    let names: Vec<_> = tally.sorted().into_iter().filter_map(|(name, _)| name).collect();
    let more = names.len().saturating_sub(5);
    let mut text = names.iter().take(5).map(|name| shown(name)).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += ", …";
    }
    text
}
