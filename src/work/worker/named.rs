//! Rows that are answered by the names of models in them: nobody answers in another's place, so who is
//! lost, or is to be left alone, keeps its own rows waiting and no others.

use super::Worker;
use crate::telemetry::Event;
use crate::work::answerer::Needs;
use crate::work::committer::Order;
use crate::work::lane::LaneIndex;
use crate::work::slot::Leaving;
use crate::work::{Happened, StopReason};

impl Worker<'_> {
    /// Who answers to a name was lost: its rows are left, and those of others go on. The run ends where
    /// nobody is left.
    pub(super) fn lose_named(&self, index: LaneIndex, what: &str, why: StopReason) {
        let lanes = &self.shared.lanes;
        let lane = lanes.lane(index);
        if !lane.standing.leave(Some(why.clone())) {
            return;
        }
        if !lanes.iter().any(|other| other.is_pooled && other.standing.is_up()) {
            return self.stop_for(Some(why));
        }
        self.tell(Happened::Shown(Event::Alert(format!(
            "{what}: it is not called any more, its rows are left, and the others go on"
        ))));
        self.tell(Happened::LaneLost { reason: why });
        self.shared.gate.wake_all();
    }

    /// Gives up shards of which only rows are left that nobody can answer in this run.
    pub(super) fn leave_lost(&mut self) {
        let is_any_lost = || self.shared.lanes.iter().any(|it| it.standing.is_out());
        if self.shared.names.is_none() || !self.is_running() || !is_any_lost() {
            return;
        }
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let is_lost = |needs| !self.is_answered(slot.variant, needs);
            let is_left = slot.leaving.is_none()
                && slot.is_waiting()
                && slot.queue.count(is_lost) == slot.feed.left();
            if is_left {
                let leaving = Leaving { is_for_good: true, is_ordered: false };
                self.slots[index].leaving = Some(leaving);
            }
        }
    }

    /// Whether somebody who answers what needs this is not lost.
    fn is_answered(&self, variant: usize, needs: Needs) -> bool {
        self.shared.lanes_of(variant).iter().any(|lane| {
            let lane = self.shared.lanes.lane(*lane);
            lane.takes(needs) && lane.standing.is_up()
        })
    }

    /// Puts a shard aside whose rows all wait for somebody, where others could be called and this worker
    /// has no room for more shards. One with rows for each of those it waits for is kept, so that they
    /// are tried.
    pub(super) fn put_aside(&mut self) {
        if self.shared.names.is_none()
            || self.shared.queue.is_empty()
            || self.slots.iter().any(|slot| slot.leaving.is_some() || !slot.is_waiting())
        {
            return;
        }
        let has_another = |of: usize, needs: &Needs| {
            let others = self.slots.iter().enumerate().filter(|(index, _)| *index != of);
            others.map(|(_, slot)| slot).any(|slot| slot.queue.needs().contains(needs))
        };
        let may_go = |index: &usize| {
            self.slots[*index].queue.needs().iter().all(|needs| has_another(*index, needs))
        };
        if let Some(index) = (0..self.slots.len()).rev().find(may_go) {
            let leaving = Leaving { is_for_good: false, is_ordered: false };
            self.slots[index].leaving = Some(leaving);
        }
    }

    /// A shard that was put aside and has rows for somebody that none wait for here.
    pub(super) fn take_aside(&self) -> Option<u32> {
        self.shared.names.as_ref()?;
        let is_here = |needs| self.slots.iter().any(|slot| slot.queue.needs().contains(&needs));
        self.shared.queue.take_aside(|needs| !is_here(needs))
    }

    /// Has shards closed that are given up, once all that came of them is on its way to the disk.
    pub(super) fn order_leaving(&mut self) -> Result<(), crate::work::Error> {
        for slot in &mut self.slots {
            let is_handed_on = slot.is_handed_on();
            if let Some(leaving) = slot.leaving.as_mut().filter(|it| is_handed_on && !it.is_ordered)
            {
                leaving.is_ordered = true;
                slot.clear_started()?;
                let _ = self.orders.send(Order::Leave(slot.number));
            }
        }
        Ok(())
    }

    /// A shard that was given up is closed.
    pub(super) fn left(&mut self, shard: u32) {
        let slot = self.slots.iter().find(|slot| slot.number == shard);
        let left = slot.and_then(|slot| Some((slot.leaving?, slot.queue.needs())));
        self.close_slot(shard);
        match left {
            Some((Leaving { is_for_good: false, .. }, needs)) => {
                self.shared.queue.put_aside(shard, needs);
            }
            _ => self.tell(Happened::Left { shard }),
        }
    }
}
