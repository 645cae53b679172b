//! Spreads what is left of a plan over more shards, so that all workers have something to do again.

use std::collections::BTreeSet;

use super::Error;
use crate::job::OutcomeKind;
use crate::store::{Held, Manifest, ShardState};

/// The rows before which shards are to end so that what is left is spread over `shards` of them, in
/// about equal parts. Shards that are finished stay as they are. Nothing where that many have
/// something left already, or nothing is left. `retries` says whether failed rows are left as well.
///
/// # Errors
/// When the work directory cannot be read.
pub fn cut_what_is_left(
    dir: &Held,
    manifest: &Manifest,
    shards: u32,
    retries: bool,
) -> Result<Option<Vec<u64>>, Error> {
    let is_left = |state: &ShardState, row| match state.outcome(row) {
        None => true,
        Some(kind) => retries && kind == OutcomeKind::Failed,
    };
    let mut unfinished = Vec::new();
    for (number, entry) in manifest.open_shards() {
        let left = match dir.whole_seal(number, entry)? {
            Some(seal) => seal.failed * u64::from(retries),
            None => {
                let (ok, failed, invalid) = dir.peek_shard(number, entry, &mut |_| {})?.counts();
                entry.wanted.saturating_sub(ok + invalid + failed * u64::from(!retries))
            }
        };
        if left > 0 {
            unfinished.push((number, left));
        }
    }
    let left: u64 = unfinished.iter().map(|(_, left)| left).sum();
    if left == 0 || unfinished.len() as u64 >= u64::from(shards).min(left) {
        return Ok(None);
    }
    // The shard that the nth row that is left falls to.
    let part = |nth: u64| u128::from(nth) * u128::from(shards) / u128::from(left);
    let mut nth = 0;
    let mut cuts: Vec<u64> = manifest.shards.iter().map(|entry| entry.first_row).collect();
    for (number, _) in unfinished {
        let entry = &manifest.shards[number as usize];
        let state = dir.peek_shard(number, entry, &mut |_| {})?;
        let skipped = dir.exceptions(number, entry)?.into_iter().filter(|it| it.id.is_none());
        let skipped: BTreeSet<u64> = skipped.map(|it| it.row).collect();
        for row in entry.first_row..entry.first_row + entry.rows {
            let is_wanted = manifest.chosen.contains(row) && !skipped.contains(&row);
            if is_wanted && is_left(&state, row) {
                if nth > 0 && part(nth) != part(nth - 1) {
                    cuts.push(row);
                }
                nth += 1;
            }
        }
    }
    cuts.sort_unstable();
    cuts.dedup();
    Ok(Some(cuts))
}
