//! Rows a second, over the last while.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far back the rate looks.
const SPAN: Duration = Duration::from_secs(20);
/// How often a point is kept.
const STEP: Duration = Duration::from_millis(200);

/// A counter's recent rate.
#[derive(Debug, Default)]
pub(super) struct Rate {
    points: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Notes how far the counter is.
    pub(super) fn note(&mut self, now: Instant, count: u64) {
        if self.points.back().is_none_or(|(at, _)| now.duration_since(*at) >= STEP) {
            self.points.push_back((now, count));
        }
        while self.points.len() > 2 && now.duration_since(self.points[1].0) > SPAN {
            self.points.pop_front();
        }
    }

    /// The rate a second.
    pub(super) fn per_second(&self, now: Instant, count: u64) -> f64 {
        let Some((at, first)) = self.points.front() else { return 0.0 };
        let seconds = now.duration_since(*at).as_secs_f64();
        if seconds < 0.1 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let rows = count.saturating_sub(*first) as f64;
        rows / seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_the_recent_past_only() {
        let start = Instant::now();
        let mut rate = Rate::default();
        assert!(rate.per_second(start, 5) < 1e-9);
        for second in 0..100 {
            let count = if second < 50 { second } else { 50 + (second - 50) * 10 };
            rate.note(start + Duration::from_secs(second), count);
        }
        let now = start + Duration::from_secs(99);
        assert!((rate.per_second(now, 50 + 490) - 10.0).abs() < 0.01);
    }
}
