//! `files stats`: what is in a file, by model and url. Held is a megabyte of the input.

use super::facts::{self, Facts};
use super::lines::{Input, Lines};
use super::{Error, Tally};
use crate::dialect::Dialect;
use crate::dialect::detect::{Form, Side};
use crate::shutdown::Shutdown;

/// What a file holds.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// What its lines look like; nothing where they do not tell, or do not agree.
    pub form: Option<Form>,
    /// Lines that are not blank.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
    /// The bytes of its longest line.
    pub longest: u64,
    /// Lines that are none of its dialect.
    pub bad: u64,
    /// About how many tokens its requests have: a quarter of their bytes, data URIs left out.
    pub tokens: u64,
    /// Lines by model.
    pub models: Tally,
    /// Lines by url.
    pub urls: Tally,
}

/// Looks through a file.
///
/// # Errors
/// When it cannot be read.
pub fn stats(input: &Input, dialect: Option<Dialect>, shutdown: &Shutdown) -> Result<Stats, Error> {
    let mut lines = Lines::open(input, shutdown)?;
    let form = lines.detect().ok().flatten();
    let form = match dialect {
        Some(dialect) => Some(Form { dialect, side: Side::Requests }),
        None => form,
    };
    // What came of requests are rows too.
    let read_as = form.filter(|form| form.side == Side::Requests);
    let read_as = read_as.map_or(Dialect::Rows, |form| form.dialect);
    let mut stats = Stats { form, ..Stats::default() };
    lines.each(&mut |line| {
        stats.longest = stats.longest.max(line.bytes.len() as u64);
        match line.text().and_then(|text| facts::read(text, read_as, None, true)) {
            Err(_) => stats.bad += 1,
            Ok(Facts { model, url, payload, .. }) => {
                let tokens = facts::tokens(payload);
                stats.tokens += tokens;
                for (tally, name) in [(&mut stats.models, model), (&mut stats.urls, url)] {
                    if let Some(name) = name {
                        tally.add(&name, tokens);
                    }
                }
            }
        }
        Ok(())
    })?;
    (stats.lines, stats.bytes) = (lines.count, lines.bytes);
    Ok(stats)
}
