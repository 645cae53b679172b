//! How a run is asked to end: it drains first, and aborts when asked again.
//!
//! Whoever installs signal handlers holds the [`Trigger`]; the work only looks at its
//! [`Shutdown`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nobody wants the run to end.
    Running,
    /// Finish what is in flight, start nothing.
    Draining,
    /// Keep what is finished, drop what is in flight.
    Aborting,
}

/// Asks for the end.
#[derive(Debug, Clone)]
pub struct Trigger {
    stage: watch::Sender<Stage>,
    is_uploading: Arc<AtomicBool>,
}

/// Sees whether the end was asked for.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stage: watch::Receiver<Stage>,
    is_uploading: Arc<AtomicBool>,
}

/// A run's two ends of it.
#[must_use]
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(Stage::Running);
    let is_uploading = Arc::<AtomicBool>::default();
    let trigger = Trigger { stage: sender, is_uploading: Arc::clone(&is_uploading) };
    (trigger, Shutdown { stage: receiver, is_uploading })
}

impl Trigger {
    /// Asks for a stage. There is no way back to an earlier one.
    pub fn advance(&self, stage: Stage) {
        self.stage.send_if_modified(|now| {
            let is_later = stage > *now;
            *now = stage.max(*now);
            is_later
        });
    }

    /// Asks for the next stage: drain, then abort.
    pub fn next(&self) -> Stage {
        let now = *self.stage.borrow();
        let next = if now == Stage::Running { Stage::Draining } else { Stage::Aborting };
        self.advance(next);
        next
    }

    /// Whether what the end waits for is an upload, not calls.
    #[must_use]
    pub fn is_uploading(&self) -> bool {
        self.is_uploading.load(Ordering::Relaxed)
    }
}

impl Shutdown {
    /// How far the end has come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Says that an upload is under way, or is not any more, for whoever tells what the end waits for.
    pub fn note_upload(&self, is_under_way: bool) {
        self.is_uploading.store(is_under_way, Ordering::Relaxed);
    }

    /// Waits until the stage is another than it was when this was last called.
    pub async fn changed(&mut self) {
        if self.stage.changed().await.is_err() {
            // Nobody is left who could ask.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_only_advance() {
        let (trigger, shutdown) = channel();
        assert_eq!(shutdown.stage(), Stage::Running);
        assert_eq!(trigger.next(), Stage::Draining);
        trigger.advance(Stage::Running);
        assert_eq!(shutdown.stage(), Stage::Draining);
        assert_eq!(trigger.next(), Stage::Aborting);
        assert_eq!(trigger.next(), Stage::Aborting);
    }
}
