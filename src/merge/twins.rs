//! Lines of rows that take the outcome of another row.

use std::iter::Peekable;
use std::vec::IntoIter;

use super::{Lines, Wanted, damaged, put_line};
use crate::dialect::Told;
use crate::format::envelope;
use crate::shutdown::{Shutdown, Stage};
use crate::store::{
    self, Asked, Held, Manifest, OutcomePlaces, Outcomes, ShardEntry, Twin, WorkDir, spawn,
};

/// Notes where the outcomes are that twins take; nothing where there are no twins.
pub(super) fn find(
    dir: &Held,
    manifest: &Manifest,
    (threads, is_partial): (usize, bool),
    shutdown: &Shutdown,
) -> Result<Option<OutcomePlaces>, super::Error> {
    if manifest.twins() == 0 {
        return Ok(None);
    }
    let places = OutcomePlaces::create(dir)?;
    let shards: Vec<_> = manifest.open_shards().filter(|(_, it)| it.served() > 0).collect();
    std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for first in 0..threads {
            let mine = shards.iter().skip(first).step_by(threads);
            let places = &places;
            let body = move || {
                for (number, entry) in mine {
                    if shutdown.stage() == Stage::Aborting {
                        return Err(super::Error::Interrupted);
                    }
                    match dir.whole_seal(*number, entry)? {
                        None if is_partial => places.note_finished(dir, *number, entry)?,
                        _ => places.note(dir, *number, entry)?,
                    }
                }
                Ok(())
            };
            readers.push(spawn(scope, "originals", body)?);
        }
        readers.into_iter().try_for_each(|reader| {
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    Ok(Some(places))
}

/// The twins of a shard, in the order of their rows.
pub(super) struct TwinLines<'r, 'd> {
    twins: Peekable<IntoIter<Twin>>,
    outcomes: Option<&'r mut Outcomes<'d>>,
    wanted: &'r Wanted,
    dir: &'r WorkDir,
    entry: &'r ShardEntry,
    envelope: Vec<u8>,
}

impl<'r, 'd> TwinLines<'r, 'd> {
    pub(super) fn of(
        dir: &'r WorkDir,
        (number, entry): (u32, &'r ShardEntry),
        wanted: &'r Wanted,
        outcomes: Option<&'r mut Outcomes<'d>>,
    ) -> Result<Self, store::Error> {
        let twins = match outcomes {
            Some(_) => dir.twins(number, entry)?.twins,
            None => Vec::new(),
        };
        let twins = twins.into_iter().peekable();
        Ok(Self { twins, outcomes, wanted, dir, entry, envelope: Vec::new() })
    }

    /// Makes the lines of those below a row. `flush` may take them after each.
    pub(super) fn put_below(
        &mut self,
        row: u64,
        lines: &mut Lines,
        flush: &mut dyn FnMut(&mut Lines) -> Result<(), store::Error>,
    ) -> Result<(), store::Error> {
        while let Some(twin) = self.twins.next_if(|twin| twin.row < row) {
            self.put(&twin, lines)?;
            flush(lines)?;
        }
        Ok(())
    }

    fn put(&mut self, twin: &Twin, lines: &mut Lines) -> Result<(), store::Error> {
        let Self { outcomes: Some(outcomes), wanted, dir, entry, envelope, .. } = self else {
            return Ok(());
        };
        if wanted.is_partial && !outcomes.has(twin.of)? {
            return Ok(());
        }
        let outcome = outcomes.of(twin.of)?;
        envelope.clear();
        let id = twin.id.as_json().as_bytes();
        envelope::readdress(envelope, outcome.envelope, id, entry.own_row(twin.row));
        let input = twin.input.as_ref().map(|input| input.get().as_bytes());
        let told = Told {
            envelope,
            attempts: outcome.attempts,
            // Two lines of one name could not be told apart.
            named: b"",
            mark: &[],
            input_name: wanted.names[entry.source as usize].as_str(),
            input: input.filter(|_| wanted.include_input),
        };
        // It is new to who has not seen the answer, or has not seen it given to this row.
        let is_new = |asked: Asked| {
            asked.generation.max(twin.asked.generation) > wanted.published && !outcome.adopted
        };
        let is_new = outcome.asked.is_some_and(is_new);
        put_line(&told, (outcome.kind, is_new), wanted, lines)
            .map_err(|error| damaged(dir, twin.of, &error))?;
        lines.totals[0].twin(&outcome);
        Ok(())
    }
}
