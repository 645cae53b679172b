//! What a run knows of the lanes of a pool besides their health: how many calls an endpoint has under
//! way, who is not called any more, whose turn it is; and which rows of a shard wait for which of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::StopReason;
use super::answerer::Needs;
use super::feed::RowIndex;
use super::lane::LaneIndex;
use crate::policy::Balance;

/// How many calls may be under way at an endpoint, over all its models and all workers.
#[derive(Debug)]
pub(super) struct Load {
    limit: usize,
    used: AtomicUsize,
    is_wanted: AtomicBool,
}

impl Load {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0), is_wanted: AtomicBool::new(false) }
    }

    /// Takes a place for a call, if there is one.
    pub(super) fn take(&self) -> bool {
        if self.count_up() {
            return true;
        }
        self.is_wanted.store(true, Ordering::SeqCst);
        // One may have been given back before the wish was noted.
        self.count_up()
    }

    fn count_up(&self) -> bool {
        let more = |used| (used < self.limit).then_some(used + 1);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Gives a place back. True when somebody went without one.
    pub(super) fn give_back(&self) -> bool {
        self.used.fetch_sub(1, Ordering::SeqCst);
        self.is_wanted.swap(false, Ordering::SeqCst)
    }
}

/// Whether a lane of a pool is to be counted on.
#[derive(Debug, Default)]
pub(super) struct Standing {
    state: AtomicU8,
    // Set before the state is.
    why: Mutex<Option<StopReason>>,
    has_answered: AtomicBool,
    // Whether its team had answers when the session began.
    had_answers: AtomicBool,
    // Rows in a row for which the model was not known, and for which the key was refused.
    unknown: AtomicU32,
    denied: AtomicU32,
}

/// It may be called.
const UP: u8 = 0;
/// It has been out of reach for as long as a run would wait for it; it is tried on.
const DOWN: u8 = 1;
/// It is not called any more in this run.
const OUT: u8 = 2;

impl Standing {
    pub(super) fn is_up(&self) -> bool {
        self.state.load(Ordering::Acquire) == UP
    }

    pub(super) fn is_out(&self) -> bool {
        self.state.load(Ordering::Acquire) == OUT
    }

    /// Why it is not up.
    pub(super) fn why(&self) -> Option<StopReason> {
        self.reason().clone()
    }

    fn reason(&self) -> MutexGuard<'_, Option<StopReason>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is not called any more. True the first time.
    pub(super) fn leave(&self, why: Option<StopReason>) -> bool {
        *self.reason() = why;
        self.state.swap(OUT, Ordering::AcqRel) != OUT
    }

    /// It has been out of reach for too long. True the first time since it was up.
    pub(super) fn fall(&self, why: StopReason) -> bool {
        *self.reason() = Some(why);
        let was_up = self.state.compare_exchange(UP, DOWN, Ordering::AcqRel, Ordering::Acquire);
        was_up.is_ok()
    }

    /// It was called and is there; `is_answer` where that was an answer to a row.
    pub(super) fn answered(&self, is_answer: bool) {
        if is_answer && !self.has_answered.load(Ordering::Relaxed) {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        if is_answer && self.unknown.load(Ordering::Relaxed) != 0 {
            self.unknown.store(0, Ordering::Relaxed);
        }
        if self.denied.load(Ordering::Relaxed) != 0 {
            self.denied.store(0, Ordering::Relaxed);
        }
        if !self.is_up() {
            let _ = self.state.compare_exchange(DOWN, UP, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Whoever answers for its model has answered rows in earlier sessions.
    pub(super) fn answered_before(&self) {
        self.had_answers.store(true, Ordering::Relaxed);
    }

    /// Whether its model is known to have answered a row, in this session or in an earlier one.
    pub(super) fn is_known(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed) || self.had_answers.load(Ordering::Relaxed)
    }

    /// It does not know the model of a row. Gives for how many in a row.
    pub(super) fn note_unknown(&self) -> u32 {
        self.unknown.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// For how many rows in a row it did not know the model.
    pub(super) fn unknown_rows(&self) -> u32 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// It refused the key for a row. Gives for how many in a row.
    pub(super) fn note_denied(&self) -> u32 {
        self.denied.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// For how many rows in a row it refused the key.
    pub(super) fn denied_rows(&self) -> u32 {
        self.denied.load(Ordering::Relaxed)
    }
}

/// The lanes of which any may answer, and whose turn it is.
#[derive(Debug)]
pub(super) struct Team {
    pub(super) lanes: Vec<LaneIndex>,
    /// Whether calls must be routed: nothing is to be chosen where one takes them all.
    pub(super) is_pool: bool,
    balance: Mutex<Balance>,
}

impl Team {
    pub(super) fn new(lanes: Vec<LaneIndex>, weights: &[u32], is_pool: bool) -> Self {
        Self { lanes, is_pool, balance: Mutex::new(Balance::new(weights)) }
    }

    pub(super) fn balance(&self) -> MutexGuard<'_, Balance> {
        self.balance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rows of a shard that were taken and wait for a lane, and lanes that rows keep away from.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_needs: BTreeMap<Needs, VecDeque<RowIndex>>,
    shy: VecDeque<(RowIndex, Needs)>,
    detours: HashMap<RowIndex, Vec<(LaneIndex, Instant)>>,
    // How many of the shy were not looked at in this turn of the worker's loop.
    to_look: (u64, usize),
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.shy.is_empty() && self.by_needs.is_empty()
    }

    /// Has a row wait until somebody can take it.
    pub(super) fn add(&mut self, row: RowIndex, needs: Needs) {
        if self.detours.contains_key(&row) {
            self.shy.push_back((row, needs));
        } else {
            self.by_needs.entry(needs).or_default().push_back(row);
        }
    }

    /// How many rows wait that need something of this sort.
    pub(super) fn count(&self, is_meant: impl Fn(Needs) -> bool) -> usize {
        let queued = self.by_needs.iter().filter(|(needs, _)| is_meant(**needs));
        let shy = self.shy.iter().filter(|(_, needs)| is_meant(*needs)).count();
        queued.map(|(_, rows)| rows.len()).sum::<usize>() + shy
    }

    /// What rows that wait need.
    pub(super) fn needs(&self) -> Vec<Needs> {
        self.by_needs.keys().copied().collect()
    }

    /// The next row that needs this.
    pub(super) fn take(&mut self, needs: Needs) -> Option<RowIndex> {
        let rows = self.by_needs.get_mut(&needs)?;
        let row = rows.pop_front();
        if rows.is_empty() {
            self.by_needs.remove(&needs);
        }
        row
    }

    /// The next row that keeps away from some lane and was not looked at in this turn.
    pub(super) fn take_shy(&mut self, turn: u64) -> Option<(RowIndex, Needs)> {
        if self.to_look.0 != turn {
            self.to_look = (turn, self.shy.len());
        }
        self.to_look.1 = self.to_look.1.checked_sub(1)?;
        self.shy.pop_front()
    }

    /// Has a row keep away from a lane until then.
    pub(super) fn avoid(&mut self, row: RowIndex, lane: LaneIndex, until: Instant) {
        let detours = self.detours.entry(row).or_default();
        detours.retain(|(other, _)| *other != lane);
        detours.push((lane, until));
    }

    /// Until when a row keeps away from a lane, if it does.
    pub(super) fn avoids(&self, row: RowIndex, lane: LaneIndex, now: Instant) -> Option<Instant> {
        let detours = self.detours.get(&row)?;
        let found = detours.iter().find(|(other, until)| *other == lane && *until > now);
        found.map(|(_, until)| *until)
    }

    /// Whether a lane failed a row since all could be asked.
    pub(super) fn was_asked(&self, row: RowIndex, lane: LaneIndex) -> bool {
        self.detours.get(&row).is_some_and(|all| all.iter().any(|(other, _)| *other == lane))
    }

    /// A row need not keep away from anybody.
    pub(super) fn forget(&mut self, row: RowIndex) {
        self.detours.remove(&row);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::job::{Kinds, Modality};

    #[test]
    fn a_load_is_never_above_its_limit_and_who_went_without_is_told() {
        let load = Load::new(2);
        assert!(load.take() && load.take());
        assert!(!load.give_back(), "nobody waits");
        assert!(load.take() && !load.take());
        assert!(load.give_back());
        let most = AtomicUsize::new(0);
        let load = Load::new(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        if load.take() {
                            most.fetch_max(load.used.load(Ordering::SeqCst), Ordering::SeqCst);
                            load.give_back();
                        }
                    }
                });
            }
        });
        assert_eq!((load.used.into_inner(), most.into_inner() <= 3), (0, true));
    }

    #[test]
    fn a_lane_that_is_down_comes_back_and_one_that_is_out_does_not() {
        let why = || StopReason::Quota { why: "empty".into() };
        let lane = Standing::default();
        assert!(lane.is_up() && lane.fall(why()) && !lane.fall(why()));
        assert!(!lane.is_up() && !lane.is_out());
        assert_eq!(lane.why(), Some(why()));
        lane.answered(true);
        assert!(lane.is_up() && lane.fall(why()) && lane.leave(Some(why())) && !lane.leave(None));
        lane.answered(true);
        assert!(lane.is_out());
    }

    #[test]
    fn unknown_rows_are_counted_until_an_answer() {
        let (lane, other) = (Standing::default(), Standing::default());
        assert_eq!([lane.note_unknown(), lane.note_unknown(), lane.note_unknown()], [1, 2, 3]);
        other.note_unknown();
        other.answered(true);
        assert_eq!((other.unknown_rows(), lane.unknown_rows()), (0, 3));
    }

    #[test]
    fn rows_wait_by_what_they_need_and_the_shy_are_looked_at_once_a_turn() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let image = Needs { kinds: Kinds::of(Modality::Image), name: None };
        let mut waiting = Waiting::default();
        waiting.add(1, image);
        waiting.add(2, image);
        waiting.avoid(3, 0, later);
        waiting.add(3, Needs::TEXT);
        assert_eq!(waiting.needs(), [image]);
        assert_eq!((waiting.take(image), waiting.take(image)), (Some(1), Some(2)));
        assert_eq!(waiting.take(image), None);
        assert_eq!(waiting.take_shy(1), Some((3, Needs::TEXT)));
        waiting.add(3, Needs::TEXT);
        assert_eq!(waiting.take_shy(1), None, "it was looked at");
        assert!(!waiting.is_empty());
        assert_eq!(waiting.avoids(3, 0, now), Some(later));
        assert_eq!((waiting.avoids(3, 1, now), waiting.avoids(3, 0, later)), (None, None));
        assert!(waiting.was_asked(3, 0) && !waiting.was_asked(3, 1) && !waiting.was_asked(1, 0));
        assert_eq!(waiting.take_shy(2), Some((3, Needs::TEXT)));
        waiting.forget(3);
        assert!(waiting.avoids(3, 0, now).is_none() && waiting.is_empty());
    }
}
