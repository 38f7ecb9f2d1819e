//! Accounts from other programs' files: the plugin's `kimicode-accounts.json` (version 1), and a `kimi-code.json`
//! that was copied from elsewhere. What is read here is pure; nothing of a token is ever in an error.

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::Value;

use super::login_file::{Tokens, is_sendable_token, parse_login_file, token_fingerprint};
use super::quota::parse_claimed_account;
use super::stand_in::is_device_id;
use crate::types::Secret;

/// In place of an access token that the plugin does not keep: it has expired long ago, so that the first thing
/// done with the account is its renewal.
const NO_ACCESS_TOKEN: &str = "not-yet-renewed";

/// An account as another program's file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedAccount {
    /// The e-mail address or id that it names.
    pub claimed: Option<String>,
    pub tokens: Tokens,
    /// The device that its login was made for; it stays the account's own.
    pub device_id: Option<String>,
    pub added_at: Option<Timestamp>,
    pub last_used: Option<Timestamp>,
    pub is_enabled: bool,
}

impl ImportedAccount {
    /// The mark by which the same file is known again.
    pub fn mark(&self) -> Option<String> {
        self.tokens.refresh.as_ref().map(token_fingerprint)
    }
}

/// Reads the accounts of a file, whichever of the two it is.
///
/// # Errors
/// It is none of them, and why.
pub fn read_imported_accounts(text: &[u8]) -> Result<Vec<ImportedAccount>> {
    let value: Value = serde_json::from_slice(text).map_err(|error| {
        anyhow::anyhow!("It is no JSON (see line {}, column {})", error.line(), error.column())
    })?;
    if value["accounts"].is_array() {
        return read_plugin_accounts(&value);
    }
    let tokens = parse_login_file(text).map_err(|why| {
        anyhow::anyhow!("It is neither kimicode-accounts.json of the plugin nor a kimi-code.json ({why})")
    })?;
    ensure!(
        tokens.refresh.is_some(),
        "This kimi-code.json has no refresh token: such a login cannot be renewed"
    );
    Ok(vec![ImportedAccount {
        claimed: parse_claimed_account(&tokens.access),
        tokens,
        device_id: None,
        added_at: None,
        last_used: None,
        is_enabled: true,
    }])
}

fn read_plugin_accounts(value: &Value) -> Result<Vec<ImportedAccount>> {
    if value["version"] != 1 {
        bail!("Its version is {}; only version 1 is known", value["version"]);
    }
    let accounts = value["accounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(!accounts.is_empty(), "It has no accounts");
    accounts
        .iter()
        .enumerate()
        .map(|(place, account)| {
            read_plugin_account(account)
                .with_context(|| format!("Its account number {} cannot be read", place + 1))
        })
        .collect()
}

fn read_plugin_account(account: &Value) -> Result<ImportedAccount> {
    let refresh = Secret::new(account["refreshToken"].as_str().unwrap_or_default());
    ensure!(is_sendable_token(&refresh), "it has no refresh token");
    let text =
        |value: &Value| value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let time = |value: &Value| value.as_i64().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    let claimed = text(&account["email"]);
    Ok(ImportedAccount {
        claimed,
        tokens: Tokens {
            access: Secret::new(NO_ACCESS_TOKEN),
            refresh: Some(refresh),
            expires_at: Timestamp::UNIX_EPOCH,
            lifetime: None,
            scope: "kimi-code".to_owned(),
            token_type: "Bearer".to_owned(),
        },
        device_id: text(&account["fingerprint"]["deviceId"]).filter(|id| is_device_id(id)),
        added_at: time(&account["addedAt"]),
        last_used: time(&account["lastUsed"]),
        is_enabled: account["enabled"].as_bool().unwrap_or(true),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn specification_store_format_of_the_plugin_is_read_with_its_devices() {
        let file = r#"{"version": 1, "accounts": [
            {"email": "ana@example.com", "refreshToken": "r1", "addedAt": 1795291200000, "lastUsed": 1795291260000,
             "enabled": true, "rateLimitResetTimes": {"kimi": 1795291300000},
             "fingerprint": {"deviceId": "0f8fad5b-d9cb-469f-a165-70867728950e"}, "fingerprintHistory": [{"deviceId": "x"}]},
            {"refreshToken": "r2", "enabled": false, "fingerprint": {"deviceId": "a b"}}],
            "activeIndex": 1, "activeIndexByFamily": {"kimi": 1}}"#;
        let accounts = read_imported_accounts(file.as_bytes()).unwrap();
        let seen: Vec<_> = accounts
            .iter()
            .map(|account| {
                let refresh = account.tokens.refresh.as_ref().map(|token| token.expose_secret().to_owned());
                (account.claimed.as_deref(), refresh, account.device_id.as_deref(), account.is_enabled)
            })
            .collect();
        let device = "0f8fad5b-d9cb-469f-a165-70867728950e";
        assert_eq!(
            seen,
            [
                (Some("ana@example.com"), Some("r1".to_owned()), Some(device), true),
                (None, Some("r2".to_owned()), None, false)
            ]
        );
        assert_eq!(accounts[0].added_at, Some("2026-11-21T20:00:00Z".parse().unwrap()));
        assert_eq!(accounts[0].tokens.expires_at, Timestamp::UNIX_EPOCH);
        assert_ne!(accounts[0].mark(), accounts[1].mark());
    }

    #[test]
    fn a_copied_login_is_read_too() {
        let file = r#"{"access_token":"a","refresh_token":"r","expires_at":4102444800.0,"scope":"kimi-code","token_type":"Bearer","expires_in":900.0}"#;
        let accounts = read_imported_accounts(file.as_bytes()).unwrap();
        assert_eq!(accounts.len(), 1);
        assert_eq!(accounts[0].tokens.access, Secret::new("a"));
    }

    #[test]
    fn what_is_neither_says_why_and_shows_no_token() {
        for (file, why) in [
            ("", "no JSON"),
            ("[]", "neither"),
            (r#"{"access_token":"canary","expires_at":"x"}"#, "neither"),
            (r#"{"access_token":"canary","refresh_token":"","expires_at":1}"#, "no refresh token"),
            (r#"{"version":2,"accounts":[{"refreshToken":"canary"}]}"#, "version is 2"),
            (r#"{"version":1,"accounts":[]}"#, "no accounts"),
            (r#"{"version":1,"accounts":[{"refreshToken":"a"},{"refreshToken":"ca nary"}]}"#, "number 2"),
        ] {
            let error = format!("{:#}", read_imported_accounts(file.as_bytes()).unwrap_err());
            assert!(error.contains(why) && !error.contains("canary"), "{file}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_file_is_too_strange(text in "\\PC{0,60}", field in "(version|accounts|refreshToken)", value in "[\\[\\]{}\":,0-9a-z]{0,40}") {
            read_imported_accounts(text.as_bytes()).ok();
            read_imported_accounts(format!("{{\"version\":1,\"accounts\":[{{\"{field}\":{value}}}]}}").as_bytes()).ok();
        }
    }
}
