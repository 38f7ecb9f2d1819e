//! Words about several Kimi accounts, for their owner.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::pick_language;
use crate::render::describe_local_time;
use crate::types::{Cooldown, CooldownCause, Lang};

/// To the owner, once: one of several Kimi accounts has no login any more.
pub fn account_ended_notice(lang: Lang, account: &str) -> String {
    match lang {
        Lang::En => format!(
            "The login of your Kimi account {account} has ended; the other accounts answer. Please run \
             `nanokimi login --account {account}` on the server, or `nanokimi accounts remove {account}`."
        ),
        Lang::Es => format!(
            "La sesión de tu cuenta de Kimi {account} ha terminado; responden las demás cuentas. Ejecuta \
             `nanokimi login --account {account}` en el servidor, o `nanokimi accounts remove {account}`."
        ),
    }
}

/// For the owner, behind what has happened: why each account gives no answer, and until when. Empty if there is
/// nothing to say.
pub fn limited_accounts_sentence(
    lang: Lang,
    limits: &[(String, Cooldown)],
    zone: &TimeZone,
    now: Timestamp,
) -> String {
    let accounts: Vec<String> = limits
        .iter()
        .map(|(account, cooldown)| {
            let until = describe_local_time(lang, cooldown.resets_at.unwrap_or(cooldown.until), zone, now);
            let until_word = pick_language(lang, "until", "hasta");
            format!("{account} {} ({until_word} {until})", describe_cooldown_cause(lang, cooldown.cause))
        })
        .collect();
    if accounts.is_empty() {
        return String::new();
    }
    format!(" {} {}.", pick_language(lang, "Your accounts:", "Tus cuentas:"), accounts.join("; "))
}

/// Why an account gives no answer, behind its name.
pub fn describe_cooldown_cause(lang: Lang, cause: CooldownCause) -> &'static str {
    let (en, es) = match cause {
        CooldownCause::RateLimited => ("has asked too often", "ha preguntado demasiado"),
        CooldownCause::QuotaUsedUp => ("has used up its allowance", "ha agotado su cupo"),
        CooldownCause::Overloaded | CooldownCause::ServerError => {
            ("finds Kimi overloaded", "encuentra Kimi sobrecargado")
        }
        CooldownCause::Unreachable => ("does not reach Kimi", "no llega a Kimi"),
        CooldownCause::Refused => ("is refused by Kimi", "es rechazada por Kimi"),
    };
    pick_language(lang, en, es)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_reads_which_account_and_until_when() {
        let both = [Lang::En, Lang::Es].map(|lang| account_ended_notice(lang, "work")).join("\n");
        insta::assert_snapshot!(both, @"
        The login of your Kimi account work has ended; the other accounts answer. Please run `nanokimi login --account work` on the server, or `nanokimi accounts remove work`.
        La sesión de tu cuenta de Kimi work ha terminado; responden las demás cuentas. Ejecuta `nanokimi login --account work` en el servidor, o `nanokimi accounts remove work`.
        ");
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-11-30T08:00:00Z");
        let cooldown = |cause, resets_at: Option<&str>| Cooldown {
            cause,
            since: now,
            until: at("2026-11-30T08:05:00Z"),
            resets_at: resets_at.map(at),
            failures: 1,
        };
        let limits = [
            ("home".to_owned(), cooldown(CooldownCause::QuotaUsedUp, Some("2026-12-01T06:30:00Z"))),
            ("work".to_owned(), cooldown(CooldownCause::RateLimited, None)),
        ];
        let zone = TimeZone::get("Europe/Madrid").unwrap();
        let both = [Lang::En, Lang::Es].map(|lang| limited_accounts_sentence(lang, &limits, &zone, now));
        insta::assert_snapshot!(both.map(|told| told.trim().to_owned()).join("\n"), @"
        Your accounts: home has used up its allowance (until Tue 1 Dec 07:30 Europe/Madrid); work has asked too often (until Mon 30 Nov 09:05 Europe/Madrid).
        Tus cuentas: home ha agotado su cupo (hasta mar 1 dic 07:30 Europe/Madrid); work ha preguntado demasiado (hasta lun 30 nov 09:05 Europe/Madrid).
        ");
        assert_eq!(limited_accounts_sentence(Lang::En, &[], &zone, now), "");
    }
}
