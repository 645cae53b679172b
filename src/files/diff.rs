//! `files diff`: two output files by id. Which answers differ, which failed in one only, which are in one only.
//!
//! Held is for each id a hash of it and of its answer, and where it stands: up to 160 bytes an id, a gigabyte for six
//! million.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Error;
use super::lines::{Input, Line, Lines};
use super::validate::id_at;
use crate::dialect::detect::{Form, Side};
use crate::dialect::{self, Content, Dialect, Outcome, Problem};
use crate::job::{Id, IdHash};
use crate::shutdown::Shutdown;

/// How to compare.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The dialect of both, where it is not to be told by the files.
    pub dialect: Option<Dialect>,
    /// How many ids of each kind are listed.
    pub listed: usize,
    /// Whether they are listed with what they say.
    pub shows_texts: bool,
}

/// What became of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Both have an answer, and not the same.
    Different,
    /// Only the second has an answer.
    FailedInA,
    /// Only the first has an answer.
    FailedInB,
    /// The second does not have it.
    OnlyInA,
    /// The first does not have it.
    OnlyInB,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Different, Self::FailedInA, Self::FailedInB, Self::OnlyInA, Self::OnlyInB];

    /// Its name, for machines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Different => "different",
            Self::FailedInA => "failed_only_in_a",
            Self::FailedInB => "failed_only_in_b",
            Self::OnlyInA => "only_in_a",
            Self::OnlyInB => "only_in_b",
        }
    }
}

/// An id that is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What became of it.
    pub kind: Kind,
    /// The id's text.
    pub id: String,
    /// What the first file says, where texts are wanted and it says something: a piece around the first difference.
    pub before: Option<String>,
    /// The same of the second.
    pub after: Option<String>,
}

/// What one of the files holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines that are not blank.
    pub lines: u64,
    /// Lines that are no results.
    pub bad: u64,
    /// Lines that have the id of an earlier one; the first counts.
    pub duplicates: u64,
    /// Ids that failed.
    pub failed: u64,
}

/// What the comparison gave.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What each of the files looks like.
    pub forms: [Option<Form>; 2],
    /// What is in each.
    pub counts: [Counts; 2],
    /// Ids with the same answer in both.
    pub same: u64,
    /// Ids that failed in both, whatever the reasons.
    pub failed_in_both: u64,
    /// How many of each kind, in the order of [`Kind::ALL`].
    pub differences: [u64; 5],
    /// The first of each kind.
    pub listed: Vec<Change>,
}

impl Report {
    /// Whether both say the same of the same ids.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differences == [0; 5] && self.counts.iter().all(|counts| counts.bad == 0)
    }
}

/// Compares two files. The first is read again for what is listed of it.
///
/// # Errors
/// When one cannot be read, or holds something other than results; bad lines are counted.
pub fn diff(a: &Input, b: &Input, options: Options, shutdown: &Shutdown) -> Result<Report, Error> {
    if !a.is_regular() && a.path().exists() || *a == Input::Stdin {
        let text = "the first of the two is read a second time, so it must be a file; the other may \
                    come through a pipe";
        return Err(Error::Usage(text.to_owned()));
    }
    let mut diffing = Diffing { a, options, seen: HashMap::new(), report: Report::default() };
    let dialect_of_a = diffing.first(shutdown)?;
    diffing.second(b, dialect_of_a, shutdown)?;
    diffing.finish()
}

/// What is held of an id.
struct Held {
    // Of the answer; none where there is no answer.
    answer: Option<u64>,
    offset: u64,
    met: Met,
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Met {
    InA,
    InBoth,
    InB,
}

struct Diffing<'a> {
    a: &'a Input,
    options: Options,
    seen: HashMap<IdHash, Held>,
    report: Report,
}

impl Diffing<'_> {
    fn first(&mut self, shutdown: &Shutdown) -> Result<Dialect, Error> {
        let mut lines = Lines::open(self.a, shutdown)?;
        let (form, dialect) = form_of(self.a, &lines, self.options.dialect)?;
        self.report.forms[0] = form;
        let counts = &mut self.report.counts[0];
        lines.each(&mut |line| {
            let Ok((hash, outcome)) = read(&line, dialect) else {
                counts.bad += 1;
                return Ok(());
            };
            let answer = answer_hash(&outcome);
            match self.seen.entry(hash) {
                Entry::Occupied(_) => counts.duplicates += 1,
                Entry::Vacant(vacant) => {
                    counts.failed += u64::from(answer.is_none());
                    let offset = line.offset.unwrap_or(u64::MAX);
                    vacant.insert(Held { answer, offset, met: Met::InA });
                }
            }
            Ok(())
        })?;
        counts.lines = lines.count;
        Ok(dialect)
    }

    fn second(&mut self, b: &Input, of_a: Dialect, shutdown: &Shutdown) -> Result<(), Error> {
        let mut lines = Lines::open(b, shutdown)?;
        let (form, dialect) = form_of(b, &lines, self.options.dialect)?;
        self.report.forms[1] = form;
        lines.each(&mut |line| {
            let counts = &mut self.report.counts[1];
            let Ok((hash, outcome)) = read(&line, dialect) else {
                counts.bad += 1;
                return Ok(());
            };
            let answer = answer_hash(&outcome);
            let (kind, offset) = match self.seen.entry(hash) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Held { answer: None, offset: u64::MAX, met: Met::InB });
                    (Some(Kind::OnlyInB), None)
                }
                Entry::Occupied(mut there) => {
                    let held = there.get_mut();
                    if held.met != Met::InA {
                        counts.duplicates += 1;
                        return Ok(());
                    }
                    held.met = Met::InBoth;
                    let kind = match (held.answer, answer) {
                        (Some(before), Some(after)) if before == after => {
                            self.report.same += 1;
                            None
                        }
                        (Some(_), Some(_)) => Some(Kind::Different),
                        (None, Some(_)) => Some(Kind::FailedInA),
                        (Some(_), None) => Some(Kind::FailedInB),
                        (None, None) => {
                            self.report.failed_in_both += 1;
                            None
                        }
                    };
                    (kind, Some(held.offset).filter(|offset| *offset != u64::MAX))
                }
            };
            counts.failed += u64::from(answer.is_none());
            match kind {
                Some(kind) => self.list(kind, &outcome, (offset, of_a)),
                None => Ok(()),
            }
        })?;
        self.report.counts[1].lines = lines.count;
        Ok(())
    }

    /// Counts a difference, and lists it if it is among the first.
    fn list(
        &mut self,
        kind: Kind,
        after: &Outcome<'_>,
        (offset, of_a): (Option<u64>, Dialect),
    ) -> Result<(), Error> {
        let count = &mut self.report.differences[kind as usize];
        *count += 1;
        if *count > self.options.listed as u64 {
            return Ok(());
        }
        let id = text_of(after.id);
        let (mut before, mut said) = (None, None);
        if self.options.shows_texts {
            if let Some(offset) = offset {
                let line = self.a.line_at(offset)?;
                let line = dialect::utf8(&line).ok();
                let outcome = line.and_then(|line| dialect::read_outcome(of_a, line).ok());
                before = outcome.as_ref().map(spoken);
            }
            said = Some(spoken(after));
            if let (Some(before), Some(after)) = (&mut before, &mut said) {
                shorten(before, after);
            } else if let Some(after) = &mut said {
                *after = cut(after, 0);
            }
        }
        self.report.listed.push(Change { kind, id, before, after: said });
        Ok(())
    }

    /// What the second file does not have.
    fn finish(mut self) -> Result<Report, Error> {
        let alone = self.seen.values().filter(|held| held.met == Met::InA);
        let mut offsets: Vec<u64> = alone.map(|held| held.offset).collect();
        self.report.differences[Kind::OnlyInA as usize] = offsets.len() as u64;
        offsets.sort_unstable();
        for offset in offsets.into_iter().take(self.options.listed) {
            let id = if offset == u64::MAX { None } else { id_at(self.a, offset)? };
            let id = id.unwrap_or_else(|| "(behind a line that is too long to read)".to_owned());
            self.report.listed.push(Change { kind: Kind::OnlyInA, id, before: None, after: None });
        }
        self.report.listed.sort_by_key(|change| change.kind);
        Ok(self.report)
    }
}

fn read<'a>(line: &Line<'a>, dialect: Dialect) -> Result<(IdHash, Outcome<'a>), Problem> {
    let outcome = dialect::read_outcome(dialect, line.text()?)?;
    let hash = Id::hash_of(outcome.id).map_err(|_| Problem::Missing("id"))?;
    Ok((hash, outcome))
}

fn answer_hash(outcome: &Outcome<'_>) -> Option<u64> {
    // Half of it is as good for telling two answers apart.
    outcome.result.as_ref().ok().map(|content| content.hash() as u64)
}

fn spoken(outcome: &Outcome<'_>) -> String {
    match &outcome.result {
        Ok(content) => Content::text(content).into_owned(),
        Err(message) => message.clone(),
    }
}

/// How many characters of a text are shown.
const SHOWN: usize = 100;

/// Cuts both to a piece around the first difference.
fn shorten(before: &mut String, after: &mut String) {
    const IN_FRONT: usize = 20;
    let same = before.chars().zip(after.chars()).take_while(|(a, b)| a == b).count();
    let from = if same < SHOWN / 2 { 0 } else { same - IN_FRONT };
    (*before, *after) = (cut(before, from), cut(after, from));
}

fn cut(text: &str, from: usize) -> String {
    let piece: String = text.chars().skip(from).take(SHOWN).collect();
    let is_all = text.chars().nth(from + SHOWN).is_none();
    let (front, end) = (if from > 0 { "…" } else { "" }, if is_all { "" } else { "…" });
    format!("{front}{piece}{end}")
}

fn text_of(token: &str) -> String {
    Id::parse(token).map_or_else(|_| token.to_owned(), |id| id.text().into_owned())
}

fn form_of(
    input: &Input,
    lines: &Lines<'_>,
    dialect: Option<Dialect>,
) -> Result<(Option<Form>, Dialect), Error> {
    if let Some(dialect) = dialect {
        return Ok((Some(Form { dialect, side: Side::Outcomes }), dialect));
    }
    match lines.detect() {
        Ok(None) => Ok((None, Dialect::Rows)),
        Ok(Some(form)) if form.side == Side::Outcomes => Ok((Some(form), form.dialect)),
        Ok(Some(form)) => Err(Error::NotLines {
            path: input.path().to_owned(),
            what: format!("looks like {form}, and only results can be compared"),
        }),
        Err(mixed) => Err(Error::Unlike(format!(
            "{} holds different things: {mixed}",
            input.path().display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_around_the_first_difference() {
        let (mut a, mut b) = ("x".repeat(200) + "é1" + &"y".repeat(200), "x".repeat(200) + "é2");
        shorten(&mut a, &mut b);
        assert_eq!(b, format!("…{}é2", "x".repeat(19)));
        assert!(a.starts_with(&format!("…{}é1y", "x".repeat(19))) && a.ends_with("y…"), "{a}");
        let (mut a, mut b) = ("short".to_owned(), "sharp".to_owned());
        shorten(&mut a, &mut b);
        assert_eq!((a.as_str(), b.as_str()), ("short", "sharp"));
    }
}
