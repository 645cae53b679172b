//! A session that changes a work directory, noted in it: that it began, and how it ended.

use super::{Context, Error, Finished};
use crate::job::Spending;
use crate::store::{Done, Held};
use crate::telemetry::{Event, Sink, now_ms};

/// Counts what is done while others are told of it.
struct Counting<'a> {
    sink: &'a mut dyn Sink,
    done: Done,
    cost: Spending,
}

impl Sink for Counting<'_> {
    fn emit(&mut self, event: &Event) {
        if let Event::Committed { ok, failed, calls, cost, .. } = event {
            self.done.ok += ok;
            self.done.failed += failed;
            self.done.calls += calls;
            self.cost.add(cost);
            self.done.cost_usd = (self.cost.priced > 0).then_some(self.cost.usd);
        }
        self.sink.emit(event);
    }
}

/// Carries out what changes a work directory, between a note that it begins and a note how it ended.
/// A command that finds nothing to do must not come here: it changes no byte.
///
/// # Errors
/// Those of `body`; and when there is no room even for the first note.
pub(super) fn noted(
    dir: &mut Held,
    context: &mut Context<'_>,
    body: impl FnOnce(&mut Held, &mut Context<'_>) -> Result<Finished, Error>,
) -> Result<Finished, Error> {
    let begun = dir.begin_session().map_err(|error| Error::from(error).underway(dir))?;
    let mut counting =
        Counting { sink: &mut *context.sink, done: Done::default(), cost: Spending::default() };
    let mut within = Context {
        shutdown: context.shutdown,
        sink: &mut counting,
        stdout: &mut *context.stdout,
        wait: &mut *context.wait,
        // Borrowed anew by hand, for a shorter time.
        launch: match &mut context.launch {
            Some(launch) => Some(&mut **launch),
            None => None,
        },
        command: context.command.clone(),
        judge: context.judge,
    };
    let result = body(dir, &mut within);
    let end = (context.judge)(result.as_ref());
    let noted = dir.end_session(begun, end, counting.done, now_ms());
    // Where the session itself failed, that is what matters; it may have been for the same cause.
    if let (Err(error), Ok(_)) = (noted, &result) {
        let text = format!("how the session ended could not be noted: {error}");
        context.sink.emit(&Event::Alert(text));
    }
    result
}
