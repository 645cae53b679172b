//! Which rows that failed a command tries again, where it names them: who names a row that there is not is told so.

use super::{Context, Error};
use crate::store::{Manifest, WorkDir};
use crate::telemetry::Event;
use crate::work::Retry;

/// The rows that are tried again, as a plan has them; says how many of the ids that are named are of such rows.
pub(super) fn chosen(
    retry: Retry,
    dir: &WorkDir,
    manifest: &Manifest,
    context: &mut Context<'_>,
) -> Result<Retry, Error> {
    let retry = retry.with_originals(dir, manifest)?;
    if let Some((named, matched)) = retry.named(dir, manifest)? {
        context.sink.emit(&told(named, matched));
    }
    Ok(retry)
}

fn told(named: usize, matched: usize) -> Event {
    let ids = if named == 1 { "1 id".to_owned() } else { format!("{named} ids") };
    match (named - matched, matched) {
        (0, 0) => Event::Alert("--retry-ids names no id: no row is tried again".into()),
        (_, 0) => Event::Alert(format!(
            "--retry-ids names {ids}, and no row of the plan that failed has one of them: none is tried again"
        )),
        (0, _) => Event::Note(format!("--retry-ids names {ids}, of rows that failed")),
        (others, _) => Event::Note(format!(
            "--retry-ids names {ids}: {matched} of rows that failed, {others} of no row of the plan or of \
             one that has not failed"
        )),
    }
}
