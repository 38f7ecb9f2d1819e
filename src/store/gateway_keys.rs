//! The keys of the gateway's clients, and what each used, by day of this install's time zone.
//!
//! Of a key only its hash is kept. The gateway looks a key up at each request, so that one that another process
//! has removed is refused at the next.

use std::hint::black_box;

use anyhow::Result;
use jiff::Timestamp;
use jiff::civil::Date;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, from_unix_millis, to_unix_millis};
use crate::types::{ClientIdentity, GatewayKey, KeyName, TokenUsage};

/// The SHA-256 of a client's key, in hexadecimal digits.
#[derive(Clone, Debug)]
pub struct KeyHash(String);

impl KeyHash {
    pub fn new(hex_digits: impl Into<String>) -> Self {
        Self(hex_digits.into())
    }

    /// Compares in a time that does not depend on where they differ.
    fn matches(&self, other: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), other.as_bytes());
        let difference = ours.iter().zip(theirs).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
        ours.len() == theirs.len() && black_box(difference) == 0
    }
}

/// What a key used in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyUsage {
    pub requests: u64,
    pub tokens: TokenUsage,
}

/// A key as the owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    pub key: GatewayKey,
    pub added_at: Timestamp,
}

impl Store {
    /// Keeps a new key; `false`, and nothing changes, if there is one of this name.
    pub async fn add_gateway_key(&self, key: &GatewayKey, hash: KeyHash, now: Timestamp) -> Result<bool> {
        let key = key.clone();
        self.with_connection(move |connection| {
            let added = connection.execute(
                "INSERT INTO gateway_keys (name, hash, daily_tokens, models, identity, added_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO NOTHING",
                params![
                    key.name.as_str(),
                    hash.0,
                    key.daily_tokens.map(u64::cast_signed),
                    (!key.models.is_empty()).then(|| key.models.join(",")),
                    key.identity.name(),
                    to_unix_millis(now)
                ],
            )?;
            Ok(added > 0)
        })
        .await
    }

    /// `false` if there is no key of this name.
    pub async fn remove_gateway_key(&self, name: &KeyName) -> Result<bool> {
        let name = name.clone();
        self.with_connection(move |connection| {
            let removed = connection.execute("DELETE FROM gateway_keys WHERE name = ?1", [name.as_str()])?;
            Ok(removed > 0)
        })
        .await
    }

    /// All keys, by name.
    pub async fn gateway_keys(&self) -> Result<Vec<KnownKey>> {
        self.with_connection(|connection| {
            let mut statement = connection.prepare(
                "SELECT name, daily_tokens, models, identity, added_at FROM gateway_keys ORDER BY name",
            )?;
            let mut rows = statement.query([])?;
            let mut keys = Vec::new();
            while let Some(row) = rows.next()? {
                let added_at = from_unix_millis(row.get(4)?);
                keys.push(KnownKey { key: read_key(row)?, added_at });
            }
            Ok(keys)
        })
        .await
    }

    /// The key with this hash, and what it has used on `today`.
    pub async fn find_gateway_key(
        &self,
        hash: KeyHash,
        today: Date,
    ) -> Result<Option<(GatewayKey, KeyUsage)>> {
        self.with_connection(move |connection| {
            let found = connection
                .prepare_cached(
                    "SELECT name, daily_tokens, models, identity, hash FROM gateway_keys WHERE hash = ?1",
                )?
                .query_row([&hash.0], |row| Ok((read_key(row), row.get::<_, String>(4)?)))
                .optional()?;
            let Some((key, _)) = found.filter(|(_, kept)| hash.matches(kept)) else { return Ok(None) };
            let key = key?;
            let used = read_usage(connection, &key.name, today, today)?;
            Ok(Some((key, used)))
        })
        .await
    }

    /// Adds to what a key has used on a day.
    pub async fn add_gateway_usage(&self, name: &KeyName, day: Date, more: KeyUsage) -> Result<()> {
        let name = name.clone();
        self.with_connection(move |connection| {
            let KeyUsage { requests, tokens: TokenUsage { input, cached, output } } = more;
            connection
                .prepare_cached(
                    "INSERT INTO gateway_usage (key_name, day, requests, input_tokens, cached_tokens, output_tokens)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT (key_name, day) DO UPDATE
                     SET requests = requests + ?3, input_tokens = input_tokens + ?4,
                         cached_tokens = cached_tokens + ?5, output_tokens = output_tokens + ?6",
                )?
                .execute(params![
                    name.as_str(),
                    day.to_string(),
                    requests.cast_signed(),
                    input.cast_signed(),
                    cached.cast_signed(),
                    output.cast_signed()
                ])?;
            Ok(())
        })
        .await
    }

    /// What a key used from `first` to `last`, both included.
    pub async fn gateway_usage(&self, name: &KeyName, first: Date, last: Date) -> Result<KeyUsage> {
        let name = name.clone();
        self.with_connection(move |connection| read_usage(connection, &name, first, last)).await
    }

    /// What every key used from `first` to `last`, both included, by name; without keys that used nothing. A name
    /// may be of a key that was removed.
    pub async fn gateway_usage_by_key(&self, first: Date, last: Date) -> Result<Vec<(KeyName, KeyUsage)>> {
        self.with_connection(move |connection| {
            let mut statement = connection.prepare(
                "SELECT DISTINCT key_name FROM gateway_usage WHERE day BETWEEN ?1 AND ?2 ORDER BY key_name",
            )?;
            let names = statement.query_map([first.to_string(), last.to_string()], |row| row.get(0))?;
            names
                .map(|name: rusqlite::Result<String>| {
                    let name = KeyName::parse(&name?)?;
                    let used = read_usage(connection, &name, first, last)?;
                    Ok((name, used))
                })
                .collect()
        })
        .await
    }
}

/// The key in a row that begins with name, daily_tokens, models and identity.
fn read_key(row: &Row<'_>) -> Result<GatewayKey> {
    let models: Option<String> = row.get(2)?;
    Ok(GatewayKey {
        name: KeyName::parse(&row.get::<_, String>(0)?)?,
        daily_tokens: row.get::<_, Option<i64>>(1)?.map(i64::cast_unsigned),
        models: models.iter().flat_map(|models| models.split(',')).map(str::to_owned).collect(),
        identity: ClientIdentity::parse(&row.get::<_, String>(3)?)?,
    })
}

fn read_usage(connection: &Connection, name: &KeyName, first: Date, last: Date) -> Result<KeyUsage> {
    let usage = connection
        .prepare_cached(
            "SELECT coalesce(sum(requests), 0), coalesce(sum(input_tokens), 0), coalesce(sum(cached_tokens), 0),
                    coalesce(sum(output_tokens), 0)
             FROM gateway_usage WHERE key_name = ?1 AND day BETWEEN ?2 AND ?3",
        )?
        .query_row(params![name.as_str(), first.to_string(), last.to_string()], |row| {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let tokens = TokenUsage { input: number(1)?, cached: number(2)?, output: number(3)? };
            Ok(KeyUsage { requests: number(0)?, tokens })
        })?;
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: Date = Date::constant(2026, 11, 30);

    fn key(name: &str) -> GatewayKey {
        GatewayKey {
            name: KeyName::parse(name).unwrap(),
            daily_tokens: None,
            models: Vec::new(),
            identity: ClientIdentity::Own,
        }
    }

    #[tokio::test]
    async fn a_key_is_known_by_its_hash_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nanokimi.db");
        let (store, other) = (Store::open(&path).unwrap(), Store::open(&path).unwrap());
        let laptop = GatewayKey {
            daily_tokens: Some(1_000),
            models: vec!["kimi-for-coding".to_owned(), "k3".to_owned()],
            identity: ClientIdentity::KimiCli,
            ..key("laptop")
        };
        let now = Timestamp::UNIX_EPOCH;
        assert!(store.add_gateway_key(&laptop, KeyHash::new("aa"), now).await.unwrap());
        assert!(!store.add_gateway_key(&key("laptop"), KeyHash::new("bb"), now).await.unwrap());
        assert!(store.add_gateway_key(&key("desk"), KeyHash::new("cc"), now).await.unwrap());
        let found = async |hash: &str| {
            let found = store.find_gateway_key(KeyHash::new(hash), TODAY).await.unwrap();
            found.map(|(key, _)| key)
        };
        assert_eq!(found("aa").await, Some(laptop));
        assert_eq!(found("bb").await, None);
        let names: Vec<String> =
            store.gateway_keys().await.unwrap().into_iter().map(|known| known.key.name.to_string()).collect();
        assert_eq!(names, ["desk", "laptop"]);
        assert!(other.remove_gateway_key(&KeyName::parse("laptop").unwrap()).await.unwrap());
        assert!(!other.remove_gateway_key(&KeyName::parse("laptop").unwrap()).await.unwrap());
        assert_eq!(found("aa").await, None);
    }

    #[tokio::test]
    async fn what_a_key_uses_adds_up_by_day() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        store.add_gateway_key(&key("laptop"), KeyHash::new("aa"), Timestamp::UNIX_EPOCH).await.unwrap();
        let day = |day| Date::new(2026, 11, day).unwrap();
        for (name, on, input) in [("laptop", 29, 1), ("laptop", 30, 10), ("laptop", 30, 100), ("old", 30, 7)]
        {
            let tokens = TokenUsage { input, cached: input / 2, output: 1 };
            let more = KeyUsage { requests: 1, tokens };
            store.add_gateway_usage(&KeyName::parse(name).unwrap(), day(on), more).await.unwrap();
        }
        let (_, today) = store.find_gateway_key(KeyHash::new("aa"), TODAY).await.unwrap().unwrap();
        let tokens = TokenUsage { input: 110, cached: 55, output: 2 };
        assert_eq!(today, KeyUsage { requests: 2, tokens });
        let all = store.gateway_usage_by_key(day(29), day(30)).await.unwrap();
        let shown: Vec<_> =
            all.iter().map(|(name, used)| (name.as_str(), used.requests, used.tokens.input)).collect();
        assert_eq!(shown, [("laptop", 3, 111), ("old", 1, 7)]);
        assert_eq!(
            store.gateway_usage(&key("none").name, day(1), day(30)).await.unwrap(),
            KeyUsage::default()
        );
    }

    #[test]
    fn hashes_are_equal_in_all_places_or_not_at_all() {
        for (theirs, equal) in
            [("abc", true), ("abd", false), ("xbc", false), ("ab", false), ("abcd", false), ("", false)]
        {
            assert_eq!(KeyHash::new("abc").matches(theirs), equal, "{theirs}");
        }
    }
}
