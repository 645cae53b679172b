//! The outputs while they are written: those of one input after those of the other.

use std::io::Write;

use super::{Error, read_range};
use super::{From, Lines, Merged, MergedInput, Options, Outputs, Range, Reader, SMALL, Totals};
use crate::shutdown::{self, Shutdown};
use crate::store::{self, Held, Role, Stage, Target};

/// Writes the outputs of all inputs; only those of one are open.
pub(super) struct Writer<'a> {
    dir: &'a Held,
    options: &'a Options,
    // For an output that goes there.
    stdout: Option<&'a mut (dyn Write + Send)>,
    open: Option<Open<'a>>,
    inputs: Vec<MergedInput>,
    // By variant.
    totals: Vec<Totals>,
    shutdown: &'a Shutdown,
}

/// The outputs of one input.
struct Open<'a> {
    output: Stage<'a>,
    errors: Option<Stage<'a>>,
    telemetry: Option<Stage<'a>>,
    delta: Option<Stage<'a>>,
    // Rows with and without an answer that were written before.
    before: (u64, u64),
}

impl<'a> Writer<'a> {
    /// Begins with the outputs of the first input.
    pub(super) fn begin(
        dir: &'a Held,
        options: &'a Options,
        variants: usize,
        shutdown: &'a Shutdown,
        stdout: &'a mut (dyn Write + Send),
    ) -> Result<Self, Error> {
        let totals = vec![Totals::default(); variants];
        let (stdout, inputs) = (Some(stdout), Vec::new());
        let mut writer = Self { dir, options, stdout, open: None, inputs, totals, shutdown };
        writer.turn_to(0)?;
        Ok(writer)
    }

    /// Ends the outputs of the inputs before this one and, where there is such a one, begins its own.
    fn turn_to(&mut self, input: usize) -> Result<(), store::Error> {
        while self.inputs.len() < input {
            let open = match self.open.take() {
                Some(open) => open,
                // It has no rows.
                None => self.open(self.inputs.len())?,
            };
            self.close(open)?;
        }
        if self.open.is_none() && input < self.options.outputs.len() {
            self.open = Some(self.open(input)?);
        }
        Ok(())
    }

    fn open(&mut self, input: usize) -> Result<Open<'a>, store::Error> {
        let Outputs { output, errors, telemetry, delta } = &self.options.outputs[input];
        let (dir, sequence) = (self.dir, self.options.sequence);
        let side = |role, target: &Option<Target>| {
            let begin = |target| Stage::begin(dir, sequence, role, target, None);
            target.as_ref().map(begin).transpose()
        };
        Ok(Open {
            output: Stage::begin(dir, sequence, Role::Output, output, self.stdout.take())?,
            errors: side(Role::Errors, errors)?,
            telemetry: side(Role::Telemetry, telemetry)?,
            delta: side(Role::Delta, delta)?,
            before: self.rows(),
        })
    }

    fn close(&mut self, open: Open<'a>) -> Result<(), store::Error> {
        let Open { output, errors, telemetry, delta, before } = open;
        let mut staged = vec![output.finish()?];
        for stage in [errors, telemetry, delta].into_iter().flatten() {
            staged.push(stage.finish()?);
        }
        let (ok, failed) = self.rows();
        self.inputs.push(MergedInput { staged, ok: ok - before.0, failed: failed - before.1 });
        Ok(())
    }

    /// Rows with and without an answer that were written.
    fn rows(&self) -> (u64, u64) {
        self.totals
            .iter()
            .fold((0, 0), |(ok, failed), it| (ok + it.ok, failed + it.failed + it.invalid))
    }

    /// Writes the ranges in their order: small ones as they were made, large ones as they are read.
    pub(super) fn write_all(
        &mut self,
        from: From<'_>,
        ranges: &[Range],
        readers: Vec<Reader>,
    ) -> Result<(), Error> {
        let mut turns = readers.iter().cycle();
        let mut outcomes = from.outcomes()?;
        for range in ranges {
            // A drain lets this finish: it takes no call and little time.
            if self.shutdown.stage() == shutdown::Stage::Aborting {
                return Err(Error::Interrupted);
            }
            self.turn_to(range.source)?;
            if range.bytes > SMALL {
                let (mut readers, mut lines) = (Vec::new(), Lines::default());
                let put = &mut |lines: &mut Lines| self.put(lines);
                let outcomes = outcomes.as_mut();
                read_range(from, *range, &mut readers, outcomes, &mut lines, put)?;
                self.count(&mut lines);
            } else if let Some(reader) = turns.next() {
                self.take(reader)?;
            }
        }
        Ok(())
    }

    /// Writes the lines of one range as a reader makes them.
    fn take(&mut self, Reader { made, spare }: &Reader) -> Result<(), Error> {
        // A reader ends early only when it panics, and then so does the scope.
        while let Ok(made) = made.recv() {
            let mut lines = made?;
            self.put(&mut lines)?;
            self.count(&mut lines);
            let has_more = std::mem::take(&mut lines.has_more);
            let _ = spare.try_send(lines);
            if !has_more {
                break;
            }
        }
        Ok(())
    }

    fn put(&mut self, lines: &mut Lines) -> Result<(), store::Error> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.output.write(&lines.output)?;
        lines.output.clear();
        for (stage, lines) in [
            (&mut open.errors, &mut lines.errors),
            (&mut open.telemetry, &mut lines.telemetry),
            (&mut open.delta, &mut lines.delta),
        ] {
            if let Some(stage) = stage {
                stage.write(lines)?;
                lines.clear();
            }
        }
        Ok(())
    }

    /// Adds what lines came to that were written.
    fn count(&mut self, lines: &mut Lines) {
        for (sum, part) in self.totals.iter_mut().zip(lines.totals.drain(..)) {
            sum.add(&part);
        }
    }

    pub(super) fn finish(mut self) -> Result<Merged, Error> {
        self.turn_to(self.options.outputs.len())?;
        let mut totals = Totals::default();
        self.totals.iter().for_each(|part| totals.add(part));
        Ok(Merged { inputs: self.inputs, totals, variants: self.totals })
    }
}
