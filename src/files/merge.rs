//! `files merge`: several files one behind the other. Held is a hash of each id and where it stands, up to 110 bytes a
//! line: a gigabyte for ten million lines.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write;

use super::lines::{Input, Lines};
use super::output::{Output, Writing};
use super::{Error, place};
use crate::dialect::detect::{Form, Side};
use crate::dialect::{Dialect, Problem, id_of, rows, shown};
use crate::job::{Id, IdHash};
use crate::shutdown::Shutdown;

/// What becomes of a line that has the id of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDuplicate {
    /// Nothing is written at all.
    Error,
    /// It is left out.
    First,
}

/// What was merged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Lines that were written.
    pub lines: u64,
    /// Lines that were left out.
    pub left_out: u64,
}

/// How many duplicates an error shows.
const SHOWN: usize = 10;

/// Writes the lines of all inputs, in their order, byte for byte; line ends become `\n`. Ids are `custom_id` or `id`;
/// lines that have none are no duplicates of anything.
///
/// # Errors
/// When an input cannot be read or the output cannot be written, a line is no JSON object, inputs are of different
/// dialects, or an id is there twice.
pub fn merge(
    inputs: &[Input],
    on_duplicate: OnDuplicate,
    output: &Output,
    stdout: &mut dyn Write,
    shutdown: &Shutdown,
) -> Result<Merged, Error> {
    let mut writing = Writing::begin(output, stdout)?;
    let mut seen: HashMap<IdHash, (u32, u64)> = HashMap::new();
    let mut merged = Merged::default();
    let mut twins = Vec::new();
    let mut first: Option<(&Input, Form)> = None;
    for (number, input) in (0_u32..).zip(inputs) {
        let path = input.path();
        let mut lines = Lines::open(input, shutdown)?;
        agree(&mut first, input, &lines)?;
        lines.each(&mut |line| {
            let bytes = line.whole(path)?;
            let parsed = line.text().and_then(|text| rows::read(text).map(|row| id_of(&row)));
            let id = parsed.map_err(|problem: Problem| line.refused(path, problem))?;
            if let Some(Ok(hash)) = id.map(Id::hash_of) {
                match seen.entry(hash) {
                    Entry::Vacant(vacant) => drop(vacant.insert((number, line.number))),
                    Entry::Occupied(there) => {
                        merged.left_out += 1;
                        if on_duplicate == OnDuplicate::Error && twins.len() < SHOWN {
                            let (file, first) = *there.get();
                            let before = place(inputs[file as usize].path(), first);
                            let here = place(path, line.number);
                            let id = shown(
                                &Id::parse(id.unwrap_or_default())
                                    .map_or_else(|_| String::new(), |id| id.text().into_owned()),
                            );
                            twins.push(format!("{here} and {before} have {id}"));
                        }
                        return Ok(());
                    }
                }
            }
            merged.lines += 1;
            writing.line(bytes)
        })?;
    }
    if on_duplicate == OnDuplicate::Error && merged.left_out > 0 {
        return Err(Error::Duplicates { count: merged.left_out, shown: twins });
    }
    writing.finish()?;
    Ok(merged)
}

/// Makes sure that an input is what the first one is.
fn agree<'a>(
    first: &mut Option<(&'a Input, Form)>,
    input: &'a Input,
    lines: &Lines<'_>,
) -> Result<(), Error> {
    let form = lines.detect().map_err(|mixed| {
        Error::Unlike(format!("{} holds different things: {mixed}", input.path().display()))
    })?;
    // Prompts are rows as well.
    let as_rows = |form: Form| match (form.dialect, form.side) {
        (Dialect::Prompts, Side::Requests) => Form { dialect: Dialect::Rows, ..form },
        _ => form,
    };
    match (form, *first) {
        (Some(form), Some((before, other))) if as_rows(form) != as_rows(other) => {
            Err(Error::Unlike(format!(
                "{} holds {other}, and {} holds {form}",
                before.path().display(),
                input.path().display()
            )))
        }
        (Some(form), None) => {
            *first = Some((input, form));
            Ok(())
        }
        _ => Ok(()),
    }
}
