//! How a device is linked: what the person has to do next, and when it came to nothing. Pure but for the answers of
//! the passkey, which come through a channel.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::sync::mpsc;
use whatsapp_rust::pair_code::{PairCodeOptions, PairCodeRejection};
use whatsapp_rust::passkey::Assertion;

use super::library::PairingSignal;
use crate::types::{Pairing, PairingFailure, Secret};

/// How long WhatsApp may take to give out a code.
const ASKING_LIMIT: Duration = Duration::from_secs(60);
/// How long the phone may take after the code has run out: somebody typed it in the last second.
const LAST_SECOND: Duration = Duration::from_secs(60);
/// How long a person may take over a passkey.
const PASSKEY_LIMIT: Duration = Duration::from_secs(10 * 60);
/// How long logging in for the first time may take, and fetching the chats.
const FIRST_LOGIN_LIMIT: Duration = Duration::from_secs(5 * 60);
/// What a person types who sees the same code on the phone.
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
    stage: Stage,
    /// When to give up, unless something happens before.
    limit: Timestamp,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// WhatsApp's: there is no code yet, or none any more.
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
pub enum Step {
    Nothing,
    Show(Pairing),
    AskForCode,
    Confirm,
    Fail(PairingFailure),
}

/// What the person says.
#[derive(Clone, Debug)]
pub enum Said {
    Passkey(Assertion),
    /// The phone shows the code that they were shown.
    SameCode,
}

impl Linking {
    pub fn new(phone: Option<String>, passkey: mpsc::Receiver<String>, now: Timestamp) -> Self {
        Self { phone, passkey, codes: 0, stage: Stage::Asking, limit: after(now, ASKING_LIMIT) }
    }

    /// Whether WhatsApp could know the number at all.
    pub fn phone_is_plausible(&self) -> bool {
        let plausible = |phone: &String| {
            PHONE_DIGITS.contains(&phone.len())
                && !phone.starts_with('0')
                && phone.chars().all(|c| c.is_ascii_digit())
        };
        self.phone.as_ref().is_none_or(plausible)
    }

    pub fn code(&self) -> Option<PairCodeOptions> {
        let phone_number = self.phone.clone()?;
        Some(PairCodeOptions { phone_number, ..Default::default() })
    }

    pub fn has_agreed(&self) -> bool {
        self.stage == Stage::Agreed
    }

    /// How long nothing may happen before it is given up.
    pub fn time_left(&self, now: Timestamp) -> Duration {
        Duration::try_from(self.limit.duration_since(now)).unwrap_or_default()
    }

    /// The connection is gone, or a new one begins: the codes of the old one open nothing any more.
    pub fn lost(&mut self, now: Timestamp) -> Step {
        match self.stage {
            Stage::Asking => Step::Show(Pairing::Asking),
            Stage::Codes => {
                self.stage = Stage::Asking;
                self.limit = after(now, ASKING_LIMIT);
                Step::Show(Pairing::Asking)
            }
            Stage::Passkey | Stage::Comparing | Stage::Confirming | Stage::Agreed => Step::Nothing,
        }
    }

    /// What it is called when nothing has happened before the limit.
    pub fn timed_out(&self, shown: &Pairing) -> PairingFailure {
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

    pub fn on(&mut self, signal: PairingSignal, now: Timestamp) -> Step {
        match signal {
            // The library goes on making codes to scan, whatever the person does.
            PairingSignal::Qr { .. } if !matches!(self.stage, Stage::Asking | Stage::Codes) => Step::Nothing,
            // They say that this connection can carry a code to type, too.
            PairingSignal::Qr { .. } if self.phone.is_some() => match self.stage {
                Stage::Asking => self.ask_for_code(now),
                Stage::Codes | Stage::Passkey | Stage::Comparing | Stage::Confirming | Stage::Agreed => {
                    Step::Nothing
                }
            },
            PairingSignal::Qr { code, valid } => {
                self.stage = Stage::Codes;
                let until = after(now, valid);
                self.limit = after(until, LAST_SECOND);
                Step::Show(Pairing::Qr { code: Secret::new(code), until })
            }
            PairingSignal::Code { code, valid } => {
                let until = after(now, valid);
                self.limit = after(until, LAST_SECOND);
                Step::Show(Pairing::Code { code: Secret::new(code), until })
            }
            PairingSignal::CodeExpired => self.ask_for_code(now),
            // Asked for on a connection that is gone.
            PairingSignal::CodeRefused { .. } if self.stage == Stage::Asking => Step::Nothing,
            PairingSignal::CodeRefused { rejection, error } => Step::Fail(refusal(rejection, error)),
            PairingSignal::QrCodesUsedUp { disconnected: true } => Step::Fail(PairingFailure::TimedOut),
            PairingSignal::QrCodesUsedUp { disconnected: false } => Step::Nothing,
            PairingSignal::PhoneTooOld => Step::Fail(PairingFailure::RefusedByPhone),
            PairingSignal::PasskeyWanted { request } => {
                self.stage = Stage::Passkey;
                self.limit = after(now, PASSKEY_LIMIT);
                Step::Show(Pairing::Passkey { request })
            }
            PairingSignal::PasskeyCode { code, shown } => {
                self.limit = after(now, PASSKEY_LIMIT);
                if shown {
                    self.stage = Stage::Comparing;
                    Step::Show(Pairing::PasskeyCode { code })
                } else {
                    self.stage = Stage::Confirming;
                    Step::Confirm
                }
            }
            PairingSignal::PasskeyFailed { error } | PairingSignal::Failed { error } => {
                Step::Fail(PairingFailure::Other(error))
            }
            PairingSignal::Agreed => {
                self.stage = Stage::Agreed;
                self.limit = after(now, FIRST_LOGIN_LIMIT);
                Step::Show(Pairing::Agreed)
            }
        }
    }

    fn ask_for_code(&mut self, now: Timestamp) -> Step {
        if self.codes >= CODES_MAX {
            return Step::Fail(PairingFailure::TimedOut);
        }
        self.codes += 1;
        self.stage = Stage::Codes;
        self.limit = after(now, ASKING_LIMIT);
        Step::AskForCode
    }

    /// What the person says next; never returns where that will be nothing.
    pub async fn answer(&mut self) -> Said {
        while let Some(answer) = self.passkey.recv().await {
            match self.stage {
                Stage::Passkey => match assertion(answer) {
                    Ok(assertion) => return Said::Passkey(assertion),
                    // There may be a better one.
                    Err(error) => tracing::warn!("{error:#}"),
                },
                Stage::Comparing if answer.eq_ignore_ascii_case(SAME_CODE) => {
                    self.stage = Stage::Confirming;
                    return Said::SameCode;
                }
                Stage::Asking | Stage::Codes | Stage::Comparing | Stage::Confirming | Stage::Agreed => {
                    tracing::warn!("There was an answer to what nobody had asked");
                }
            }
        }
        std::future::pending().await
    }
}

fn refusal(rejection: Option<PairCodeRejection>, error: String) -> PairingFailure {
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
fn assertion(answer: String) -> Result<Assertion> {
    let parsed: serde_json::Value =
        serde_json::from_str(&answer).context("Failed to read the answer as JSON")?;
    let id = parsed.get("rawId").or_else(|| parsed.get("id")).and_then(serde_json::Value::as_str);
    let credential_id = base64_url(id.context("Failed to find the passkey's id in the answer")?)
        .context("Failed to decode the passkey's id")?;
    Ok(Assertion { assertion_json: answer.into_bytes(), credential_id })
}

/// Bytes as WebAuthn writes them (RFC 4648, section 5), with or without padding.
fn base64_url(text: &str) -> Option<Vec<u8>> {
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

fn after(now: Timestamp, time: Duration) -> Timestamp {
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
        after(now(), Duration::from_secs(secs))
    }

    fn code(code: &str) -> PairingSignal {
        PairingSignal::Code { code: code.to_owned(), valid: Duration::from_secs(180) }
    }

    fn qr(code: &str) -> PairingSignal {
        PairingSignal::Qr { code: code.to_owned(), valid: Duration::from_secs(60) }
    }

    #[test]
    fn a_person_sees_the_code_that_they_asked_for() {
        let shown = Step::Show(Pairing::Qr { code: Secret::new("A"), until: in_secs(60) });
        assert_eq!(linking(None).on(qr("A"), now()), shown);
        let mut by_number = linking(Some("15550002222"));
        assert_eq!(by_number.on(qr("A"), now()), Step::AskForCode);
        assert_eq!(by_number.on(qr("B"), now()), Step::Nothing);
        let shown = Step::Show(Pairing::Code { code: Secret::new("ABCD1234"), until: in_secs(180) });
        assert_eq!(by_number.on(code("ABCD1234"), now()), shown);
        assert_eq!(by_number.time_left(now()), Duration::from_secs(240));
        assert_eq!(by_number.on(PairingSignal::Agreed, now()), Step::Show(Pairing::Agreed));
        assert_eq!(by_number.time_left(in_secs(1)), FIRST_LOGIN_LIMIT - Duration::from_secs(1));
        assert_eq!(by_number.time_left(in_secs(1000)), Duration::ZERO);
    }

    #[test]
    fn a_code_is_as_dead_as_its_connection_and_another_is_asked_for_on_the_next() {
        let mut by_number = linking(Some("15550002222"));
        by_number.on(qr("A"), now());
        by_number.on(code("ABCD1234"), now());
        assert_eq!(by_number.lost(now()), Step::Show(Pairing::Asking));
        let too_late = PairingSignal::CodeRefused { rejection: None, error: "not connected".to_owned() };
        assert_eq!(by_number.on(too_late, now()), Step::Nothing);
        assert_eq!(by_number.lost(in_secs(20)), Step::Show(Pairing::Asking));
        assert_eq!(by_number.time_left(in_secs(20)), Duration::from_secs(40));
        assert_eq!(by_number.on(qr("B"), now()), Step::AskForCode);
        by_number.on(PairingSignal::Agreed, now());
        assert_eq!(by_number.lost(now()), Step::Nothing);
    }

    #[test]
    fn codes_that_ran_out_are_replaced_a_few_times() {
        let mut linking = linking(Some("15550002222"));
        assert_eq!(linking.on(qr("A"), now()), Step::AskForCode);
        for _ in 1..CODES_MAX {
            assert_eq!(linking.on(PairingSignal::CodeExpired, now()), Step::AskForCode);
        }
        assert_eq!(linking.on(PairingSignal::CodeExpired, now()), Step::Fail(PairingFailure::TimedOut));
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
            linking.on(qr("A"), now());
            assert_eq!(linking.on(signal, now()), Step::Fail(failure));
        }
        assert_eq!(linking(None).timed_out(&Pairing::Asking), PairingFailure::Unreachable);
    }

    #[tokio::test]
    async fn a_passkeys_answer_is_taken_once_it_was_asked_for_and_is_one() {
        let (sender, answers) = mpsc::channel(4);
        let mut linking = Linking::new(None, answers, now());
        let wanted = PairingSignal::PasskeyWanted { request: "{}".to_owned() };
        assert_eq!(linking.on(wanted, now()), Step::Show(Pairing::Passkey { request: "{}".to_owned() }));
        for answer in ["", "{}", r#"{"rawId":"a b"}"#, r#"{"rawId":"_-8A"}"#] {
            sender.send(answer.to_owned()).await.unwrap();
        }
        let Said::Passkey(answer) = linking.answer().await else { panic!("no passkey") };
        assert_eq!(answer.credential_id, [255, 239, 0]);
        assert_eq!(linking.on(qr("A"), now()), Step::Nothing, "the person has scanned one");
        let code = |shown| PairingSignal::PasskeyCode { code: "AB".to_owned(), shown };
        assert_eq!(linking.on(code(false), now()), Step::Confirm);
        let shown = Pairing::PasskeyCode { code: "AB".to_owned() };
        assert_eq!(linking.on(code(true), now()), Step::Show(shown), "the person compares before we confirm");
        for answer in ["no", "Yes"] {
            sender.send(answer.to_owned()).await.unwrap();
        }
        assert!(matches!(linking.answer().await, Said::SameCode));
    }

    #[test]
    fn base64_as_webauthn_writes_it() {
        for (text, bytes) in
            [("", &b""[..]), ("a2V5", b"key"), ("a2U", b"ke"), ("a2U=", b"ke"), ("aw==", b"k")]
        {
            assert_eq!(base64_url(text).as_deref(), Some(bytes));
        }
        assert_eq!(base64_url("a*"), None);
    }
}
