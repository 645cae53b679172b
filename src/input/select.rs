//! Which rows are asked about: offset, then sample, then limit.

use crate::job::Selection;
use crate::store::Chosen;

/// Settles a selection for an input of `rows` rows, without memory for each of them.
#[must_use]
pub fn choose(selection: &Selection, rows: u64) -> Chosen {
    let after = selection.offset.min(rows);
    let mut chosen = Chosen { after, until: rows, sample: None };
    if let Some(sample) = &selection.sample
        && sample.rows < rows - after
    {
        match sample.rows.checked_sub(1) {
            None => chosen.until = after,
            Some(rank) => {
                let lots = || (after + 1..=rows).map(|row| Chosen::lot(sample.seed, row));
                chosen.sample = Some((sample.seed, nth_lowest(lots, rank)));
            }
        }
    }
    if let Some(limit) = selection.limit {
        chosen.until = match (&chosen.sample, limit) {
            (_, 0) => after,
            (None, limit) => chosen.until.min(after.saturating_add(limit)),
            (Some(_), limit) => {
                let nth = usize::try_from(limit - 1).unwrap_or(usize::MAX);
                (after + 1..=rows).filter(|row| chosen.contains(*row)).nth(nth).unwrap_or(rows)
            }
        };
    }
    chosen
}

/// The lot of rank `rank` (from 0), by settling sixteen bits of it in each of four passes.
fn nth_lowest<I: Iterator<Item = u64>>(lots: impl Fn() -> I, mut rank: u64) -> u64 {
    let mut known = 0_u64;
    for shift in [48, 32, 16, 0] {
        let mut counts = vec![0_u64; 1 << 16];
        let above = |lot: u64| lot.checked_shr(shift + 16).unwrap_or(0);
        for lot in lots().filter(|lot| above(*lot) == above(known)) {
            counts[usize::from((lot >> shift) as u16)] += 1;
        }
        let mut digit = 0;
        while rank >= counts[digit] {
            rank -= counts[digit];
            digit += 1;
        }
        known |= (digit as u64) << shift;
    }
    known
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::Sample;

    fn rows(selection: &Selection, count: u64) -> Vec<u64> {
        let chosen = choose(selection, count);
        (1..=count).filter(|row| chosen.contains(*row)).collect()
    }

    #[test]
    fn offset_and_limit_cut_both_ends() {
        let selection = |offset, limit| Selection { offset, limit, sample: None };
        assert_eq!(rows(&selection(0, None), 4), [1, 2, 3, 4]);
        assert_eq!(rows(&selection(2, Some(1)), 4), [3]);
        assert!(rows(&selection(9, Some(1)), 4).is_empty());
        assert!(rows(&selection(0, Some(0)), 4).is_empty());
        assert_eq!(rows(&selection(1, Some(u64::MAX)), 4), [2, 3, 4]);
    }

    proptest! {
        #[test]
        fn samples_are_the_asked_size_in_order_and_repeatable(
            count in 0_u64..300, offset in 0_u64..50, wanted in 0_u64..300, limit in 0_u64..300,
            seed: u64,
        ) {
            let sample = Some(Sample { rows: wanted, seed });
            let all = rows(&Selection { offset, limit: None, sample: sample.clone() }, count);
            prop_assert_eq!(all.len() as u64, wanted.min(count.saturating_sub(offset)));
            prop_assert!(all.iter().all(|row| *row > offset));
            let some = rows(&Selection { offset, limit: Some(limit), sample }, count);
            prop_assert_eq!(&some[..], &all[..all.len().min(limit as usize)]);
        }
    }

    #[test]
    fn another_seed_draws_another_sample() {
        let draw = |seed| {
            rows(
                &Selection { sample: Some(Sample { rows: 20, seed }), ..Selection::default() },
                1000,
            )
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
