//! How often names stand in a file.

use std::collections::BTreeMap;

/// Counts and sums by name, for as many names as a file in its right mind has; the others are counted together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    names: BTreeMap<String, Share>,
    others: Share,
}

/// What stands under a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Lines.
    pub lines: u64,
    /// Their estimated tokens.
    pub tokens: u64,
}

/// The most names that are kept.
const NAMES: usize = 1000;
/// The most characters of a name that are kept.
const LENGTH: usize = 200;

impl Tally {
    pub(super) fn add(&mut self, name: &str, tokens: u64) {
        let end = name.char_indices().nth(LENGTH).map_or(name.len(), |(at, _)| at);
        let name = &name[..end];
        let is_full = self.names.len() >= NAMES;
        if !is_full && !self.names.contains_key(name) {
            self.names.insert(name.to_owned(), Share::default());
        }
        let share = self.names.get_mut(name).unwrap_or(&mut self.others);
        share.lines += 1;
        share.tokens += tokens;
    }

    /// The names, those with the most lines first; at the end, without a name, all that were not kept.
    #[must_use]
    pub fn sorted(&self) -> Vec<(Option<&str>, Share)> {
        let mut all: Vec<_> =
            self.names.iter().map(|(name, share)| (Some(name.as_str()), *share)).collect();
        all.sort_by_key(|(_, share)| std::cmp::Reverse(share.lines));
        if self.others.lines > 0 {
            all.push((None, self.others));
        }
        all
    }

    /// How many names there are; at least so many where not all were kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len() + usize::from(self.others.lines > 0)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_are_counted_together() {
        let mut tally = Tally::default();
        for number in 0..NAMES + 5 {
            tally.add(&format!("m{number}"), 2);
        }
        tally.add("m7", 1);
        let sorted = tally.sorted();
        assert_eq!(sorted.len(), NAMES + 1);
        assert_eq!(sorted[0], (Some("m7"), Share { lines: 2, tokens: 3 }));
        assert_eq!(sorted[NAMES], (None, Share { lines: 5, tokens: 10 }));
        assert_eq!(tally.len(), NAMES + 1);
    }
}
