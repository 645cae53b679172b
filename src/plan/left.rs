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
    let mut is_open = vec![false; manifest.shards.len()];
    for (number, entry) in manifest.open_shards() {
        let left = match dir.whole_seal(number, entry)? {
            Some(seal) => seal.failed * u64::from(retries),
            None => {
                let (ok, failed, invalid) = dir.peek_shard(number, entry, &mut |_| {})?.counts();
                entry.wanted.saturating_sub(ok + invalid + failed * u64::from(!retries))
            }
        };
        if left > 0 {
            unfinished.push(left);
            is_open[number as usize] = true;
        }
    }
    let left: u64 = unfinished.iter().sum();
    if left == 0 || unfinished.len() as u64 >= u64::from(shards).min(left) {
        return Ok(None);
    }
    // The shard that the nth row that is left falls to.
    let part = |nth: u64| u128::from(nth) * u128::from(shards) / u128::from(left);
    let mut nth = 0;
    let mut cuts: Vec<u64> = manifest.ranges().map(|(_, entry)| entry.first_row).collect();
    for (first, entry) in manifest.ranges() {
        // The variants of a range are cut alike.
        let variants = first..first + u32::try_from(manifest.job.variants()).unwrap_or(u32::MAX);
        let open = variants.filter(|number| is_open[*number as usize]);
        let open = open.map(|number| dir.peek_shard(number, entry, &mut |_| {}));
        let states = open.collect::<Result<Vec<_>, _>>()?;
        if states.is_empty() {
            continue;
        }
        let skipped = dir.exceptions(first, entry)?.into_iter();
        let skipped = skipped.filter(|it| it.id.is_none() && !it.fails);
        let skipped: BTreeSet<u64> = skipped.map(|it| it.row).collect();
        for row in entry.first_row..entry.first_row + entry.rows {
            if !manifest.chosen.contains(row) || skipped.contains(&row) {
                continue;
            }
            for _ in states.iter().filter(|state| is_left(state, row)) {
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
