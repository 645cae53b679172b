//! How a run is asked to end: it drains first, and aborts when asked again.
//!
//! Whoever installs signal handlers holds the [`Trigger`]; the work only looks at its
//! [`Shutdown`].

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
pub struct Trigger(watch::Sender<Stage>);

/// Sees whether the end was asked for.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<Stage>);

/// A run's two ends of it.
#[must_use]
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(Stage::Running);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Asks for a stage. There is no way back to an earlier one.
    pub fn advance(&self, stage: Stage) {
        self.0.send_if_modified(|now| {
            let is_later = stage > *now;
            *now = stage.max(*now);
            is_later
        });
    }

    /// Asks for the next stage: drain, then abort.
    pub fn next(&self) -> Stage {
        let now = *self.0.borrow();
        let next = if now == Stage::Running { Stage::Draining } else { Stage::Aborting };
        self.advance(next);
        next
    }
}

impl Shutdown {
    /// How far the end has come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// Waits until the stage is another than it was when this was last called.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
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
