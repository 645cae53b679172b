//! How long an answer that has begun may make no progress.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// A bound on the time without progress. It has one timer for all pieces of an answer, which is set
/// anew when it runs out and not at every piece: answers have hundreds of those.
pub(super) struct Idle {
    after: Duration,
    timer: Pin<Box<Sleep>>,
    // Since when there was no progress; nothing right behind some.
    since: Option<Instant>,
    // Bytes of the piece of a body that is being counted, and since when.
    bytes: usize,
    counted_since: Option<Instant>,
    // Whether the body had nothing but blanks so far.
    is_blank: bool,
}

/// There was no progress for too long.
#[derive(Debug)]
pub(super) struct Overdue;

/// So many bytes of a body in so much time are progress.
const BYTES: usize = 1024;
const WITHIN: Duration = Duration::from_secs(10);

impl Idle {
    /// No progress may take longer than this.
    pub(super) fn new(after: Duration) -> Self {
        let timer = Box::pin(sleep(after));
        Self { after, timer, since: None, bytes: 0, counted_since: None, is_blank: true }
    }

    /// There was progress.
    pub(super) fn progress(&mut self) {
        self.since = None;
    }

    /// Bytes of a body came: progress once there are enough of them in a short time. An empty line before all else is
    /// progress as well: servers send some while the model works.
    /// <https://api-docs.deepseek.com/quick_start/rate_limit>
    pub(super) fn count(&mut self, piece: &[u8]) {
        if self.is_blank {
            self.is_blank = piece.iter().all(u8::is_ascii_whitespace);
            if self.is_blank && piece.contains(&b'\n') {
                self.progress();
            }
        }
        self.bytes += piece.len();
        if self.bytes >= BYTES {
            let now = Instant::now();
            let since = self.counted_since.replace(now).or(self.since);
            if since.is_none_or(|since| now.duration_since(since) <= WITHIN) {
                self.progress();
            }
            self.bytes = 0;
        }
    }

    /// Waits for the next piece.
    ///
    /// # Errors
    /// When there was no progress for too long.
    pub(super) async fn bound<T>(&mut self, piece: impl Future<Output = T>) -> Result<T, Overdue> {
        let mut piece = pin!(piece);
        poll_fn(|context| {
            // A piece that is there costs no look at the clock.
            if let Poll::Ready(piece) = piece.as_mut().poll(context) {
                return Poll::Ready(Ok(piece));
            }
            let due = *self.since.get_or_insert_with(Instant::now) + self.after;
            loop {
                ready!(self.timer.as_mut().poll(context));
                if due <= Instant::now() {
                    return Poll::Ready(Err(Overdue));
                }
                // It was set for an earlier piece.
                self.timer.as_mut().reset(due);
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    #[test]
    fn progress_begins_the_time_anew() {
        run(async {
            let mut idle = Idle::new(Duration::from_millis(40));
            // Longer together than one may take. On a busy machine both may be due at once, and then
            // the piece counts.
            for _ in 0..3 {
                idle.bound(ready(())).await.unwrap();
                idle.bound(sleep(Duration::from_millis(30))).await.unwrap();
                idle.progress();
            }
            idle.bound(pending::<()>()).await.unwrap_err();
            // What is there is there, whenever it came.
            idle.bound(ready(())).await.unwrap();
        });
    }

    #[test]
    fn trickle_is_no_progress_but_empty_lines_are() {
        run(async {
            let mut idle = Idle::new(Duration::from_millis(60));
            let mut pieces = 0;
            while idle.bound(sleep(Duration::from_millis(10))).await.is_ok() {
                idle.count(b"x");
                pieces += 1;
                assert!(pieces < 100);
            }
            for (blank, is_progress) in [(b" ", false), (b"\n", true)] {
                let mut idle = Idle::new(Duration::from_millis(60));
                let mut pieces = 0;
                while pieces < 20 && idle.bound(sleep(Duration::from_millis(10))).await.is_ok() {
                    idle.count(blank);
                    pieces += 1;
                }
                assert_eq!(pieces == 20, is_progress);
            }
            let mut idle = Idle::new(Duration::from_millis(60));
            for _ in 0..10 {
                idle.bound(sleep(Duration::from_millis(10))).await.unwrap();
                idle.count(&[b'x'; BYTES]);
            }
        });
    }
}
