//! Row numbers as keys of an index of ids: what is sorted by them is in the order of the rows.

/// Spreads row numbers evenly over the keys of an index, in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread(u128);

impl Spread {
    /// For row numbers up to `rows`.
    pub(super) fn new(rows: u64) -> Self {
        Self(u128::MAX / (u128::from(rows) + 2))
    }

    pub(super) fn key(self, row: u64) -> u128 {
        self.0 * u128::from(row)
    }

    pub(super) fn row(self, key: u128) -> u64 {
        u64::try_from(key / self.0).unwrap_or(u64::MAX)
    }
}
