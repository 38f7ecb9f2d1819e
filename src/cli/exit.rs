//! The exit codes beyond "done" and "failed": the ends of the link to WhatsApp, each with its sentence.
//!
//! docs/operating.md shows the same table to people. The systemd unit names the codes that no restart mends.

use std::fmt::{self, Display};
use std::process::ExitCode;

use jiff::tz::TimeZone;

use super::ui;
use crate::checks;
use crate::types::{LinkState, PairingFailure};

/// Why a verb failed, if a supervisor or a script has to tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCause {
    /// No account is linked, or not any more.
    NotLinked,
    /// Another program took the link over.
    Replaced,
    Banned,
    Outdated,
    /// Nobody scanned or typed a code in time.
    TimedOut,
    /// WhatsApp gives out no codes for now.
    Throttled,
    /// WhatsApp or the phone refuses to link.
    Refused,
    Unreachable,
}

/// What only a person can change: a restart would end the same way.
pub const FOR_A_PERSON: [ExitCause; 4] =
    [ExitCause::NotLinked, ExitCause::Replaced, ExitCause::Banned, ExitCause::Outdated];

impl ExitCause {
    /// 1 is any other failure, 2 a command line that was not understood.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::NotLinked => 3,
            Self::Replaced => 4,
            Self::Banned => 5,
            Self::Outdated => 6,
            Self::TimedOut => 7,
            Self::Throttled => 8,
            Self::Refused => 9,
            Self::Unreachable => 10,
        }
    }

    /// Why a service ended that left this code, if it is one of [`FOR_A_PERSON`].
    pub fn explain_service_exit(code: &str) -> Option<&'static str> {
        let exit = FOR_A_PERSON.into_iter().find(|exit| exit.exit_code().to_string() == code)?;
        Some(match exit {
            Self::NotLinked => "No WhatsApp account is linked any more, or none yet; run `nanokimi auth`",
            Self::Replaced => "Another program has taken the link to WhatsApp over; stop that one",
            Self::Banned => "WhatsApp has banned the account; `nanokimi status` says until when",
            Self::Outdated => {
                "WhatsApp does not let this version of nanokimi in any more; install a newer one"
            }
            Self::TimedOut | Self::Throttled | Self::Refused | Self::Unreachable => return None,
        })
    }
}

/// An end with its sentence, which says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitReport {
    pub exit: Option<ExitCause>,
    pub sentence: String,
}

impl ExitReport {
    fn new(exit: ExitCause, sentence: impl Into<String>) -> Self {
        Self { exit: Some(exit), sentence: sentence.into() }
    }

    pub fn not_linked() -> Self {
        Self::new(ExitCause::NotLinked, "No WhatsApp account is linked; run `nanokimi auth`")
    }

    /// Says it, and gives the code to end with.
    pub fn report_exit(&self) -> ExitCode {
        ui::print_info(format!("nanokimi: {self}"));
        ExitCode::from(self.exit.map_or(1, ExitCause::exit_code))
    }
}

impl Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// Why a link carries no messages, if only a person can change that.
pub fn exit_for_link(link: &LinkState, zone: &TimeZone) -> Option<ExitReport> {
    Some(match link {
        LinkState::Unlinked => ExitReport::not_linked(),
        LinkState::LoggedOut => ExitReport::new(
            ExitCause::NotLinked,
            "WhatsApp has logged this device out: it was removed on the phone, or the account is locked. Look at \
             WhatsApp on the phone, then run `nanokimi auth`",
        ),
        LinkState::Replaced => ExitReport::new(
            ExitCause::Replaced,
            "Another program has taken this link to WhatsApp over, such as a copy of this install on another \
             machine. Stop that one for good, then start nanokimi again",
        ),
        LinkState::Banned { until } => ExitReport::new(
            ExitCause::Banned,
            format!(
                "WhatsApp has banned this account until {}. Look at WhatsApp on the phone, wait until then, and \
                 start nanokimi again",
                checks::render_time(*until, zone)
            ),
        ),
        LinkState::Outdated => ExitReport::new(
            ExitCause::Outdated,
            "WhatsApp does not let this version of nanokimi in any more. Install a newer one: docs/operating.md \
             says how, under \"Upgrade\"",
        ),
        LinkState::Pairing(_) | LinkState::Connecting | LinkState::Online | LinkState::DiskFull => {
            return None;
        }
    })
}

/// Why linking came to nothing.
pub fn exit_for_pairing(failure: &PairingFailure) -> ExitReport {
    match failure {
        PairingFailure::TimedOut => ExitReport::new(
            ExitCause::TimedOut,
            "Nobody scanned or typed a code in time; take the phone and run `nanokimi auth` again",
        ),
        PairingFailure::Throttled => ExitReport::new(
            ExitCause::Throttled,
            "WhatsApp gives out no codes for now, because too many were asked for, or because the number after \
             --pair-code is wrong. Check it; if it is right, try `nanokimi auth` for a QR code, or wait some hours, then run \
             it again",
        ),
        PairingFailure::RefusedNumber => ExitReport::new(
            ExitCause::Refused,
            "WhatsApp does not link this phone number; check it with its country's code, or run `nanokimi auth` \
             for a QR code",
        ),
        PairingFailure::RefusedByPhone => ExitReport::new(
            ExitCause::Refused,
            "The phone refused: it has no room for another device, or the app that scanned cannot link. Remove a \
             device under WhatsApp → Settings → Linked devices, then run `nanokimi auth` again",
        ),
        PairingFailure::Unreachable => ExitReport::new(
            ExitCause::Unreachable,
            "WhatsApp cannot be reached; check this machine's connection with `curl -I https://web.whatsapp.com`, \
             then run `nanokimi auth` again",
        ),
        PairingFailure::Other(words) => {
            let words = ui::sanitize_name(words);
            let sentence = format!("WhatsApp did not link this device ({words}); run `nanokimi auth` again");
            ExitReport { exit: None, sentence }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: [ExitCause; 8] = [
        ExitCause::NotLinked,
        ExitCause::Replaced,
        ExitCause::Banned,
        ExitCause::Outdated,
        ExitCause::TimedOut,
        ExitCause::Throttled,
        ExitCause::Refused,
        ExitCause::Unreachable,
    ];

    #[test]
    fn every_code_means_one_thing_and_stands_in_the_documented_table() {
        let page = include_str!("../../docs/operating.md");
        let codes: BTreeSet<u8> = ALL.map(ExitCause::exit_code).into();
        assert_eq!(codes.len(), ALL.len());
        let table = page.split("### Exit codes").nth(1).unwrap();
        let documented: BTreeSet<u8> = table
            .lines()
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'))
            .filter_map(|line| line.split('|').nth(1)?.trim().parse().ok())
            .collect();
        assert_eq!(documented, codes.into_iter().chain([0, 1, 2]).collect());
    }

    #[test]
    fn each_end_of_the_link_says_what_to_do() {
        let until = "2026-11-22T08:30:00Z".parse().unwrap();
        let ends = [
            LinkState::Unlinked,
            LinkState::LoggedOut,
            LinkState::Replaced,
            LinkState::Banned { until },
            LinkState::Outdated,
        ];
        let said: Vec<String> = ends
            .iter()
            .map(|link| exit_for_link(link, &TimeZone::UTC).unwrap())
            .map(|end| format!("{}: {end}", end.exit.unwrap().exit_code()))
            .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        3: No WhatsApp account is linked; run `nanokimi auth`
        3: WhatsApp has logged this device out: it was removed on the phone, or the account is locked. Look at WhatsApp on the phone, then run `nanokimi auth`
        4: Another program has taken this link to WhatsApp over, such as a copy of this install on another machine. Stop that one for good, then start nanokimi again
        5: WhatsApp has banned this account until 2026-11-22 08:30 UTC. Look at WhatsApp on the phone, wait until then, and start nanokimi again
        6: WhatsApp does not let this version of nanokimi in any more. Install a newer one: docs/operating.md says how, under "Upgrade"
        "#);
        assert!(
            [LinkState::Connecting, LinkState::Online]
                .iter()
                .all(|link| exit_for_link(link, &TimeZone::UTC).is_none())
        );
    }

    #[test]
    fn each_failure_to_link_says_what_to_do() {
        let failures = [
            PairingFailure::TimedOut,
            PairingFailure::Throttled,
            PairingFailure::RefusedNumber,
            PairingFailure::RefusedByPhone,
            PairingFailure::Unreachable,
            PairingFailure::Other("code 500\u{1b}[2J".to_owned()),
        ];
        let said: Vec<String> = failures
            .iter()
            .map(exit_for_pairing)
            .map(|end| format!("{}: {end}", end.exit.map_or(1, ExitCause::exit_code)))
            .collect();
        insta::assert_snapshot!(said.join("\n"), @"
        7: Nobody scanned or typed a code in time; take the phone and run `nanokimi auth` again
        8: WhatsApp gives out no codes for now, because too many were asked for, or because the number after --pair-code is wrong. Check it; if it is right, try `nanokimi auth` for a QR code, or wait some hours, then run it again
        9: WhatsApp does not link this phone number; check it with its country's code, or run `nanokimi auth` for a QR code
        9: The phone refused: it has no room for another device, or the app that scanned cannot link. Remove a device under WhatsApp → Settings → Linked devices, then run `nanokimi auth` again
        10: WhatsApp cannot be reached; check this machine's connection with `curl -I https://web.whatsapp.com`, then run `nanokimi auth` again
        1: WhatsApp did not link this device (code 500[2J); run `nanokimi auth` again
        ");
    }
}
