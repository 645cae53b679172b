//! The commit window: how much may be written and not yet synced.

use std::str::FromStr;
use std::time::{Duration, Instant};

/// When what was written is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As soon as 256 rows or 10 ms are waiting.
    Strict,
    /// So long after the first waiting row was written.
    Interval(Duration),
    /// When a shard is complete.
    Seal,
}

/// A text is no durability mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected strict, interval:SECONDSs (like interval:1s or interval:500ms) or seal")]
pub struct ParseDurabilityError;

impl FromStr for Durability {
    type Err = ParseDurabilityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "strict" => return Ok(Self::Strict),
            "seal" => return Ok(Self::Seal),
            _ => {}
        }
        let time = text.strip_prefix("interval:").ok_or(ParseDurabilityError)?;
        let time: jiff::SignedDuration = time.parse().map_err(|_| ParseDurabilityError)?;
        match Duration::try_from(time) {
            Ok(time) if !time.is_zero() => Ok(Self::Interval(time)),
            _ => Err(ParseDurabilityError),
        }
    }
}

/// One worker's part of the window. It bounds the rows that a power cut can take, and gathers rows
/// so that many share one sync.
#[derive(Debug, Clone)]
pub struct CommitWindow {
    // The most rows written and not yet durable.
    most: usize,
    // So many waiting rows are worth a sync.
    enough: usize,
    oldest_may_wait: Option<Duration>,
    waiting: usize,
    oldest: Option<Instant>,
    syncing: usize,
}

impl CommitWindow {
    /// Rows in all workers' windows together, in strict mode.
    pub const ROWS: usize = 256;
    /// How long a row waits for others to share its sync, in strict mode.
    pub const AGE: Duration = Duration::from_millis(10);

    /// The window of one of `workers`.
    #[must_use]
    pub fn new(durability: Durability, workers: usize) -> Self {
        let (most, oldest_may_wait) = match durability {
            Durability::Strict => ((Self::ROWS / workers.max(1)).max(1), Some(Self::AGE)),
            Durability::Interval(age) => (usize::MAX, Some(age)),
            Durability::Seal => (usize::MAX, None),
        };
        // The last quarter fills while the rest is synced.
        let enough = if most == usize::MAX { most } else { most - most / 4 };
        Self { most, enough, oldest_may_wait, waiting: 0, oldest: None, syncing: 0 }
    }

    /// How many more rows may be written.
    #[must_use]
    pub fn room(&self) -> usize {
        self.most.saturating_sub(self.waiting + self.syncing)
    }

    /// Rows were written.
    pub fn wrote(&mut self, rows: usize, now: Instant) {
        if rows > 0 {
            self.waiting += rows;
            self.oldest.get_or_insert(now);
        }
    }

    /// Whether the waiting rows are to be synced now. One sync is under way at a time.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.may_begin()
            && (self.waiting >= self.enough || self.due_at().is_some_and(|at| at <= now))
    }

    /// Whether there is something to sync and nothing is being synced.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        self.syncing == 0 && self.waiting > 0
    }

    /// When the oldest waiting row has waited long enough.
    #[must_use]
    pub fn due_at(&self) -> Option<Instant> {
        if self.syncing > 0 {
            return None;
        }
        Some(self.oldest? + self.oldest_may_wait?)
    }

    /// A sync of all waiting rows begins.
    pub fn begin(&mut self) {
        self.syncing = std::mem::take(&mut self.waiting);
        self.oldest = None;
    }

    /// The sync has ended: its rows are durable.
    pub fn end(&mut self) {
        self.syncing = 0;
    }

    /// Whether everything written is durable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0 && self.syncing == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn modes_are_read() {
        assert_eq!("strict".parse(), Ok(Durability::Strict));
        assert_eq!("seal".parse(), Ok(Durability::Seal));
        assert_eq!("interval:1s".parse(), Ok(Durability::Interval(Duration::from_secs(1))));
        assert_eq!("interval:250ms".parse(), Ok(Durability::Interval(Duration::from_millis(250))));
        for text in ["", "none", "interval", "interval:", "interval:0s", "interval:-1s", "Strict"] {
            assert_eq!(text.parse::<Durability>(), Err(ParseDurabilityError), "{text}");
        }
    }

    #[test]
    fn syncs_when_enough_or_old() {
        let start = Instant::now();
        let mut window = CommitWindow::new(Durability::Strict, 2);
        assert_eq!(window.room(), 128);
        window.wrote(1, start);
        assert!(!window.is_due(start));
        assert!(window.is_due(start + CommitWindow::AGE));
        window.wrote(95, start);
        assert!(window.is_due(start), "three quarters of a window are enough");
        window.begin();
        window.wrote(32, start);
        assert!(!window.is_due(start), "one sync at a time");
        assert_eq!(window.room(), 0);
        window.end();
        assert!(!window.is_due(start), "too few again");
        assert!(window.is_due(start + CommitWindow::AGE));
        let mut lazy = CommitWindow::new(Durability::Seal, 2);
        lazy.wrote(1_000_000, start);
        assert!(!lazy.is_due(start + Duration::from_secs(3600)) && lazy.room() > 0);
    }

    proptest! {
        #[test]
        fn all_windows_together_stay_within_the_bound(
            workers in 1_usize..64,
            steps in proptest::collection::vec((0_usize..3, 0_usize..200), 0..60),
        ) {
            let now = Instant::now();
            let mut windows = vec![CommitWindow::new(Durability::Strict, workers); workers];
            for (number, (what, rows)) in steps.into_iter().enumerate() {
                let window = &mut windows[number % workers];
                match what {
                    0 => {
                        let rows = rows.min(window.room());
                        window.wrote(rows, now);
                    }
                    1 if window.is_due(now + CommitWindow::AGE) => window.begin(),
                    _ => window.end(),
                }
                let open: usize = windows.iter().map(|w| w.waiting + w.syncing).sum();
                prop_assert!(open <= CommitWindow::ROWS);
            }
        }
    }
}
