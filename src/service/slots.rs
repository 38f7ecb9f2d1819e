//! Who may run a container: a fixed number of slots, granted in the order in which they were asked for.
//!
//! Pure: says whom to grant a slot and whom to ask for one. A group that waits makes an idle group give its
//! slot up, or, where all are at work, the one that holds its slot the longest, after its turn. Half of the slots may be
//! taken ahead of need, while they are free.

use std::collections::VecDeque;

use crate::types::GroupName;

/// What to tell a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    Grant(GroupName),
    Want(GroupName),
}

/// The slots and the queue before them.
#[derive(Debug)]
pub struct Slots {
    count: usize,
    /// In the order in which slots were granted.
    holders: Vec<Holder>,
    waiting: VecDeque<GroupName>,
}

#[derive(Debug)]
struct Holder {
    group: GroupName,
    activity: Activity,
    asked: Asked,
    taken: Taken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    Idle,
    Busy,
}

/// What for a holder has its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    ForWork,
    Ahead,
}

/// Whether a holder was told that its slot is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    No,
    Yes,
}

impl Slots {
    pub fn new(count: usize) -> Self {
        Self { count: count.max(1), holders: Vec::new(), waiting: VecDeque::new() }
    }

    /// A group asks for a slot. One that got it unasked meanwhile has it already.
    pub fn ask(&mut self, group: GroupName) -> Vec<Order> {
        if self.holds(&group) {
            self.needed(&group);
        } else {
            self.waiting.push_back(group);
        }
        self.grant_or_want()
    }

    /// Takes a slot for a group that has not asked for one, if one is free that nobody may need before.
    pub fn take_ahead(&mut self, group: &GroupName) -> bool {
        let ahead = self.holders.iter().filter(|holder| holder.taken == Taken::Ahead).count();
        let may = self.waiting.is_empty()
            && self.holders.len() < self.count
            && ahead < (self.count / 2).max(1)
            && !self.holds(group);
        if may {
            self.hold(group.clone(), Taken::Ahead);
        }
        may
    }

    /// There is work for a holder whose slot was taken ahead.
    pub fn needed(&mut self, group: &GroupName) {
        if let Some(holder) = self.holders.iter_mut().find(|holder| holder.group == *group) {
            holder.taken = Taken::ForWork;
        }
    }

    fn holds(&self, group: &GroupName) -> bool {
        self.holders.iter().any(|holder| holder.group == *group)
    }

    fn hold(&mut self, group: GroupName, taken: Taken) {
        self.holders.push(Holder { group, activity: Activity::Busy, asked: Asked::No, taken });
    }

    /// A group gives its slot back, or does not wait for one any more.
    pub fn give_back(&mut self, group: &GroupName) -> Vec<Order> {
        self.waiting.retain(|waiting| waiting != group);
        self.holders.retain(|holder| holder.group != *group);
        self.grant_or_want()
    }

    pub fn idle(&mut self, group: &GroupName) -> Vec<Order> {
        self.set(group, Activity::Idle);
        self.grant_or_want()
    }

    pub fn busy(&mut self, group: &GroupName) {
        self.set(group, Activity::Busy);
    }

    fn set(&mut self, group: &GroupName, activity: Activity) {
        if let Some(holder) = self.holders.iter_mut().find(|holder| holder.group == *group) {
            holder.activity = activity;
        }
    }

    fn grant_or_want(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        while self.holders.len() < self.count
            && let Some(group) = self.waiting.pop_front()
        {
            self.hold(group.clone(), Taken::ForWork);
            orders.push(Order::Grant(group));
        }
        while let Some(holder) = self.next_to_ask() {
            holder.asked = Asked::Yes;
            orders.push(Order::Want(holder.group.clone()));
        }
        orders
    }

    /// The holder to ask next, if one more is needed: an idle one, else the busy one that holds the longest.
    /// That a busy one was asked does not keep an idle one: it is free at once.
    fn next_to_ask(&mut self) -> Option<&mut Holder> {
        let asked = |activity| {
            let held = self
                .holders
                .iter()
                .filter(|holder| holder.asked == Asked::Yes && holder.activity == activity);
            held.count()
        };
        let unasked = |activity| {
            self.holders.iter().position(|holder| holder.asked == Asked::No && holder.activity == activity)
        };
        let (idle, busy) = (asked(Activity::Idle), asked(Activity::Busy));
        let index = match unasked(Activity::Idle) {
            Some(index) if idle < self.waiting.len() => index,
            Some(_) | None if idle + busy < self.waiting.len() => unasked(Activity::Busy)?,
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
        let mut slots = Slots::new(2);
        assert_eq!(slots.ask(group("a")), [Order::Grant(group("a"))]);
        assert_eq!(slots.ask(group("b")), [Order::Grant(group("b"))]);
        slots.idle(&group("b"));
        assert_eq!(slots.ask(group("c")), [Order::Want(group("b"))]);
        assert_eq!(slots.give_back(&group("b")), [Order::Grant(group("c"))]);
    }

    #[test]
    fn where_all_are_busy_the_longest_holding_is_asked() {
        let mut slots = Slots::new(2);
        slots.ask(group("a"));
        slots.ask(group("b"));
        assert_eq!(slots.ask(group("c")), [Order::Want(group("a"))]);
        assert_eq!(slots.ask(group("d")), [Order::Want(group("b"))]);
        assert_eq!(slots.give_back(&group("b")), [Order::Grant(group("c"))]);
    }

    #[test]
    fn one_that_turns_idle_is_asked_even_if_a_busy_one_was() {
        let mut slots = Slots::new(2);
        slots.ask(group("a"));
        slots.ask(group("b"));
        assert_eq!(slots.ask(group("c")), [Order::Want(group("a"))]);
        assert_eq!(slots.idle(&group("b")), [Order::Want(group("b"))]);
        assert_eq!(slots.give_back(&group("b")), [Order::Grant(group("c"))]);
    }

    #[test]
    fn half_of_the_slots_may_be_taken_ahead_while_they_are_free() {
        let mut slots = Slots::new(4);
        assert_eq!(slots.ask(group("a")), [Order::Grant(group("a"))]);
        assert!(!slots.take_ahead(&group("a")), "it has one");
        assert!(slots.take_ahead(&group("b")) && slots.take_ahead(&group("c")));
        assert!(!slots.take_ahead(&group("d")), "half of them");
        slots.needed(&group("b"));
        assert!(slots.take_ahead(&group("d")));
        assert!(!slots.take_ahead(&group("e")), "none is free");
        // Those that nobody needs give way first, and nobody has two.
        slots.idle(&group("c"));
        assert_eq!(slots.ask(group("e")), [Order::Want(group("c"))]);
        assert_eq!(slots.ask(group("d")), []);
        assert!(!slots.take_ahead(&group("f")), "somebody waits");
        assert_eq!(slots.give_back(&group("c")), [Order::Grant(group("e"))]);
        assert_eq!(slots.give_back(&group("d")), []);
        let mut one = Slots::new(1);
        assert!(one.take_ahead(&group("a")));
    }

    proptest! {
        /// Groups ask, work and give back as they are told: never too many at once, everybody's turn comes.
        #[test]
        fn everybody_gets_a_slot_in_order(count in 1_usize..4, order in prop::collection::vec(0_usize..8, 1..40)) {
            let mut slots = Slots::new(count);
            let (mut waiting, mut held, mut granted, mut asked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            let names: Vec<GroupName> = (0..8).map(|n| group(&format!("g{n}"))).collect();
            for index in order {
                let name = &names[index];
                let orders = if let Some(at) = held.iter().position(|holder| holder == name) {
                    held.remove(at);
                    slots.give_back(name)
                } else if waiting.contains(name) {
                    Vec::new()
                } else {
                    waiting.push(name.clone());
                    asked.push(name.clone());
                    slots.ask(name.clone())
                };
                for order in orders {
                    match order {
                        Order::Grant(group) => {
                            prop_assert_eq!(&waiting.remove(0), &group);
                            held.push(group.clone());
                            granted.push(group);
                        }
                        Order::Want(group) => prop_assert!(held.contains(&group)),
                    }
                }
                prop_assert!(held.len() <= count);
                prop_assert!(waiting.is_empty() || held.len() == count);
            }
            prop_assert_eq!(&granted[..], &asked[..granted.len()]);
        }
    }
}
