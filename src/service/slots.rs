//! Which groups may run a container. There are as many slots as are allowed and as there is memory for. They
//! are granted in the order in which they were asked for.
//!
//! Pure: says which group is granted a slot, and which is asked for its slot. If a group waits, the group
//! that is idle for the longest gives its slot up. If all are at work, the one that has held its slot the
//! longest gives it up after its turn. If memory runs short, idle groups give their slots up, never one in a
//! turn. Half of the slots may be taken ahead of need, while they are free.

use std::collections::VecDeque;

use crate::types::GroupName;

/// What an agent counts for at least, in bytes, whatever it was found to hold: an engine of either kind that
/// waits, or one that is about to start.
pub const AGENT_BYTES: u64 = 120 * 1024 * 1024;

/// What to tell a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotOrder {
    Grant(GroupName),
    Want(GroupName),
}

/// The slots and the queue before them.
#[derive(Debug)]
pub struct Slots {
    count: usize,
    /// How much memory all holders may have together.
    memory_bytes: u64,
    /// Counts the times that a holder became idle.
    rests: u64,
    /// In the order in which slots were granted.
    holders: Vec<SlotHolder>,
    waiting: VecDeque<GroupName>,
}

#[derive(Debug)]
struct SlotHolder {
    group: GroupName,
    activity: Activity,
    /// The group was told that its slot is wanted.
    was_asked: bool,
    taken: SlotPurpose,
    memory_bytes: u64,
    /// When the group became idle, in the order of all such times.
    rested: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    Idle,
    Busy,
}

/// What a holder has its slot for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotPurpose {
    ForWork,
    Ahead,
}

impl Slots {
    pub fn new(count: usize, memory_bytes: u64) -> Self {
        Self { count: count.max(1), memory_bytes, rests: 0, holders: Vec::new(), waiting: VecDeque::new() }
    }

    /// Whether one more group may hold a slot. One group always may.
    fn has_free_slot(&self) -> bool {
        let after = self.held_memory_bytes().saturating_add(AGENT_BYTES);
        self.holders.is_empty() || (self.holders.len() < self.count && after <= self.memory_bytes)
    }

    fn held_memory_bytes(&self) -> u64 {
        self.holders.iter().map(|holder| holder.memory_bytes).fold(0, u64::saturating_add)
    }

    /// The groups that hold a slot.
    pub fn holding_groups(&self) -> impl Iterator<Item = &GroupName> {
        self.holders.iter().map(|holder| &holder.group)
    }

    /// Takes in how much memory the holders' agents hold, in bytes. If they hold too much together, or the
    /// machine `is_short` of memory, asks the group that is idle for the longest for its slot, one at a time.
    pub fn update_memory_use(
        &mut self,
        held: impl Fn(&GroupName) -> Option<u64>,
        is_short: bool,
    ) -> Vec<SlotOrder> {
        for holder in &mut self.holders {
            holder.memory_bytes = held(&holder.group).unwrap_or(0).max(AGENT_BYTES);
        }
        let mut orders = self.grant_or_reclaim_slots();
        let gives = |holder: &SlotHolder| holder.was_asked && holder.activity == Activity::Idle;
        let too_much = is_short || self.held_memory_bytes() > self.memory_bytes;
        if too_much
            && !self.holders.iter().any(gives)
            && let Some(index) = self.longest_idle_holder()
            && let Some(holder) = self.holders.get_mut(index)
        {
            holder.was_asked = true;
            orders.push(SlotOrder::Want(holder.group.clone()));
        }
        orders
    }

    /// The holder that is idle for the longest, of those that were not asked.
    fn longest_idle_holder(&self) -> Option<usize> {
        let idle = self.holders.iter().enumerate();
        let idle = idle.filter(|(_, holder)| !holder.was_asked && holder.activity == Activity::Idle);
        idle.min_by_key(|(_, holder)| holder.rested).map(|(index, _)| index)
    }

    /// A group asks for a slot. It has one already if it got it unasked meanwhile.
    pub fn request_slot(&mut self, group: GroupName) -> Vec<SlotOrder> {
        if self.holds_slot(&group) {
            self.mark_needed(&group);
        } else {
            self.waiting.push_back(group);
        }
        self.grant_or_reclaim_slots()
    }

    /// Takes a slot for a group that has not asked for one, if a slot is free that no other group needs.
    pub fn try_take_slot_ahead(&mut self, group: &GroupName) -> bool {
        let ahead = self.holders.iter().filter(|holder| holder.taken == SlotPurpose::Ahead).count();
        let may = self.waiting.is_empty()
            && self.has_free_slot()
            && ahead < (self.count / 2).max(1)
            && !self.holds_slot(group);
        if may {
            self.add_holder(group.clone(), SlotPurpose::Ahead);
        }
        may
    }

    /// There is work for a group whose slot was taken ahead of need.
    pub fn mark_needed(&mut self, group: &GroupName) {
        if let Some(holder) = self.holders.iter_mut().find(|holder| holder.group == *group) {
            holder.taken = SlotPurpose::ForWork;
        }
    }

    fn holds_slot(&self, group: &GroupName) -> bool {
        self.holders.iter().any(|holder| holder.group == *group)
    }

    fn add_holder(&mut self, group: GroupName, taken: SlotPurpose) {
        self.holders.push(SlotHolder {
            group,
            activity: Activity::Busy,
            was_asked: false,
            taken,
            memory_bytes: AGENT_BYTES,
            rested: 0,
        });
    }

    /// A group gives its slot back, or no longer waits for one.
    pub fn release_slot(&mut self, group: &GroupName) -> Vec<SlotOrder> {
        self.waiting.retain(|waiting| waiting != group);
        self.holders.retain(|holder| holder.group != *group);
        self.grant_or_reclaim_slots()
    }

    pub fn mark_idle(&mut self, group: &GroupName) -> Vec<SlotOrder> {
        self.rests += 1;
        let rests = self.rests;
        if let Some(holder) = self.holders.iter_mut().find(|holder| holder.group == *group) {
            holder.rested = rests;
        }
        self.set_activity(group, Activity::Idle);
        self.grant_or_reclaim_slots()
    }

    pub fn mark_busy(&mut self, group: &GroupName) {
        self.set_activity(group, Activity::Busy);
    }

    fn set_activity(&mut self, group: &GroupName, activity: Activity) {
        if let Some(holder) = self.holders.iter_mut().find(|holder| holder.group == *group) {
            holder.activity = activity;
        }
    }

    fn grant_or_reclaim_slots(&mut self) -> Vec<SlotOrder> {
        let mut orders = Vec::new();
        while self.has_free_slot()
            && let Some(group) = self.waiting.pop_front()
        {
            self.add_holder(group.clone(), SlotPurpose::ForWork);
            orders.push(SlotOrder::Grant(group));
        }
        while let Some(holder) = self.next_holder_to_ask() {
            holder.was_asked = true;
            orders.push(SlotOrder::Want(holder.group.clone()));
        }
        orders
    }

    /// The holder to ask next, if one more slot is needed: an idle one, else the busy one that has held its
    /// slot the longest. An idle holder is asked even if a busy one was asked before: its slot is free at
    /// once.
    fn next_holder_to_ask(&mut self) -> Option<&mut SlotHolder> {
        let asked = |activity| {
            let held = self.holders.iter().filter(|holder| holder.was_asked && holder.activity == activity);
            held.count()
        };
        let busy_longest =
            || self.holders.iter().position(|holder| !holder.was_asked && holder.activity == Activity::Busy);
        let (idle, busy) = (asked(Activity::Idle), asked(Activity::Busy));
        let index = match self.longest_idle_holder() {
            Some(index) if idle < self.waiting.len() => index,
            Some(_) | None if idle + busy < self.waiting.len() => busy_longest()?,
            Some(_) | None => return None,
        };
        self.holders.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(name: &str) -> GroupName {
        GroupName::parse(name).unwrap()
    }

    #[test]
    fn the_third_waits_and_an_idle_one_is_asked_for_its_slot() {
        let mut slots = Slots::new(2, u64::MAX);
        assert_eq!(slots.request_slot(group("a")), [SlotOrder::Grant(group("a"))]);
        assert_eq!(slots.request_slot(group("b")), [SlotOrder::Grant(group("b"))]);
        slots.mark_idle(&group("b"));
        assert_eq!(slots.request_slot(group("c")), [SlotOrder::Want(group("b"))]);
        assert_eq!(slots.release_slot(&group("b")), [SlotOrder::Grant(group("c"))]);
    }

    #[test]
    fn where_all_are_busy_the_longest_holding_is_asked() {
        let mut slots = Slots::new(2, u64::MAX);
        slots.request_slot(group("a"));
        slots.request_slot(group("b"));
        assert_eq!(slots.request_slot(group("c")), [SlotOrder::Want(group("a"))]);
        assert_eq!(slots.request_slot(group("d")), [SlotOrder::Want(group("b"))]);
        assert_eq!(slots.release_slot(&group("b")), [SlotOrder::Grant(group("c"))]);
    }

    #[test]
    fn one_that_turns_idle_is_asked_even_if_a_busy_one_was() {
        let mut slots = Slots::new(2, u64::MAX);
        slots.request_slot(group("a"));
        slots.request_slot(group("b"));
        assert_eq!(slots.request_slot(group("c")), [SlotOrder::Want(group("a"))]);
        assert_eq!(slots.mark_idle(&group("b")), [SlotOrder::Want(group("b"))]);
        assert_eq!(slots.release_slot(&group("b")), [SlotOrder::Grant(group("c"))]);
    }

    #[test]
    fn half_of_the_slots_may_be_taken_ahead_while_they_are_free() {
        let mut slots = Slots::new(4, u64::MAX);
        assert_eq!(slots.request_slot(group("a")), [SlotOrder::Grant(group("a"))]);
        assert!(!slots.try_take_slot_ahead(&group("a")), "it has one");
        assert!(slots.try_take_slot_ahead(&group("b")) && slots.try_take_slot_ahead(&group("c")));
        assert!(!slots.try_take_slot_ahead(&group("d")), "half of them");
        slots.mark_needed(&group("b"));
        assert!(slots.try_take_slot_ahead(&group("d")));
        assert!(!slots.try_take_slot_ahead(&group("e")), "none is free");
        // Those that nobody needs give way first, and nobody has two.
        slots.mark_idle(&group("c"));
        assert_eq!(slots.request_slot(group("e")), [SlotOrder::Want(group("c"))]);
        assert_eq!(slots.request_slot(group("d")), []);
        assert!(!slots.try_take_slot_ahead(&group("f")), "somebody waits");
        assert_eq!(slots.release_slot(&group("c")), [SlotOrder::Grant(group("e"))]);
        assert_eq!(slots.release_slot(&group("d")), []);
        let mut one = Slots::new(1, u64::MAX);
        assert!(one.try_take_slot_ahead(&group("a")));
    }

    #[test]
    fn as_many_hold_a_slot_as_there_is_memory_for_and_one_always() {
        let mut slots = Slots::new(10, 3 * AGENT_BYTES);
        for name in ["a", "b", "c"] {
            assert_eq!(slots.request_slot(group(name)), [SlotOrder::Grant(group(name))]);
        }
        slots.mark_idle(&group("b"));
        slots.mark_idle(&group("a"));
        assert_eq!(
            slots.request_slot(group("d")),
            [SlotOrder::Want(group("b"))],
            "the one that is idle for longer"
        );
        assert!(!slots.try_take_slot_ahead(&group("e")));
        assert_eq!(slots.release_slot(&group("b")), [SlotOrder::Grant(group("d"))]);
        // With one that has grown by a byte there is no room for a third.
        assert_eq!(slots.release_slot(&group("d")), []);
        let grown = |name: &GroupName| (*name == group("c")).then_some(AGENT_BYTES + 1);
        assert_eq!(slots.update_memory_use(grown, false), []);
        assert_eq!(slots.request_slot(group("e")), [SlotOrder::Want(group("a"))]);
        let none = Slots::new(10, 0).request_slot(group("a"));
        assert_eq!(none, [SlotOrder::Grant(group("a"))]);
    }

    #[test]
    fn if_memory_runs_short_the_longest_idle_goes_one_at_a_time_and_nobody_in_a_turn() {
        let mut slots = Slots::new(10, 10 * AGENT_BYTES);
        for name in ["a", "b", "c"] {
            slots.request_slot(group(name));
        }
        slots.mark_idle(&group("c"));
        slots.mark_idle(&group("a"));
        let usual = |_: &GroupName| None;
        assert_eq!(slots.update_memory_use(usual, true), [SlotOrder::Want(group("c"))]);
        assert_eq!(slots.update_memory_use(usual, true), [], "it is ending");
        assert_eq!(slots.release_slot(&group("c")), []);
        let much = |name: &GroupName| (*name == group("b")).then_some(20 * AGENT_BYTES);
        assert_eq!(slots.update_memory_use(much, false), [SlotOrder::Want(group("a"))]);
        assert_eq!(slots.release_slot(&group("a")), []);
        assert_eq!(slots.update_memory_use(much, true), [], "it works");
    }

    proptest! {
        /// Groups ask, work and give back as they are told: never too many at once, everybody's turn comes.
        #[test]
        fn everybody_gets_a_slot_in_order(count in 1_usize..4, order in prop::collection::vec(0_usize..8, 1..40)) {
            let mut slots = Slots::new(count, u64::MAX);
            let (mut waiting, mut held, mut granted, mut asked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            let names: Vec<GroupName> = (0..8).map(|n| group(&format!("g{n}"))).collect();
            for index in order {
                let name = &names[index];
                let orders = if let Some(at) = held.iter().position(|holder| holder == name) {
                    held.remove(at);
                    slots.release_slot(name)
                } else if waiting.contains(name) {
                    Vec::new()
                } else {
                    waiting.push(name.clone());
                    asked.push(name.clone());
                    slots.request_slot(name.clone())
                };
                for order in orders {
                    match order {
                        SlotOrder::Grant(group) => {
                            prop_assert_eq!(&waiting.remove(0), &group);
                            held.push(group.clone());
                            granted.push(group);
                        }
                        SlotOrder::Want(group) => prop_assert!(held.contains(&group)),
                    }
                }
                prop_assert!(held.len() <= count);
                prop_assert!(waiting.is_empty() || held.len() == count);
            }
            prop_assert_eq!(&granted[..], &asked[..granted.len()]);
        }
    }
}
