//! Which replies a device may not be able to read, and when they are sealed anew for it. That is idempotent:
//! the reply keeps its id, and a device that has it already drops the second copy.
//!
//! WhatsApp's answer says that its server has a reply, not that a device has its key. But silence alone is no
//! trouble: a phone may be off for days. What gives reason to doubt is [`Evidence`].

use jiff::{SignedDuration, Timestamp};

use crate::types::DeviceKind;

/// Older replies are left as they are, unless a device asks for one: nobody waits for them any more.
pub const REPAIRED_FOR: SignedDuration = SignedDuration::from_hours(14 * 24);
/// How long a receipt may take on its way: receipts come in any order, and after a break of the connection in
/// a heap.
const GRACE: SignedDuration = SignedDuration::from_mins(2);
/// When a reply is sealed anew, after the suspicion: some keys come back within minutes, and some phones are
/// restarted.
const REPAIRS: [SignedDuration; 3] =
    [SignedDuration::ZERO, SignedDuration::from_mins(10), SignedDuration::from_hours(1)];
/// When the last repair counts as in vain.
const IN_VAIN_AFTER: SignedDuration = SignedDuration::from_mins(70);
/// Suspicions of one reply: new evidence begins one anew, as when a phone that never had keys shows signs of
/// life.
const SUSPICIONS_MAX: u32 = 2;

/// What is known of a reply and one of the people that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentCopy {
    pub sent_at: Timestamp,
    /// Whether the person's phone has said that it has the reply, and whether a companion of the phone has.
    pub on_phone: bool,
    pub on_companion: bool,
    /// Whether the person was in the chat before the reply was sent: it is not for people who have joined
    /// since.
    pub was_there: bool,
    /// How often there was reason to doubt, and whether the last of these suspicions still stands.
    pub suspicions: u32,
    pub is_suspected: bool,
}

/// What gives reason to doubt that a reply can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It went without a copy for the phone, for want of its keys.
    PhoneMissed,
    /// The device asks for it once more.
    AskedAgain(DeviceKind),
    /// The phone has a reply of the same chat that was sent later.
    LaterReply,
    /// The person wrote or read in the chat at that time.
    Active { at: Timestamp },
    /// The person has set WhatsApp up anew.
    IdentityChanged,
}

impl Evidence {
    /// The device that may not be able to read it.
    pub fn suspected_device(self) -> DeviceKind {
        match self {
            Self::AskedAgain(device) => device,
            Self::PhoneMissed | Self::LaterReply | Self::Active { .. } | Self::IdentityChanged => {
                DeviceKind::Phone
            }
        }
    }
}

/// Since when a reply is suspect by this evidence, if it is: its repairs begin then. The time may lie a
/// little ahead, and a receipt until then ends the suspicion.
pub fn suspected_since(copy: &SentCopy, evidence: Evidence, now: Timestamp) -> Option<Timestamp> {
    let is_there = match evidence.suspected_device() {
        DeviceKind::Phone => copy.on_phone,
        DeviceKind::Companion => copy.on_companion,
    };
    let is_asked_for = matches!(evidence, Evidence::AskedAgain(_));
    let may_be_repaired = !is_there
        && !copy.is_suspected
        && copy.suspicions < SUSPICIONS_MAX
        && (is_asked_for || now.duration_since(copy.sent_at) <= REPAIRED_FOR);
    let (speaks_against_it, since) = match evidence {
        Evidence::PhoneMissed => (true, Some(now)),
        // The library answers by itself, as long as it remembers the message and finds keys.
        Evidence::AskedAgain(_) => (true, time_after_pause(now, GRACE)),
        Evidence::LaterReply | Evidence::IdentityChanged => (copy.was_there, time_after_pause(now, GRACE)),
        Evidence::Active { at } => {
            let had_time = at.duration_since(copy.sent_at) > GRACE;
            // A person at a computer, with the phone off, lacks nothing.
            (copy.was_there && !copy.on_companion && had_time, time_after_pause(now, GRACE))
        }
    };
    since.filter(|_| may_be_repaired && speaks_against_it)
}

/// What follows for a suspect reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairStep {
    /// It is sealed anew at this time.
    Repair(Timestamp),
    /// At this time the last repair was in vain.
    InVain(Timestamp),
}

impl RepairStep {
    pub fn scheduled_at(self) -> Timestamp {
        match self {
            Self::Repair(at) | Self::InVain(at) => at,
        }
    }
}

/// What follows after so many repairs of a reply that is suspect since then.
pub fn next_repair_step(suspected_at: Timestamp, repairs: u32) -> RepairStep {
    match usize::try_from(repairs).ok().and_then(|repairs| REPAIRS.get(repairs)) {
        Some(pause) => RepairStep::Repair(time_after_pause(suspected_at, *pause).unwrap_or(Timestamp::MAX)),
        None => RepairStep::InVain(time_after_pause(suspected_at, IN_VAIN_AFTER).unwrap_or(Timestamp::MAX)),
    }
}

/// Since when a reply counts as suspect if its next step is taken only now, such as after the link was away:
/// the pauses between its repairs keep their length.
pub fn postpone_suspicion(suspected_at: Timestamp, repairs: u32, now: Timestamp) -> Timestamp {
    let late =
        now.duration_since(next_repair_step(suspected_at, repairs).scheduled_at()).max(SignedDuration::ZERO);
    time_after_pause(suspected_at, late).unwrap_or(Timestamp::MAX)
}

fn time_after_pause(time: Timestamp, pause: SignedDuration) -> Option<Timestamp> {
    time.checked_add(pause).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: SignedDuration = SignedDuration::from_mins(1);

    fn sent() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    /// Sent at noon to somebody who was there; nothing was heard of it.
    fn silent() -> SentCopy {
        SentCopy {
            sent_at: sent(),
            on_phone: false,
            on_companion: false,
            was_there: true,
            suspicions: 0,
            is_suspected: false,
        }
    }

    #[test]
    fn each_kind_of_evidence_is_one_and_gives_a_receipt_time_to_come() {
        let now = sent() + MINUTE * 10;
        for (evidence, since) in [
            (Evidence::PhoneMissed, now),
            (Evidence::AskedAgain(DeviceKind::Phone), now + GRACE),
            (Evidence::AskedAgain(DeviceKind::Companion), now + GRACE),
            (Evidence::LaterReply, now + GRACE),
            (Evidence::Active { at: now }, now + GRACE),
            (Evidence::IdentityChanged, now + GRACE),
        ] {
            assert_eq!(suspected_since(&silent(), evidence, now), Some(since), "{evidence:?}");
        }
    }

    #[test]
    fn what_was_written_before_somebody_came_is_not_brought_to_them() {
        let newcomer = SentCopy { was_there: false, ..silent() };
        let now = sent() + MINUTE * 10;
        for evidence in [Evidence::LaterReply, Evidence::Active { at: now }, Evidence::IdentityChanged] {
            assert_eq!(suspected_since(&newcomer, evidence, now), None, "{evidence:?}");
        }
        // A person for whom it was sealed, or whose device asks for it, was in the chat.
        for evidence in [Evidence::PhoneMissed, Evidence::AskedAgain(DeviceKind::Phone)] {
            assert!(suspected_since(&newcomer, evidence, now).is_some(), "{evidence:?}");
        }
    }

    #[test]
    fn who_writes_at_a_computer_or_at_once_shows_nothing() {
        let (now, at_computer) = (sent() + MINUTE * 10, SentCopy { on_companion: true, ..silent() });
        assert_eq!(suspected_since(&at_computer, Evidence::Active { at: now }, now), None);
        assert_eq!(suspected_since(&silent(), Evidence::Active { at: sent() + MINUTE * 2 }, now), None);
        assert_eq!(suspected_since(&silent(), Evidence::Active { at: sent() - MINUTE * 9 }, now), None);
        // But a phone that has what came later should have this.
        assert!(suspected_since(&at_computer, Evidence::LaterReply, now).is_some());
    }

    #[test]
    fn repairs_are_made_at_once_after_ten_minutes_and_after_an_hour() {
        let at = sent();
        let next: Vec<RepairStep> = (0..4).map(|repairs| next_repair_step(at, repairs)).collect();
        let expected = [
            RepairStep::Repair(at),
            RepairStep::Repair(at + MINUTE * 10),
            RepairStep::Repair(at + MINUTE * 60),
            RepairStep::InVain(at + MINUTE * 70),
        ];
        assert_eq!(next, expected);
    }

    fn evidence() -> impl Strategy<Value = Evidence> {
        prop_oneof![
            Just(Evidence::PhoneMissed),
            prop_oneof![Just(DeviceKind::Phone), Just(DeviceKind::Companion)].prop_map(Evidence::AskedAgain),
            Just(Evidence::LaterReply),
            (-30_i64..30_000).prop_map(|mins| Evidence::Active { at: sent() + MINUTE * mins as i32 }),
            Just(Evidence::IdentityChanged),
        ]
    }

    prop_compose! {
        fn copy()(
            on_phone: bool, on_companion: bool, was_there: bool, is_suspected: bool, suspicions in 0_u32..4,
        ) -> SentCopy {
            SentCopy { sent_at: sent(), on_phone, on_companion, was_there, suspicions, is_suspected }
        }
    }

    proptest! {
        #[test]
        fn what_is_there_too_old_or_suspected_already_is_never_suspect(
            copy in copy(), evidence in evidence(), mins in 0_i32..40_000,
        ) {
            let now = sent() + MINUTE * mins;
            let Some(since) = suspected_since(&copy, evidence, now) else { return Ok(()) };
            prop_assert!(now <= since && since <= now + GRACE);
            let is_asked_for = matches!(evidence, Evidence::AskedAgain(_));
            prop_assert!(is_asked_for || now <= copy.sent_at + REPAIRED_FOR);
            prop_assert!(!copy.is_suspected && copy.suspicions < SUSPICIONS_MAX);
            match evidence.suspected_device() {
                DeviceKind::Phone => prop_assert!(!copy.on_phone),
                DeviceKind::Companion => prop_assert!(!copy.on_companion),
            }
        }

        #[test]
        fn a_step_that_is_taken_late_moves_those_after_it(late_mins in -100_i32..10_000, repairs in 0_u32..3) {
            let at = sent();
            let now = next_repair_step(at, repairs).scheduled_at() + MINUTE * late_mins;
            let after = next_repair_step(postpone_suspicion(at, repairs, now), repairs + 1).scheduled_at();
            let pause = next_repair_step(at, repairs + 1).scheduled_at().duration_since(next_repair_step(at, repairs).scheduled_at());
            prop_assert_eq!(after.duration_since(now.max(next_repair_step(at, repairs).scheduled_at())), pause);
        }

        #[test]
        fn repairs_end(mins in 0_i32..1_000_000, repairs in 0_u32..1_000) {
            let at = sent() + MINUTE * mins;
            let (next, after) = (next_repair_step(at, repairs), next_repair_step(at, repairs + 1));
            prop_assert!(at <= next.scheduled_at() && next.scheduled_at() <= after.scheduled_at());
            prop_assert_eq!(matches!(next, RepairStep::InVain(_)), repairs >= 3);
        }
    }
}
