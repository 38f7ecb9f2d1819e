//! How a device is linked: what the person has to do next, and when linking has failed. Pure but for the
//! answers of the passkey, which come through a channel.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::sync::mpsc;
use whatsapp_rust::pair_code::{PairCodeOptions, PairCodeRejection};
use whatsapp_rust::passkey::Assertion;

use super::client::PairingSignal;
use crate::types::{Pairing, PairingFailure, Secret};

/// How long WhatsApp may take to give out a code.
const ASKING_LIMIT: Duration = Duration::from_secs(60);
/// How long the phone may take after the code has run out: somebody typed it in the last second.
const LAST_SECOND: Duration = Duration::from_secs(60);
/// How long a person may take over a passkey.
const PASSKEY_LIMIT: Duration = Duration::from_secs(10 * 60);
/// How long logging in for the first time may take, and fetching the chats.
const FIRST_LOGIN_LIMIT: Duration = Duration::from_secs(5 * 60);
/// What a person types if the phone shows the same code.
const SAME_CODE: &str = "yes";
/// Pairing codes that are asked for in one go; more look like an attack to WhatsApp.
const CODES_MAX: u32 = 3;
/// Digits of a phone number with its country's code (E.164), of which WhatsApp wants seven at least.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// A linking on its way.
#[derive(Debug)]
pub struct Linking {
    phone: Option<String>,
    passkey: mpsc::Receiver<String>,
    codes: u32,
    stage: LinkingStage,
    /// When to give up, unless something happens before.
    limit: Timestamp,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkingStage {
    /// WhatsApp's: there is no code yet, or the last one is void.
    Asking,
    /// The person's: to scan or type a code.
    Codes,
    /// The person's: to let the passkey answer.
    Passkey,
    /// The person's: to see that the phone shows the same code.
    Comparing,
    /// The phone's.
    Confirming,
    /// Nobody's: the device is linked.
    Agreed,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkingStep {
    Nothing,
    Show(Pairing),
    AskForCode,
    Confirm,
    Fail(PairingFailure),
}

/// What the person says.
#[derive(Clone, Debug)]
pub enum PasskeyAnswer {
    Passkey(Assertion),
    /// The phone shows the code that they were shown.
    SameCode,
}

impl Linking {
    pub fn new(phone: Option<String>, passkey: mpsc::Receiver<String>, now: Timestamp) -> Self {
        Self { phone, passkey, codes: 0, stage: LinkingStage::Asking, limit: time_after(now, ASKING_LIMIT) }
    }

    /// Whether WhatsApp could know the number at all.
    pub fn has_plausible_phone(&self) -> bool {
        let plausible = |phone: &String| {
            PHONE_DIGITS.contains(&phone.len())
                && !phone.starts_with('0')
                && phone.chars().all(|c| c.is_ascii_digit())
        };
        self.phone.as_ref().is_none_or(plausible)
    }

    pub fn pair_code_options(&self) -> Option<PairCodeOptions> {
        let phone_number = self.phone.clone()?;
        Some(PairCodeOptions { phone_number, ..Default::default() })
    }

    pub fn has_agreed(&self) -> bool {
        self.stage == LinkingStage::Agreed
    }

    /// How long nothing may happen before it is given up.
    pub fn time_left(&self, now: Timestamp) -> Duration {
        Duration::try_from(self.limit.duration_since(now)).unwrap_or_default()
    }

    /// The connection is gone, or a new one begins: the codes of the old one open nothing any more.
    pub fn on_connection_lost(&mut self, now: Timestamp) -> LinkingStep {
        match self.stage {
            LinkingStage::Asking => LinkingStep::Show(Pairing::Asking),
            LinkingStage::Codes => {
                self.stage = LinkingStage::Asking;
                self.limit = time_after(now, ASKING_LIMIT);
                LinkingStep::Show(Pairing::Asking)
            }
            LinkingStage::Passkey
            | LinkingStage::Comparing
            | LinkingStage::Confirming
            | LinkingStage::Agreed => LinkingStep::Nothing,
        }
    }

    /// The failure when nothing has happened before the limit.
    pub fn timeout_failure(&self, shown: &Pairing) -> PairingFailure {
        match shown {
            Pairing::Asking => PairingFailure::Unreachable,
            Pairing::Qr { .. }
            | Pairing::Code { .. }
            | Pairing::Passkey { .. }
            | Pairing::PasskeyCode { .. }
            | Pairing::Agreed
            | Pairing::Failed(_) => PairingFailure::TimedOut,
        }
    }

    pub fn on_pairing_signal(&mut self, signal: PairingSignal, now: Timestamp) -> LinkingStep {
        match signal {
            // The library goes on making codes to scan, whatever the person does.
            PairingSignal::Qr { .. } if !matches!(self.stage, LinkingStage::Asking | LinkingStage::Codes) => {
                LinkingStep::Nothing
            }
            // They say that this connection can carry a code to type, too.
            PairingSignal::Qr { .. } if self.phone.is_some() => match self.stage {
                LinkingStage::Asking => self.request_pairing_code(now),
                LinkingStage::Codes
                | LinkingStage::Passkey
                | LinkingStage::Comparing
                | LinkingStage::Confirming
                | LinkingStage::Agreed => LinkingStep::Nothing,
            },
            PairingSignal::Qr { code, valid } => {
                self.stage = LinkingStage::Codes;
                let until = time_after(now, valid);
                self.limit = time_after(until, LAST_SECOND);
                LinkingStep::Show(Pairing::Qr { code: Secret::new(code), until })
            }
            PairingSignal::Code { code, valid } => {
                let until = time_after(now, valid);
                self.limit = time_after(until, LAST_SECOND);
                LinkingStep::Show(Pairing::Code { code: Secret::new(code), until })
            }
            PairingSignal::CodeExpired => self.request_pairing_code(now),
            // Asked for on a connection that is gone.
            PairingSignal::CodeRefused { .. } if self.stage == LinkingStage::Asking => LinkingStep::Nothing,
            PairingSignal::CodeRefused { rejection, error } => {
                LinkingStep::Fail(failure_from_rejection(rejection, error))
            }
            PairingSignal::QrCodesUsedUp { disconnected: true } => {
                LinkingStep::Fail(PairingFailure::TimedOut)
            }
            PairingSignal::QrCodesUsedUp { disconnected: false } => LinkingStep::Nothing,
            PairingSignal::PhoneTooOld => LinkingStep::Fail(PairingFailure::RefusedByPhone),
            PairingSignal::PasskeyWanted { request } => {
                self.stage = LinkingStage::Passkey;
                self.limit = time_after(now, PASSKEY_LIMIT);
                LinkingStep::Show(Pairing::Passkey { request })
            }
            PairingSignal::PasskeyCode { code, shown } => {
                self.limit = time_after(now, PASSKEY_LIMIT);
                if shown {
                    self.stage = LinkingStage::Comparing;
                    LinkingStep::Show(Pairing::PasskeyCode { code })
                } else {
                    self.stage = LinkingStage::Confirming;
                    LinkingStep::Confirm
                }
            }
            PairingSignal::PasskeyFailed { error } | PairingSignal::Failed { error } => {
                LinkingStep::Fail(PairingFailure::Other(error))
            }
            PairingSignal::Agreed => {
                self.stage = LinkingStage::Agreed;
                self.limit = time_after(now, FIRST_LOGIN_LIMIT);
                LinkingStep::Show(Pairing::Agreed)
            }
        }
    }

    fn request_pairing_code(&mut self, now: Timestamp) -> LinkingStep {
        if self.codes >= CODES_MAX {
            return LinkingStep::Fail(PairingFailure::TimedOut);
        }
        self.codes += 1;
        self.stage = LinkingStage::Codes;
        self.limit = time_after(now, ASKING_LIMIT);
        LinkingStep::AskForCode
    }

    /// What the person says next; never returns if they say nothing more.
    pub async fn next_passkey_answer(&mut self) -> PasskeyAnswer {
        while let Some(answer) = self.passkey.recv().await {
            match self.stage {
                LinkingStage::Passkey => match parse_assertion(answer) {
                    Ok(assertion) => return PasskeyAnswer::Passkey(assertion),
                    // The next answer may be better.
                    Err(error) => tracing::warn!("{error:#}"),
                },
                LinkingStage::Comparing if answer.eq_ignore_ascii_case(SAME_CODE) => {
                    self.stage = LinkingStage::Confirming;
                    return PasskeyAnswer::SameCode;
                }
                LinkingStage::Asking
                | LinkingStage::Codes
                | LinkingStage::Comparing
                | LinkingStage::Confirming
                | LinkingStage::Agreed => {
                    tracing::warn!("There was an answer to what nobody had asked");
                }
            }
        }
        std::future::pending().await
    }
}

fn failure_from_rejection(rejection: Option<PairCodeRejection>, error: String) -> PairingFailure {
    match rejection {
        Some(rejection) if rejection.is_throttled() => PairingFailure::Throttled,
        Some(PairCodeRejection::Forbidden | PairCodeRejection::FeatureNotAvailable) => {
            PairingFailure::RefusedNumber
        }
        Some(_) => PairingFailure::Other(error),
        None => PairingFailure::Unreachable,
    }
}

/// A passkey's answer, with the id of the passkey itself, which WhatsApp wants beside it.
fn parse_assertion(answer: String) -> Result<Assertion> {
    let parsed: serde_json::Value =
        serde_json::from_str(&answer).context("Failed to read the answer as JSON")?;
    let id = parsed.get("rawId").or_else(|| parsed.get("id")).and_then(serde_json::Value::as_str);
    let credential_id = decode_base64_url(id.context("Failed to find the passkey's id in the answer")?)
        .context("Failed to decode the passkey's id")?;
    Ok(Assertion { assertion_json: answer.into_bytes(), credential_id })
}

/// Bytes as WebAuthn writes them (RFC 4648, section 5), with or without padding.
fn decode_base64_url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let (mut pending, mut bits) = (0_u32, 0_u32);
    for digit in text.trim_end_matches('=').bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return None,
        };
        pending = (pending << 6 | u32::from(value)) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(pending >> bits & 0xff).ok()?);
        }
    }
    Some(bytes)
}

fn time_after(now: Timestamp, time: Duration) -> Timestamp {
    now.checked_add(time).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T10:00:00Z".parse().unwrap()
    }

    fn linking(phone: Option<&str>) -> Linking {
        Linking::new(phone.map(str::to_owned), mpsc::channel(1).1, now())
    }

    fn in_secs(secs: u64) -> Timestamp {
        time_after(now(), Duration::from_secs(secs))
    }

    fn code(code: &str) -> PairingSignal {
        PairingSignal::Code { code: code.to_owned(), valid: Duration::from_secs(180) }
    }

    fn qr(code: &str) -> PairingSignal {
        PairingSignal::Qr { code: code.to_owned(), valid: Duration::from_secs(60) }
    }

    #[test]
    fn a_person_sees_the_code_that_they_asked_for() {
        let shown = LinkingStep::Show(Pairing::Qr { code: Secret::new("A"), until: in_secs(60) });
        assert_eq!(linking(None).on_pairing_signal(qr("A"), now()), shown);
        let mut by_number = linking(Some("15550002222"));
        assert_eq!(by_number.on_pairing_signal(qr("A"), now()), LinkingStep::AskForCode);
        assert_eq!(by_number.on_pairing_signal(qr("B"), now()), LinkingStep::Nothing);
        let shown = LinkingStep::Show(Pairing::Code { code: Secret::new("ABCD1234"), until: in_secs(180) });
        assert_eq!(by_number.on_pairing_signal(code("ABCD1234"), now()), shown);
        assert_eq!(by_number.time_left(now()), Duration::from_secs(240));
        assert_eq!(
            by_number.on_pairing_signal(PairingSignal::Agreed, now()),
            LinkingStep::Show(Pairing::Agreed)
        );
        assert_eq!(by_number.time_left(in_secs(1)), FIRST_LOGIN_LIMIT - Duration::from_secs(1));
        assert_eq!(by_number.time_left(in_secs(1000)), Duration::ZERO);
    }

    #[test]
    fn a_code_is_as_dead_as_its_connection_and_another_is_asked_for_on_the_next() {
        let mut by_number = linking(Some("15550002222"));
        by_number.on_pairing_signal(qr("A"), now());
        by_number.on_pairing_signal(code("ABCD1234"), now());
        assert_eq!(by_number.on_connection_lost(now()), LinkingStep::Show(Pairing::Asking));
        let too_late = PairingSignal::CodeRefused { rejection: None, error: "not connected".to_owned() };
        assert_eq!(by_number.on_pairing_signal(too_late, now()), LinkingStep::Nothing);
        assert_eq!(by_number.on_connection_lost(in_secs(20)), LinkingStep::Show(Pairing::Asking));
        assert_eq!(by_number.time_left(in_secs(20)), Duration::from_secs(40));
        assert_eq!(by_number.on_pairing_signal(qr("B"), now()), LinkingStep::AskForCode);
        by_number.on_pairing_signal(PairingSignal::Agreed, now());
        assert_eq!(by_number.on_connection_lost(now()), LinkingStep::Nothing);
    }

    #[test]
    fn codes_that_ran_out_are_replaced_a_few_times() {
        let mut linking = linking(Some("15550002222"));
        assert_eq!(linking.on_pairing_signal(qr("A"), now()), LinkingStep::AskForCode);
        for _ in 1..CODES_MAX {
            assert_eq!(linking.on_pairing_signal(PairingSignal::CodeExpired, now()), LinkingStep::AskForCode);
        }
        assert_eq!(
            linking.on_pairing_signal(PairingSignal::CodeExpired, now()),
            LinkingStep::Fail(PairingFailure::TimedOut)
        );
    }

    #[test]
    fn each_failure_has_its_reason() {
        let refused = |rejection| PairingSignal::CodeRefused { rejection, error: "words".to_owned() };
        let other = PairingFailure::Other("words".to_owned());
        for (signal, failure) in [
            (refused(Some(PairCodeRejection::RateOverlimit)), PairingFailure::Throttled),
            (refused(Some(PairCodeRejection::BadRequest)), PairingFailure::Throttled),
            (refused(Some(PairCodeRejection::Forbidden)), PairingFailure::RefusedNumber),
            (refused(Some(PairCodeRejection::FeatureNotAvailable)), PairingFailure::RefusedNumber),
            (refused(Some(PairCodeRejection::InternalServerError)), other.clone()),
            (refused(None), PairingFailure::Unreachable),
            (PairingSignal::QrCodesUsedUp { disconnected: true }, PairingFailure::TimedOut),
            (PairingSignal::PhoneTooOld, PairingFailure::RefusedByPhone),
            (PairingSignal::PasskeyFailed { error: "words".to_owned() }, other.clone()),
            (PairingSignal::Failed { error: "words".to_owned() }, other),
        ] {
            let mut linking = linking(Some("15550002222"));
            linking.on_pairing_signal(qr("A"), now());
            assert_eq!(linking.on_pairing_signal(signal, now()), LinkingStep::Fail(failure));
        }
        assert_eq!(linking(None).timeout_failure(&Pairing::Asking), PairingFailure::Unreachable);
    }

    #[tokio::test]
    async fn a_passkeys_answer_is_taken_once_it_was_asked_for_and_is_one() {
        let (sender, answers) = mpsc::channel(4);
        let mut linking = Linking::new(None, answers, now());
        let wanted = PairingSignal::PasskeyWanted { request: "{}".to_owned() };
        assert_eq!(
            linking.on_pairing_signal(wanted, now()),
            LinkingStep::Show(Pairing::Passkey { request: "{}".to_owned() })
        );
        for answer in ["", "{}", r#"{"rawId":"a b"}"#, r#"{"rawId":"_-8A"}"#] {
            sender.send(answer.to_owned()).await.unwrap();
        }
        let PasskeyAnswer::Passkey(answer) = linking.next_passkey_answer().await else {
            panic!("no passkey")
        };
        assert_eq!(answer.credential_id, [255, 239, 0]);
        assert_eq!(
            linking.on_pairing_signal(qr("A"), now()),
            LinkingStep::Nothing,
            "the person has scanned one"
        );
        let code = |shown| PairingSignal::PasskeyCode { code: "AB".to_owned(), shown };
        assert_eq!(linking.on_pairing_signal(code(false), now()), LinkingStep::Confirm);
        let shown = Pairing::PasskeyCode { code: "AB".to_owned() };
        assert_eq!(
            linking.on_pairing_signal(code(true), now()),
            LinkingStep::Show(shown),
            "the person compares before we confirm"
        );
        for answer in ["no", "Yes"] {
            sender.send(answer.to_owned()).await.unwrap();
        }
        assert!(matches!(linking.next_passkey_answer().await, PasskeyAnswer::SameCode));
    }

    #[test]
    fn base64_as_webauthn_writes_it() {
        for (text, bytes) in
            [("", &b""[..]), ("a2V5", b"key"), ("a2U", b"ke"), ("a2U=", b"ke"), ("aw==", b"k")]
        {
            assert_eq!(decode_base64_url(text).as_deref(), Some(bytes));
        }
        assert_eq!(decode_base64_url("a*"), None);
    }
}
